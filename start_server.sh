#!/usr/bin/env bash
# start_server.sh [STRENGTH] [--build-only] [OPTION OF gyaru serve ...]
#
# Installs what the build needs, builds, starts the server in the background and waits until it
# answers. Log: run/server.log; pid: run/server.pid. Stop it with ./stop_server.sh.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
# shellcheck source=tools/server_pid.sh
. tools/server_pid.sh

build_only=false
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --build-only) build_only=true ;;
    -h | --help)
        sed -n '2,5s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    [0-9]* | -[0-9]* | .[0-9]* | -.[0-9]*) options+=(--strength "$1") ;;
    --*=*) options+=("$1") ;;
    -*)
        # An option of the server, with its value if it has one.
        options+=("$1")
        if [ $# -gt 1 ] && [[ $2 != --* ]]; then
            options+=("$2")
            shift
        fi
        ;;
    *)
        echo "start_server.sh: '$1' is no strength; usage: ./start_server.sh [STRENGTH]" >&2
        exit 2
        ;;
    esac
    shift
done

# One start at a time; the server must not inherit the lock.
mkdir -p run
exec 9>run/lock
flock 9

if ! $build_only && pid=$(server_pid); then
    echo "The server runs already (pid $pid): $(server_address)"
    echo "Stop it with ./stop_server.sh"
    exit 0
fi

bash tools/packages.sh build 9>&-
echo "Building ..."
make -s -j"$(nproc)" 9>&-
if $build_only; then
    echo "Built build/gyaru."
    exit 0
fi

# Prints the HTTP status of /health.
health() {
    local host=$1 port=$2 status
    exec 8<>"/dev/tcp/$host/$port" || return 1
    printf 'GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$host" >&8
    read -r -t 5 _ status _ <&8 || true
    exec 8>&-
    echo "${status:-0}"
}

rm -f run/server.port
setsid build/gyaru serve "${options[@]}" --port-file run/server.port \
    >run/server.log 2>&1 </dev/null 9>&- &
pid=$!
echo "$pid" >"$pid_file"

while :; do
    if ! kill -0 "$pid" 2>/dev/null; then
        code=0
        wait "$pid" || code=$?
        rm -f "$pid_file"
        echo "The server did not start:" >&2
        tail -n 5 run/server.log >&2
        exit "$((code ? code : 1))"
    fi
    if [ -s run/server.port ]; then
        address=$(server_address)
        host=${address#http://}
        host=${host%:*}
        case $host in 0.0.0.0 | "[::]" | "") host=127.0.0.1 ;; esac
        [ "$(health "$host" "$(cat run/server.port)" 2>/dev/null)" != 200 ] || break
    fi
    sleep 0.05
done
echo "The server is ready (pid $pid): http://$host:$(cat run/server.port)/"
