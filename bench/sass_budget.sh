#!/bin/sh
# sass_budget.sh [ARCH...] - what the matrix kernels cost in instructions, from their machine code.
#
# Needs nvcc and cuobjdump, no GPU. For each matrix kernel: registers, spills, and the instructions
# of the cheapest way around its main loop - from one chunk's mma to the next chunk's, loading one
# chunk on the way - for each of the 64 weights that a lane takes per chunk. An H200 has 3.6 to 4.0
# instructions per weight and SM before they, not memory, are the limit.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
NVCC=${NVCC:-nvcc}
command -v "$NVCC" >/dev/null || { echo "SKIP: no nvcc"; exit 0; }
command -v cuobjdump >/dev/null || { echo "SKIP: no cuobjdump"; exit 0; }
echo "| machine code | weights | rows of x | registers | stack, bytes | instructions/chunk | per weight | LDS | HMMA | LDG |"
echo "|---|---|---|---|---|---|---|---|---|---|"
[ $# -gt 0 ] || set -- 80 86 89 90 100 120
for arch in "$@"; do
    : >"$work/k.sass"
    : >"$work/k.use"
    for source in product batch; do
        "$NVCC" -std=c++17 -O3 -Isrc -Iinclude -arch="sm_$arch" -cubin -o "$work/k.cubin" \
            "src/backend/cuda/$source.cu"
        cuobjdump --dump-sass "$work/k.cubin" >>"$work/k.sass"
        cuobjdump --dump-resource-usage "$work/k.cubin" >>"$work/k.use" 2>&1
    done
    python3 - "$arch" "$work/k.sass" "$work/k.use" <<'EOF'
import heapq, re, sys

arch, sass, use = sys.argv[1:]
code, usage, name = {}, {}, None
for line in open(sass):
    m = re.search(r"Function : (\S+)", line)
    if m:
        name = m.group(1)
        code[name] = []
    m = re.match(r"\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);", line)
    if m and name:
        code[name].append((int(m.group(1), 16), m.group(2)))
for line in open(use):
    m = re.search(r"Function (\S+?):?\s*$", line)
    if m:
        name = m.group(1)
    m = re.search(r"REG:(\d+) STACK:(\d+)", line)
    if m:
        usage[name] = m.groups()

def blocks(ins):
    """[(instructions, successors)] of a function; calls return."""
    index = {a: i for i, (a, _) in enumerate(ins)}
    starts, ends = {0}, {}
    for i, (_, text) in enumerate(ins):
        m = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if m:
            starts |= {index[int(m.group(1), 16)], i + 1}
            ends[i] = (index[int(m.group(1), 16)], text.startswith("@") or " P" in text or "!P" in text)
        elif re.search(r"\b(EXIT|RET)\b", text):
            starts.add(i + 1)
            ends[i] = (None, text.startswith("@"))
    order = sorted(s for s in starts if s < len(ins))
    at = {s: n for n, s in enumerate(order)}
    out = []
    for n, s in enumerate(order):
        e = order[n + 1] if n + 1 < len(order) else len(ins)
        target, falls = ends.get(e - 1, (None, True))
        to = ([at[target]] if target is not None else []) + ([n + 1] if falls and n + 1 < len(order) else [])
        out.append(([t for _, t in ins[s:e]], to))
    return out

def has(block, pattern):
    return any(re.search(pattern, t) for t in block[0])

def round_trip(bs):
    """Cheapest way from an mma block over a load of weights (no-allocate) to the next mma block, and what is on it."""
    mma = [i for i, b in enumerate(bs) if has(b, r"\bHMMA")]
    best = None
    for start in mma:
        heap = [(len(bs[start][0]), start, has(bs[start], r"LDG.*\.NA"), (start,))]
        seen = set()
        while heap:
            cost, at, loaded, way = heapq.heappop(heap)
            if (at, loaded) in seen and len(way) > 1:
                continue
            seen.add((at, loaded))
            for to in bs[at][1]:
                if to in mma:
                    if loaded and (best is None or cost > best[0]) and not any(w in mma for w in way[1:]):
                        best = (cost, way)  # the dearest of the unrolled copies
                        heap = []
                        break
                    continue
                heapq.heappush(heap, (cost + len(bs[to][0]), to, loaded or has(bs[to], r"LDG.*\.NA"), way + (to,)))
    return best

for name in sorted(code):
    regs, stack = usage.get(name, ("?", "?"))
    m = re.search(r"batch_(4bit|16bit)ILb([01])EELi(\d+)ELi(\d+)E", name)
    if m:  # bound otherwise: what they take is what matters
        kind = {"4bit1": "nf4 nested", "4bit0": "nf4 plain", "16bit1": "bf16", "16bit0": "fp16"}[m.group(1) + m.group(2)]
        print(f"| sm_{arch} | {kind}, {m.group(4)} ahead | {int(m.group(3)) * 8} | {regs} | {stack} | - | - | - | - | - |")
        continue
    m = re.search(r"format_(nested|4bit|16bit)(ILb([01]))?", name)
    trip = m and round_trip(bs := blocks(code[name]))
    if not trip:
        continue
    kind = {"nested": "nf4 nested", "4bit": "nf4 plain", "16bit": "bf16" if m.group(3) == "1" else "fp16"}[m.group(1)]
    texts = [t for b in trip[1] for t in bs[b][0]]
    count = lambda p: sum(bool(re.search(p, t)) for t in texts)
    print(f"| sm_{arch} | {kind} | 8 | {regs} | {stack} | {trip[0]} | {trip[0] / 64:.2f} "
          f"| {count(r'LDS')} | {count(r'HMMA')} | {count(r'LDG')} |")
EOF
done
