#!/bin/sh
# screenshots.sh DIR [OPTION...] - pictures of the page in every state and size, as PNG in DIR.
# screenshots.sh --readme        - those of the README, in docs/images.
# Options go to `gyaru serve` (-m MODEL, -v VECTOR); without any, the bundled model speaks, and a
# second vector is made from the bundled pairs to mix with (under a minute, once).
# Needs chromium and chromedriver; pngquant, where it is installed, makes the README's a third as large.
set -eu
[ $# -ge 1 ] || { echo "usage: tools/screenshots.sh DIR [OPTION...] | --readme" >&2; exit 2; }
readme=
case $1 in
--readme) readme=1 dir=build/shots/pictures ;;
/*) dir=$1 ;;
*) dir=$PWD/$1 ;;
esac
shift
cd "$(dirname "$0")/.."
make -s build/gyaru build/tests/page_shots
if [ $# -eq 0 ]; then
    demo=build/shots
    mkdir -p "$demo/vectors" "$demo/reports"
    # On the same layers as the bundled one, whose gauge could not be told otherwise.
    layers=$(build/gyaru inspect models/rinne-base/gyaru.safetensors |
        sed -n 's/.* directions, \([0-9]*\) to \([0-9]*\),.*/\1-\2/p')
    [ -n "$(find "$demo/vectors" -name teinei.safetensors -newer models/rinne-base/gyaru.safetensors)" ] ||
        build/gyaru extract -m models/rinne-base -d data/gyaru_pairs.json --positive-key standard \
            --negative-key gyaru --layers "$layers" -o "$demo/vectors/teinei.safetensors" \
            --report "$demo/reports/teinei" --lang ja >/dev/null
    # Of another model: listed, not usable.
    cp models/rinne-lite/gyaru.safetensors "$demo/vectors/gyaru-lite.safetensors"
    set -- -v models/rinne-base/gyaru.safetensors --vectors "$demo/vectors" \
        --reports "$demo/reports" --seed 11
fi
BUILD=build build/tests/page_shots "$dir" "$@"
[ -z "$readme" ] || for name in wide-mix:page phone-mix:page-phone wide-english:page-english \
    notebook-vectors:page-vectors scene-overlay:overlay; do
    cp "$dir/${name%:*}.png" "docs/images/${name#*:}.png"
    ! command -v pngquant >/dev/null ||
        pngquant --force --ext .png --speed 1 256 "docs/images/${name#*:}.png"
done
