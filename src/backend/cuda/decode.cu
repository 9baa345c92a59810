/*
 * decode.cu - a whole step of at most eight rows in one kernel: one block per multiprocessor, all
 * alive together, walks through the step's phases with a barrier of the grid between them.
 *
 * What that buys over a kernel for each operation: the byte table is filled once; every block packs
 * x for itself, straight into its shared memory; and nothing that only waits leaves the memory
 * idle, because before a block waits it loads the first chunks of its next run and fetches what
 * follows them into L2. The arithmetic, and its order, is that of the single kernels (product.cuh,
 * pack.cuh, attention.cuh), so that a row's bits do not depend on which path it took.
 *
 * Shared memory: struct control, then the table, then a product's slots and packed x, or
 * attention's workspace. Products without a table use its place too.
 */
#include "backend/cuda/attention.cuh"
#include "backend/cuda/pack.cuh"
#include "backend/cuda/product.cuh"
#include "backend/cuda/rope.cuh"
#include "backend/cuda/tuning.cuh"

struct control {
    struct cuda_decode a;
    struct cuda_phase phases[2]; /* the present one and the next */
    struct cuda_row rows[CUDA_GRAPH_ROWS];
    struct pack_state pack;
    struct block_end end;
    int order[CUDA_GRAPH_ROWS]; /* rows that want logits */
    float reduce[32];
};

#define CONTROL_BYTES ((sizeof(struct control) + 127) / 128 * 128)

struct shared_place {
    struct control *control;
    uint4 *table;
    char *rest; /* behind the table */
};

/* Every kind of phase is a function of its own, with registers of its own, and finds its way from
 * here: what the compiler knows to be shared memory is read as such. */
static __device__ __forceinline__ struct shared_place places(void)
{
    DYNAMIC_SHARED(uint4, shared);
    return {(struct control *)shared, shared + CONTROL_BYTES / 16,
            (char *)shared + CONTROL_BYTES + TABLE_BYTES};
}

struct barrier {
    unsigned *counter;
    unsigned arrived; /* what the counter was; thread 0 */
};

static __device__ __forceinline__ void barrier_arrive(struct barrier &b)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        b.arrived = grid_arrive(b.counter, blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1);
    }
}

static __device__ __forceinline__ void barrier_wait(const struct barrier &b)
{
    if (threadIdx.x == 0)
        grid_wait(b.counter, b.arrived);
    __syncthreads();
}

/* ---- products ---------------------------------------------------------------------------------
 */

static __host__ __device__ __forceinline__ bool has_table(enum cuda_layout layout)
{
    return layout == CUDA_NESTED || layout == CUDA_4BIT;
}

/* The rows of x into shared memory as B operands: [group][j][row][t], low plane behind. */
template <int ROWS>
static __device__ __forceinline__ void pack_x(const struct cuda_decode &a,
                                              const struct cuda_phase &phase,
                                              struct control &control, uint4 *x)
{
    const struct cuda_pass &p = phase.pass;
    const int n = p.a.n, groups = p.a.parts[0].weights.groups;
    struct pack_source s = {
        (const float *)p.a.x,          phase.chosen ? control.order : NULL, phase.vector, a.eps, n,
        (int)p.a.parts[0].weights.cols};
    pack_scales<ROWS>(s, control.pack);
    pack_rows<ROWS>(s, control.pack, p.a.parts[0].weights.layout, groups, x, {8 * n, 4 * n, 4},
                    (size_t)groups * 8 * n);
    __syncthreads();
}

template <class F, int DEPTH>
static __device__ __forceinline__ void product_phase(int index, struct barrier barrier)
{
    const struct shared_place at = places();
    const struct cuda_decode &a = at.control->a;
    const struct cuda_phase &phase = at.control->phases[index % 2];
    const struct cuda_pass &p = phase.pass;
    const int n = p.a.n, lane = threadIdx.x % 32;
    const struct worker w = worker_of(p, blockIdx.x);
    float *slots = (float *)(F::TABLE ? at.rest : (char *)at.table);
    uint4 *x = (uint4 *)((char *)slots + SLOTS_BYTES(n));
    if (F::TABLE && phase.fill)
        fill_table(at.table, p.a.parts[0].weights);
    TIME(index, start);
    if (phase.wait)
        barrier_wait(barrier);
    TIME(index, released);
    const float *back = at.control->pack.back;
    if (n == 1)
        pack_x<1>(a, phase, *at.control, x);
    else
        pack_x<CUDA_GRAPH_ROWS>(a, phase, *at.control, x);
    stream<F, DEPTH> s;
    TIME(index, packed);
    s.start(p, w);
    const struct x_place place = {x + min(lane / 4, n - 1) * 4 + lane % 4, 4 * n, 8 * n, 0,
                                  (size_t)p.a.parts[0].weights.groups * 8 * n};
    s.template run<1>(p, w, at.table, place, leave_warp{p, w, slots, at.control->rows, back});
    TIME(index, run);
    __syncthreads();
    block_finish(p, blockIdx.x, slots, at.control->rows, back, &at.control->end);
}

/* ---- the other phases -------------------------------------------------------------------------
 */

static __device__ __forceinline__ void embed_phase(const struct cuda_decode &a,
                                                   const struct cuda_phase &phase,
                                                   const struct cuda_row *rows)
{
    const int all = gridDim.x * CUDA_THREADS;
    for (int i = blockIdx.x * CUDA_THREADS + threadIdx.x; i < a.n * a.hidden; i += all) {
        const int r = i / a.hidden, c = i % a.hidden;
        float value = element(phase.table, rows[r].token, c);
#pragma unroll 1
        for (int e = 0; e < phase.pass.n_edits; e++) {
            float strength = rows[r].strength[phase.pass.edits[e].index];
            if (strength != 0)
                value = fmaf(strength, phase.pass.edits[e].direction[c], value);
        }
        a.x[i] = value;
    }
}

/* Item number i of the step's attention; false past the last. */
static __device__ __forceinline__ bool find_item(const struct cuda_attention &a,
                                                 const struct cuda_row *rows, int i,
                                                 struct attend_item *item, int *lane)
{
    const int group = a.cache.heads / a.cache.kv_heads;
    const int batches = (group + CUDA_QUERIES - 1) / CUDA_QUERIES;
    const int lanes = a.cache.kv_heads * batches;
    for (int r = 0; r < a.n; r++) {
        const int items = (rows[r].pos / CUDA_SPLIT + 1) * lanes;
        if (i >= items) {
            i -= items;
            continue;
        }
        *item = attend_item_of(a, rows[r], r, i % lanes / batches, i % batches);
        item->split = i / lanes;
        *lane = r * lanes + i % lanes;
        return true;
    }
    return false;
}

/* Rows of this step that lie in the item's slot and split go into the cache first. Blocks that
 * share such a position write the same values to the same place. */
static __device__ __forceinline__ void append_fresh(const struct cuda_decode &a,
                                                    const struct cuda_row *rows,
                                                    const struct attend_item &item)
{
    const struct cuda_cache &c = a.attention.cache;
    for (int r = 0; r < a.n; r++) {
        const int pos = rows[r].pos;
        if (rows[r].slot != rows[item.row].slot || pos / CUDA_SPLIT != item.split)
            continue;
        const size_t from = ((size_t)r * c.kv_heads + item.kv_head) * c.head_dim;
        for (int i = threadIdx.x; i < c.head_dim / 2; i += CUDA_THREADS)
            cache_append(c, (item.cache + (size_t)pos) * c.head_dim, i,
                         a.rope + (size_t)pos * c.head_dim, a.k + from, a.v + from);
    }
}

static __device__ __forceinline__ void
rotate_queries(const struct cuda_decode &a, const struct attend_item &item, struct attend_space &w)
{
    const struct cuda_cache &c = a.attention.cache;
    const int half = c.head_dim / 2;
    const float *rope = a.rope + (size_t)item.pos * c.head_dim;
    const float *q = a.attention.q + ((size_t)item.row * c.heads + item.head) * c.head_dim;
    for (int i = threadIdx.x; i < item.heads * half; i += CUDA_THREADS) {
        const int h = i / half, d = i % half;
        const float *from = q + h * c.head_dim;
        float2 turned = rotate(from[d], from[half + d], rope[d], rope[half + d]);
        w.q[h][d] = turned.x;
        w.q[h][half + d] = turned.y;
    }
}

template <int KV> static __device__ __noinline__ void attend_phase(int layer)
{
    const struct shared_place at = places();
    const struct cuda_decode &a = at.control->a;
    const struct cuda_row *rows = at.control->rows;
    struct attend_space &w = *(struct attend_space *)at.rest;
    struct cuda_attention attention = a.attention;
    struct attend_item item;
    int lane;
    attention.layer = layer;
    for (int i = blockIdx.x; find_item(attention, rows, i, &item, &lane); i += gridDim.x) {
        struct running r;
        reset(r);
        __syncthreads();
        append_fresh(a, rows, item);
        rotate_queries(a, item, w);
        attend_split<KV>(w, attention.cache, item, r);
        if (item.splits == 1)
            attend_finish(attention, item, r);
        else
            attend_leave(w, attention, item, lane, r);
    }
}

/* ---- fetching ahead ---------------------------------------------------------------------------
 */

#define LINE 128 /* bytes */

/* The first `kib` of what this block will read of a product, into L2: a chunk's weights are some
 * whole lines, its codes a part of one. */
static __device__ __forceinline__ void fetch_product(const struct cuda_pass &p, int kib)
{
    const struct cuda_weights &v = p.a.parts[0].weights;
    const int line_count = has_table(v.layout) ? 4 : 16; /* of a half and group */
    const int groups = v.groups;
    if ((int)blockIdx.x >= p.blocks)
        return;
    const int first = block_first(p, blockIdx.x), last = block_first(p, blockIdx.x + 1);
    for (int u = threadIdx.x; u < kib * 1024 / LINE; u += CUDA_THREADS) {
        const int c = first + u / (2 * line_count), m = u / line_count % 2, line = u % line_count;
        if (c >= last)
            break;
        int half;
        const int group = c % groups;
        const struct cuda_weights &w = find_half(p, c / groups, m, &half);
        const size_t at = (size_t)half * groups + group;
        fetch((const char *)w.data + at * line_count * LINE + line * LINE);
        if (line == 0 && has_table(v.layout) && (group % 8 == 0 || c == first))
            fetch((const char *)w.codes + at * (v.layout == CUDA_NESTED ? 16 : 64));
    }
}

/* K and V of the block's first item: nothing of the step under way is needed to know where. */
static __device__ __forceinline__ void fetch_cache(const struct cuda_decode &a, int layer,
                                                   const struct cuda_row *rows)
{
    struct cuda_attention attention = a.attention;
    const struct cuda_cache &c = attention.cache;
    struct attend_item item;
    int lane;
    attention.layer = layer;
    if (!find_item(attention, rows, blockIdx.x, &item, &lane))
        return;
    const size_t size = c.type == CUDA_KV_HALF ? 2 : 4;
    const int positions = min(CUDA_SPLIT, item.pos - item.split * CUDA_SPLIT);
    const size_t from = (item.cache + (size_t)item.split * CUDA_SPLIT) * c.head_dim * size;
    const int bytes = positions * c.head_dim * (int)size;
    for (int i = threadIdx.x * LINE; i < bytes; i += CUDA_THREADS * LINE) {
        fetch((const char *)c.k + from + i);
        fetch((const char *)c.v + from + i);
    }
}

static __device__ __forceinline__ void fetch_phase(const struct cuda_decode &a,
                                                   const struct cuda_phase &phase,
                                                   const struct cuda_row *rows)
{
    if (phase.kind == CUDA_PHASE_PRODUCT) {
        fetch_product(phase.pass, a.ahead);
        if (phase.vector && a.ahead)
            for (int c = threadIdx.x * (LINE / 4); c < a.hidden; c += CUDA_THREADS * (LINE / 4))
                fetch(phase.vector + c);
    } else if (phase.kind == CUDA_PHASE_ATTEND && a.ahead)
        fetch_cache(a, phase.index, rows);
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

template <class T> static __device__ __forceinline__ void copy(const T *from, T *to, int n)
{
    for (int i = threadIdx.x; i < n * (int)(sizeof *to / 4); i += CUDA_THREADS)
        ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
}

static __device__ __forceinline__ void begin(const struct cuda_decode &a, struct control &control)
{
    if (threadIdx.x == 0)
        control.a = a;
    copy(a.phases, control.phases, 1);
    copy(a.rows, control.rows, a.n);
    __syncthreads();
    if ((int)threadIdx.x < a.n && control.rows[threadIdx.x].logits >= 0)
        control.order[control.rows[threadIdx.x].logits] = threadIdx.x;
    __syncthreads();
}

template <class F, int DEPTH>
static __device__ __noinline__ void call_product(int index, struct barrier barrier)
{
    product_phase<F, DEPTH>(index, barrier);
}

/* MAIN, the layout of the model's linears, has its loop in the kernel itself; what is rare is
 * called. */
template <enum cuda_layout MAIN>
static __device__ __forceinline__ void run_product(int index, enum cuda_layout layout,
                                                   const struct barrier &barrier)
{
    if (layout == MAIN)
        product_phase<typename format_of<MAIN>::type, format_of<MAIN>::DEPTH>(index, barrier);
    else if (layout == CUDA_NESTED)
        call_product<format_nested, 2>(index, barrier);
    else if (layout == CUDA_4BIT)
        call_product<format_4bit, 2>(index, barrier);
    else if (layout == CUDA_F16)
        call_product<format_16bit<false>, 1>(index, barrier);
    else if (layout == CUDA_BF16)
        call_product<format_16bit<true>, 1>(index, barrier);
}

static __device__ __noinline__ void run_other(int index)
{
    struct control &control = *places().control;
    const struct cuda_decode &a = control.a;
    const struct cuda_phase &phase = control.phases[index % 2];
    if (phase.kind == CUDA_PHASE_EMBED) {
        embed_phase(a, phase, control.rows);
    } else if (phase.kind == CUDA_PHASE_METER) {
        for (int r = 0; r < a.n && blockIdx.x == gridDim.x - 1; r++)
            meter_row(a.x + (size_t)r * a.hidden, phase.vector, a.hidden, control.reduce,
                      phase.out + 2 * r);
    } else if (a.attention.cache.type == CUDA_KV_HALF)
        attend_phase<CUDA_KV_HALF>(phase.index);
    else
        attend_phase<CUDA_KV_FLOAT>(phase.index);
}

static __device__ __noinline__ void fetch_next(int index)
{
    struct control &control = *places().control;
    fetch_phase(control.a, control.phases[index % 2], control.rows);
}

template <enum cuda_layout MAIN>
static __global__ void __launch_bounds__(CUDA_THREADS, 1)
    decode(const __grid_constant__ struct cuda_decode a)
{
    struct control &control = *places().control;
    struct barrier barrier = {a.barrier, 0};
    begin(a, control);
    for (int i = 0; i < a.n_phases; i++) {
        const struct cuda_phase &phase = control.phases[i % 2];
        const bool more = i + 1 < a.n_phases;
        if (more)
            copy(a.phases + i + 1, &control.phases[(i + 1) % 2], 1);
        if (phase.kind == CUDA_PHASE_PRODUCT) {
            run_product<MAIN>(i, phase.pass.a.parts[0].weights.layout, barrier);
        } else {
            TIME(i, start);
            if (phase.wait)
                barrier_wait(barrier);
            TIME(i, released);
            run_other(i);
        }
        __syncthreads();
        TIME(i, end);
        TIME_KEY(i, phase);
        if (!more)
            break;
        if (control.phases[(i + 1) % 2].wait)
            barrier_arrive(barrier);
        fetch_next(i + 1);
    }
}

size_t cuda_decode_shared(const struct cuda_phase *phase)
{
    const struct cuda_weights *w = &phase->pass.a.parts[0].weights;
    size_t n = (size_t)phase->pass.a.n, row = (size_t)w->groups * 128;
    if (phase->kind == CUDA_PHASE_ATTEND)
        return CONTROL_BYTES + TABLE_BYTES + sizeof(struct attend_space);
    if (phase->kind != CUDA_PHASE_PRODUCT)
        return CONTROL_BYTES;
    if (has_table(w->layout))
        return CONTROL_BYTES + TABLE_BYTES + SLOTS_BYTES(n) + n * row;
    return CONTROL_BYTES + SLOTS_BYTES(n) + 2 * n * row;
}

void cuda_decode(const struct cuda_decode *a, cudaStream_t stream)
{
    struct cuda_decode args = *a;
    tune(&args);
    if (args.main == CUDA_NESTED)
        launch_together(decode<CUDA_NESTED>, dim3(args.blocks), CUDA_THREADS, args.shared, stream,
                        args);
    else if (args.main == CUDA_4BIT)
        launch_together(decode<CUDA_4BIT>, dim3(args.blocks), CUDA_THREADS, args.shared, stream,
                        args);
    else
        launch_together(decode<CUDA_BF16>, dim3(args.blocks), CUDA_THREADS, args.shared, stream,
                        args);
}

template <enum cuda_layout MAIN> static cudaError_t allow(size_t shared)
{
    return cudaFuncSetAttribute((const void *)decode<MAIN>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
}

cudaError_t cuda_decode_init(size_t shared)
{
    cudaError_t e = allow<CUDA_NESTED>(shared);
    if (!e)
        e = allow<CUDA_4BIT>(shared);
    if (!e)
        e = allow<CUDA_BF16>(shared);
    return e;
}
