/*
 * flash.cu - causal grouped-query attention of many rows over an fp16 KV cache, in tiles.
 *
 * A block takes up to 64 or 128 pairs of a row and a query head, all of one slot and one kv head,
 * and walks over the positions, 64 at a time: scores, running maximum and sum, weighted values
 * (Dao et al., FlashAttention-2, 2023). q is cut into two fp16 parts whose sum has 22 bits: Qwen2's
 * large biases of k make scores in which fp16's own rounding of q would show. Weights are rounded
 * to fp16 where they meet the values, all sums are in float32. A row meets the same tiles in the
 * same order whoever shares its block, so that its bits depend on its own q and cache alone.
 *
 * Where few rows meet long caches, blocks share the positions: each takes `split` of them and
 * leaves its sums, and merge adds those up, in order. A row of which one block saw all positions
 * gets the same bits either way.
 *
 * K of the next tile is on its way while this one's values are summed, V of this tile while its
 * scores are made: one buffer of each is enough.
 */
#include "backend/cuda/chunk.h"
#include "backend/cuda/tile.cuh"

#define THREADS 128
#define WARPS   (THREADS / 32)
#define KEYS    64 /* positions of a step */

/* Pairs that a block takes; a warp has M/16 tiles of sixteen. */
#define PAIRS(MT) (WARPS * 16 * (MT))

template <int W> static size_t shared_bytes(int pairs)
{
    return ((size_t)2 * pairs + 2 * KEYS) * W * sizeof(uint16_t);
}

struct block {
    struct cuda_tile tile;
    int first, last; /* positions of the block's share; large tiles (MT 2) are not shared */
    int group, head_dim;
    size_t cache; /* element of position 0 */
    int kv_head;
};

/* The row of the step and the query head that pair i stands for; false past the end. */
static __device__ __forceinline__ bool pair_of(const struct cuda_flash &a, const struct block &b,
                                               int i, int *row, int *head)
{
    const int r = i / b.group;
    if (r >= b.tile.count)
        return false;
    *row = a.order[b.tile.first + r];
    *head = b.kv_head * b.group + i % b.group;
    return true;
}

/* q times the scale of scores and log2(e), as two parts. A thread has the same eight dimensions of
 * several pairs, so that their loads are on their way together. */
template <int W, int MT>
static __device__ __forceinline__ void fill_q(const struct cuda_flash &a, const struct block &b,
                                              uint16_t *high, uint16_t *low)
{
    const float factor = 1.44269504088896f / sqrtf((float)b.head_dim);
    const int chunk = threadIdx.x % (W / 8), first = threadIdx.x / (W / 8);
    const int stride = THREADS / (W / 8), batch = 4;
    for (int at = first; at < PAIRS(MT); at += batch * stride) {
        float4 v[batch][2];
#pragma unroll
        for (int i = 0; i < batch; i++) {
            int row, head;
            const bool inside =
                pair_of(a, b, at + i * stride, &row, &head) && chunk * 8 < b.head_dim;
#pragma unroll
            for (int j = 0; j < 2; j++)
                v[i][j] =
                    inside ? *(const float4 *)(a.q +
                                               ((size_t)row * a.cache.heads + head) * b.head_dim +
                                               chunk * 8 + 4 * j)
                           : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < batch; i++) {
            uint32_t h[4], l[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float4 &four = v[i][j / 2];
                const float x = (j % 2 ? four.z : four.x) * factor;
                const float y = (j % 2 ? four.w : four.y) * factor;
                const uint16_t hx = half_bits(x), hy = half_bits(y);
                h[j] = hx | (uint32_t)hy << 16;
                l[j] = half_bits2(x - half_value(hx), y - half_value(hy));
            }
            *(uint4 *)(high + tile_at<W>(at + i * stride, chunk)) =
                make_uint4(h[0], h[1], h[2], h[3]);
            *(uint4 *)(low + tile_at<W>(at + i * stride, chunk)) =
                make_uint4(l[0], l[1], l[2], l[3]);
        }
    }
}

/* Positions first..first+63 of k or v; zeros past the block's last, where the cache may hold
 * anything. */
template <int W>
static __device__ __forceinline__ void fetch(const struct block &b, const void *cache, int first,
                                             uint16_t *to)
{
#pragma unroll
    for (int i = threadIdx.x; i < KEYS * (W / 8); i += THREADS) {
        const int p = i / (W / 8), chunk = i % (W / 8);
        const bool inside = first + p <= b.last && chunk * 8 < b.head_dim;
        const size_t at = b.cache + (size_t)(first + p) * b.head_dim + chunk * 8;
        async_copy(to + tile_at<W>(p, chunk), (const uint16_t *)cache + (inside ? at : b.cache),
                   inside);
    }
    async_commit();
}

template <int W, int MT>
static __device__ __forceinline__ void score(const uint16_t *high, const uint16_t *low,
                                             const uint16_t *k, float (&s)[MT][KEYS / 8][4])
{
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * MT;
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int nt = 0; nt < KEYS / 8; nt++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[mt][nt][i] = 0;
#pragma unroll
    for (int kk = 0; kk < W / 16; kk++) {
        uint32_t h[MT][4], l[MT][4];
#pragma unroll
        for (int mt = 0; mt < MT; mt++) {
            const int at = tile_at<W>(first + mt * 16 + lane % 16, kk * 2 + lane / 16);
            load_fragments(h[mt], high + at);
            load_fragments(l[mt], low + at);
        }
#pragma unroll
        for (int np = 0; np < KEYS / 16; np++) {
            uint32_t b[4];
            load_fragments(
                b, k + tile_at<W>(np * 16 + lane / 16 * 8 + lane % 8, kk * 2 + lane / 8 % 2));
#pragma unroll
            for (int mt = 0; mt < MT; mt++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    mma_f16(s[mt][2 * np + i], l[mt], b[2 * i], b[2 * i + 1]);
                    mma_f16(s[mt][2 * np + i], h[mt], b[2 * i], b[2 * i + 1]);
                }
        }
    }
}

/* What a warp has summed: of its sixteens of pairs, rows lane/4 (h = 0) and lane/4 + 8. */
template <int W, int MT> struct sums {
    float value[MT][W / 8][4], most[MT][2], sum[MT][2]; /* sum: of the lane's own columns */
    int pos[MT][2];
};

/* Scores become weights; what was summed under a smaller maximum is scaled down. */
template <int W, int MT>
static __device__ __forceinline__ void weigh(struct sums<W, MT> &r, float (&s)[MT][KEYS / 8][4],
                                             int first)
{
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = r.most[mt][h], sum = 0;
            if (first + KEYS - 1 > r.pos[mt][h]) {
#pragma unroll
                for (int nt = 0; nt < KEYS / 8; nt++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        if (first + nt * 8 + 2 * t + i > r.pos[mt][h])
                            s[mt][nt][2 * h + i] = -INFINITY;
            }
#pragma unroll
            for (int nt = 0; nt < KEYS / 8; nt++)
                most = fmaxf(most, fmaxf(s[mt][nt][2 * h], s[mt][nt][2 * h + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            const float base =
                MT == 1 && most == -INFINITY ? 0 : most; /* nothing seen yet: all weights 0 */
            const float old = exp2f(r.most[mt][h] - base);
            r.most[mt][h] = most;
#pragma unroll
            for (int nt = 0; nt < KEYS / 8; nt++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    /* Divided by the sum of what it is multiplied as: rounding then only shifts
                     * weight between positions. */
                    float w = half_value(half_bits(exp2f(s[mt][nt][2 * h + i] - base)));
                    s[mt][nt][2 * h + i] = w;
                    sum += w;
                }
            r.sum[mt][h] = fmaf(r.sum[mt][h], old, sum);
#pragma unroll
            for (int nt = 0; nt < W / 8; nt++) {
                r.value[mt][nt][2 * h] *= old;
                r.value[mt][nt][2 * h + 1] *= old;
            }
        }
}

template <int W, int MT>
static __device__ __forceinline__ void
add_values(struct sums<W, MT> &r, const float (&s)[MT][KEYS / 8][4], const uint16_t *v)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int kk = 0; kk < KEYS / 16; kk++) {
        uint32_t p[MT][4];
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[mt][i] = half_bits2(s[mt][2 * kk + i / 2][i % 2 * 2],
                                      s[mt][2 * kk + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int np = 0; np < W / 16; np++) {
            uint32_t b[4];
            load_transposed(
                b, v + tile_at<W>(kk * 16 + lane / 8 % 2 * 8 + lane % 8, np * 2 + lane / 16));
#pragma unroll
            for (int mt = 0; mt < MT; mt++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    mma_f16(r.value[mt][2 * np + i], p[mt], b[2 * i], b[2 * i + 1]);
        }
    }
}

template <int W, int MT>
static __device__ __forceinline__ void begin_sums(const struct cuda_flash &a, const struct block &b,
                                                  struct sums<W, MT> &r)
{
    const int first = threadIdx.x / 32 * 16 * MT + threadIdx.x % 32 / 4;
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row, head;
            r.most[mt][h] = -INFINITY;
            r.sum[mt][h] = 0;
            r.pos[mt][h] =
                pair_of(a, b, first + mt * 16 + h * 8, &row, &head) ? a.rows[row].pos : b.tile.last;
#pragma unroll
            for (int nt = 0; nt < W / 8; nt++)
                r.value[mt][nt][2 * h] = r.value[mt][nt][2 * h + 1] = 0;
        }
}

/* What a split left of a row's head: values, their maximum and the sum of weights. */
static __device__ __forceinline__ float *sums_of(const struct cuda_flash &a, int split, int row,
                                                 int head)
{
    return a.partial +
           (((size_t)split * a.n + row) * a.cache.heads + head) * (size_t)(a.cache.head_dim + 2);
}

static __device__ __forceinline__ void put_two(const struct cuda_flash &a, int row, int head, int d,
                                               float x, float y)
{
    const int head_dim = a.cache.head_dim;
    if (a.out)
        *(float2 *)(a.out + ((size_t)row * a.cache.heads + head) * head_dim + d) =
            make_float2(x, y);
    else
        *(uint32_t *)((uint16_t *)a.half_out + (size_t)row * a.pitch + head * head_dim + d) =
            half_bits2(x, y);
}

template <int W, int MT>
static __device__ __forceinline__ void finish(const struct cuda_flash &a, const struct block &b,
                                              const struct sums<W, MT> &r)
{
    const int first = threadIdx.x / 32 * 16 * MT + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row, head;
            float sum = r.sum[mt][h];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            const float over = 1.0f / sum;
            if (!pair_of(a, b, first + mt * 16 + h * 8, &row, &head))
                continue;
            float *left = MT == 1 && a.splits > 1 ? sums_of(a, blockIdx.z, row, head) : NULL;
            if (left && t == 0) {
                left[b.head_dim] = r.most[mt][h];
                left[b.head_dim + 1] = sum;
            }
#pragma unroll
            for (int nt = 0; nt < W / 8; nt++) {
                const int d = nt * 8 + 2 * t;
                const float x = r.value[mt][nt][2 * h] * over;
                const float y = r.value[mt][nt][2 * h + 1] * over;
                if (d >= b.head_dim)
                    continue;
                if (left)
                    *(float2 *)(left + d) =
                        make_float2(r.value[mt][nt][2 * h], r.value[mt][nt][2 * h + 1]);
                else
                    put_two(a, row, head, d, x, y);
            }
        }
}

/* grid: kv heads x tiles x splits */
template <int W, int MT>
static __global__ void __launch_bounds__(THREADS) flash(const __grid_constant__ struct cuda_flash a)
{
    DYNAMIC_SHARED(uint4, shared);
    chain_start_next();
    chain_wait();
    uint16_t *high = (uint16_t *)shared, *low = high + PAIRS(MT) * W;
    uint16_t *k = low + PAIRS(MT) * W, *v = k + KEYS * W;
    const struct cuda_cache &c = a.cache;
    struct block b = {a.tiles[blockIdx.y], 0, 0, c.heads / c.kv_heads, c.head_dim, 0,
                      (int)blockIdx.x};
    b.last = b.tile.last;
    if (MT == 1) {
        b.first = (int)blockIdx.z * a.split;
        b.last = min(b.last, b.first + a.split - 1);
        if (b.first > b.last)
            return;
    }
    b.cache = (((size_t)a.layer * c.slots + b.tile.slot) * c.kv_heads + b.kv_head) * c.context *
              c.head_dim;
    fetch<W>(b, c.k, b.first, k);
    fill_q<W, MT>(a, b, high, low);
    struct sums<W, MT> r;
    begin_sums<W, MT>(a, b, r);
    for (int first = b.first; first <= b.last; first += KEYS) {
        float s[MT][KEYS / 8][4];
        async_wait<0>();
        __syncthreads(); /* K is here; nobody reads the V before this one any more */
        fetch<W>(b, c.v, first, v);
        score<W, MT>(high, low, k, s);
        async_wait<0>();
        __syncthreads(); /* V is here; nobody reads this K any more */
        if (first + KEYS <= b.last)
            fetch<W>(b, c.k, first + KEYS, k);
        weigh<W, MT>(r, s, first);
        add_values<W, MT>(r, s, v);
    }
    finish<W, MT>(a, b, r);
}

/* grid: heads x rows; a thread for two dimensions. */
static __global__ void __launch_bounds__(CUDA_HEAD_DIM / 2)
    merge(const __grid_constant__ struct cuda_flash a)
{
    chain_start_next();
    chain_wait();
    const int head = blockIdx.x, row = blockIdx.y, head_dim = a.cache.head_dim;
    const int d = 2 * threadIdx.x, splits = a.rows[row].pos / a.split + 1;
    float most = -INFINITY, sum = 0, x = 0, y = 0;
    if (d >= head_dim)
        return;
    for (int i = 0; i < splits; i++)
        most = fmaxf(most, sums_of(a, i, row, head)[head_dim]);
#pragma unroll 4
    for (int i = 0; i < splits; i++) {
        const float *left = sums_of(a, i, row, head);
        const float weight = exp2f(left[head_dim] - most);
        const float2 v = *(const float2 *)(left + d);
        sum = fmaf(left[head_dim + 1], weight, sum);
        x = fmaf(v.x, weight, x);
        y = fmaf(v.y, weight, y);
    }
    const float over = 1.0f / sum;
    put_two(a, row, head, d, x * over, y * over);
}

template <int W, int MT> static void run(const struct cuda_flash *a, cudaStream_t stream)
{
    dim3 grid((unsigned)a->cache.kv_heads, (unsigned)a->n_tiles, (unsigned)a->splits);
    launch_chained(flash<W, MT>, grid, THREADS, shared_bytes<W>(PAIRS(MT)), stream, *a);
}

void cuda_flash(const struct cuda_flash *a, cudaStream_t stream)
{
    if (a->cache.head_dim <= 64)
        a->wide ? run<64, 2>(a, stream) : run<64, 1>(a, stream);
    else
        a->wide ? run<128, 2>(a, stream) : run<128, 1>(a, stream);
    if (a->splits > 1)
        launch_chained(merge, dim3((unsigned)a->cache.heads, (unsigned)a->n), CUDA_HEAD_DIM / 2, 0,
                       stream, *a);
}

template <int W, int MT> static cudaError_t allow(void)
{
    return cudaFuncSetAttribute((const void *)flash<W, MT>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)shared_bytes<W>(PAIRS(MT)));
}

cudaError_t cuda_flash_init(void)
{
    cudaError_t e = allow<64, 1>();
    if (!e)
        e = allow<64, 2>();
    if (!e)
        e = allow<128, 1>();
    return e ? e : allow<128, 2>();
}
