/*
 * expand.cu - 4-bit weights -> fp16 row by row, for a library's GEMM: bound by the writing.
 *
 * A thread takes half a lane's share of a group (kernels.h): eight columns of rows g and g+8, one
 * 16-byte store each, so that a warp writes whole lines of 64 columns. A weight is the map's float
 * times the block's float absmax, rounded once.
 */
#include "backend/cuda/chunk.h"
#include "backend/cuda/tile.cuh"

#define THREADS 256
#define STEPS   4                        /* groups of a thread */
#define STRIDE  (THREADS / 64)           /* groups that a block takes at once */
#define SPAN    ((size_t)STEPS * STRIDE) /* groups of a block */

struct piece {
    uint2 w;
    float scale[2]; /* of rows g and g+8 */
};

static __device__ __forceinline__ float nested_scale(const struct cuda_weights &w, uint32_t code,
                                                     size_t row, size_t group)
{
    float nested = __ldg(w.scale + ((row * w.groups + group) >> w.shift));
    return fmaf(__ldg(w.map + code), nested, w.offset);
}

/* at: half * groups + group; row: row g of the matrix. */
static __device__ __forceinline__ void load_piece(const struct cuda_weights &w, size_t at,
                                                  size_t group, size_t row, int share,
                                                  struct piece &p)
{
    p.w = __ldg((const uint2 *)w.data + at * 64 + share);
    const size_t code = at * 16 + share / 8 * 2;
    if (w.layout == CUDA_4BIT) {
        float2 scale = __ldg((const float2 *)((const float *)w.codes + code));
        p.scale[0] = scale.x;
        p.scale[1] = scale.y;
        return;
    }
    uint32_t codes = __ldg((const uint16_t *)((const uint8_t *)w.codes + code));
    size_t last = w.rows - 1; /* the tile's rows past the end have no scales */
    p.scale[0] = nested_scale(w, codes & 255, row < last ? row : last, group);
    p.scale[1] = nested_scale(w, codes >> 8, row + 8 < last ? row + 8 : last, group);
}

/* Two weights of byte `b` of a word. */
static __device__ __forceinline__ uint32_t two(const float *table, uint32_t word, int b,
                                               float scale)
{
    float even = table[(word >> (8 * b + 4) & 15) * 32], odd = table[(word >> (8 * b) & 15) * 32];
    return half_bits2(even * scale, odd * scale);
}

/* Eight columns of row g (h = 0) or g+8. */
static __device__ __forceinline__ uint4 eight(const float *table, const struct piece &p, int h)
{
    return make_uint4(two(table, p.w.x, h, p.scale[h]), two(table, p.w.x, h + 2, p.scale[h]),
                      two(table, p.w.y, h, p.scale[h]), two(table, p.w.y, h + 2, p.scale[h]));
}

/* grid: groups / SPAN x halves */
static __global__ void __launch_bounds__(THREADS)
    expand(const __grid_constant__ struct cuda_expand a)
{
    __shared__ float values[16 * 32]; /* a copy for each bank */
    const int share = threadIdx.x % 64, lane = threadIdx.x % 32;
    const size_t half = blockIdx.y, groups = a.w.groups;
    const size_t row = half * 16 + share / 8;
    const size_t first = blockIdx.x * SPAN + threadIdx.x / 64;
    const size_t width = groups * (CUDA_GROUP / 8); /* uint4 of a row */
    struct piece pieces[STEPS];
    for (int i = threadIdx.x; i < 16 * 32; i += THREADS)
        values[i] = a.w.values[i / 32] * a.scale;
    const bool inside = half * 16 < a.w.rows;
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        if (inside && first + s * STRIDE < groups)
            load_piece(a.w, half * groups + first + s * STRIDE, first + s * STRIDE, row, share,
                       pieces[s]);
    __syncthreads();
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const size_t group = first + s * STRIDE;
        if (group >= groups)
            break;
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (row + 8 * h < a.padded)
                ((uint4 *)a.out)[(row + 8 * h) * width + group * (CUDA_GROUP / 8) + share % 8] =
                    row + 8 * h < a.w.rows ? eight(values + lane, pieces[s], h)
                                           : make_uint4(0, 0, 0, 0);
    }
}

void cuda_expand(const struct cuda_expand *a, cudaStream_t stream)
{
    dim3 grid((unsigned)(((size_t)a->w.groups + SPAN - 1) / SPAN),
              (unsigned)((a->padded + 15) / 16));
    launch(expand, grid, THREADS, 0, stream, *a);
}
