/*
 * attention.cu - causal grouped-query attention over the KV cache.
 *
 * The positions 0..pos of a row are cut into splits of CUDA_SPLIT. A split gives its maximum, its
 * sum and its weighted values; splits are merged one after the other in their order. Few rows: one
 * block per split, whoever ends last merges. Many rows: one block walks over the splits. Both do
 * the same arithmetic in the same order, so that a row's result is the same in either. All query
 * heads of a kv head (up to CUDA_QUERIES) share a block: K and V are read once for them.
 */
#include "backend/cuda/kv.cuh"

#define THREADS CUDA_SPLIT /* one per position of a split */
#define WARPS   (THREADS / 32)
#define PAIRS   (CUDA_HEAD_DIM / 64) /* pairs of dimensions of a lane */

struct attend_args {
    struct cuda_attention a;
    int group;   /* query heads per kv head */
    int batches; /* of CUDA_QUERIES query heads */
    bool split;
};

struct workspace {
    float q[CUDA_QUERIES][CUDA_HEAD_DIM];
    float weight[CUDA_QUERIES][CUDA_SPLIT];
    float reduce[32];
    union {
        float part[WARPS][CUDA_HEAD_DIM]; /* values of one query head, by warp */
        int last;
    };
};

/* What has been summed so far for the block's query heads. */
struct running {
    float most[CUDA_QUERIES], sum[CUDA_QUERIES];
    float value[CUDA_QUERIES]; /* of dimension threadIdx.x */
};

/* Adds one split's (most, sum, value) to the running ones. */
static __device__ __forceinline__ void merge(struct running &r, int h, float most, float sum,
                                             float value)
{
    float top = fmaxf(r.most[h], most);
    float old = expf(r.most[h] - top), fresh = expf(most - top);
    r.sum[h] = fmaf(r.sum[h], old, sum * fresh);
    r.value[h] = fmaf(r.value[h], old, value * fresh);
    r.most[h] = top;
}

/* Scores of this thread's position for `heads` query heads; the dot product runs over pairs. */
template <int KV>
static __device__ __forceinline__ void score(struct workspace &w, const struct cuda_cache &c,
                                             size_t position, int heads, bool inside)
{
    const int head_dim = c.head_dim;
    const size_t at = position * head_dim;
    float sum[CUDA_QUERIES] = {};
    for (int d = 0; inside && d < head_dim; d += 2) {
        float2 pair = kv_pair<KV>(c.k, at + d);
#pragma unroll
        for (int h = 0; h < CUDA_QUERIES; h++)
            if (h < heads)
                sum[h] = fmaf(pair.y, w.q[h][d + 1], fmaf(pair.x, w.q[h][d], sum[h]));
    }
    const float scale = inside ? kv_scale<KV>(c.k_scale, position) / sqrtf((float)head_dim) : 0.0f;
    for (int h = 0; h < heads; h++)
        w.weight[h][threadIdx.x] = inside ? sum[h] * scale : -INFINITY;
}

/* Sums the split's values: warps take every eighth position, lanes the dimensions. */
template <int KV>
static __device__ __forceinline__ void
weigh(struct workspace &w, const struct cuda_cache &c, size_t first, int positions, int heads,
      const float (&most)[CUDA_QUERIES], const float (&sum)[CUDA_QUERIES], struct running &r)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head_dim = c.head_dim;
    float2 part[CUDA_QUERIES][PAIRS] = {};
    for (int p = warp; p < positions; p += WARPS)
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
            int d = 2 * (lane + 32 * j);
            if (d >= head_dim)
                continue;
            float2 pair = kv_pair<KV>(c.v, (first + p) * head_dim + d);
            float scale = kv_scale<KV>(c.v_scale, first + p);
            pair = make_float2(pair.x * scale, pair.y * scale);
#pragma unroll
            for (int h = 0; h < CUDA_QUERIES; h++)
                if (h < heads) {
                    part[h][j].x = fmaf(w.weight[h][p], pair.x, part[h][j].x);
                    part[h][j].y = fmaf(w.weight[h][p], pair.y, part[h][j].y);
                }
        }
#pragma unroll
    for (int h = 0; h < CUDA_QUERIES; h++) {
        if (h >= heads)
            continue;
        __syncthreads();
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
            int d = 2 * (lane + 32 * j);
            if (d < head_dim) {
                w.part[warp][d] = part[h][j].x;
                w.part[warp][d + 1] = part[h][j].y;
            }
        }
        __syncthreads();
        float value = 0;
        if ((int)threadIdx.x < head_dim)
            for (int i = 0; i < WARPS; i++)
                value += w.part[i][threadIdx.x];
        merge(r, h, most[h], sum[h], value);
    }
}

static __device__ __forceinline__ void reset(struct running &r)
{
#pragma unroll
    for (int h = 0; h < CUDA_QUERIES; h++) {
        r.most[h] = -INFINITY;
        r.sum[h] = r.value[h] = 0;
    }
}

template <int KV>
static __device__ __forceinline__ void one_split(struct workspace &w, const struct attend_args &p,
                                                 size_t cache, int pos, int split, int heads,
                                                 struct running &r)
{
    const int first = split * CUDA_SPLIT;
    const int positions = min(CUDA_SPLIT, pos + 1 - first);
    __syncthreads();
    score<KV>(w, p.a.cache, cache + first + threadIdx.x, heads, (int)threadIdx.x < positions);
    float most[CUDA_QUERIES], sum[CUDA_QUERIES];
#pragma unroll
    for (int h = 0; h < CUDA_QUERIES; h++)
        if (h < heads) {
            float s = w.weight[h][threadIdx.x];
            most[h] = block_max(s, w.reduce);
            float e = expf(s - most[h]);
            w.weight[h][threadIdx.x] = e;
            sum[h] = block_sum(e, w.reduce);
        }
    __syncthreads();
    weigh<KV>(w, p.a.cache, cache + first, positions, heads, most, sum, r);
}

static __device__ __forceinline__ void finish(const struct attend_args &p, const struct running &r,
                                              size_t query, int heads)
{
    const int d = threadIdx.x, head_dim = p.a.cache.head_dim;
#pragma unroll
    for (int h = 0; h < CUDA_QUERIES; h++)
        if (h < heads && d < head_dim)
            p.a.out[(query + h) * head_dim + d] = r.value[h] / r.sum[h];
}

/* Leaves this split in `partial`; true in the block that came last, for all of its threads. */
static __device__ __forceinline__ bool leave_split(struct workspace &w, const struct attend_args &p,
                                                   const struct running &r, float *partial,
                                                   int splits, int heads)
{
    const int head_dim = p.a.cache.head_dim, d = threadIdx.x;
    float *mine = partial + (size_t)blockIdx.z * CUDA_QUERIES * (head_dim + 2);
#pragma unroll
    for (int h = 0; h < CUDA_QUERIES; h++) {
        if (h >= heads)
            continue;
        if (d < head_dim)
            mine[h * (head_dim + 2) + d] = r.value[h];
        if (d == 0) {
            mine[h * (head_dim + 2) + head_dim] = r.most[h];
            mine[h * (head_dim + 2) + head_dim + 1] = r.sum[h];
        }
    }
    __threadfence();
    __syncthreads();
    int *counter = p.a.counters + blockIdx.x * gridDim.y + blockIdx.y;
    if (d == 0) {
        w.last = atomicAdd(counter, 1) == splits - 1;
        if (w.last)
            *counter = 0;
    }
    __syncthreads();
    __threadfence();
    return w.last;
}

/* grid: rows x (kv heads * batches) x splits (or 1) */
template <int KV>
static __global__ void __launch_bounds__(THREADS)
    attend(const __grid_constant__ struct attend_args p)
{
    __shared__ struct workspace w;
    const struct cuda_cache &c = p.a.cache;
    const struct cuda_row row = p.a.rows[blockIdx.x];
    const int splits = row.pos / CUDA_SPLIT + 1;
    if (p.split && (int)blockIdx.z >= splits)
        return;
    const int kv_head = blockIdx.y / p.batches, first = blockIdx.y % p.batches * CUDA_QUERIES;
    const int heads = min(CUDA_QUERIES, p.group - first);
    const size_t query = (size_t)blockIdx.x * c.heads + kv_head * p.group + first;
    const size_t cache =
        (((size_t)p.a.layer * c.slots + row.slot) * c.kv_heads + kv_head) * c.context;
    for (int i = threadIdx.x; i < heads * c.head_dim; i += THREADS)
        w.q[i / c.head_dim][i % c.head_dim] = p.a.q[query * c.head_dim + i];
    struct running r;
    reset(r);
    if (!p.split || splits == 1) {
        for (int s = 0; s < splits; s++)
            one_split<KV>(w, p, cache, row.pos, s, heads, r);
        finish(p, r, query, heads);
        return;
    }
    one_split<KV>(w, p, cache, row.pos, blockIdx.z, heads, r);
    float *partial = p.a.partial + ((size_t)blockIdx.x * gridDim.y + blockIdx.y) * p.a.splits *
                                       CUDA_QUERIES * (c.head_dim + 2);
    if (!leave_split(w, p, r, partial, splits, heads))
        return;
    reset(r);
    const int d = min((int)threadIdx.x, c.head_dim - 1);
    for (int s = 0; s < splits; s++)
#pragma unroll
        for (int h = 0; h < CUDA_QUERIES; h++)
            if (h < heads) {
                const float *from = partial + ((size_t)s * CUDA_QUERIES + h) * (c.head_dim + 2);
                merge(r, h, __ldcg(from + c.head_dim), __ldcg(from + c.head_dim + 1),
                      __ldcg(from + d));
            }
    finish(p, r, query, heads);
}

void cuda_attend(const struct cuda_attention *a, cudaStream_t stream)
{
    struct attend_args p = {*a, a->cache.heads / a->cache.kv_heads, 0, a->n <= CUDA_GRAPH_ROWS};
    p.batches = (p.group + CUDA_QUERIES - 1) / CUDA_QUERIES;
    dim3 grid(a->n, a->cache.kv_heads * p.batches, p.split ? a->splits : 1);
    if (a->cache.type == CUDA_KV_INT8)
        launch(attend<CUDA_KV_INT8>, grid, THREADS, 0, stream, p);
    else if (a->cache.type == CUDA_KV_HALF)
        launch(attend<CUDA_KV_HALF>, grid, THREADS, 0, stream, p);
    else
        launch(attend<CUDA_KV_FLOAT>, grid, THREADS, 0, stream, p);
}
