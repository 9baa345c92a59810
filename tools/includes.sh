#!/bin/sh
# Calls go down only: checks every #include "room/..." against the table in docs/architecture.md.
#   base <- {format, quant, text, backend} <- model <- steer <- talk <- server <- cli
# backend/cpu uses quant; backend.h speaks of quant's sources; talk, server and cli see gyaru.h and base.
set -u
cd "$(dirname "$0")/.." || exit 1
status=0
for file in $(git ls-files 'src/*.c' 'src/*.h'); do
    room=${file#src/}
    room=${room%%/*}
    case $room in
    base) may="base" ;;
    format | quant | text) may="base $room" ;;
    backend) may="base quant backend" ;;
    model) may="base format quant text backend model" ;;
    steer) may="base format quant text backend model steer" ;;
    talk) may="base talk" ;;
    server) may="base web talk server" ;;
    web) may="web" ;;
    cli) may="base talk cli server" ;;
    *) may="" ;;
    esac
    for target in $(sed -n 's/^ *#include "\([a-z]*\)\/.*/\1/p' "$file" | sort -u); do
        case " $may " in
        *" $target "*) ;;
        *)
            echo "$file: $room must not include $target/"
            status=1
            ;;
        esac
    done
done
exit $status
