#!/usr/bin/env sh
# Run every check that reads the code without running it; show only what is wrong.
set -u
cd "$(dirname "$0")/.."
report=$(mktemp)
trap 'rm -f "$report"' EXIT
passed=
failed=
step() { # name, command
    name=$1
    shift
    if "$@" >"$report" 2>&1; then
        passed="$passed $name,"
    else
        failed="$failed $name,"
        echo "---- $name ----"
        cat "$report"
    fi
}
step "ruff check" .venv/bin/ruff check .
step "ruff format" .venv/bin/ruff format --check .
step "mypy" .venv/bin/mypy
step "import contracts" .venv/bin/lint-imports --no-logo
step "known vulnerabilities" .venv/bin/python -m tools.components
if [ -n "$failed" ]; then
    echo "Checks failed:${failed%,}."
    exit 1
fi
echo "Checks passed:${passed%,}."
