# server_pid.sh - sourced by start_server.sh and stop_server.sh from the project's directory.
# shellcheck shell=bash

pid_file=run/server.pid

# Prints the pid of our running server. A number in a file proves nothing: the process must exist
# and run this directory's program (which a rebuild may have replaced meanwhile).
server_pid() {
    local pid exe
    [ -r "$pid_file" ] || return 1
    read -r pid <"$pid_file" || return 1
    [[ $pid =~ ^[1-9][0-9]*$ ]] || return 1
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    [ "${exe% (deleted)}" = "$PWD/build/gyaru" ] || return 1
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qx serve || return 1
    echo "$pid"
}

# The address that the server printed into its log.
server_address() {
    sed -n 's/.*listening"*[ ,]"*url["=:]*\(http:[^" ]*\).*/\1/p' run/server.log | tail -n 1
}
