/*
 * rows.cu - what is done to each row of a step by itself: embedding, norm and packing, rope and KV
 * append, steering edits, the meter. One block per row, so that a row never sees its neighbours.
 */
#include "backend/cuda/kernels.h"
#include "backend/cuda/pack.cuh"
#include "backend/cuda/rope.cuh"

#define THREADS 256

/* ---- packing ----------------------------------------------------------------------------------
 */

static __device__ __forceinline__ int source_row(const struct cuda_pack &a, int *shared)
{
    if (!a.rows)
        return blockIdx.x;
    for (int i = threadIdx.x; i < a.n_rows; i += CUDA_THREADS)
        if (a.rows[i].logits == (int)blockIdx.x)
            *shared = i;
    __syncthreads();
    return *shared;
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    pack(const __grid_constant__ struct cuda_pack a)
{
    __shared__ struct pack_state state;
    __shared__ int chosen;
    const int r = blockIdx.x;
    const float *x = a.x + (size_t)source_row(a, &chosen) * a.cols;
    struct pack_source s = {x, NULL, a.norm, a.eps, 1, a.cols};
    pack_scales<1>(s, state);
    if (a.layout == CUDA_F32) {
        for (int c = threadIdx.x; c < a.cols; c += CUDA_THREADS)
            ((float *)a.out)[(size_t)r * a.cols + c] =
                x[c] * state.scale[0] * (a.norm ? a.norm[c] : 1);
        if (threadIdx.x == 0)
            a.row_scale[r] = 1;
        return;
    }
    const size_t plane = (size_t)((a.n + 7) / 8) * a.groups * 64;
    uint4 *out = (uint4 *)a.out + (size_t)(r / 8) * a.groups * 64 + r % 8 * 4;
    pack_rows<1>(s, state, a.layout, a.groups, out, {64, 32, 4}, plane);
    if (threadIdx.x == 0)
        a.row_scale[r] = state.back[0];
}

void cuda_pack(const struct cuda_pack *a, cudaStream_t stream)
{
    launch(pack, dim3(a->n), CUDA_THREADS, 0, stream, *a);
}

/* ---- embedding --------------------------------------------------------------------------------
 */

struct embed_args {
    struct cuda_weights table;
    const struct cuda_row *rows;
    float *x;
};

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

static __global__ void append(const __grid_constant__ struct cuda_append a)
{
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const int half = c.head_dim / 2, pairs = (c.heads + c.kv_heads) * half;
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    for (int p = threadIdx.x; p < pairs; p += THREADS) {
        int head = p / half, i = p % half;
        if (head < c.heads) {
            float *q = a.q + ((size_t)blockIdx.x * c.heads + head) * c.head_dim;
            float2 turned = rotate(q[i], q[half + i], rope[i], rope[half + i]);
            q[i] = turned.x;
            q[half + i] = turned.y;
            continue;
        }
        head -= c.heads;
        size_t from = ((size_t)blockIdx.x * c.kv_heads + head) * c.head_dim;
        size_t lane = (((size_t)a.layer * c.slots + row.slot) * c.kv_heads + head) * c.context;
        cache_append(c, (lane + row.pos) * c.head_dim, i, rope, a.k + from, a.v + from);
    }
}

void cuda_append(const struct cuda_append *a, cudaStream_t stream)
{
    if (a->cache.type == CUDA_KV_INT8)
        cuda_append_int8(a, stream);
    else
        launch(append, dim3(a->n), THREADS, 0, stream, *a);
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
    meter_row(a.x + (size_t)blockIdx.x * a.hidden, a.direction, a.hidden, shared,
              a.out + 2 * blockIdx.x);
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
    launch(meter, dim3(n), CUDA_THREADS, 0, stream, a);
}
