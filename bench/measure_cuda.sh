#!/bin/sh
# measure_cuda.sh pack      - here: gathers what a bare GPU machine needs under build/device/
# measure_cuda.sh [RESULTS] - there: checks and measures, one call of at most ten minutes
#
# A bare machine has the driver, nvcc and compute-sanitizer, but none of our libraries: `pack` copies
# the programs, the plug-in, every library they load except the C library's own, and the reference
# checkpoints. docs/cuda.md says how the two calls are made. Full outputs go to RESULTS (default
# $OUT, else build/device/results); the table that is printed last holds nothing that was not
# measured in this run: what could not be is "-".
set -u
cd "$(dirname "$0")/.." || exit 1
device=build/device

pack() {
    make -j2 cuda build/test_cuda build/test_cuda_reference build/bench/device || exit 1
    rm -rf "$device"
    mkdir -p "$device/lib" "$device/reference"
    for program in build/test_cuda build/test_cuda_reference build/bench/device \
        build/libgyaru-cuda.so; do
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

results=${1:-${OUT:-$device/results}}
mkdir -p "$results"
export GYARU_SHARED="$PWD/$device"
# Our libraries for our programs alone: Python's may need newer ones.
ours() { LD_LIBRARY_PATH=$PWD/$device/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} timeout "$@"; }
say() { printf '\n== %s (%s s)\n' "$*" "$(($(date +%s) - started))"; }
started=$(date +%s)

say device
nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free --format=csv || exit 1
[ -x "$device/test_cuda" ] || { echo "no $device/test_cuda: run 'bench/measure_cuda.sh pack' first and carry $device"; exit 1; }

# Correct first: no timing of what is wrong.
status=0
for test in test_cuda test_cuda_reference; do
    say "$test"
    ours 90 "$device/$test" >"$results/$test.txt" 2>&1
    rc=$?
    tail -n 25 "$results/$test.txt"
    [ $rc = 0 ] || { echo "$test: FAILED ($rc)"; status=1; }
done
# One JSON document per shape. The copy and read bandwidths that fractions are of come from PyTorch
# or, where it is missing, are left out.
for shape in 7b 14b 32b; do
    say "bench $shape"
    ours 60 "$device/device" $shape >"$results/$shape.json" 2>"$results/$shape.err" ||
        tail -n 2 "$results/$shape.err"
done
say bandwidth
timeout 60 python3 - >"$results/bandwidth.json" <<'EOF'
import json, torch
n = 4 << 30
a = torch.randint(0, 255, (n,), dtype=torch.uint8, device="cuda")
b = torch.empty_like(a)
times = []
for i in range(12):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record(); b.copy_(a); end.record(); torch.cuda.synchronize()
    times.append(start.elapsed_time(end))
print(json.dumps({"copy_bytes_per_s": 2 * n / (sorted(times[2:])[5] * 1e-3)}))
EOF

# Where the time of a step goes: a few kernels of each kind, one after the other.
if command -v ncu >/dev/null; then
    say kernels
    ours 90 ncu --clock-control none --kill yes --csv --launch-skip 6000 --launch-count 60 \
        --metrics gpu__time_duration.sum,dram__bytes_read.sum,smsp__inst_executed.sum,sm__warps_active.avg.pct_of_peak_sustained_active,smsp__issue_active.avg.pct_of_peak_sustained_active,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum \
        "$device/device" 14b >"$results/ncu.csv" 2>&1
    tail -n 3 "$results/ncu.csv" | cut -c1-300
fi
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        say "compute-sanitizer $tool"
        ours 75 compute-sanitizer --tool $tool --error-exitcode 9 "$device/test_cuda" \
            >"$results/$tool.txt" 2>&1 || echo "$tool: not clean, or out of time ($?)"
        tail -n 3 "$results/$tool.txt"
    done
else
    echo "compute-sanitizer: not here"
fi


say table
python3 - "$results" <<'EOF'
import json, sys
def load(name):
    try:
        return json.load(open(f"{sys.argv[1]}/{name}.json"))
    except (OSError, ValueError):
        return None
copy = (load("bandwidth") or {}).get("copy_bytes_per_s")
print(f"copy bandwidth: {copy / 1e9:.0f} GB/s" if copy else "copy bandwidth: -")
shapes = {s: load(s) or {} for s in ("7b", "14b", "32b")}
keys = []
for shape in shapes.values():
    keys += [k for k in shape if k not in keys and k not in ("shape", "device")]
print("| | " + " | ".join(shapes) + " |\n|---|" + "---|" * len(shapes))
for key in keys:
    print(f"| {key} | " + " | ".join(str(s.get(key, "-")) for s in shapes.values()) + " |")
def ratio(name, what):
    print(f"| {name} | " + " | ".join(what(s) for s in shapes.values()) + " |")
ratio("fraction of copy, context 64", lambda s: f"{s['decode_64'] * s['bytes_per_token'] / copy:.3f}"
      if copy and "decode_64" in s else "-")
ratio("8 streams / 1", lambda s: f"{s['streams_8'] / s['decode_64']:.2f}" if "streams_8" in s else "-")
ratio("steered, metered / without", lambda s: f"{s['steered_metered'] / s['decode_64']:.4f}"
      if "steered_metered" in s else "-")
EOF
exit $status
