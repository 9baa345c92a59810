/*
 * attention.cuh - causal grouped-query attention of one row over one split of the KV cache, by a
 * block of CUDA_THREADS threads.
 *
 * The positions 0..pos of a row are cut into splits of CUDA_SPLIT. A split gives its maximum, its
 * sum and its weighted values; splits are merged one after the other in their order, wherever that
 * is done, so that a row's result is the same in every kernel. All query heads of a kv head (up to
 * CUDA_QUERIES) share a block: K and V are read once for them.
 */
#ifndef CUDA_ATTENTION_CUH
#define CUDA_ATTENTION_CUH

#include "backend/cuda/kv.cuh"

#define QUERY_LANES   16 /* of a score: eight dimensions each */
#define WARP_SCORES   (CUDA_SPLIT / CUDA_WARPS)
#define OWNED         (CUDA_QUERIES * CUDA_HEAD_DIM / CUDA_THREADS) /* values of a thread */
#define OWNED_HEADS   (CUDA_THREADS / CUDA_HEAD_DIM)
#define REDUCED_HEADS 2 /* at once */

struct attend_space {
    float q[CUDA_QUERIES][CUDA_HEAD_DIM];
    float weight[CUDA_QUERIES][CUDA_SPLIT];
    float most[CUDA_QUERIES], sum[CUDA_QUERIES];
    float part[REDUCED_HEADS][CUDA_WARPS][CUDA_HEAD_DIM]; /* values, by warp */
    int last;
};

/* Which work: row `row` of the step, `heads` query heads from `head` on, positions of one split. */
struct attend_item {
    int row, kv_head, head, heads, split, splits;
    int pos;
    size_t cache; /* number of the kv head's position 0 among all positions of the cache */
};

/* What has been summed so far. A thread owns dimension threadIdx.x % 128 of the query heads
 * threadIdx.x / 128 + OWNED_HEADS * j. */
struct running {
    float most[OWNED], sum[OWNED], value[OWNED];
};

static __device__ __forceinline__ int owned_head(int j)
{
    return (int)threadIdx.x / CUDA_HEAD_DIM + OWNED_HEADS * j;
}

static __device__ __forceinline__ void reset(struct running &r)
{
#pragma unroll
    for (int j = 0; j < OWNED; j++) {
        r.most[j] = -INFINITY;
        r.sum[j] = r.value[j] = 0;
    }
}

/* Adds one split's (most, sum, value) to the running ones. */
static __device__ __forceinline__ void merge(struct running &r, int j, float most, float sum,
                                             float value)
{
    float top = fmaxf(r.most[j], most);
    float old = expf(r.most[j] - top), fresh = expf(most - top);
    r.sum[j] = fmaf(r.sum[j], old, sum * fresh);
    r.value[j] = fmaf(r.value[j], old, value * fresh);
    r.most[j] = top;
}

/* Scores of the split's positions: half a warp each. */
template <int KV>
static __device__ __forceinline__ void score(struct attend_space &w, const struct cuda_cache &c,
                                             const struct attend_item &item, int positions)
{
    const int lane = threadIdx.x % 32, sub = lane % QUERY_LANES;
    const int first = (int)threadIdx.x / 32 * WARP_SCORES + lane / QUERY_LANES;
    const bool inside = sub * 8 < c.head_dim;
    const size_t start = item.cache + (size_t)item.split * CUDA_SPLIT;
    const size_t at = start * c.head_dim + sub * 8;
    const float scale = 1.0f / sqrtf((float)c.head_dim);
    if ((int)threadIdx.x / 32 * WARP_SCORES >= positions)
        return;
    float k[WARP_SCORES / 2][8] = {};
#pragma unroll
    for (int i = 0; i < WARP_SCORES / 2; i++)
        if (inside && first + 2 * i < positions)
            kv_load<KV>(c.k, at + (size_t)(first + 2 * i) * c.head_dim, k[i]);
#pragma unroll 1
    for (int h = 0; h < item.heads; h++) {
        float q[8];
#pragma unroll
        for (int d = 0; d < 8; d++)
            q[d] = inside ? w.q[h][sub * 8 + d] : 0;
#pragma unroll
        for (int i = 0; i < WARP_SCORES / 2; i++) {
            float sum = 0;
#pragma unroll
            for (int d = 0; d < 8; d++)
                sum = fmaf(k[i][d], q[d], sum);
#pragma unroll
            for (int o = QUERY_LANES / 2; o; o >>= 1)
                sum += __shfl_xor_sync(0xffffffffu, sum, o);
            if (sub == 0 && first + 2 * i < positions)
                w.weight[h][first + 2 * i] =
                    sum * kv_scale<KV>(c.k_scale, start + first + 2 * i) * scale;
        }
    }
}

/* Scores -> weights, their maximum and sum: a warp for each query head. */
static __device__ __forceinline__ void soften(struct attend_space &w, int heads, int positions)
{
    const int h = (int)threadIdx.x / 32, lane = threadIdx.x % 32;
    if (h >= heads)
        return;
    float v[CUDA_SPLIT / 32], most = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < CUDA_SPLIT / 32; i++) {
        v[i] = lane + 32 * i < positions ? w.weight[h][lane + 32 * i] : -INFINITY;
        most = fmaxf(most, v[i]);
    }
    most = warp_max(most);
#pragma unroll
    for (int i = 0; i < CUDA_SPLIT / 32; i++) {
        float e = expf(v[i] - most);
        w.weight[h][lane + 32 * i] = e;
        sum += e;
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        w.most[h] = most;
        w.sum[h] = sum;
    }
}

/* A warp's values: every sixteenth position, four dimensions a lane. */
struct values {
    float v[CUDA_SPLIT / CUDA_WARPS][4];
};

template <int KV>
static __device__ __forceinline__ void load_values(const struct cuda_cache &c,
                                                   const struct attend_item &item, int positions,
                                                   struct values &out)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, d = lane * 4;
    const size_t start = item.cache + (size_t)item.split * CUDA_SPLIT;
#pragma unroll
    for (int i = 0; i < CUDA_SPLIT / CUDA_WARPS; i++) {
        const int p = warp + i * CUDA_WARPS;
        float(&v)[4] = out.v[i];
        v[0] = v[1] = v[2] = v[3] = 0;
        if (p >= positions || d >= c.head_dim)
            continue;
        kv_load<KV>(c.v, (start + p) * c.head_dim + d, v);
        if (KV == CUDA_KV_INT8)
#pragma unroll
            for (int k = 0; k < 4; k++)
                v[k] *= kv_scale<KV>(c.v_scale, start + p);
    }
}

/* Weighted values of the warps are added and merged into `r`. Weights past the last position are
 * zero. Loops stay loops: what a step runs once is as long as its code is to fetch. */
static __device__ __forceinline__ void weigh(struct attend_space &w, const struct attend_item &item,
                                             const struct values &values, struct running &r)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int j = 0; j < OWNED; j++) {
        const int mine = owned_head(j);
#pragma unroll 1
        for (int h = j * OWNED_HEADS; h < (j + 1) * OWNED_HEADS && h < item.heads;
             h += REDUCED_HEADS) {
            __syncthreads();
#pragma unroll
            for (int i = 0; i < REDUCED_HEADS; i++) {
                float part[4] = {};
#pragma unroll
                for (int k = 0; k < CUDA_SPLIT / CUDA_WARPS; k++)
#pragma unroll
                    for (int d = 0; d < 4; d++)
                        part[d] =
                            fmaf(w.weight[h + i][warp + k * CUDA_WARPS], values.v[k][d], part[d]);
                *(float4 *)&w.part[i][warp][lane * 4] =
                    make_float4(part[0], part[1], part[2], part[3]);
            }
            __syncthreads();
            if (mine < h || mine >= h + REDUCED_HEADS || mine >= item.heads)
                continue;
            float value = 0;
#pragma unroll
            for (int i = 0; i < CUDA_WARPS; i++)
                value += w.part[mine - h][i][threadIdx.x % CUDA_HEAD_DIM];
            merge(r, j, w.most[mine], w.sum[mine], value);
        }
    }
}

/* One split into `r`; w.q holds the rotated query heads, unsynchronised. */
template <int KV>
static __device__ __forceinline__ void
attend_split(struct attend_space &w, const struct cuda_cache &c, const struct attend_item &item,
             struct running &r)
{
    const int positions = min(CUDA_SPLIT, item.pos + 1 - item.split * CUDA_SPLIT);
    struct values values;
    __syncthreads();
    load_values<KV>(c, item, positions, values); /* they travel while scores are made */
    score<KV>(w, c, item, positions);
    __syncthreads();
    soften(w, item.heads, positions);
    __syncthreads();
    weigh(w, item, values, r);
}

static __device__ __forceinline__ void attend_finish(const struct cuda_attention &a,
                                                     const struct attend_item &item,
                                                     const struct running &r)
{
    const int d = threadIdx.x % CUDA_HEAD_DIM, head_dim = a.cache.head_dim;
#pragma unroll
    for (int j = 0; j < OWNED; j++)
        if (owned_head(j) < item.heads && d < head_dim)
            a.out[((size_t)item.row * a.cache.heads + item.head + owned_head(j)) * head_dim + d] =
                r.value[j] / r.sum[j];
}

/* Leaves a split in `partial`; the block that comes last merges all. `lane`: of the item's row and
 * heads among those of the step. */
static __device__ __forceinline__ void attend_leave(struct attend_space &w,
                                                    const struct cuda_attention &a,
                                                    const struct attend_item &item, int lane,
                                                    struct running &r)
{
    const int d = threadIdx.x % CUDA_HEAD_DIM, head_dim = a.cache.head_dim, pitch = head_dim + 2;
    float *all = a.partial + (size_t)lane * a.splits * CUDA_QUERIES * pitch;
    float *mine = all + (size_t)item.split * CUDA_QUERIES * pitch;
#pragma unroll
    for (int j = 0; j < OWNED; j++) {
        const int h = owned_head(j);
        if (h >= item.heads || d >= head_dim)
            continue;
        mine[h * pitch + d] = r.value[j];
        if (d == 0) {
            mine[h * pitch + head_dim] = r.most[j];
            mine[h * pitch + head_dim + 1] = r.sum[j];
        }
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        w.last = atomicAdd(a.counters + lane, 1) == item.splits - 1;
        if (w.last)
            a.counters[lane] = 0;
    }
    __syncthreads();
    if (!w.last)
        return;
    __threadfence();
    reset(r);
#pragma unroll 4
    for (int s = 0; s < item.splits; s++)
#pragma unroll
        for (int j = 0; j < OWNED; j++) {
            const int h = owned_head(j);
            const float *from = all + ((size_t)s * CUDA_QUERIES + h) * pitch;
            if (h < item.heads && d < head_dim)
                merge(r, j, __ldcg(from + head_dim), __ldcg(from + head_dim + 1), __ldcg(from + d));
        }
    attend_finish(a, item, r);
}

/* Fills in what does not depend on the split. batch: which CUDA_QUERIES heads of the kv head. */
static __device__ __forceinline__ struct attend_item attend_item_of(const struct cuda_attention &a,
                                                                    const struct cuda_row &row,
                                                                    int index, int kv_head,
                                                                    int batch)
{
    const struct cuda_cache &c = a.cache;
    const int group = c.heads / c.kv_heads;
    struct attend_item item = {index,
                               kv_head,
                               kv_head * group + batch * CUDA_QUERIES,
                               min(CUDA_QUERIES, group - batch * CUDA_QUERIES),
                               0,
                               row.pos / CUDA_SPLIT + 1,
                               row.pos,
                               0};
    item.cache =
        (((size_t)a.layer * c.slots + row.slot) * c.kv_heads + kv_head) * (size_t)c.context;
    return item;
}

#endif
