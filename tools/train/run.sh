#!/bin/sh
# Everything from the material to models/, with fixed seeds: on a GPU if PyTorch finds one, else on
# the CPU with far fewer steps. The same command continues where it was interrupted.
#
#   tools/train/run.sh [--minutes M] [--train-only] [WORK]
#
#   WORK           holds data and checkpoints (default: build/train)
#   --minutes M    limit for all the training together (default: 9 on a GPU, none on a CPU)
#   --train-only   stop at WORK/{base,lite}/{stage1,a,b,...,h}, checkpoints in their final form
#
# Needs Python 3.11+ with torch, numpy, tokenizers and safetensors; without --train-only also
# transformers, bitsandbytes and matplotlib, and build/gyaru. PYTHON, THREADS and DEVICE may be set.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
minutes='' only='' work=$root/build/train
while [ $# -gt 0 ]; do
    case $1 in
        --minutes) minutes=$2; shift ;;
        --train-only) only=yes ;;
        *) work=$1 ;;
    esac
    shift
done
began=$(date +%s)
python=${PYTHON:-python3}
threads=${THREADS:-$(nproc)}
device=${DEVICE:-$($python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')}
mkdir -p "$work"

# The shapes of the run: chats, tokens a step, steps of the stages of base and lite (0: by time).
if [ "$device" = cuda ]; then
    chats=1200000 dosed=160000 tokens=32768 base=0,0 lite=0,0 estimate=50
    minutes=${minutes:-9}
else
    chats=130000 dosed=30000 tokens=4096 base=800,200 lite=1200,250 estimate=75
fi
chats=${CHATS:-$chats} dosed=${DOSED:-$dosed} tokens=${TOKENS:-$tokens}

# Minutes from now to a share of the time; 0 without a limit.
left() {
    [ -n "$minutes" ] || { echo 0; return; }
    $python -c "print(max(0.1, $minutes * $1 - $(($(date +%s) - began)) / 60))"
}

$python "$here/make_pairs.py"
[ -f "$work/tok/tokenizer.json" ] ||
    $python "$here/train_tokenizer.py" --vocab 6144 --out "$work/tok"
[ -f "$work/chats.npz" ] || $python "$here/pack.py" --count "$chats" --seed 1 \
    --tokenizer "$work/tok" --out "$work/chats.npz"
# The base model sees its vector up to a little more than strength 12, the lite one less of it.
dose() {
    [ -f "$work/$1.npz" ] || $python "$here/pack.py" --count "$2" --seed 2 --steered 0.4 \
        --dose-most "$3" --tokenizer "$work/tok" --out "$work/$1.npz"
}
dose dosed-base "$((dosed * 9 / 16))" 1.05
dose dosed-lite "$dosed" 0.75

# name, steps of the stages, variants of the second stage: NAME:BLOCKS:FRACTION:STEPS
train() {
    name=$1 first=${2%,*} second=${2#*,}
    shift 2
    if [ ! -f "$work/$name/stage1.pt" ]; then
        $python "$here/train.py" --name "${SHAPE:-rinne-$name}" --seed 1 --data "$work/chats.npz" \
            --tokenizer "$work/tok" --out "$work/$name" --steps "${STEPS:-$first}" \
            --minutes "$(left 0.6)" --tokens "$tokens" --threads "$threads" --device "$device"
    fi
    $python "$here/quantise.py" --checkpoint "$work/$name/stage1.pt" --tokenizer "$work/tok" \
        --out "$work/$name/stage1"
    init=$work/$name/stage1.pt
    [ "$name" = lite ] || init=$work/$name/stage1 # as it was quantised
    variants=
    for v; do variants="$variants --variant $v"; done
    # shellcheck disable=SC2086
    $python "$here/finish.py" --init "$init" --data "$work/dosed-$name.npz" \
        --tokenizer "$work/tok" --out "$work/$name" $variants --steps "${STEPS:-$second}" \
        --minutes "$(left 1)" --tokens "$tokens" --threads "$threads" --device "$device" \
        --estimate "$estimate"
}

if [ "$device" = cuda ]; then
    # Side by side: neither fills the card alone.
    train base "$base" f:3-11:0.44:300 e:3-11:0.36:300 g:3-11:0.44:180 \
        h:3-11:0.52:260 > "$work/base.log" 2>&1 &
    one=$!
    train lite "$lite" b:2-7:0.22:300 a:2-7:0.15:300 c:2-7:0.33:300 \
        d:2-7:0.22:100 e:2-7:0.22:500 > "$work/lite.log" 2>&1 &
    two=$!
    failed=
    wait $one || failed=base
    wait $two || failed="$failed lite"
    tail -n 40 "$work/base.log" "$work/lite.log"
    [ -z "$failed" ] || { echo "failed: $failed" >&2; exit 1; }
else
    train base "$base" f:3-11:0.44:0
    train lite "$lite" a:2-7:0.15:0
fi
[ -z "$only" ] || exit 0

# name, variant, blocks and step (percent of the stream's length at strength 1) of its vector
publish() {
    out=$root/models/rinne-$1
    $python "$here/quantise.py" --checkpoint "$work/$1/$2.pt" --tokenizer "$work/tok" \
        --out "$out" --check
    # The vector and the figures are the program's own: build it first.
    "$root/build/gyaru" extract -m "$out" -d "$root/data/gyaru_pairs.json" \
        -o "$out/gyaru.safetensors" --layers "$3" --step "$4"
    "$root/build/gyaru" tune -m "$out" -d "$root/data/gyaru_pairs.json" \
        -v "$out/gyaru.safetensors" --own-layers --limit 60
    "$root/build/gyaru" measure -m "$out" --require
}
publish base f 3-11 36.5
publish lite a 2-7 10.6
$python "$here/plot.py" --work "$work" --out "$here/curves.svg"
