#!/usr/bin/env bash
# run_tests.sh [MAKE ARGUMENT ...] - installs what building and testing need, then runs all tests.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
bash tools/packages.sh build test
make -s -j"$(nproc)" all
exec make -s test "$@"
