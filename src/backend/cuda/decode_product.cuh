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

/* One row of x, columns 2*lane, +1 of the warp's groups, of which `most` is the largest, into the
 * lanes that hold it. Returns what a sum is to be multiplied by. */
template <class F, int GROUPS>
static __device__ __forceinline__ float pack_row(const float2 (&v)[GROUPS], float most, int r,
                                                 uint32_t *packed, struct held_x (&x)[GROUPS])
{
    const int lane = threadIdx.x % 32;
    const int e = exponent_for(most);
    const float factor = power_of_two(e);
#pragma unroll
    for (int plane = 0; plane < (F::TWO_PLANES ? 2 : 1); plane++) {
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            const float low = v[i].x * factor, high = v[i].y * factor;
            uint32_t both = two_16<F::BF16>(low, high);
            if (plane)
                both = two_16<F::BF16>(low - from_16<F::BF16>((uint16_t)both),
                                       high - from_16<F::BF16>((uint16_t)(both >> 16)));
            packed[i * 32 + lane] = both;
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
        read_stream<GROUPS - 1>(control, p.in, row, c, cols, v);
        if (p.keep && blockIdx.x == 0)
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                const int at = c + i * CUDA_GROUP;
                if (at < cols)
                    *(float2 *)(p.keep + (size_t)row * cols + at) = v[i];
            }
        float square = 0, most = 0;
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            square = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, square));
            v[i].x *= norm[i].x;
            v[i].y *= norm[i].y;
            most = fmaxf(most, fmaxf(fabsf(v[i].x), fabsf(v[i].y)));
        }
        warp_sum_max(square, most);
        if (lane == 0)
            control.square[r][warp] = square;
        const float scale = pack_row<F>(v, most, r, packed, x);
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (2 * (lane % 4) + i == r)
                back[i] = scale;
    }
}

static __device__ __forceinline__ float norm_factor(const struct control &control,
                                                    const struct cuda_phase &p, int r)
{
    const float4 *squares = (const float4 *)control.square[r];
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 0; w < CUDA_WARPS / 4; w++) {
        const float4 v = squares[w];
        total = make_float4(total.x + v.x, total.y + v.y, total.z + v.z, total.w + v.w);
    }
    const float sum = total.x + total.y + (total.z + total.w);
    return rsqrtf(sum / (float)(int)p.weights.cols + control.a.eps);
}

/* Of all warps. */
static __device__ __forceinline__ float add_sums(const float *first)
{
    float v[CUDA_WARPS];
#pragma unroll
    for (int w = 0; w < CUDA_WARPS; w++)
        v[w] = first[w * WARP_SUMS];
#pragma unroll
    for (int step = CUDA_WARPS / 2; step; step /= 2)
#pragma unroll
        for (int w = 0; w < step; w++)
            v[w] += v[w + step];
    return v[0];
}

/* Adds what the warps left of the tiles from control.from on; all threads, after a barrier. What is
 * here is done by few threads while the others wait: it must be short. */
static __device__ __forceinline__ void finish_tiles(const struct control &control,
                                                    const struct cuda_phase &p,
                                                    const struct shared_place &at)
{
    const float *sums = (const float *)at.scratch;
    const int n = p.n, pair = p.cut.pair, from = control.from;
    const struct share s = share_of(p.cut, 0);
    const int outputs = (min(p.room, s.last - from) >> pair) * n * 16;
#pragma unroll 1
    for (int u = threadIdx.x; u < outputs; u += CUDA_THREADS) {
        const int unit = (u >> 4) * p.inverse >> 16, r = (u >> 4) - unit * n;
        const float *mine = sums + u + (pair ? unit * n * 16 : 0);
        float value = add_sums(mine);
        int m;
        const int row = find_tile(p.cut, from + (unit << pair), &m) * 16 + (u & 15);
        if (row >= p.rows[m])
            continue;
        const float scale = p.vector ? p.unscale * norm_factor(control, p, r) : p.unscale;
        float *out = p.out[m] + s.part * p.out_pitch + (size_t)r * p.rows[m] + row;
        value *= scale;
        if (p.finish == CUDA_PAIR)
            *out = silu(value) * (add_sums(mine + 16 * n) * scale);
        else if (p.finish == CUDA_GATE)
            *out = silu(*out) * value;
        else
            *out = p.bias[m] ? value + p.bias[m][row] : value;
    }
}

/* Between two lots of tiles. */
static __device__ __noinline__ void finish_some(int index)
{
    const struct shared_place at = places();
    finish_tiles(*at.control, at.control->phases[index % 2], at);
}

/* Of the tiles before `to` all sums are there: adds them and waits, or leaves that for the end. */
static __device__ __forceinline__ void end_lot(struct control &control, int index, int to,
                                               bool last)
{
    if (last)
        return;
    __syncthreads();
    finish_some(index);
    __syncthreads();
    if (threadIdx.x == 0)
        control.from = to;
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
            mine[16 * i] = sum[i] * back[i];
            mine[16 * i + 8] = sum[2 + i] * back[i];
        }
}

/* GROUPS: of this warp. Warps of one block may have different ones: all pass the same barriers. The
 * last sums are left to be added. */
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
        float2 norm[GROUPS];
#pragma unroll
        for (int i = 0; i < GROUPS; i++)
            norm[i] = make_float2(1, 1);
        if (p.vector)
            load_row<GROUPS - 1>(p.vector, s.group * CUDA_GROUP + 2 * lane, (int)p.weights.cols,
                                 norm);
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
    if (threadIdx.x == 0)
        control.from = s.first;
#pragma unroll 1
    for (int from = s.first; from < s.last; from += p.room) {
        const int to = min(from + p.room, s.last);
        float *mine = sums + 32 * (lane % 4) + lane / 4;
#pragma unroll 1
        for (int tile = from; tile < to; tile++, mine += 16 * n) {
            multiply_tile<F, GROUPS>(cursor, w, p.cut, tile, n, x, back, mine);
        }
        TIME(index, run);
        end_lot(control, index, to, to == s.last);
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
        control.square[lane][warp] = 0;
#pragma unroll 1
    for (int i = lane; i < WARP_SUMS; i += 32)
        sums[i] = 0;
    if (threadIdx.x == 0)
        control.from = s.first;
#pragma unroll 1
    for (int from = s.first; from < s.last; from += p.room) {
        end_lot(control, index, from + p.room, from + p.room >= s.last);
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
