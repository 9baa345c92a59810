/*
 * pack.cuh - single rows between their float32 form and what products read: rmsnorm and packing of
 * x by a whole block of CUDA_THREADS threads, and single elements of packed weights.
 *
 * The order of additions depends on the number of columns alone.
 */
#ifndef CUDA_PACK_CUH
#define CUDA_PACK_CUH

#include "backend/cuda/kernels.h"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/scale.cuh"

/* Rows that one block packs; in shared memory. ROWS below is 1 or CUDA_GRAPH_ROWS. */
struct pack_state {
    float sum[CUDA_GRAPH_ROWS][CUDA_WARPS], most[CUDA_GRAPH_ROWS][CUDA_WARPS];
    float scale[CUDA_GRAPH_ROWS];  /* of rmsnorm */
    float factor[CUDA_GRAPH_ROWS]; /* power of two under which fp16 holds the row */
    float back[CUDA_GRAPH_ROWS];   /* 1 / factor */
};

struct pack_source {
    const float *x;    /* [.., cols] */
    const int *order;  /* [n] which rows, NULL: the first n */
    const float *norm; /* [cols], NULL: x is taken as it is */
    float eps;
    int n, cols;
};

static __device__ __forceinline__ const float *row_of(const struct pack_source &s, int r)
{
    return s.x + (size_t)(s.order ? s.order[r] : r) * s.cols;
}

/* Entries of eight columns: uint4 from group to group, from j = 0 to 1, from t to t + 1. */
struct pack_steps {
    int group, j, row;
};

/* Columns c..c+3, zero past the last. */
static __device__ __forceinline__ float4 four_at(const float *p, int c, int cols)
{
    if (cols % 4 == 0)
        return *(const float4 *)(p + c);
    return make_float4(p[c], c + 1 < cols ? p[c + 1] : 0, c + 2 < cols ? p[c + 2] : 0,
                       c + 3 < cols ? p[c + 3] : 0);
}

static __device__ __forceinline__ float square(const float4 &v, float sum)
{
    return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}

static __device__ __forceinline__ float largest(const float4 &v, const float4 &w, float most)
{
    return fmaxf(fmaxf(fmaxf(most, fabsf(v.x * w.x)), fabsf(v.y * w.y)),
                 fmaxf(fabsf(v.z * w.z), fabsf(v.w * w.w)));
}

/* All threads of the block; ends with a barrier. */
template <int ROWS>
static __device__ __forceinline__ void pack_scales(const struct pack_source &s,
                                                   struct pack_state &state)
{
    float sum[ROWS] = {}, most[ROWS] = {};
#pragma unroll(ROWS == 1 ? 3 : 1)
    for (int c = 4 * threadIdx.x; c < s.cols; c += 4 * CUDA_THREADS) {
        float4 w = s.norm ? four_at(s.norm, c, s.cols) : make_float4(1, 1, 1, 1);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (ROWS == 1 || r < s.n) {
                float4 v = four_at(row_of(s, r), c, s.cols);
                sum[r] = square(v, sum[r]);
                most[r] = largest(v, w, most[r]);
            }
    }
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (ROWS == 1 || r < s.n) {
            sum[r] = warp_sum(sum[r]);
            most[r] = warp_max(most[r]);
            if (lane == 0) {
                state.sum[r][warp] = sum[r];
                state.most[r][warp] = most[r];
            }
        }
    __syncthreads();
    if (warp < s.n) {
        float total = warp_sum(lane < CUDA_WARPS ? state.sum[warp][lane] : 0);
        float top = warp_max(lane < CUDA_WARPS ? state.most[warp][lane] : 0);
        float scale = s.norm ? 1.0f / sqrtf(total / (float)s.cols + s.eps) : 1.0f;
        int e = exponent_for(top * scale);
        if (lane == 0) {
            state.scale[warp] = scale;
            state.factor[warp] = power_of_two(e);
            state.back[warp] = power_of_two(-e);
        }
    }
    __syncthreads();
}

/* Eight values into an entry of the high plane and, if there is one, the low. */
template <bool BF16>
static __device__ __forceinline__ void pack_eight(const float (&v)[8], uint4 *out, bool low,
                                                  size_t plane)
{
    uint32_t high_words[4], low_words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint16_t h[2], l[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            h[j] = to_16<BF16>(v[2 * i + j]);
            l[j] = to_16<BF16>(v[2 * i + j] - from_16<BF16>(h[j]));
        }
        high_words[i] = h[0] | (uint32_t)h[1] << 16;
        low_words[i] = l[0] | (uint32_t)l[1] << 16;
    }
    *out = make_uint4(high_words[0], high_words[1], high_words[2], high_words[3]);
    if (low)
        out[plane] = make_uint4(low_words[0], low_words[1], low_words[2], low_words[3]);
}

/* The rows as kernels.h packs x; `out` is row 0's, the others follow by steps.row. */
template <int ROWS>
static __device__ __forceinline__ void
pack_rows(const struct pack_source &s, const struct pack_state &state, enum cuda_layout layout,
          int groups, uint4 *out, struct pack_steps steps, size_t plane)
{
    for (int u = threadIdx.x; u < groups * 8 * s.n; u += CUDA_THREADS) {
        const int r = ROWS == 1 ? 0 : u / (groups * 8), i = ROWS == 1 ? u : u % (groups * 8);
        const float scale = state.scale[r], factor = state.factor[r];
        float v[8];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int c = i * 8 + 4 * h;
            float4 a = make_float4(0, 0, 0, 0), w = make_float4(1, 1, 1, 1);
            if (c < s.cols) {
                a = four_at(row_of(s, r), c, s.cols);
                if (s.norm)
                    w = four_at(s.norm, c, s.cols);
            }
            v[4 * h] = a.x * scale * w.x * factor;
            v[4 * h + 1] = a.y * scale * w.y * factor;
            v[4 * h + 2] = a.z * scale * w.z * factor;
            v[4 * h + 3] = a.w * scale * w.w * factor;
        }
        uint4 *at = out + i / 8 * steps.group + i % 2 * steps.j + r * steps.row + i % 8 / 2;
        if (layout == CUDA_BF16)
            pack_eight<true>(v, at, true, plane);
        else
            pack_eight<false>(v, at, layout == CUDA_F16, plane);
    }
}

/* out[2] = { x . direction, x . x }; all threads of the block, `shared` holds 32 floats. */
static __device__ __forceinline__ void meter_row(const float *x, const float *direction, int hidden,
                                                 float *shared, float *out)
{
    float along = 0, total = 0;
    for (int c = threadIdx.x; c < hidden; c += CUDA_THREADS) {
        along = fmaf(x[c], direction[c], along);
        total = fmaf(x[c], x[c], total);
    }
    along = block_sum(along, shared);
    total = block_sum(total, shared);
    if (threadIdx.x == 0) {
        out[0] = along;
        out[1] = total;
    }
}

/* ---- single elements of weights ----------------------------------------------------------------
 */

static __device__ __forceinline__ float scale_of(const struct cuda_weights &w, size_t row,
                                                 int group)
{
    size_t half = row / 16 * w.groups + group, code = half * 16 + row % 8 * 2 + row % 16 / 8;
    if (w.layout == CUDA_4BIT)
        return ((const float *)w.codes)[code];
    float nested = w.scale[(row * w.groups + group) >> w.shift];
    /* Rounded twice, as the file's own arithmetic: an absmax near zero is a difference of equals.
     */
    return __fadd_rn(__fmul_rn(w.map[((const uint8_t *)w.codes)[code]], nested), w.offset);
}

/* One element, wherever the layout put it. */
static __device__ float element(const struct cuda_weights &w, size_t row, int col)
{
    if (w.layout == CUDA_F32)
        return ((const float *)w.data)[row * w.cols + col];
    if (w.plain) {
        uint16_t bits = ((const uint16_t *)w.data)[row * w.cols + col];
        return w.layout == CUDA_F16 ? half_value(bits) : bf16_value(bits);
    }
    int group = col / 64, t = col % 64 / 16, i = col % 16 / 4, j = row % 16 / 8 + col % 4 / 2 * 2;
    size_t half = row / 16 * w.groups + group;
    size_t lane = row % 8 * 4 + t;
    if (w.layout == CUDA_F16 || w.layout == CUDA_BF16) {
        size_t at = ((half * 4 + i) * 32 + lane) * 8 + j * 2 + col % 2;
        uint16_t bits = ((const uint16_t *)w.data)[at];
        return w.layout == CUDA_F16 ? half_value(bits) : bf16_value(bits);
    }
    uint8_t byte = ((const uint8_t *)w.data)[(half * 32 + lane) * 16 + i * 4 + j];
    return w.values[col % 2 ? byte & 15 : byte >> 4] * scale_of(w, row, group);
}

#endif
