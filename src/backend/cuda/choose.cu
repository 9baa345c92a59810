/*
 * choose.cu - what sampling needs of a row's logits, so that a token does not bring back all of
 * them: the largest ones, the maximum and the sum of exponentials, after the repetition penalty.
 *
 * Two passes. `scan` gives each warp's largest logit and each block's sum; the block that comes
 * last takes the CHOOSE_BEST'th largest of the warps' maxima as a bound: at least so many logits
 * are not below it, and seldom many more, because a warp's ids lie scattered over the vocabulary.
 * `gather` collects all that are not below it. The order they come in is left open: who samples
 * sorts them.
 */
#include "backend/cuda/kernels.h"
#include "backend/cuda/reduce.cuh"

#define THREADS     256
#define WARPS       (THREADS / 32)
#define CHOOSE_SPAN 512 /* ids of a block, about */

struct choose_args {
    struct cuda_choose a;
    int want; /* logits that must not be below the bound */
};

struct row_of {
    const float *logits;
    const uint32_t *seen;
    float penalty;
    int token, n_ids;
};

/* The row that wants logits as the blockIdx.y'th. All threads of the block must call. */
static __device__ __forceinline__ int find_row(const struct cuda_choose &a, int *shared)
{
    for (int i = threadIdx.x; i < a.n; i += THREADS)
        if (a.rows[i].logits == (int)blockIdx.y)
            *shared = i;
    __syncthreads();
    return *shared;
}

static __device__ __forceinline__ struct row_of row_at(const struct cuda_choose &a, int row)
{
    const struct cuda_row &r = a.rows[row];
    return {a.logits + (size_t)blockIdx.y * a.vocab, a.seen + (size_t)r.slot * a.seen_words,
            r.choice.penalty, r.token, r.choice.n_ids};
}

/* As the host's sampler penalises, bit for bit. */
static __device__ __forceinline__ float logit_of(const struct row_of &r, int id)
{
    float v = r.logits[id];
    if (r.penalty != 1 && (id == r.token || (__ldcg(r.seen + id / 32) >> (id % 32) & 1)))
        v = v > 0 ? v / r.penalty : v * r.penalty;
    return v;
}

/* The `want`th largest of n values that all threads see; every value is compared with all. */
static __device__ __forceinline__ void bound_of(const float *values, int n, int want, float *out)
{
    for (int i = threadIdx.x; i < n; i += THREADS) {
        int above = 0, level = 0;
        for (int j = 0; j < n; j++) {
            above += values[j] > values[i];
            level += values[j] == values[i];
        }
        if (above < want && above + level >= want)
            *out = values[i]; /* whoever writes writes the same */
    }
}

struct scan_space {
    float reduce[32], group[CUDA_CHOOSE_BLOCKS * WARPS];
    float most, mass;
    int row, last;
};

/* By the last block: all maxima are there. */
static __device__ __forceinline__ void sum_up(const struct choose_args &p, struct scan_space &w,
                                              float temperature, int n_ids)
{
    const int blocks = gridDim.x;
    float *groups = p.a.scratch + (size_t)blockIdx.y * CUDA_CHOOSE_SCRATCH;
    float *tops = groups + CUDA_CHOOSE_BLOCKS * WARPS, *sums = tops + CUDA_CHOOSE_BLOCKS;
    const int odd = __ldcg(p.a.odd + blockIdx.y);
    for (int i = threadIdx.x; i < blocks * WARPS; i += THREADS)
        w.group[i] = __ldcg(groups + i);
    float top = -INFINITY, sum = 0;
    if ((int)threadIdx.x < blocks) {
        top = __ldcg(tops + threadIdx.x);
        sum = __ldcg(sums + threadIdx.x);
    }
    const float most = block_max(top, w.reduce);
    const float mass = block_sum(
        temperature > 0 && sum > 0 ? sum * expf((top - most) / temperature) : 0, w.reduce);
    if (threadIdx.x == 0) {
        struct backend_candidates *out = p.a.out + blockIdx.y;
        out->max = most;
        out->mass = mass;
        out->n = odd ? INT32_MIN / 2 : 0; /* gather only adds */
        p.a.odd[blockIdx.y] = 0;
        w.most = -INFINITY;
    }
    __syncthreads();
    if (n_ids > BACKEND_CANDIDATES)
        bound_of(w.group, blocks * WARPS, p.want, &w.most);
    __syncthreads();
    if (threadIdx.x == 0)
        sums[CUDA_CHOOSE_BLOCKS] = w.most;
}

/* grid: blocks x rows that want logits */
static __global__ void __launch_bounds__(THREADS) scan(const __grid_constant__ struct choose_args p)
{
    __shared__ struct scan_space w;
    const int row = find_row(p.a, &w.row), stride = gridDim.x * THREADS;
    const struct row_of r = row_at(p.a, row);
    const float temperature = p.a.rows[row].choice.temperature;
    float *groups = p.a.scratch + (size_t)blockIdx.y * CUDA_CHOOSE_SCRATCH;
    float *tops = groups + CUDA_CHOOSE_BLOCKS * WARPS, *sums = tops + CUDA_CHOOSE_BLOCKS;
    float most = -INFINITY, sum = 0;
    int odd = 0;
    for (int id = blockIdx.x * THREADS + threadIdx.x; id < r.n_ids; id += stride) {
        float v = logit_of(r, id);
        odd |= !(fabsf(v) < INFINITY);
        most = fmaxf(most, v);
    }
    if (odd)
        atomicAdd(p.a.odd + blockIdx.y, 1);
    most = warp_max(most);
    if (threadIdx.x % 32 == 0)
        groups[blockIdx.x * WARPS + threadIdx.x / 32] = most;
    most = block_max(most, w.reduce);
    for (int id = blockIdx.x * THREADS + threadIdx.x; temperature > 0 && id < r.n_ids; id += stride)
        sum += expf((logit_of(r, id) - most) / temperature);
    sum = block_sum(sum, w.reduce);
    if (threadIdx.x == 0) {
        tops[blockIdx.x] = most;
        sums[blockIdx.x] = sum;
        if (blockIdx.x == 0 && r.penalty != 1) /* from the next step on; in this one by its id */
            atomicOr(p.a.seen + (size_t)p.a.rows[row].slot * p.a.seen_words + r.token / 32,
                     1u << (r.token % 32));
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        w.last = atomicAdd(p.a.counters + blockIdx.y, 1) == (int)gridDim.x - 1;
        if (w.last)
            p.a.counters[blockIdx.y] = 0;
    }
    __syncthreads();
    __threadfence();
    if (w.last)
        sum_up(p, w, temperature, r.n_ids);
}

static __global__ void __launch_bounds__(THREADS)
    gather(const __grid_constant__ struct choose_args p)
{
    __shared__ int shared;
    const int row = find_row(p.a, &shared), stride = gridDim.x * THREADS;
    const struct row_of r = row_at(p.a, row);
    const float bound =
        p.a.scratch[(size_t)blockIdx.y * CUDA_CHOOSE_SCRATCH + CUDA_CHOOSE_BLOCKS * (WARPS + 2)];
    struct backend_candidates *out = p.a.out + blockIdx.y;
    for (int id = blockIdx.x * THREADS + threadIdx.x; id < r.n_ids; id += stride) {
        float v = logit_of(r, id);
        if (!(v >= bound))
            continue;
        int at = atomicAdd(&out->n, 1);
        if (at >= 0 && at < BACKEND_CANDIDATES)
            out->best[at] = {v, id};
    }
}

void cuda_choose(const struct cuda_choose *a, cudaStream_t stream)
{
    int blocks = (a->vocab + CHOOSE_SPAN - 1) / CHOOSE_SPAN;
    blocks = blocks < CUDA_CHOOSE_BLOCKS ? blocks : CUDA_CHOOSE_BLOCKS;
    struct choose_args p = {*a, blocks * WARPS / 4};
    launch(scan, dim3(blocks, a->n_logits), THREADS, 0, stream, p);
    launch(gather, dim3(blocks, a->n_logits), THREADS, 0, stream, p);
}
