/*
 * decode_product.cuh - a product as a phase of a whole step. See decode.cu.
 *
 * Every warp packs the columns of x that it multiplies, straight into registers, and walks over the
 * block's tiles with what its ring brings (stream.cuh); its sums meet those of the other warps in
 * shared memory, as many tiles at a time as there is room for.
 */
#ifndef CUDA_DECODE_PRODUCT_CUH
#define CUDA_DECODE_PRODUCT_CUH

#include "backend/cuda/decode.cuh"
#include "backend/cuda/pack.cuh"
#include "backend/cuda/product.cuh"

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

/* What a warp has for the tiles of a product. */
struct product_place {
    const struct cuda_phase *phases;
    struct feed &feed;
    char *ring;
    int group; /* its first */
    uint32_t lookup;
};

/* Sums of one tile, for all rows: to `mine`, where the lane's first lies. */
template <class F, int GROUPS>
static __device__ __forceinline__ void
multiply_tile(struct cursor &cursor, const struct product_place &w, const struct cuda_run &cut,
              int tile, int n, const struct held_x (&x)[GROUPS], const float (&back)[2],
              float *mine)
{
    const int lane = threadIdx.x % 32;
    int m;
    float sum[4] = {0, 0, 0, 0};
    const int own = find_tile(cut, tile, &m);
    const struct tile_of t = {w.phases, cut, w.group, own, cut.offset[m], w.lookup};
    multiply_loads<F, GROUPS, 0>(cursor, w.feed, w.ring, t, x, sum);
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
    const struct product_place w = {control.a.phases, control.feeds[warp], ring_of(at, warp),
                                    s.group, shared_address(at.table) | (uint32_t)lane * 4};
    const int room = WARP_SUMS / (16 * n) & ~1;
    for (int from = s.first; from < s.last; from += room) {
        const int to = min(from + room, s.last);
        float *mine = sums + lane / 4 * n + 2 * (lane % 4);
#pragma unroll 1
        for (int tile = from; tile < to; tile++, mine += 16 * n) {
            multiply_tile<F, GROUPS>(cursor, w, p.cut, tile, n, x, back, mine);
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

#endif
