#!/usr/bin/env bash
# packages.sh LIST... - installs what is missing of the named lists (build, test, lint; proxy: what
# two instances are tested behind, in CI only).
#
# For Debian 12 and Ubuntu 24.04, as root or through sudo. Says what it runs; runs nothing when
# nothing is missing. Elsewhere it only names the packages.
set -euo pipefail

declare -A lists=(
    [build]="gcc libc6-dev make pkg-config libwebsockets-dev libjansson-dev libyaml-dev
             libpcre2-dev libutf8proc-dev libzip-dev libedit-dev liblapacke-dev
             libopenblas-dev libcurl4-openssl-dev"
    [test]="g++ libcmocka-dev"
    [proxy]="haproxy nginx-light"
    [lint]="clang-format cppcheck shellcheck"
)
# Wanted, but no reason to stop: Ubuntu has Chromium only as a snap, and the page's test says so.
declare -A optional=([test]="chromium chromium-driver python3-venv")

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

available() {
    # A package without a version to install is only a name.
    [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [0-9] ]]
}

run() {
    echo "+ $*" >&2
    "$@"
}

needed=() wished=()
for name in "$@"; do
    [ -n "${lists[$name]:-}" ] || { echo "packages.sh: no list named '$name'" >&2; exit 2; }
    read -r -a words <<<"$(tr '\n' ' ' <<<"${lists[$name]}")"
    needed+=("${words[@]}")
    read -r -a words <<<"${optional[$name]:-}"
    wished+=("${words[@]}")
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "packages.sh: no apt-get here; the build needs what Debian calls: ${needed[*]}" >&2
    exit 0
fi

missing=() missing_wished=()
for package in "${needed[@]}"; do installed "$package" || missing+=("$package"); done
for package in "${wished[@]}"; do installed "$package" || missing_wished+=("$package"); done
[ ${#missing[@]} -gt 0 ] || [ ${#missing_wished[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null; then
        as_root=(sudo)
    elif [ ${#missing[@]} -gt 0 ]; then
        echo "packages.sh: missing packages: ${missing[*]}" >&2
        echo "packages.sh: run this as root: apt-get install ${missing[*]}" >&2
        exit 1
    else
        exit 0
    fi
fi
install() {
    # RUNLEVEL=1: no package starts a service of its own.
    run "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y \
        --no-install-recommends "$@" >&2
}

run "${as_root[@]}" apt-get update >&2 || [ ${#missing[@]} -eq 0 ]
[ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
for package in "${missing_wished[@]}"; do
    if available "$package"; then
        install "$package" || echo "packages.sh: going on without $package" >&2
    else
        echo "packages.sh: $package is not available here; going on without it" >&2
    fi
done
