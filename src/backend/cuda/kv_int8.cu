/*
 * kv_int8.cu - rope and append for a KV cache of int8: rows.cu's append with a scale for each head
 * and position, for which a warp sees the whole head.
 */
#include "backend/cuda/kv.cuh"

#define THREADS 256
#define WARPS   (THREADS / 32)

static __global__ void __launch_bounds__(THREADS)
    append_int8(const __grid_constant__ struct cuda_append a)
{
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    float *q = a.q + (size_t)blockIdx.x * c.heads * c.head_dim;
    const size_t keys = (size_t)blockIdx.x * c.kv_heads * c.head_dim;
    for (int head = threadIdx.x / 32; head < c.heads + 2 * c.kv_heads; head += WARPS) {
        const bool query = head < c.heads, key = head < c.heads + c.kv_heads;
        const int at = query ? head : (head - c.heads) % c.kv_heads;
        const float *x = (query ? q : (key ? a.k : a.v) + keys) + at * c.head_dim;
        kv_append_int8(
            c, a.layer, row, rope, head, [=](int d) { return x[d]; }, q);
    }
}

void cuda_append_int8(const struct cuda_append *a, cudaStream_t stream)
{
    launch(append_int8, dim3(a->n), THREADS, 0, stream, *a);
}
