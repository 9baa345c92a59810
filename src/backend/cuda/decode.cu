/*
 * decode.cu - a whole step of at most eight rows in one kernel: one block per multiprocessor, all
 * alive together, walks through the step's phases with a barrier of the grid between them.
 *
 * Weights come through rings that know nothing of phases (stream.cuh). What is left between two
 * products is kept short: no tile is shared by two blocks, so that a product ends with plain
 * stores; where the columns are cut into parts, whoever reads the stream next adds the parts, and
 * the edits of steering with them; every warp packs the columns of x that it multiplies, straight
 * into registers; rmsnorm's factor is applied to the sums.
 *
 * The order of additions depends on the matrices and the number of blocks, not on the number of
 * rows. It is not that of the single kernels: a step gives their result, not their bits.
 *
 * Shared memory: struct control and a scratch (each warp's own for packing x and for its sums, or
 * attention's workspace), the rings of a few warps, the byte table, the rings of the others. The
 * table begins at a multiple of 64 KiB, so that one byte of an address is a code.
 */
#include "backend/cuda/attention.cuh"
#include "backend/cuda/product.cuh"
#include "backend/cuda/pack.cuh"
#include "backend/cuda/rope.cuh"
#include "backend/cuda/stream.cuh"
#include "backend/cuda/tuning.cuh"

#define PHASE_WORDS ((int)(sizeof(struct cuda_phase) / 4))
#define WARP_SUMS   384 /* floats of a warp's scratch: sums of 24 / n tiles; one packed row of x */

struct control {
    struct cuda_decode a;
    struct cuda_phase phases[2]; /* the present one and the next */
    struct cuda_row rows[CUDA_GRAPH_ROWS];
    struct feed feeds[CUDA_WARPS];
    int order[CUDA_GRAPH_ROWS];                /* rows that want logits */
    float square[CUDA_WARPS][CUDA_GRAPH_ROWS]; /* of x, by warp */
    float reduce[32];
    unsigned side; /* of the barrier; thread 0 */
};

static_assert(sizeof(struct cuda_run) == 128, "a word for each lane");
static_assert(PHASE_WORDS <= CUDA_THREADS, "a word for each thread");
static_assert(WARP_SUMS * 4 >= CUDA_GROUPS * CUDA_GROUP * 2, "a packed row of x");

#define UP(n)         (((n) + 15) / 16 * 16)
#define CONTROL_BYTES UP(sizeof(struct control))
#define SUMS_BYTES    (CUDA_WARPS * WARP_SUMS * sizeof(float))
#define SCRATCH_BYTES                                                                              \
    UP(SUMS_BYTES > sizeof(struct attend_space) ? SUMS_BYTES : sizeof(struct attend_space))

/* A block's own shared memory begins at 1024 on GPUs that have enough of it for this kernel. */
#define TABLE_PLACE (TABLE_BYTES - 1024)
#define RINGS_PLACE (CONTROL_BYTES + SCRATCH_BYTES)
#define RINGS_BELOW ((int)((TABLE_PLACE - RINGS_PLACE) / RING_BYTES))
#define ALL_BYTES   (TABLE_PLACE + TABLE_BYTES + (CUDA_WARPS - RINGS_BELOW) * RING_BYTES)

static_assert(ALL_BYTES <= 227 << 10, "shared memory");

struct shared_place {
    struct control *control;
    uint4 *table;
    char *scratch;
};

/* Every kind of phase is a function of its own, with registers of its own, and finds its way from
 * here: what the compiler knows to be shared memory is read as such. */
static __device__ __forceinline__ struct shared_place places(void)
{
    DYNAMIC_SHARED(uint4, shared);
    char *const all = (char *)shared;
    return {(struct control *)shared, (uint4 *)(all + TABLE_PLACE), all + CONTROL_BYTES};
}

static __device__ __forceinline__ char *ring_of(const struct shared_place &at, int warp)
{
    char *const first =
        (char *)at.control + (warp < RINGS_BELOW ? RINGS_PLACE : TABLE_PLACE + TABLE_BYTES);
    return first + (warp < RINGS_BELOW ? warp : warp - RINGS_BELOW) * RING_BYTES;
}

static __device__ __forceinline__ void barrier_wait(struct control &control)
{
    if (threadIdx.x == 0)
        control.side = grid_wait(control.a.barrier, control.side);
    __syncthreads();
}

/* ---- reading the stream -----------------------------------------------------------------------
 */

/* Columns c and c+1 of N groups of a row, zero past the last. cols is even. */
template <int N>
static __device__ __forceinline__ void load_row(const float *row, int c, int cols, float2 (&v)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int at = c + i * CUDA_GROUP;
        v[i] = at < cols ? __ldcg((const float2 *)(row + at)) : make_float2(0, 0);
    }
}

template <int N>
static __device__ __forceinline__ void add_row(float factor, const float2 (&a)[N], float2 (&v)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i].x = fmaf(factor, a[i].x, v[i].x);
        v[i].y = fmaf(factor, a[i].y, v[i].y);
    }
}

/* Columns c, c+1 of N groups of a row of the step: x and what came to it. The first loads are all
 * on their way before any is used. */
template <int N>
static __device__ __forceinline__ void read_stream(const struct control &control,
                                                   const struct cuda_source &in, int r, int c,
                                                   int cols, float2 (&v)[N])
{
    const float *parts = in.parts + (size_t)r * cols;
    const size_t pitch = (size_t)control.a.n * cols;
    float2 a[N] = {}, b[N] = {};
    load_row(in.x + (size_t)r * cols, c, cols, v);
    if (in.n_parts > 0)
        load_row(parts, c, cols, a);
    if (in.n_parts > 1)
        load_row(parts + pitch, c, cols, b);
    if (in.n_parts > 0)
        add_row(1, a, v);
    if (in.n_parts > 1)
        add_row(1, b, v);
#pragma unroll 1
    for (int k = 2; k < in.n_parts; k += 2) {
        load_row(parts + k * pitch, c, cols, a);
        load_row(parts + (k + 1) * pitch, c, cols, b);
        add_row(1, a, v);
        add_row(1, b, v);
    }
#pragma unroll 1
    for (int e = 0; e < in.n_edits; e++) {
        const float strength = control.rows[r].strength[in.edits[e].index];
        if (strength != 0) {
            load_row(in.edits[e].direction, c, cols, a);
            add_row(strength, a, v);
        }
    }
}

/* ---- products ---------------------------------------------------------------------------------
 */

static __device__ __forceinline__ bool has_table(const struct cuda_run &cut)
{
    return cut.layout == CUDA_NESTED || cut.layout == CUDA_4BIT;
}

/* One row of x, columns 2*lane, +1 of the warp's groups, into the lanes that hold it. Returns what
 * a sum is to be multiplied by. */
template <class F, int GROUPS>
static __device__ __forceinline__ float pack_row(const float2 (&v)[GROUPS], int r, uint32_t *packed,
                                                 struct held_x (&x)[GROUPS])
{
    const int lane = threadIdx.x % 32;
    float most = 0;
#pragma unroll
    for (int i = 0; i < GROUPS; i++)
        most = fmaxf(most, fmaxf(fabsf(v[i].x), fabsf(v[i].y)));
    const int e = exponent_for(warp_max(most));
    const float factor = power_of_two(e);
#pragma unroll
    for (int plane = 0; plane < (F::TWO_PLANES ? 2 : 1); plane++) {
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            const float low = v[i].x * factor, high = v[i].y * factor;
            uint16_t a = to_16<F::BF16>(low), b = to_16<F::BF16>(high);
            if (plane) {
                a = to_16<F::BF16>(low - from_16<F::BF16>(a));
                b = to_16<F::BF16>(high - from_16<F::BF16>(b));
            }
            packed[i * 32 + lane] = a | (uint32_t)b << 16;
        }
        __syncwarp();
        if (lane / 4 == r + 4 * plane)
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                x[i].a = ((const uint4 *)packed)[i * 8 + lane % 4 * 2];
                x[i].b = ((const uint4 *)packed)[i * 8 + lane % 4 * 2 + 1];
            }
        __syncwarp();
    }
    return power_of_two(-e);
}

/* The warp's columns of all rows. back: what sums of the lane's two columns are multiplied by. */
template <class F, int GROUPS>
static __device__ __forceinline__ void
pack_x(struct control &control, const struct cuda_phase &p, const struct share &s,
       const float2 (&norm)[GROUPS], uint32_t *packed, struct held_x (&x)[GROUPS], float (&back)[2])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, cols = (int)p.weights.cols;
    const int c = s.group * CUDA_GROUP + 2 * lane;
#pragma unroll
    for (int i = 0; i < GROUPS; i++)
        x[i] = {};
    back[0] = back[1] = 0;
#pragma unroll 1
    for (int r = 0; r < p.n; r++) {
        const int row = p.chosen ? control.order[p.first + r] : p.first + r;
        float2 v[GROUPS];
        read_stream(control, p.in, row, c, cols, v);
        if (p.keep && blockIdx.x == 0)
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                const int at = c + i * CUDA_GROUP;
                if (at < cols)
                    *(float2 *)(p.keep + (size_t)row * cols + at) = v[i];
            }
        if (p.vector) {
            float square = 0;
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                square = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, square));
                v[i].x *= norm[i].x;
                v[i].y *= norm[i].y;
            }
            square = warp_sum(square);
            if (lane == 0)
                control.square[warp][r] = square;
        }
        const float scale = pack_row<F>(v, r, packed, x);
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (2 * (lane % 4) + i == r)
                back[i] = scale;
    }
}

static __device__ __forceinline__ float norm_factor(const struct control &control,
                                                    const struct cuda_phase &p, int r)
{
    float total = 0;
#pragma unroll
    for (int w = 0; w < CUDA_WARPS; w++)
        total += control.square[w][r];
    return 1.0f / sqrtf(total / (float)(int)p.weights.cols + control.a.eps);
}

/* Adds what the warps left of tiles from..to-1; all threads, after a barrier. */
static __device__ __noinline__ void finish_tiles(int index, int part, int from, int to)
{
    const struct shared_place at = places();
    const struct control &control = *at.control;
    const struct cuda_phase &p = control.phases[index % 2];
    const float *sums = (const float *)at.scratch;
    const int n = p.n, size = 16 * n;
    const float unscale = 1.0f / p.weights.table_scale;
    for (int u = threadIdx.x; u < ((to - from) >> p.cut.pair) * size; u += CUDA_THREADS) {
        const int tile = u / size << p.cut.pair, e = u % size, i = e / n, r = e % n;
        const float *mine = sums + tile * size + e;
        float value = 0, up = 0;
#pragma unroll
        for (int w = 0; w < CUDA_WARPS; w++)
            value += mine[w * WARP_SUMS];
        if (p.cut.pair)
#pragma unroll
            for (int w = 0; w < CUDA_WARPS; w++)
                up += mine[w * WARP_SUMS + size];
        int m;
        const int row = find_tile(p.cut, from + tile, &m) * 16 + i;
        if (row >= p.rows[m])
            continue;
        const float scale = p.vector ? unscale * norm_factor(control, p, r) : unscale;
        float *out = p.out[m] + part * p.out_pitch + (size_t)r * p.rows[m] + row;
        value *= scale;
        if (p.finish == CUDA_PAIR)
            *out = silu(value) * (up * scale);
        else if (p.finish == CUDA_GATE)
            *out = silu(*out) * value;
        else
            *out = p.bias[m] ? value + p.bias[m][row] : value;
    }
}

/* GROUPS: of this warp. Warps of one block may have different ones: all pass the same barriers. */
template <class F, int GROUPS>
static __device__ __noinline__ struct cursor product_phase(struct cursor cursor, int index)
{
    const struct shared_place at = places();
    struct control &control = *at.control;
    const struct cuda_phase &p = control.phases[index % 2];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = p.n;
    const struct share s = share_of(p.cut, warp);
    float *sums = (float *)at.scratch + warp * WARP_SUMS;
    struct held_x x[GROUPS];
    float back[2];
    {
        float2 norm[GROUPS] = {};
        if (p.vector)
            load_row(p.vector, s.group * CUDA_GROUP + 2 * lane, (int)p.weights.cols, norm);
        if (F::TABLE && p.fill)
            fill_table(at.table, p.weights);
        TIME(index, start);
        if (p.wait)
            barrier_wait(control);
        else if (F::TABLE && p.fill)
            __syncthreads();
        TIME(index, released);
        pack_x<F>(control, p, s, norm, (uint32_t *)sums, x, back);
        TIME(index, packed);
    }
    const struct cuda_phase *phases = control.a.phases;
    struct feed &feed = control.feeds[warp];
    char *ring = ring_of(at, warp);
    const uint32_t lookup = shared_address(at.table) | (uint32_t)lane * 4;
    const int room = WARP_SUMS / (16 * n) & ~1;
    for (int from = s.first; from < s.last; from += room) {
        const int to = min(from + room, s.last);
        float *mine = sums + lane / 4 * n + 2 * (lane % 4);
#pragma unroll 1
        for (int tile = from; tile < to; tile++, mine += 16 * n) {
            int m;
            float sum[4] = {0, 0, 0, 0};
            const int own = find_tile(p.cut, tile, &m);
            const struct tile_of t = {phases, p.cut, s.group, own, p.cut.offset[m], lookup};
            multiply_loads<F, GROUPS, 0>(cursor, feed, ring, t, x, sum);
            if (F::TWO_PLANES)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (2 * (lane % 4) + i < n) {
                    mine[i] = sum[i] * back[i];
                    mine[8 * n + i] = sum[2 + i] * back[i];
                }
        }
        TIME(index, run);
        __syncthreads();
        finish_tiles(index, s.part, from, to);
        if (to < s.last)
            __syncthreads();
    }
    return cursor;
}

/* A warp without a share of the columns. */
static __device__ __noinline__ void idle_phase(int index)
{
    const struct shared_place at = places();
    struct control &control = *at.control;
    const struct cuda_phase &p = control.phases[index % 2];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const struct share s = share_of(p.cut, warp);
    float *sums = (float *)at.scratch + warp * WARP_SUMS;
    if (has_table(p.cut) && p.fill)
        fill_table(at.table, p.weights);
    if (p.wait)
        barrier_wait(control);
    else if (has_table(p.cut) && p.fill)
        __syncthreads();
    if (lane < p.n)
        control.square[warp][lane] = 0;
    for (int i = lane; i < WARP_SUMS; i += 32)
        sums[i] = 0;
    const int room = WARP_SUMS / (16 * p.n) & ~1;
    for (int from = s.first; from < s.last; from += room) {
        const int to = min(from + room, s.last);
        __syncthreads();
        finish_tiles(index, s.part, from, to);
        if (to < s.last)
            __syncthreads();
    }
}

template <class F>
static __device__ __forceinline__ struct cursor run_groups(const struct cursor &cursor, int index,
                                                           int groups)
{
    switch (groups) {
    case 1:
        return product_phase<F, 1>(cursor, index);
    case 2:
        return product_phase<F, 2>(cursor, index);
    case 3:
        return product_phase<F, 3>(cursor, index);
    case 4:
        return product_phase<F, 4>(cursor, index);
    case 5:
        return product_phase<F, 5>(cursor, index);
    case 6:
        return product_phase<F, 6>(cursor, index);
    case 7:
        return product_phase<F, 7>(cursor, index);
    case 8:
        return product_phase<F, 8>(cursor, index);
    default:
        idle_phase(index);
        return cursor;
    }
}

static __device__ __forceinline__ struct cursor run_product(const struct cursor &cursor, int index,
                                                            const struct cuda_run &cut)
{
    const int groups = share_of(cut, threadIdx.x / 32).groups;
    switch (cut.layout) {
    case CUDA_NESTED:
        return run_groups<streamed_nested>(cursor, index, groups);
    case CUDA_4BIT:
        return run_groups<streamed_plain>(cursor, index, groups);
    case CUDA_F16:
        return run_groups<streamed_16bit<false>>(cursor, index, groups);
    default:
        return run_groups<streamed_16bit<true>>(cursor, index, groups);
    }
}

/* ---- the other phases -------------------------------------------------------------------------
 */

static __device__ __forceinline__ void embed_phase(const struct cuda_decode &a,
                                                   const struct cuda_phase &phase,
                                                   const struct cuda_row *rows)
{
    const int all = gridDim.x * CUDA_THREADS;
    for (int i = blockIdx.x * CUDA_THREADS + threadIdx.x; i < a.n * a.hidden; i += all)
        a.x[i] = element(phase.weights, rows[i / a.hidden].token, i % a.hidden);
}

/* Rows from the last block down: attention begins with the first. */
static __device__ __forceinline__ void meter_phase(struct control &control,
                                                   const struct cuda_phase &phase)
{
    const int cols = control.a.hidden, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int r = (int)(gridDim.x - 1 - blockIdx.x); r < control.a.n; r += (int)gridDim.x) {
        float along = 0, total = 0;
        for (int c = warp * 4 * CUDA_GROUP + 2 * lane; c < cols; c += CUDA_WARPS * 4 * CUDA_GROUP) {
            float2 v[4], direction[4];
            load_row(phase.vector, c, cols, direction);
            read_stream(control, phase.in, r, c, cols, v);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                along = fmaf(v[i].x, direction[i].x, fmaf(v[i].y, direction[i].y, along));
                total = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, total));
            }
        }
        along = block_sum(along, control.reduce);
        total = block_sum(total, control.reduce);
        if (threadIdx.x == 0) {
            phase.out[0][2 * r] = along;
            phase.out[0][2 * r + 1] = total;
        }
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
    struct attend_space &w = *(struct attend_space *)at.scratch;
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

/* ---- the walk ---------------------------------------------------------------------------------
 */

template <class T> static __device__ __forceinline__ void copy(const T *from, T *to, int n)
{
    for (int i = threadIdx.x; i < n * (int)(sizeof *to / 4); i += CUDA_THREADS)
        ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
}

static __device__ __forceinline__ void begin(const struct cuda_decode &a, struct control &control)
{
    if (threadIdx.x == 0) {
        control.a = a;
        control.side = grid_side(a.barrier);
    }
    copy(a.phases, control.phases, 1);
    copy(a.rows, control.rows, a.n);
    __syncthreads();
    if ((int)threadIdx.x < a.n && control.rows[threadIdx.x].logits >= 0)
        control.order[control.rows[threadIdx.x].logits] = threadIdx.x;
    __syncthreads();
}

static __device__ __noinline__ void run_other(int index)
{
    struct control &control = *places().control;
    const struct cuda_decode &a = control.a;
    const struct cuda_phase &phase = control.phases[index % 2];
    TIME(index, start);
    if (phase.wait)
        barrier_wait(control);
    TIME(index, released);
    if (phase.kind == CUDA_PHASE_EMBED)
        embed_phase(a, phase, control.rows);
    else if (phase.kind == CUDA_PHASE_METER)
        meter_phase(control, phase);
    else if (a.attention.cache.type == CUDA_KV_HALF)
        attend_phase<CUDA_KV_HALF>(phase.index);
    else
        attend_phase<CUDA_KV_FLOAT>(phase.index);
}

static __device__ __noinline__ void fetch_next(int index)
{
    struct control &control = *places().control;
    const struct cuda_phase &phase = control.phases[index % 2];
    if (phase.kind == CUDA_PHASE_ATTEND)
        fetch_cache(control.a, phase.index, control.rows);
}

static __global__ void __launch_bounds__(CUDA_THREADS, 1)
    decode(const __grid_constant__ struct cuda_decode a)
{
    const struct shared_place at = places();
    struct control &control = *at.control;
    const int warp = threadIdx.x / 32;
    struct cursor cursor =
        start_cursor(control.feeds[warp], ring_of(at, warp), a.phases, a.product);
    begin(a, control);
    if (shared_address(at.table) % TABLE_BYTES)
        __trap();
    for (int i = 0; i < a.n_phases; i++) {
        const struct cuda_phase &phase = control.phases[i % 2];
        const bool more = i + 1 < a.n_phases, mine = more && threadIdx.x < PHASE_WORDS;
        uint32_t word = 0; /* of the next phase */
        if (mine)
            word = __ldg((const uint32_t *)(a.phases + i + 1) + threadIdx.x);
        if (phase.kind == CUDA_PHASE_PRODUCT)
            cursor = run_product(cursor, i, phase.cut);
        else
            run_other(i);
        if (mine)
            ((uint32_t *)&control.phases[(i + 1) % 2])[threadIdx.x] = word;
        __syncthreads();
        TIME(i, end);
        TIME_KEY(i, phase);
        if (!more)
            break;
        if (control.phases[(i + 1) % 2].wait && threadIdx.x == 0)
            grid_arrive(a.barrier);
        fetch_next(i + 1);
    }
}

size_t cuda_decode_shared(void)
{
    return ALL_BYTES;
}

void cuda_decode(const struct cuda_decode *a, cudaStream_t stream)
{
    tune();
    launch_together(decode, dim3(a->blocks), CUDA_THREADS, cuda_decode_shared(), stream, *a);
}

cudaError_t cuda_decode_init(size_t shared)
{
    if (shared < cuda_decode_shared())
        return cudaSuccess; /* there are no programs for it */
    return cudaFuncSetAttribute((const void *)decode, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)cuda_decode_shared());
}
