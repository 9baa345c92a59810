/*
 * rows.cu - what is done to each row of a step by itself: embedding, norm and packing, rope and KV
 * append, steering edits, the meter. One block per row, so that a row never sees its neighbours.
 */
#include "backend/cuda/kernels.h"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/scale.cuh"

#define THREADS 256

/* ---- packing ----------------------------------------------------------------------------------
 */

template <bool BF16> static __device__ __forceinline__ uint16_t to_16(float v)
{
    return BF16 ? bf16_bits(v) : half_bits(v);
}

template <bool BF16> static __device__ __forceinline__ float from_16(uint16_t v)
{
    return BF16 ? bf16_value(v) : half_value(v);
}

struct source {
    const float *x, *norm;
    float scale; /* of rmsnorm */
};

static __device__ __forceinline__ float value_at(const struct source &s, int c)
{
    return s.norm ? s.x[c] * s.scale * s.norm[c] : s.x[c];
}

/* Eight columns from c on into entry `at` of the high plane and, if there is one, the low. */
template <bool BF16>
static __device__ __forceinline__ void pack_eight(const struct cuda_pack &a, const struct source &s,
                                                  int c, float factor, uint4 *out, size_t plane)
{
    uint32_t high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint16_t h[2], l[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int at = c + 2 * i + j;
            float v = at < a.cols ? value_at(s, at) * factor : 0;
            h[j] = to_16<BF16>(v);
            l[j] = to_16<BF16>(v - from_16<BF16>(h[j]));
        }
        high[i] = h[0] | (uint32_t)h[1] << 16;
        low[i] = l[0] | (uint32_t)l[1] << 16;
    }
    *out = make_uint4(high[0], high[1], high[2], high[3]);
    if (a.layout == CUDA_F16 || a.layout == CUDA_BF16)
        out[plane] = make_uint4(low[0], low[1], low[2], low[3]);
}

static __device__ __forceinline__ int source_row(const struct cuda_pack &a, int *shared)
{
    if (!a.rows)
        return blockIdx.x;
    for (int i = threadIdx.x; i < a.n_rows; i += THREADS)
        if (a.rows[i].logits == (int)blockIdx.x)
            *shared = i;
    __syncthreads();
    return *shared;
}

static __global__ void __launch_bounds__(THREADS) pack(const __grid_constant__ struct cuda_pack a)
{
    __shared__ float shared[32];
    __shared__ int chosen;
    const int r = blockIdx.x;
    struct source s = {a.x + (size_t)source_row(a, &chosen) * a.cols, a.norm, 1};
    if (a.norm) {
        float sum = 0;
        for (int c = threadIdx.x; c < a.cols; c += THREADS)
            sum = fmaf(s.x[c], s.x[c], sum);
        s.scale = 1.0f / sqrtf(block_sum(sum, shared) / (float)a.cols + a.eps);
    }
    if (a.layout == CUDA_F32) {
        for (int c = threadIdx.x; c < a.cols; c += THREADS)
            ((float *)a.out)[(size_t)r * a.cols + c] = value_at(s, c);
        if (threadIdx.x == 0)
            a.row_scale[r] = 1;
        return;
    }
    float most = 0;
    for (int c = threadIdx.x; c < a.cols; c += THREADS)
        most = fmaxf(most, fabsf(value_at(s, c)));
    const int e = exponent_for(block_max(most, shared));
    const float factor = power_of_two(e);
    const size_t plane = (size_t)((a.n + 7) / 8) * a.groups * 64;
    uint4 *out = (uint4 *)a.out + (size_t)(r / 8) * a.groups * 64;
    for (int i = threadIdx.x; i < a.groups * 8; i += THREADS) {
        int group = i / 8, t = i % 8 / 2, j = i % 2;
        uint4 *at = out + group * 64 + j * 32 + r % 8 * 4 + t;
        if (a.layout == CUDA_BF16)
            pack_eight<true>(a, s, i * 8, factor, at, plane);
        else
            pack_eight<false>(a, s, i * 8, factor, at, plane);
    }
    if (threadIdx.x == 0)
        a.row_scale[r] = power_of_two(-e);
}

void cuda_pack(const struct cuda_pack *a, cudaStream_t stream)
{
    launch(pack, dim3(a->n), THREADS, 0, stream, *a);
}

/* ---- embedding --------------------------------------------------------------------------------
 */

struct embed_args {
    struct cuda_weights table;
    const struct cuda_row *rows;
    float *x;
};

static __device__ __forceinline__ float scale_of(const struct cuda_weights &w, size_t row,
                                                 int group)
{
    size_t half = row / 16 * w.groups + group, code = half * 16 + row % 8 * 2 + row % 16 / 8;
    if (w.layout == CUDA_4BIT)
        return ((const float *)w.codes)[code];
    float nested = w.scale[(row * w.groups + group) >> w.shift];
    return fmaf(w.map[((const uint8_t *)w.codes)[code]], nested, w.offset);
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

static __global__ void embed(const __grid_constant__ struct embed_args a)
{
    size_t token = a.rows[blockIdx.x].token;
    for (int c = threadIdx.x; c < (int)a.table.cols; c += THREADS)
        a.x[(size_t)blockIdx.x * a.table.cols + c] = element(a.table, token, c);
}

void cuda_embed(const struct cuda_weights *table, const struct cuda_row *rows, int n, float *x,
                cudaStream_t stream)
{
    struct embed_args a = {*table, rows, x};
    launch(embed, dim3(n), THREADS, 0, stream, a);
}

/* ---- rope and KV append -----------------------------------------------------------------------
 */

struct append_args {
    struct cuda_cache cache;
    int layer;
    const struct cuda_row *rows;
    const float *rope;
    float *q;
    const float *k, *v;
};

static __device__ __forceinline__ void store(const struct cuda_cache &c, void *cache, size_t at,
                                             float value)
{
    if (c.type == CUDA_KV_HALF)
        ((uint16_t *)cache)[at] = half_bits(value);
    else
        ((float *)cache)[at] = value;
}

/* Pairs (i, i + head_dim/2) of one head, as Hugging Face's Qwen2 rotates them. */
static __global__ void append(const __grid_constant__ struct append_args a)
{
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const int half = c.head_dim / 2, pairs = (c.heads + c.kv_heads) * half;
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    for (int p = threadIdx.x; p < pairs; p += THREADS) {
        int head = p / half, i = p % half;
        float cosine = rope[i], sine = rope[half + i];
        if (head < c.heads) {
            float *q = a.q + ((size_t)blockIdx.x * c.heads + head) * c.head_dim;
            float x = q[i], y = q[half + i];
            q[i] = x * cosine - y * sine;
            q[half + i] = y * cosine + x * sine;
            continue;
        }
        head -= c.heads;
        size_t from = ((size_t)blockIdx.x * c.kv_heads + head) * c.head_dim;
        size_t lane = (((size_t)a.layer * c.slots + row.slot) * c.kv_heads + head) * c.context;
        size_t to = (lane + row.pos) * c.head_dim;
        float x = a.k[from + i], y = a.k[from + half + i];
        store(c, c.k, to + i, x * cosine - y * sine);
        store(c, c.k, to + half + i, y * cosine + x * sine);
        store(c, c.v, to + i, a.v[from + i]);
        store(c, c.v, to + half + i, a.v[from + half + i]);
    }
}

void cuda_append(const struct cuda_cache *cache, int layer, const struct cuda_row *rows, int n,
                 const float *rope, float *q, const float *k, const float *v, cudaStream_t stream)
{
    if (cache->type == CUDA_KV_INT8) {
        cuda_append_int8(cache, layer, rows, n, rope, q, k, v, stream);
        return;
    }
    struct append_args a = {*cache, layer, rows, rope, q, k, v};
    launch(append, dim3(n), THREADS, 0, stream, a);
}

/* ---- steering ---------------------------------------------------------------------------------
 */

struct steer_args {
    const struct cuda_row *rows;
    int index, hidden;
    const float *direction;
    float *x, *out;
};

static __global__ void edit(const __grid_constant__ struct steer_args a)
{
    float strength = a.rows[blockIdx.x].strength[a.index];
    if (strength == 0)
        return;
    float *x = a.x + (size_t)blockIdx.x * a.hidden;
    for (int c = threadIdx.x; c < a.hidden; c += THREADS)
        x[c] = fmaf(strength, a.direction[c], x[c]);
}

static __global__ void meter(const __grid_constant__ struct steer_args a)
{
    __shared__ float shared[32];
    const float *x = a.x + (size_t)blockIdx.x * a.hidden;
    float along = 0, square = 0;
    for (int c = threadIdx.x; c < a.hidden; c += THREADS) {
        along = fmaf(x[c], a.direction[c], along);
        square = fmaf(x[c], x[c], square);
    }
    along = block_sum(along, shared);
    square = block_sum(square, shared);
    if (threadIdx.x == 0) {
        a.out[2 * blockIdx.x] = along;
        a.out[2 * blockIdx.x + 1] = square;
    }
}

void cuda_edit(const struct cuda_row *rows, int n, int index, const float *direction, int hidden,
               float *x, cudaStream_t stream)
{
    struct steer_args a = {rows, index, hidden, direction, x, NULL};
    launch(edit, dim3(n), THREADS, 0, stream, a);
}

void cuda_meter(const float *x, int n, int hidden, const float *direction, float *out,
                cudaStream_t stream)
{
    struct steer_args a = {NULL, 0, hidden, direction, (float *)x, out};
    launch(meter, dim3(n), THREADS, 0, stream, a);
}
