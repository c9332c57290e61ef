#!/usr/bin/env sh
# Install what the lock files say, and nothing else: `runtime`, `dev` or `clients`.
#
# Needs a POSIX shell and Python 3.11 or later with venv; no uv, no home directory, no root. A stamp
# beside what was installed says what it was installed from, so a second run does nothing.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH || true
root=$(pwd -P)
venv=.venv

find_python() {
    found=
    # shellcheck disable=SC2086 - PYTHON may be empty, and then counts for nothing
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        version=$("$candidate" -c 'import sys; print(*sys.version_info[:2], sep=".")' \
            2>/dev/null) ||
            continue
        if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            found="$found $candidate is Python $version;"
        elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            found="$found $candidate (Python $version) has no venv module;"
        else
            echo "$candidate"
            return
        fi
    done
    cat >&2 <<MESSAGE
Tongbao needs Python 3.11 or later with its venv module, and found none.
Looked at:${found:- nothing called python3 is on the PATH.}
On Debian or Ubuntu: apt-get install python3 python3-venv
Another interpreter: make PYTHON=/path/to/python3.12 ...
MESSAGE
    exit 1
}

is_whole() { # folder
    # Scripts name their interpreter by its full path: a folder that was moved cannot be trusted.
    grep -qsF "$root/$1/bin/python" "$1/bin/pip" && "$1/bin/python" -c '' 2>/dev/null
}

pip() { # folder, arguments
    folder=$1
    shift
    "$folder/bin/python" -m pip --disable-pip-version-check --no-input --quiet \
        install --root-user-action=ignore --progress-bar=off "$@"
}

stamp_of() { # files it was installed from
    cat "$@" | cksum
}

install_project() { # runtime | dev, lock file
    wanted=$(stamp_of requirements.lock requirements-dev.lock pyproject.toml tools/install.sh)
    if is_whole "$venv"; then
        # The development set contains the other, in the same versions.
        for stamp in "$venv/installed-$1" "$venv/installed-dev"; do
            [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
        done
    else
        python=$(find_python)
        rm -rf "$venv"
        "$python" -m venv "$venv"
    fi
    rm -f "$venv"/installed-*
    count=$(grep -c '^[a-z0-9]' "$2")
    echo "Installing $count locked packages into $venv (once; about a minute) ..."
    pip "$venv" --require-hashes --no-deps -r "$2"
    pip "$venv" --no-build-isolation --no-deps -e .
    echo "$wanted" >"$venv/installed-$1"
}

# Clients of WeChat Pay and Alipay that others wrote, to check the sandbox with. Their packages
# clash with each other (two are named `alipay`), so each has an environment of its own.
install_clients() {
    for wishes in tests/clients/*/requirements.txt; do
        [ -f "$wishes" ] || continue
        name=$(basename "$(dirname "$wishes")")
        folder=".clients/$name"
        wanted=$(stamp_of "$wishes" tools/install.sh)
        is_whole "$folder" && [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ] && continue
        echo "Installing the client $name into $folder (once) ..."
        rm -rf "$folder"
        mkdir -p .clients
        "$venv/bin/python" -m venv "$folder"
        pip "$folder" --use-pep517 -r "$wishes"
        echo "$wanted" >"$folder/installed"
    done
}

# Those written for Node.js, where it is; without it their tests say that they did not run.
install_node_clients() {
    for wishes in tests/clients/*/package-lock.json; do
        [ -f "$wishes" ] || continue
        name=$(basename "$(dirname "$wishes")")
        folder=".clients/$name"
        if ! command -v npm >/dev/null 2>&1; then
            echo "No npm here: the client $name is not installed, and its test is skipped." >&2
            continue
        fi
        wanted=$(stamp_of "$wishes" tools/install.sh)
        [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ] && continue
        echo "Installing the client $name into $folder (once) ..."
        rm -rf "$folder"
        mkdir -p "$folder"
        cp "tests/clients/$name/package.json" "$wishes" "$folder"
        (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent)
        echo "$wanted" >"$folder/installed"
    done
}

case "${1:-}" in
    runtime) install_project runtime requirements.lock ;;
    dev) install_project dev requirements-dev.lock ;;
    clients)
        install_clients
        install_node_clients
        ;;
    *)
        echo "usage: tools/install.sh runtime | dev | clients" >&2
        exit 2
        ;;
esac
