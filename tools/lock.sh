#!/usr/bin/env sh
# Renew both lock files: exact versions with hashes, for every Python from 3.11, no index named.
#
# requirements.lock      what `make demo` installs: the run time, and what builds the project.
# requirements-dev.lock  the same versions, and what `make test` needs besides.
#
# Without arguments, versions already locked stay; `--upgrade` takes the newest of all.
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v uv || command -v .venv/bin/uv) || {
    echo "Renewing the lock files needs uv (https://docs.astral.sh/uv/); using them does not." >&2
    exit 1
}
compile() {
    "$uv" pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet \
        --group build "$@"
}
# The larger set is solved first, so that the smaller one cannot choose other versions.
compile --group dev "$@" -o requirements-dev.lock
compile --constraint requirements-dev.lock -o requirements.lock
