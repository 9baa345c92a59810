#!/bin/sh
# openai_sdk_test.sh - the real OpenAI Python SDK against the real program. In CI it is installed
# into the build directory; elsewhere it is used if it is there, else the tests skip and say so.
set -u
build=${BUILD:-build}
venv=$build/openai-venv
work=$(mktemp -d)
server=

cleanup() {
    [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server"
    rm -rf "$work"
}
trap cleanup EXIT

has_sdk() {
    [ -n "$1" ] && "$1" -c 'import openai' >/dev/null 2>&1
}

skip() {
    echo "[  SKIPPED ] openai_sdk"
    echo "SKIP: openai_sdk: $1"
    exit 0
}

if has_sdk "$venv/bin/python"; then
    python=$venv/bin/python
elif has_sdk "$(command -v python3)"; then
    python=python3
elif [ "${CI:-}" = true ]; then
    python=$venv/bin/python
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q openai; }; then
        echo "the OpenAI SDK cannot be installed from PyPI"
        echo "[  FAILED  ] openai_sdk_install"
        exit 1
    fi
else
    skip "no Python module openai; CI=true installs it into $venv"
fi

"$build/gyaru" serve -m tests/data/tiny-model -v tests/data/tiny-model/vector.safetensors -s 5 \
    --port 0 --port-file "$work/port" --threads 1 --max-tokens 64 2>"$work/log" &
server=$!
for _ in $(seq 200); do
    [ -s "$work/port" ] && break
    sleep 0.1
done
if [ ! -s "$work/port" ]; then
    cat "$work/log"
    echo "[  FAILED  ] openai_sdk_server"
    exit 1
fi
NO_PROXY='*' "$python" tests/openai_sdk.py "$(cat "$work/port")"
