#!/bin/sh
# measure_cuda.sh pack            - here: gathers what a bare GPU machine needs under build/device/
# measure_cuda.sh [WHAT...]       - there: checks and measures, one call of at most ten minutes
#
# WHAT: any of test, bench, kernels, sanitizer (all of them), load (only if named: writes a checkpoint
# of random weights to $TMPDIR and times loading it) and pair (only if named: tests and bench with two
# GPUs that share the model), and shapes 7b, 14b, 32b (all three).
# A bare machine has the driver, nvcc and compute-sanitizer, but none of our libraries: `pack` copies
# the programs, the plug-in, every library they load except the C library's own, and the reference
# checkpoints. docs/cuda.md says how the two calls are made. Full outputs go to one file,
# $OUT/results.tar.gz (without OUT: build/device/results.tar.gz); the table that is printed last holds
# nothing that was not measured in this run: what could not be is "-".
set -u
cd "$(dirname "$0")/.." || exit 1
device=build/device
programs="build/test_cuda build/test_cuda_model build/test_cuda_reference build/test_cuda_pair \
    build/test_cuda_model_pair build/test_cuda_reference_pair build/bench/device \
    build/bench/checkpoint"

pack() {
    # shellcheck disable=SC2086
    make -j2 cuda $programs || exit 1
    rm -rf "$device"
    mkdir -p "$device/lib" "$device/reference"
    for program in $programs build/libgyaru-cuda.so; do
        strip -o "$device/$(basename "$program")" "$program" || exit 1
        ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
    done | sort -u | while read -r library; do
        case $(basename "$library") in
        libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | ld-linux*) ;;
        *) cp "$library" "$device/lib/" ;;
        esac
    done
    shared=${GYARU_SHARED:-../shared}
    for model in nf4 nf4-plain-fp16 fp4 bf16-tied-sharded; do
        [ -d "$shared/reference/$model" ] && cp -r "$shared/reference/$model" "$device/reference/"
    done
    chmod -R u+w "$device"
    du -sh "$device"
}

[ "${1:-}" = pack ] && { pack; exit; }

what=''
shapes=''
for word; do
    case $word in
    test | bench | kernels | sanitizer | load | pair) what="$what $word" ;;
    7b | 14b | 32b | 0.5b | 1.5b) shapes="$shapes $word" ;;
    *) echo "measure_cuda.sh: $word: unknown" && exit 2 ;;
    esac
done
[ "$what" ] || what="test bench kernels sanitizer"
[ "$shapes" ] || shapes="7b 14b 32b"
wants() { case " $what " in *" $1 "*) true ;; *) false ;; esac }

results=$device/results
rm -rf "$results"
mkdir -p "$results"
export GYARU_SHARED="$PWD/$device"
# cuBLASLt is loaded by name at run time; a GPU machine may have it inside Python's packages alone.
blas=$(find / -path /proc -prune -o \( -name libcublasLt.so.13 -o -name libcublasLt.so.12 \) -print \
    2>/dev/null | head -n 1)
echo "cuBLASLt: ${blas:-not found}"
nccl=''
if wants pair; then
    nccl=$(find / -path /proc -prune -o -name libnccl.so.2 -print 2>/dev/null | head -n 1)
    echo "NCCL: ${nccl:-not found}"
fi
# Our libraries for our programs alone: Python's may need newer ones.
ours() {
    LD_LIBRARY_PATH=$PWD/$device/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}${blas:+:$(dirname "$blas")}${nccl:+:$(dirname "$nccl")} \
        timeout "$@"
}
# All but those that load.
kernels='append|add|attend|batch|cutlass|edit|embed|expand|flash|gemm|meter|nvjet|pack|pair|plain|product|sm[0-9]|split|store'
# split SHAPE FIGURE LAUNCHES: microseconds of the first step of a figure, by kernel
split() {
    say "kernels of $2, $1"
    ours 120 ncu --clock-control none --kill yes --csv --launch-count "$3" \
        --kernel-name "regex:^($kernels)" --metrics gpu__time_duration.sum \
        "$device/device" --shape "$1" --device cuda --only "$2" --runs 1 --json \
        >"$results/ncu-$1-$2.csv" 2>&1
    python3 - "$results/ncu-$1-$2.csv" <<'EOF'
import csv, sys
rows = [r for r in csv.reader(open(sys.argv[1], errors="replace")) if len(r) > 10]
if not rows:
    print(open(sys.argv[1], errors="replace").read()[-600:])
    sys.exit()
head, total = rows[0], {}
at = {k: head.index(k) for k in ("Kernel Name", "Metric Unit", "Metric Value")}
units = {"ns": 1e-3, "nsecond": 1e-3, "us": 1, "usecond": 1, "ms": 1e3, "msecond": 1e3}
for r in rows[1:]:
    name = r[at["Kernel Name"]][:60]
    n, us = total.get(name, (0, 0.0))
    us += units[r[at["Metric Unit"]]] * float(r[at["Metric Value"]].replace(",", ""))
    total[name] = (n + 1, us)
for name, (n, us) in sorted(total.items(), key=lambda t: -t[1][1]):
    print(f"{us:10.0f} us {n:5d} x {us / n:8.1f}  {name}")
print(f"{sum(t[1] for t in total.values()):10.0f} us in all")
EOF
}
say() { printf '\n== %s (%s s)\n' "$*" "$(($(date +%s) - started))"; }
started=$(date +%s)

say device
nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free --format=csv || exit 1
[ -x "$device/test_cuda" ] || { echo "no $device/test_cuda: run 'bench/measure_cuda.sh pack' first and carry $device"; exit 1; }

# Correct first: no timing of what is wrong.
status=0
run_tests() {
    for test in "$@"; do
        say "$test"
        ours 90 "$device/$test" >"$results/$test.txt" 2>&1
        rc=$?
        tail -n 30 "$results/$test.txt"
        [ $rc = 0 ] || { echo "$test: FAILED ($rc)"; status=1; }
    done
}
wants test && run_tests test_cuda test_cuda_model test_cuda_reference
wants bench && for shape in $shapes; do
    say "bench $shape"
    ours 120 "$device/device" --shape "$shape" --device cuda --json >"$results/$shape.json" \
        2>"$results/$shape.err" || { tail -n 2 "$results/$shape.err"; status=1; }
done
# Two GPUs beside one. Multicast over NVLink is left alone: machines may lend GPUs without it.
if wants pair; then
    export NCCL_NVLS_ENABLE=0
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader | wc -l)
    [ "$gpus" -ge 2 ] || { echo "pair: $gpus GPU: SKIP"; status=1; }
    [ "$gpus" -ge 2 ] && run_tests test_cuda_pair test_cuda_model_pair test_cuda_reference_pair
    [ "$gpus" -ge 2 ] && for shape in $shapes; do
        for gpu in cuda:0 cuda:0,1; do
            say "pair $shape on $gpu"
            ours 120 "$device/device" --shape "$shape" --device $gpu --json \
                >"$results/pair-$shape-$gpu.json" 2>"$results/pair-$shape-$gpu.err" ||
                { tail -n 2 "$results/pair-$shape-$gpu.err"; status=1; }
            cat "$results/pair-$shape-$gpu.json"
        done
    done
fi
# From a file in the page cache, as a real model is; generated weights are no file.
wants load && for shape in $shapes; do
    say "load $shape"
    checkpoint=${TMPDIR:-/tmp}/gyaru-random-$shape
    ours 200 "$device/checkpoint" "$shape" "$device/reference/nf4" "$checkpoint" || { status=1; continue; }
    for i in 1 2; do
        ours 60 "$device/device" -m "$checkpoint" --device cuda --only decode_64 --runs 1 --json \
            >"$results/load-$shape-$i.json" 2>&1 || status=1
        grep load_seconds "$results/load-$shape-$i.json"
    done
    rm -r "$checkpoint"
done
# The copy bandwidth as PyTorch's copy sees it, beside our own kernels' in each shape's document.
if wants bench; then
    say "bandwidth by PyTorch"
    timeout 60 python3 - >"$results/torch.json" <<'EOF'
import json, torch
n = 4 << 30
a = torch.randint(0, 255, (n,), dtype=torch.uint8, device="cuda")
b = torch.empty_like(a)
times = []
for i in range(12):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record(); b.copy_(a); end.record(); torch.cuda.synchronize()
    times.append(start.elapsed_time(end))
print(json.dumps({"copy_gb_per_s": 2 * n / (sorted(times[2:])[5] * 1e-3) / 1e9}))
EOF
fi
# Where the time of a step goes: a few kernels of each kind, one after the other.
if wants kernels && command -v ncu >/dev/null; then
    for shape in $shapes; do
        case $shape in 14b) ;; *) [ "$shapes" = " $shape" ] || continue ;; esac
        say "kernels $shape"
        ours 90 ncu --clock-control none --kill yes --csv --launch-skip 6000 --launch-count 60 \
            --metrics gpu__time_duration.sum,dram__bytes_read.sum,smsp__inst_executed.sum,sm__warps_active.avg.pct_of_peak_sustained_active,smsp__issue_active.avg.pct_of_peak_sustained_active,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum \
            "$device/device" --shape "$shape" --device cuda --json >"$results/ncu-$shape.csv" 2>&1
        tail -n 3 "$results/ncu-$shape.csv" | cut -c1-300
        split "$shape" prefill_2048 1000
        split "$shape" first_token_cold_30 530
    done
fi
# racecheck is slow: two tests hold every kernel, whole runs are memcheck's.
sanitize() { # tool, program, tests
    say "compute-sanitizer $1: $2 $3"
    ours 75 compute-sanitizer --tool "$1" --error-exitcode 9 "$device/$2" "$3" \
        >>"$results/$1.txt" 2>&1 || { echo "$1: not clean, or out of time ($?)"; status=1; }
    tail -n 2 "$results/$1.txt"
}
if wants sanitizer && command -v compute-sanitizer >/dev/null; then
    sanitize memcheck test_cuda '*'
    sanitize memcheck test_cuda_model 'odd*'
    sanitize racecheck test_cuda 'graphs*'
    sanitize racecheck test_cuda_model 'tokens*'
elif wants sanitizer; then
    echo "compute-sanitizer: not here"
fi

if wants bench; then
    say table
    # shellcheck disable=SC2086
    python3 - "$results" $shapes <<'EOF'
import json, sys
def load(name):
    try:
        return json.load(open(f"{sys.argv[1]}/{name}.json"))
    except (OSError, ValueError):
        return {}
torch = load("torch").get("copy_gb_per_s")
print(f"PyTorch copies {torch:.0f} GB/s" if torch else "PyTorch copies at: -")
shapes = {s: load(s) for s in sys.argv[2:]}
keys = []
for shape in shapes.values():
    keys += [k for k in shape if k not in keys and not isinstance(shape[k], (str, list))]
print("| | " + " | ".join(shapes) + " |\n|---|" + "---|" * len(shapes))
for key in keys:
    print(f"| {key} | " + " | ".join(f"{s[key]:.5g}" if key in s else "-" for s in shapes.values()) + " |")
def ratio(name, over, under):
    print(f"| {name} | " + " | ".join(f"{s[over] / s[under]:.4f}" if over in s and under in s else "-"
                                      for s in shapes.values()) + " |")
ratio("8 streams / 1", "streams_8", "decode_64")
ratio("steered, metered / without", "steered_tokens_per_second", "decode_64")
for name, s in shapes.items():
    for left in s.get("left_out", []):
        print(f"{name}: {left['figure']}: {left['why']}")
EOF
fi
tar -C "$results" -czf "${OUT:-$device}/results.tar.gz" .
exit $status
