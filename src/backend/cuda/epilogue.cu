/*
 * epilogue.cu - what stands around a library's GEMM in steps of many rows: x packed to fp16 before
 * it; scales, bias, rope, SiLU and the residual after it. One block per row, four columns a thread
 * at a time: all of this is bound by memory, and each value is read and written once.
 */
#include "backend/cuda/chunk.h"
#include "backend/cuda/kv.cuh"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/rope.cuh"
#include "backend/cuda/scale.cuh"
#include "backend/cuda/tile.cuh"

#define THREADS      256
#define PAIR_THREADS 1024
#define PAIR_STEPS   (CUDA_GATE_MOST / PAIR_THREADS / 4)

static __device__ __forceinline__ uint2 pack_four(float4 v, float factor)
{
    return make_uint2(half_bits2(v.x * factor, v.y * factor),
                      half_bits2(v.z * factor, v.w * factor));
}

static __device__ __forceinline__ float most_of(float4 v)
{
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

static __device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

static __device__ __forceinline__ float4 plain_four(const struct cuda_plain &a, const float *x,
                                                    int c)
{
    float4 v = read_four(x, c, a.cols);
    return a.norm ? times(v, read_four(a.norm, c, a.cols)) : v;
}

static __global__ void __launch_bounds__(THREADS) plain(const __grid_constant__ struct cuda_plain a)
{
    __shared__ float shared[32];
    const float *x = a.x + (size_t)blockIdx.x * a.cols;
    float square = 0, most = 0, scale = 1;
    for (int c = 4 * threadIdx.x; c < a.cols; c += 4 * THREADS) {
        float4 v = read_four(x, c, a.cols);
        square = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, square))));
        most = fmaxf(most, most_of(plain_four(a, x, c)));
    }
    if (a.norm)
        scale = 1.0f / sqrtf(block_sum(square, shared) / (float)a.cols + a.eps);
    const int e = exponent_for(block_max(most, shared) * scale);
    const float factor = scale * power_of_two(e);
    uint2 *out = (uint2 *)((uint16_t *)a.out + (size_t)blockIdx.x * a.padded);
    for (int c = 4 * threadIdx.x; c < a.padded; c += 4 * THREADS)
        out[c / 4] = pack_four(plain_four(a, x, c), factor);
    if (threadIdx.x == 0)
        a.row_scale[blockIdx.x] = power_of_two(-e);
}

void cuda_plain(const struct cuda_plain *a, cudaStream_t stream)
{
    launch(plain, dim3(a->n), THREADS, 0, stream, *a);
}

struct add_args {
    struct cuda_product_rows p;
    int cols;
    float *x;
};

static __global__ void __launch_bounds__(THREADS)
    add_rows(const __grid_constant__ struct add_args a)
{
    const float *product = a.p.product + (size_t)blockIdx.x * a.p.pitch;
    float *x = a.x + (size_t)blockIdx.x * a.cols;
    const float scale = a.p.row_scale[blockIdx.x];
    for (int c = 4 * threadIdx.x; c < a.cols; c += 4 * THREADS) {
        float4 v = read_four(x, c, a.cols), d = *(const float4 *)(product + c);
        v = make_float4(fmaf(d.x, scale, v.x), fmaf(d.y, scale, v.y), fmaf(d.z, scale, v.z),
                        fmaf(d.w, scale, v.w));
        if (a.cols % 4 == 0) {
            *(float4 *)(x + c) = v;
            continue;
        }
        const float each[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (c + i < a.cols)
                x[c + i] = each[i];
    }
}

void cuda_add_rows(const struct cuda_product_rows *p, int cols, float *x, cudaStream_t stream)
{
    struct add_args a = {*p, cols, x};
    launch(add_rows, dim3(p->n), THREADS, 0, stream, a);
}

static __device__ __forceinline__ float gated(float gate, float up, float scale)
{
    gate *= scale;
    return gate / (1.0f + expf(-gate)) * (up * scale);
}

/* Columns past the end are zero: expanded weights are padded with zeros. */
static __global__ void __launch_bounds__(PAIR_THREADS)
    pair_rows(const __grid_constant__ struct cuda_pair_rows a)
{
    __shared__ float shared[32];
    const float *gate = a.p.product + (size_t)blockIdx.x * a.p.pitch, *up = gate + a.up;
    const float scale = a.p.row_scale[blockIdx.x];
    float4 v[PAIR_STEPS];
    float most = 0;
#pragma unroll
    for (int i = 0; i < PAIR_STEPS; i++) {
        const int c = 4 * (threadIdx.x + i * PAIR_THREADS);
        v[i] = make_float4(0, 0, 0, 0);
        if (c < a.cols) {
            float4 g = *(const float4 *)(gate + c), u = *(const float4 *)(up + c);
            v[i] = make_float4(gated(g.x, u.x, scale), gated(g.y, u.y, scale),
                               gated(g.z, u.z, scale), gated(g.w, u.w, scale));
            most = fmaxf(most, most_of(v[i]));
        }
    }
    const int e = exponent_for(block_max(most, shared));
    uint2 *out = (uint2 *)((uint16_t *)a.out + (size_t)blockIdx.x * a.padded);
#pragma unroll
    for (int i = 0; i < PAIR_STEPS; i++) {
        const int c = 4 * (threadIdx.x + i * PAIR_THREADS);
        if (c < a.padded)
            out[c / 4] = pack_four(v[i], power_of_two(e));
    }
    if (threadIdx.x == 0)
        a.row_scale[blockIdx.x] = power_of_two(-e);
}

void cuda_pair_rows(const struct cuda_pair_rows *a, cudaStream_t stream)
{
    launch(pair_rows, dim3(a->p.n), PAIR_THREADS, 0, stream, *a);
}

/* Element `c` of part i, scaled, with its bias. */
static __device__ __forceinline__ float part_at(const struct cuda_append_rows &a,
                                                const float *product, float scale, int i, int c)
{
    float v = product[a.at[i] + c] * scale;
    return a.bias[i] ? v + a.bias[i][c] : v;
}

/* Pairs (i, i + head_dim/2) of one head, as rows.cu's append. */
static __global__ void __launch_bounds__(THREADS)
    append_rows(const __grid_constant__ struct cuda_append_rows a)
{
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const int half = c.head_dim / 2, pairs = (c.heads + c.kv_heads) * half;
    const float *product = a.p.product + (size_t)blockIdx.x * a.p.pitch;
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    const float scale = a.p.row_scale[blockIdx.x];
    for (int p = threadIdx.x; p < pairs; p += THREADS) {
        int head = p / half, i = p % half;
        const bool query = head < c.heads;
        head -= query ? 0 : c.heads;
        int from = head * c.head_dim + i;
        const float2 turned =
            rotate(part_at(a, product, scale, query ? 0 : 1, from),
                   part_at(a, product, scale, query ? 0 : 1, from + half), rope[i], rope[half + i]);
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
        cache_store(c, c.v, to + i, part_at(a, product, scale, 2, from));
        cache_store(c, c.v, to + half + i, part_at(a, product, scale, 2, from + half));
    }
}

/* The same for a cache of int8, a warp for each head: kv_int8.cu's append. */
static __global__ void __launch_bounds__(THREADS)
    append_rows_int8(const __grid_constant__ struct cuda_append_rows a)
{
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const float *product = a.p.product + (size_t)blockIdx.x * a.p.pitch;
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    const float scale = a.p.row_scale[blockIdx.x];
    float *q = a.q + (size_t)blockIdx.x * c.heads * c.head_dim;
    for (int head = threadIdx.x / 32; head < c.heads + 2 * c.kv_heads; head += THREADS / 32) {
        const int part = head < c.heads ? 0 : head < c.heads + c.kv_heads ? 1 : 2;
        const int from = (part ? (head - c.heads) % c.kv_heads : head) * c.head_dim;
        kv_append_int8(
            c, a.layer, row, rope, head,
            [&](int d) { return part_at(a, product, scale, part, from + d); }, q);
    }
}

void cuda_append_rows(const struct cuda_append_rows *a, cudaStream_t stream)
{
    if (a->cache.type == CUDA_KV_INT8)
        launch(append_rows_int8, dim3(a->p.n), THREADS, 0, stream, *a);
    else
        launch(append_rows, dim3(a->p.n), THREADS, 0, stream, *a);
}
