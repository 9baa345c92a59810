/*
 * attention.cu - attention as a kernel of its own. Few rows: one block per split, whoever ends last
 * merges. Many rows: one block walks over the splits. See attention.cuh.
 */
#include "backend/cuda/attention.cuh"

struct attend_args {
    struct cuda_attention a;
    int batches; /* of CUDA_QUERIES query heads */
    bool split;
};

/* grid: rows x (kv heads * batches) x splits (or 1) */
template <int KV>
static __global__ void __launch_bounds__(CUDA_THREADS)
    attend(const __grid_constant__ struct attend_args p)
{
    __shared__ struct attend_space w;
    const struct cuda_cache &c = p.a.cache;
    struct attend_item item = attend_item_of(p.a, p.a.rows[blockIdx.x], blockIdx.x,
                                             blockIdx.y / p.batches, blockIdx.y % p.batches);
    if (p.split && (int)blockIdx.z >= item.splits)
        return;
    const float *q = p.a.q + ((size_t)item.row * c.heads + item.head) * c.head_dim;
    for (int i = threadIdx.x; i < item.heads * c.head_dim; i += CUDA_THREADS)
        w.q[i / c.head_dim][i % c.head_dim] = q[i];
    struct running r;
    reset(r);
    if (!p.split || item.splits == 1) {
        for (; item.split < item.splits; item.split++)
            attend_split<KV>(w, c, item, r);
        attend_finish(p.a, item, r);
        return;
    }
    item.split = blockIdx.z;
    attend_split<KV>(w, c, item, r);
    attend_leave(w, p.a, item, blockIdx.x * gridDim.y + blockIdx.y, r);
}

void cuda_attend(const struct cuda_attention *a, cudaStream_t stream)
{
    int group = a->cache.heads / a->cache.kv_heads;
    struct attend_args p = {*a, (group + CUDA_QUERIES - 1) / CUDA_QUERIES, a->n <= CUDA_GRAPH_ROWS};
    dim3 grid(a->n, a->cache.kv_heads * p.batches, p.split ? a->splits : 1);
    if (a->cache.type == CUDA_KV_INT8)
        launch(attend<CUDA_KV_INT8>, grid, CUDA_THREADS, 0, stream, p);
    else if (a->cache.type == CUDA_KV_HALF)
        launch(attend<CUDA_KV_HALF>, grid, CUDA_THREADS, 0, stream, p);
    else
        launch(attend<CUDA_KV_FLOAT>, grid, CUDA_THREADS, 0, stream, p);
}
