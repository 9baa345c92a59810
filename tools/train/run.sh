#!/bin/sh
# Everything from the material to models/, with fixed seeds.
#
#   tools/train/run.sh [WORK]     WORK holds data and checkpoints (default: build/train)
#
# Needs Python 3.11+ with torch, transformers, bitsandbytes, tokenizers, safetensors, matplotlib.
# PYTHON and THREADS may be set. Stage 1 continues where it was interrupted.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${1:-$root/build/train}
python=${PYTHON:-python3}
threads=${THREADS:-$(nproc)}
mkdir -p "$work"

$python "$here/make_pairs.py"
[ -f "$work/chats.pkl" ] ||
    $python "$here/build_data.py" --count 130000 --seed 1 --out "$work/chats.pkl"
[ -f "$work/dosed.pkl" ] ||
    $python "$here/build_data.py" --count 30000 --seed 2 --steered 0.3 --out "$work/dosed.pkl"
[ -f "$work/tok/tokenizer.json" ] ||
    $python "$here/train_tokenizer.py" --vocab 3072 --out "$work/tok"

# name, steps of the stages, blocks and fraction in stage 2; blocks and step (percent of the
# stream's length at strength 1) of the shipped vector
one() {
    name=$1 first=$2 second=$3 layers=$4 dosed=$5 shipped=$6 step=$7
    [ -f "$work/$name/final.pt" ] || $python "$here/train.py" --name "rinne-$name" --seed 1 \
        --data "$work/chats.pkl" --tokenizer "$work/tok" --out "$work/$name" \
        --steps "$first" --threads "$threads"
    [ -f "$work/$name/stage2.jsonl" ] || $python "$here/finish.py" --init "$work/$name/final.pt" \
        --data "$work/dosed.pkl" --tokenizer "$work/tok" --out "$work/$name" --layers "$layers" \
        --fraction "$dosed" --steps "$second" --threads "$threads"
    $python "$here/quantise.py" --checkpoint "$work/$name/stage2.pt" --tokenizer "$work/tok" \
        --out "$root/models/rinne-$name" --check
    # The vector and the figures are the program's own: build it first.
    "$root/build/gyaru" extract -m "$root/models/rinne-$name" -d "$root/data/gyaru_pairs.json" \
        -o "$root/models/rinne-$name/gyaru.safetensors" --layers "$shipped" --step "$step"
    "$root/build/gyaru" measure -m "$root/models/rinne-$name" --require
}
one base 511 106 3-7 0.17 3-11 10.125
one lite 853 207 2-5 0.2 2-7 9.5
$python "$here/plot.py" --work "$work" --out "$here/curves.svg"
