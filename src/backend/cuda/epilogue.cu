/*
 * epilogue.cu - what stands around the products of many rows: x packed before them; sums of blocks,
 * scales, bias, rope, SiLU and the residual after them. A block for each row, four columns a thread
 * at a time: all of this is bound by memory, and each value is read and written once.
 */
#include "backend/cuda/cut.cuh"
#include "backend/cuda/kv.cuh"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/rope.cuh"
#include "backend/cuda/scale.cuh"
#include "backend/cuda/tile.cuh"

#define THREADS      256
#define ROW_THREADS  1024 /* of a block that has a row for itself */
#define ROW_HELD     2    /* fours of a thread that stay in registers: 8192 columns */
#define PAIR_THREADS 1024
#define PAIR_STEPS   (CUDA_GATE_MOST / PAIR_THREADS / 4)

static __device__ __forceinline__ float most_of(float4 v)
{
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

static __device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

/* ---- packing ----------------------------------------------------------------------------------
 */

template <bool BF16>
static __device__ __forceinline__ void store_16bit(uint16_t *to, size_t plane, float4 v, bool low)
{
    const float each[4] = {v.x, v.y, v.z, v.w};
    uint32_t high_words[2], low_words[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint16_t h[2], l[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            h[j] = to_16<BF16>(each[2 * i + j]);
            l[j] = to_16<BF16>(each[2 * i + j] - from_16<BF16>(h[j]));
        }
        high_words[i] = h[0] | (uint32_t)h[1] << 16;
        low_words[i] = l[0] | (uint32_t)l[1] << 16;
    }
    *(uint2 *)to = make_uint2(high_words[0], high_words[1]);
    if (low)
        *(uint2 *)(to + plane) = make_uint2(low_words[0], low_words[1]);
}

/* Four values as a layout's products read them. */
static __device__ __forceinline__ void store_four(enum cuda_layout layout, void *out, size_t at,
                                                  size_t plane, float4 v, float factor)
{
    uint16_t *to = (uint16_t *)out + at;
    v = times(v, make_float4(factor, factor, factor, factor));
    if (layout == CUDA_BF16)
        store_16bit<true>(to, plane, v, true);
    else if (layout == CUDA_F16)
        store_16bit<false>(to, plane, v, true);
    else
        *(uint2 *)to = make_uint2(half_bits2(v.x, v.y), half_bits2(v.z, v.w));
}

/* What packing must know of a row before it begins: a thread's share of it. */
struct row_share {
    float square, most;
};

static __device__ __forceinline__ float4 normed(const struct cuda_plain &a, float4 v, int c)
{
    return a.norm ? times(v, read_four(a.norm, c, a.cols)) : v;
}

static __device__ __forceinline__ void look_at(const struct cuda_plain &a, float4 v, int c,
                                               struct row_share &share)
{
    share.square = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, share.square))));
    share.most = fmaxf(share.most, most_of(normed(a, v, c)));
}

/* Row r of out from x; all threads of the block. A thread's first fours are `held`; what else it
 * reads of x it wrote itself, if anybody of this kernel did. */
static __device__ __forceinline__ void pack_plain(const struct cuda_plain &a, const float *x, int r,
                                                  const float4 (&held)[ROW_HELD],
                                                  const struct row_share &share, float *shared)
{
    float scale = 1;
    if (a.norm)
        scale = 1.0f / sqrtf(block_sum(share.square, shared) / (float)a.cols + a.eps);
    const int e = exponent_for(block_max(share.most, shared) * scale);
    const float factor = scale * power_of_two(e);
    const size_t row = (size_t)r * a.padded, plane = (size_t)a.n * a.padded;
#pragma unroll
    for (int i = 0; i < ROW_HELD; i++) {
        const int c = 4 * (threadIdx.x + i * ROW_THREADS);
        if (c < a.padded)
            store_four(a.layout, a.out, row + c, plane, normed(a, held[i], c), factor);
    }
    for (int c = 4 * (threadIdx.x + ROW_HELD * ROW_THREADS); c < a.padded; c += 4 * ROW_THREADS)
        store_four(a.layout, a.out, row + c, plane, normed(a, read_four(x, c, a.cols), c), factor);
    if (threadIdx.x == 0)
        a.row_scale[r] = power_of_two(-e);
}

/* f(columns c..c+3) for each four of a row that is the thread's, in order; the first into `held`.
 */
template <class FUNCTION>
static __device__ __forceinline__ void each_four(int cols, float4 (&held)[ROW_HELD], FUNCTION f)
{
#pragma unroll
    for (int i = 0; i < ROW_HELD; i++) {
        const int c = 4 * (threadIdx.x + i * ROW_THREADS);
        held[i] = make_float4(0, 0, 0, 0);
        if (c < cols)
            held[i] = f(c);
    }
    for (int c = 4 * (threadIdx.x + ROW_HELD * ROW_THREADS); c < cols; c += 4 * ROW_THREADS)
        (void)f(c);
}

static __global__ void __launch_bounds__(ROW_THREADS)
    plain(const __grid_constant__ struct cuda_plain a)
{
    chain_start_next();
    chain_wait();
    __shared__ float shared[32];
    __shared__ int chosen;
    float4 held[ROW_HELD];
    struct row_share share = {};
    int from = blockIdx.x;
    if (a.rows) {
        for (int i = threadIdx.x; i < a.n_rows; i += ROW_THREADS)
            if (a.rows[i].logits == (int)blockIdx.x)
                chosen = i;
        __syncthreads();
        from = chosen;
    }
    const float *x = a.x + (size_t)from * a.cols;
    each_four(a.cols, held, [&](int c) {
        const float4 v = read_four(x, c, a.cols);
        look_at(a, v, c, share);
        return v;
    });
    pack_plain(a, x, blockIdx.x, held, share, shared);
}

void cuda_plain(const struct cuda_plain *a, cudaStream_t stream)
{
    launch_chained(plain, dim3(a->n), ROW_THREADS, 0, stream, *a);
}

/* ---- the residual -----------------------------------------------------------------------------
 */

static __device__ __forceinline__ float row_scale_of(const struct cuda_product_rows &p, int row)
{
    return p.row_scale ? p.row_scale[row] : 1.0f;
}

static __device__ __forceinline__ void write_four(float *row, int c, int cols, float4 v)
{
    if (cols % 4 == 0) {
        *(float4 *)(row + c) = v;
        return;
    }
    const float each[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (c + i < cols)
            row[c + i] = each[i];
}

static __device__ __forceinline__ float4 along(float4 v, float strength, float4 d)
{
    return make_float4(fmaf(strength, d.x, v.x), fmaf(strength, d.y, v.y), fmaf(strength, d.z, v.z),
                       fmaf(strength, d.w, v.w));
}

/* Zero past the end. */
static __device__ __forceinline__ float4 inside(float4 v, int c, int cols)
{
    return make_float4(v.x, c + 1 < cols ? v.y : 0, c + 2 < cols ? v.z : 0, c + 3 < cols ? v.w : 0);
}

static __global__ void __launch_bounds__(ROW_THREADS)
    add_rows(const __grid_constant__ struct cuda_add_rows a)
{
    chain_start_next();
    chain_wait();
    __shared__ float shared[32];
    float4 held[ROW_HELD];
    struct row_share share = {};
    float *x = a.x + (size_t)blockIdx.x * a.cols;
    const float scale = row_scale_of(a.p, blockIdx.x);
    each_four(a.cols, held, [&](int c) {
        float4 v =
            along(read_four(x, c, a.cols), scale, product_at<float4, 4>(a.p, (int)blockIdx.x, c));
#pragma unroll 1
        for (int e = 0; e < a.n_edits; e++) {
            const float strength = a.rows[blockIdx.x].strength[a.edits[e].index];
            if (strength != 0)
                v = along(v, strength, read_four(a.edits[e].direction, c, a.cols));
        }
        v = inside(v, c, a.cols);
        write_four(x, c, a.cols, v);
        look_at(a.pack, v, c, share);
        return v;
    });
    if (!a.pack.out)
        return;
    __syncthreads(); /* everyone has read the scale that may be overwritten */
    pack_plain(a.pack, x, blockIdx.x, held, share, shared);
}

void cuda_add_rows(const struct cuda_add_rows *a, cudaStream_t stream)
{
    launch_chained(add_rows, dim3(a->p.n), ROW_THREADS, 0, stream, *a);
}

struct store_args {
    struct cuda_product_rows p;
    int cols;
    float *out;
};

static __global__ void __launch_bounds__(THREADS)
    store_rows(const __grid_constant__ struct store_args a)
{
    chain_start_next();
    chain_wait();
    const int c = 4 * (blockIdx.y * THREADS + threadIdx.x);
    const float scale = row_scale_of(a.p, blockIdx.x);
    if (c < a.cols)
        write_four(a.out + (size_t)blockIdx.x * a.cols, c, a.cols,
                   times(product_at<float4>(a.p, (int)blockIdx.x, c),
                         make_float4(scale, scale, scale, scale)));
}

void cuda_store_rows(const struct cuda_product_rows *p, int cols, float *out, cudaStream_t stream)
{
    struct store_args a = {*p, cols, out};
    dim3 grid((unsigned)p->n, (unsigned)((cols + 4 * THREADS - 1) / (4 * THREADS)));
    launch_chained(store_rows, grid, THREADS, 0, stream, a);
}

/* ---- gate and up ------------------------------------------------------------------------------
 */

static __device__ __forceinline__ float gated(float gate, float up, float scale)
{
    gate *= scale;
    return gate / (1.0f + expf(-gate)) * (up * scale);
}

/* Columns past the end are zero: what products hold there may be anything. */
static __device__ __forceinline__ float4 gated_four(const struct cuda_pair_rows &a, int c,
                                                    float scale)
{
    float4 g = product_at<float4, 2>(a.p, (int)blockIdx.x, c);
    float4 u = product_at<float4, 2>(a.p, (int)blockIdx.x, a.up + c);
    return inside(make_float4(gated(g.x, u.x, scale), gated(g.y, u.y, scale),
                              gated(g.z, u.z, scale), gated(g.w, u.w, scale)),
                  c, a.cols);
}

static __global__ void __launch_bounds__(PAIR_THREADS)
    pair_rows(const __grid_constant__ struct cuda_pair_rows a)
{
    chain_start_next();
    chain_wait();
    __shared__ float shared[32];
    const float scale = row_scale_of(a.p, blockIdx.x);
    float4 v[PAIR_STEPS];
    float most = 0;
#pragma unroll
    for (int i = 0; i < PAIR_STEPS; i++) {
        const int c = 4 * (threadIdx.x + i * PAIR_THREADS);
        v[i] = c < a.cols ? gated_four(a, c, scale) : make_float4(0, 0, 0, 0);
        most = fmaxf(most, most_of(v[i]));
    }
    const int e = exponent_for(block_max(most, shared));
#pragma unroll
    for (int i = 0; i < PAIR_STEPS; i++) {
        const int c = 4 * (threadIdx.x + i * PAIR_THREADS);
        if (c < a.padded)
            store_four(a.layout, a.out, (size_t)blockIdx.x * a.padded + c, a.plane, v[i],
                       power_of_two(e));
    }
    if (threadIdx.x == 0)
        a.row_scale[blockIdx.x] = power_of_two(-e);
}

void cuda_pair_rows(const struct cuda_pair_rows *a, cudaStream_t stream)
{
    launch_chained(pair_rows, dim3(a->p.n), PAIR_THREADS, 0, stream, *a);
}

/* ---- q, k and v -------------------------------------------------------------------------------
 */

/* Element `c` of part i, scaled, with its bias. */
static __device__ __forceinline__ float part_at(const struct cuda_append_rows &a, float scale,
                                                int i, int c)
{
    float v = product_at<float>(a.p, (int)blockIdx.x, a.at[i] + c) * scale;
    return a.bias[i] ? v + a.bias[i][c] : v;
}

/* Pairs (i, i + head_dim/2) of one head, as rows.cu's append. */
static __global__ void __launch_bounds__(THREADS)
    append_rows(const __grid_constant__ struct cuda_append_rows a)
{
    chain_start_next();
    chain_wait();
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const int half = c.head_dim / 2, pairs = (c.heads + c.kv_heads) * half;
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    const float scale = row_scale_of(a.p, blockIdx.x);
    for (int p = blockIdx.y * THREADS + threadIdx.x; p < pairs; p += gridDim.y * THREADS) {
        int head = p / half, i = p % half;
        const bool query = head < c.heads;
        head -= query ? 0 : c.heads;
        int from = head * c.head_dim + i;
        const float2 turned =
            rotate(part_at(a, scale, query ? 0 : 1, from),
                   part_at(a, scale, query ? 0 : 1, from + half), rope[i], rope[half + i]);
        if (query) {
            float *q = a.q + ((size_t)blockIdx.x * c.heads + head) * c.head_dim;
            q[i] = turned.x;
            q[half + i] = turned.y;
            continue;
        }
        size_t lane = (((size_t)a.layer * c.slots + row.slot) * c.kv_heads + head) * c.context;
        size_t to = (lane + row.pos) * c.head_dim;
        cache_store(c, c.k, to + i, turned.x);
        cache_store(c, c.k, to + half + i, turned.y);
        cache_store(c, c.v, to + i, part_at(a, scale, 2, from));
        cache_store(c, c.v, to + half + i, part_at(a, scale, 2, from + half));
    }
}

/* The same for a cache of int8, a warp for each head: kv_int8.cu's append. */
static __global__ void __launch_bounds__(THREADS)
    append_rows_int8(const __grid_constant__ struct cuda_append_rows a)
{
    chain_start_next();
    chain_wait();
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    const float scale = row_scale_of(a.p, blockIdx.x);
    float *q = a.q + (size_t)blockIdx.x * c.heads * c.head_dim;
    for (int head = blockIdx.y * (THREADS / 32) + threadIdx.x / 32; head < c.heads + 2 * c.kv_heads;
         head += gridDim.y * (THREADS / 32)) {
        const int part = head < c.heads ? 0 : head < c.heads + c.kv_heads ? 1 : 2;
        const int from = (part ? (head - c.heads) % c.kv_heads : head) * c.head_dim;
        kv_append_int8(
            c, a.layer, row, rope, head, [&](int d) { return part_at(a, scale, part, from + d); },
            q);
    }
}

/* A few hundred blocks, even of few rows. */
static unsigned shares_of(int n, int items)
{
    const int most = (items + THREADS - 1) / THREADS, wanted = (256 + n - 1) / n;
    return (unsigned)(most < wanted ? most : wanted);
}

void cuda_append_rows(const struct cuda_append_rows *a, cudaStream_t stream)
{
    const struct cuda_cache *c = &a->cache;
    if (c->type == CUDA_KV_INT8)
        launch_chained(append_rows_int8,
                       dim3((unsigned)a->p.n, shares_of(a->p.n, (c->heads + 2 * c->kv_heads) * 32)),
                       THREADS, 0, stream, *a);
    else
        launch_chained(
            append_rows,
            dim3((unsigned)a->p.n, shares_of(a->p.n, (c->heads + c->kv_heads) * (c->head_dim / 2))),
            THREADS, 0, stream, *a);
}
