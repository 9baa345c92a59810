/*
 * kv_int8.cu - rope and append for a KV cache of int8: rows.cu's append with a scale for each head
 * and position, for which a warp sees the whole head.
 */
#include "backend/cuda/kv.cuh"

#define THREADS 256
#define WARPS   (THREADS / 32)
#define SHARE   (CUDA_HEAD_DIM / 32) /* dimensions of a lane */

struct append_args {
    struct cuda_cache cache;
    int layer;
    const struct cuda_row *rows;
    const float *rope;
    float *q;
    const float *k, *v;
};

/* Dimension d of a head after rope: pairs are (i, i + head_dim/2). */
static __device__ __forceinline__ float rotated(const float *x, const float *rope, int d, int half)
{
    int i = d < half ? d : d - half;
    float cosine = rope[i], sine = rope[half + i];
    return d < half ? x[i] * cosine - x[half + i] * sine : x[half + i] * cosine + x[i] * sine;
}

static __global__ void __launch_bounds__(THREADS)
    append_int8(const __grid_constant__ struct append_args a)
{
    const struct cuda_cache &c = a.cache;
    const struct cuda_row row = a.rows[blockIdx.x];
    const float *rope = a.rope + (size_t)row.pos * c.head_dim;
    const int lane = threadIdx.x % 32, half = c.head_dim / 2;
    for (int head = threadIdx.x / 32; head < c.heads + 2 * c.kv_heads; head += WARPS) {
        float values[SHARE];
        bool query = head < c.heads, key = head < c.heads + c.kv_heads;
        int at = query ? head : key ? head - c.heads : head - c.heads - c.kv_heads;
        int heads = query ? c.heads : c.kv_heads;
        const float *x = (query ? a.q
                          : key ? a.k
                                : a.v) +
                         ((size_t)blockIdx.x * heads + at) * c.head_dim;
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            int d = lane + 32 * i;
            values[i] = d >= c.head_dim ? 0 : key ? rotated(x, rope, d, half) : x[d];
        }
        __syncwarp(); /* q is rotated in place */
        if (query) {
#pragma unroll
            for (int i = 0; i < SHARE; i++)
                if (lane + 32 * i < c.head_dim)
                    a.q[((size_t)blockIdx.x * heads + at) * c.head_dim + lane + 32 * i] = values[i];
            continue;
        }
        size_t first = (((size_t)a.layer * c.slots + row.slot) * c.kv_heads + at) * c.context;
        kv_store_int8(values, c.head_dim, first + row.pos, key ? c.k : c.v,
                      key ? c.k_scale : c.v_scale);
    }
}

void cuda_append_int8(const struct cuda_cache *cache, int layer, const struct cuda_row *rows, int n,
                      const float *rope, float *q, const float *k, const float *v,
                      cudaStream_t stream)
{
    struct append_args a = {*cache, layer, rows, rope, q, k, v};
    launch(append_int8, dim3(n), THREADS, 0, stream, a);
}
