#!/bin/sh
# systemd_test.sh - contrib/systemd/gyaru.service: systemd accepts it and finds it confined, and its
# command serves.
set -u
build=${BUILD:-build}
unit=contrib/systemd/gyaru.service
work=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT

result() {
    if [ "$2" = 0 ]; then
        echo "[       OK ] $1"
    else
        cat "$work/log"
        echo "[  FAILED  ] $1"
        failed=1
    fi
}

failed=0
if command -v systemd-analyze >/dev/null; then
    # The program is not installed where the unit expects it.
    sed "s|/usr/local/bin/gyaru|$(realpath "$build/gyaru")|" "$unit" >"$work/gyaru.service"
    systemd-analyze verify --man=no "$work/gyaru.service" >"$work/log" 2>&1
    code=$?
    # What other units of this machine lack is not our unit's fault.
    grep -q 'gyaru' "$work/log" && code=1
    result systemd_unit_is_valid $code
    systemd-analyze security --offline=true --threshold=20 "$work/gyaru.service" >"$work/log" 2>&1
    result systemd_unit_is_confined $?
else
    echo "SKIP: systemd_unit: systemd-analyze is not installed"
    echo "[  SKIPPED ] systemd_unit_is_valid"
    echo "[  SKIPPED ] systemd_unit_is_confined"
fi

command=$(sed -n 's|^ExecStart=/usr/local/bin/gyaru ||p' "$unit")
# shellcheck disable=SC2086
"$build/gyaru" $command -m tests/data/tiny-model --port 0 --port-file "$work/port" 2>"$work/log" &
server=$!
tries=0
until grep -q '"event":"ready"' "$work/log" || [ $tries -ge 200 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
kill -HUP "$server" # ExecReload
sleep 0.2
kill -TERM "$server"
wait "$server"
code=$?
server=
grep -q '"event":"ready"' "$work/log" && grep -q '"event":"vectors_read"' "$work/log" || code=1
result systemd_command_serves $code
exit $failed
