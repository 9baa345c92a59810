#!/bin/sh
# Runs every test program and script, prints what each said only if it failed, and closes with
# "N passed, N failed, N skipped". SCRIPTS=no leaves the scripts out. cmocka reports "[  PASSED  ] N", skips are counted by their line.
set -u
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {
    name=$1
    shift
    start=$(date +%s)
    if "$@" >"$log" 2>&1; then status=ok; else status=FAILED; fi
    p=$(grep -c '^\[       OK \]' "$log")
    f=$(grep '^\[  FAILED  \] [a-z_0-9]*$' "$log" | sort -u | grep -c .)
    s=$(grep '^\[  SKIPPED \] [a-z_0-9]*$' "$log" | sort -u | grep -c .)
    if [ $status = FAILED ] && [ "$f" = 0 ]; then f=1; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    echo "$name: $p passed, $f failed, $s skipped ($(($(date +%s) - start)) s)"
    grep '^SKIP:' "$log"
    if [ $status = FAILED ]; then cat "$log"; fi
}
for test in "$@"; do run "$(basename "$test")" "$test"; done
[ "${SCRIPTS:-yes}" = no ] || for script in tests/*_test.sh; do [ -e "$script" ] && run "$(basename "$script")" sh "$script"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
