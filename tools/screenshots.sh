#!/bin/sh
# screenshots.sh DIR [OPTION...] - pictures of the page in every state and size, as PNG in DIR.
# Options go to `gyaru serve` (-m MODEL, -v VECTOR); without any, the bundled model speaks.
# Needs chromium and chromedriver.
set -eu
[ $# -ge 1 ] || { echo "usage: tools/screenshots.sh DIR [OPTION...]" >&2; exit 2; }
case $1 in /*) dir=$1 ;; *) dir=$PWD/$1 ;; esac
shift
cd "$(dirname "$0")/.."
make -s build/gyaru build/tests/page_shots
BUILD=build build/tests/page_shots "$dir" "$@"
