#!/usr/bin/env sh
# Renew both lock files: exact versions with hashes, for every Python from 3.11, no index named.
set -eu
cd "$(dirname "$0")/.."
compile="uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes
  --no-emit-index-url --no-header --no-annotate --quiet --upgrade"
$compile -o requirements.lock
$compile --group dev -o requirements-dev.lock
