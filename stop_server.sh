#!/usr/bin/env bash
# stop_server.sh - stops the server that start_server.sh started, and says how it went.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
# shellcheck source=tools/server_pid.sh
. tools/server_pid.sh

if ! pid=$(server_pid); then
    rm -f "$pid_file"
    echo "The server is not running."
    exit 0
fi

# Waits up to $1 seconds for the end of the process.
gone() {
    local i
    for ((i = 0; i < $1 * 20; i++)); do
        server_pid >/dev/null || return 0
        sleep 0.05
    done
    return 1
}

kill -TERM "$pid"
echo "Stopping the server (pid $pid) ..."
if gone 15; then
    rm -f "$pid_file"
    echo "Stopped."
elif kill -TERM "$pid" 2>/dev/null && gone 3; then
    # The second signal ends it at once.
    rm -f "$pid_file"
    echo "Stopped; it had to be told twice."
else
    echo "The server (pid $pid) does not stop; see run/server.log" >&2
    exit 1
fi
