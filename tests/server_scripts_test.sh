#!/bin/sh
# server_scripts_test.sh - start_server.sh and stop_server.sh in a copy of the tree that has a
# built program, so that nothing is installed or compiled and no other server is disturbed.
set -u
root=$PWD
tree=$(mktemp -d)
failed=0

cleanup() {
    (cd "$tree" && ./stop_server.sh >/dev/null 2>&1)
    rm -rf "$tree"
}
trap cleanup EXIT

# Prints the line that tests/run.sh counts.
result() {
    if [ "$2" = 0 ]; then
        echo "[       OK ] $1"
    else
        echo "[  FAILED  ] $1"
        failed=1
    fi
}

# Does the text match the pattern?
says() { # NAME TEXT PATTERN
    printf '%s\n' "$2" | grep -q -- "$3"
    found=$?
    [ $found = 0 ] || echo "expected '$3' in: $2"
    result "$1" $found
}

mkdir -p "$tree/build" "$tree/tools"
cp start_server.sh stop_server.sh "$tree"
cp tools/server_pid.sh "$tree/tools"
cp "${BUILD:-build}/gyaru" "$tree/build/gyaru"
echo 'echo installing "$@"' >"$tree/tools/packages.sh"
printf 'all:\n\t@true\n' >"$tree/Makefile"
cd "$tree" || exit 1
set -- -m "$root/tests/data/tiny-model" -v "$root/tests/data/tiny-model/vector.safetensors" \
    --port 0 --threads 1

says stop_without_server "$(./stop_server.sh)" 'not running'
says build_only "$(./start_server.sh --build-only)" 'Built'
[ ! -e run/server.pid ]
result build_only_starts_nothing $?

started=$(./start_server.sh 7.5 "$@" 2>&1)
says start_says_address "$started" 'ready (pid [0-9]*): http://127.0.0.1:[0-9]*/'
read -r pid <run/server.pid
tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- '--strength 7.5 '
result start_passes_strength $?
says second_start_says_so "$(./start_server.sh 1 2>&1)" "runs already (pid $pid)"

says stop_reports "$(./stop_server.sh)" 'Stopped'
# A zombie that nobody collects has no program any more either.
! readlink "/proc/$pid/exe" >/dev/null 2>&1
result stop_ends_the_process $?

# A pid file that names somebody else's process.
sleep 60 &
other=$!
echo $other >run/server.pid
says stop_spares_others "$(./stop_server.sh)" 'not running'
kill -0 $other
result others_live_on $?
kill $other

refused=$(./start_server.sh 99 "$@" 2>&1)
code=$?
[ $code = 2 ]
result bad_strength_exit_code $?
says bad_strength_says_why "$refused" '-10 to 30'
./start_server.sh twelve >/dev/null 2>&1
[ $? = 2 ]
result a_word_is_no_strength $?
exit $failed
