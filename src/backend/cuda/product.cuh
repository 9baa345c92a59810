/*
 * product.cuh - out = x * W^T for rows of x that few blocks share, bound by the reading of W.
 *
 * All chunks (32 rows x 64 columns) of all parts form one sequence, cut into equal runs, one per
 * block, and each of these into one per warp, so that every warp of the card reads the same number
 * of bytes whatever the shape. Runs begin and end in mid-tile. A tile's sum is: within a warp by
 * group; within a block by warp; then by block. Nothing is added atomically; the result depends on
 * the matrix and the number of blocks, not on time or on other rows.
 *
 * A pass has at most eight rows. Warps meet in shared memory (block_finish); only a tile cut by the
 * border of two blocks goes through `partial`, where whoever comes last adds.
 */
#ifndef CUDA_PRODUCT_CUH
#define CUDA_PRODUCT_CUH

#include "backend/cuda/format.cuh"

struct worker {
    int block, warp, lane;
    int first, last; /* chunks */
};

static __device__ __forceinline__ int block_first(const struct cuda_pass &p, int block)
{
    return block * p.quotient + (int)((unsigned)block * (unsigned)p.rest / (unsigned)p.blocks);
}

static __device__ __forceinline__ int warp_first(int first, int length, int warp)
{
    return first + length * warp / CUDA_WARPS;
}

static __device__ __forceinline__ struct worker worker_of(const struct cuda_pass &p, int block)
{
    struct worker w = {block, (int)threadIdx.x / 32, (int)threadIdx.x % 32, 0, 0};
    if (block < p.blocks) {
        int first = block_first(p, block), length = block_first(p, block + 1) - first;
        w.first = warp_first(first, length, w.warp);
        w.last = warp_first(first, length, w.warp + 1);
    }
    return w;
}

/* Part of a tile; *tile becomes the part's own. */
static __device__ __forceinline__ int find_part(const struct cuda_pass &p, int *tile)
{
    int part = 0;
    while (part + 1 < p.a.n_parts && *tile >= p.a.parts[part].weights.tiles) {
        *tile -= p.a.parts[part].weights.tiles;
        part++;
    }
    return part;
}

/* Where half m of a tile lies: which part, and which half of it. */
static __device__ __forceinline__ const struct cuda_weights &find_half(const struct cuda_pass &p,
                                                                       int tile, int m, int *half)
{
    if (p.a.finish == CUDA_PAIR) {
        *half = tile;
        return p.a.parts[m].weights;
    }
    int part = find_part(p, &tile);
    *half = 2 * tile + m;
    return p.a.parts[part].weights;
}

template <class F>
static __device__ __forceinline__ void place_tile(const struct cuda_pass &p, int tile, int lane,
                                                  struct tile_place *out)
{
#pragma unroll
    for (int m = 0; m < 2; m++) {
        int half;
        const struct cuda_weights &w = find_half(p, tile, m, &half);
        size_t at = (size_t)half * (size_t)w.groups;
        out->weights[m] = (const uint4 *)w.data + at * F::PER_GROUP + lane;
        out->codes[m] = (const char *)w.codes + (at * 16 + lane / 4 * 2) * F::CODE_BYTES;
    }
}

static __device__ __forceinline__ void place_scales(const struct cuda_pass &p, int tile, int lane,
                                                    struct tile_scales *out)
{
#pragma unroll
    for (int m = 0; m < 2; m++) {
        int half;
        const struct cuda_weights &w = find_half(p, tile, m, &half);
        out->scale[m] = w.scale;
        for (int h = 0; h < 2; h++)
            out->flat[m][h] = (half * 16 + lane / 4 + h * 8) * w.groups;
        out->offset[m] = w.offset;
    }
}

static __device__ __forceinline__ float silu(float x)
{
    return x / (1.0f + expf(-x));
}

/* Value of one (row, column of x) goes where the operation wants it. */
static __device__ __forceinline__ void put(const struct cuda_pass &p, const struct cuda_part &part,
                                           size_t row, int col, float value)
{
    float *out = part.out + (size_t)col * part.weights.rows + row;
    if (p.a.finish == CUDA_ADD) {
        *out += value;
    } else if (p.a.finish == CUDA_GATE)
        *out = silu(*out) * value;
    else
        *out = part.bias ? value + part.bias[row] : value;
}

/* Sums of rows i and i+16 of a tile, before scaling. */
static __device__ __forceinline__ void finish_two(const struct cuda_pass &p, int tile, int i,
                                                  int col, float low, float high)
{
    const float scale = p.unscale * p.a.row_scale[col];
    if (p.a.finish == CUDA_PAIR) {
        size_t row = (size_t)tile * 16 + i;
        if (row < p.a.parts[0].weights.rows)
            put(p, p.a.parts[0], row, col, silu(low * scale) * (high * scale));
        return;
    }
    const struct cuda_part &part = p.a.parts[find_part(p, &tile)];
    size_t row = (size_t)tile * 32 + i;
    if (row < part.weights.rows)
        put(p, part, row, col, low * scale);
    if (row + 16 < part.weights.rows)
        put(p, part, row + 16, col, high * scale);
}

static __device__ __forceinline__ void clear(float (&sum)[2][4])
{
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[m][i] = 0;
}

/* ---- a warp's run -----------------------------------------------------------------------------
 */

/* DEPTH chunks are on their way while one is multiplied. */
template <class F, int DEPTH> struct stream {
    typename F::chunk chunks[DEPTH];
    struct tile_place next;   /* of the chunk that is loaded next */
    struct tile_scales place; /* of the chunk that is multiplied next */
    int tile, group, next_tile, next_group;
    int groups, shift;

    __device__ __forceinline__ void load(typename F::chunk &chunk, const struct cuda_pass &p,
                                         int lane)
    {
        F::load(chunk, next, next_group);
        if (++next_group == groups) {
            next_group = 0;
            if (++next_tile < p.tiles)
                place_tile<F>(p, next_tile, lane, &next);
        }
    }

    __device__ __forceinline__ void start(const struct cuda_pass &p, const struct worker &w)
    {
        groups = p.a.parts[0].weights.groups;
        shift = p.a.parts[0].weights.shift;
        tile = next_tile = w.first / groups;
        group = next_group = w.first % groups;
        if (w.first < w.last) {
            place_tile<F>(p, tile, w.lane, &next);
            place_scales(p, tile, w.lane, &place);
        }
#pragma unroll
        for (int s = 0; s < DEPTH; s++)
            if (w.first + s < w.last)
                load(chunks[s], p, w.lane);
    }

    /* leave(tile, sum) at the end of each tile and of the run. */
    template <class LEAVE>
    __device__ __forceinline__ void run(const struct cuda_pass &p, const struct worker &w,
                                        const uint4 *table, const struct x_place &x, LEAVE leave)
    {
        float sum[2][4];
        clear(sum);
        for (int c = w.first; c < w.last;) {
#pragma unroll
            for (int s = 0; s < DEPTH; s++) {
                if (c >= w.last)
                    break;
                F::multiply(chunks[s], place, shift, table, x, group, (uint32_t)w.lane * 4, sum);
                if (c + DEPTH < w.last)
                    load(chunks[s], p, w.lane);
                c++;
                if (++group == groups || c == w.last) {
                    leave(tile, sum);
                    clear(sum);
                    group = 0;
                    tile++;
                    if (c < w.last)
                        place_scales(p, tile, w.lane, &place);
                }
            }
        }
    }
};

static __device__ __forceinline__ void fill_table(uint4 *table, const struct cuda_weights &w)
{
#pragma unroll 8
    for (int i = threadIdx.x; i < TABLE_BYTES / 16; i += CUDA_THREADS) {
        uint32_t v = i % 16 < 8 ? __ldg(w.lut + i / 16)
                     : w.map    ? __float_as_uint(__ldg(w.map + i / 16))
                                : 0;
        table[i] = make_uint4(v, v, v, v);
    }
}

/* ---- the end of a product ---------------------------------------------------------------------
 */

/* slots: shared float [CUDA_WARPS][2][32][n], the sums of a run's first and last tile. */
#define SLOTS_BYTES(n) (CUDA_WARPS * 2 * 32 * (size_t)(n) * sizeof(float))

/* A tile that was one warp's alone. Rare: kept out of the loop's code. */
static __device__ __noinline__ void finish_own(const struct cuda_pass &p, int tile,
                                               const float *mine)
{
    const int n = p.a.n;
#pragma unroll 1
    for (int at = threadIdx.x % 32; at < 16 * n; at += 32)
        finish_two(p, tile, at / n, at % n, mine[at], mine[at + 16 * n]);
}

/* A warp leaves a tile in its slot; if it was the warp's alone, it is done. */
struct leave_warp {
    const struct cuda_pass &p;
    const struct worker &w;
    float *slots;

    __device__ __forceinline__ void operator()(int tile, const float (&sum)[2][4])
    {
        const int first = tile * p.a.parts[0].weights.groups, n = p.a.n;
        float *mine = slots + (w.warp * 2 + (w.first < first)) * 32 * n;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = w.lane / 4 + i / 2 * 8, col = 2 * (w.lane % 4) + i % 2;
            if (col < n) {
                mine[row * n + col] = sum[0][i];
                mine[(row + 16) * n + col] = sum[1][i];
            }
        }
        if (w.first > first || first + p.a.parts[0].weights.groups > w.last)
            return;
        __syncwarp();
        finish_own(p, tile, mine);
        __syncwarp();
    }
};

struct block_end {
    int lo[2], hi[2]; /* blocks whose sums of the run's first and last tile are to be added here */
};

/* Block's part of a tile that begins at chunk `first`. */
static __device__ __forceinline__ float *partial_of(const struct cuda_pass &p, int block, int first)
{
    return p.a.partial + (size_t)(block * 2 + (block_first(p, block) < first)) * 32 * (size_t)p.a.n;
}

/* Which blocks share a tile; last: this block came last and must add. */
static __device__ __forceinline__ bool leave_cut_tile(const struct cuda_pass &p, int block,
                                                      int tile, int *lo, int *hi)
{
    const int groups = p.a.parts[0].weights.groups, first = tile * groups;
    *lo = *hi = block;
    while (block_first(p, *lo) > first)
        --*lo;
    while (block_first(p, *hi + 1) < first + groups)
        ++*hi;
    if (*lo == *hi || atomicAdd(p.a.counters + tile, 1) != *hi - *lo)
        return false;
    p.a.counters[tile] = 0;
    return true;
}

/* Adds what the warps of the block left; all threads, after a barrier. */
static __device__ __forceinline__ void block_finish(const struct cuda_pass &p, int block,
                                                    const float *slots, struct block_end *end)
{
    if (block >= p.blocks)
        return;
    const int groups = p.a.parts[0].weights.groups, n = p.a.n;
    const int from = block_first(p, block), to = block_first(p, block + 1), length = to - from;
    const int first_tile = from / groups, last_tile = (to - 1) / groups;
#pragma unroll 1
    for (int u = threadIdx.x; u < (last_tile - first_tile + 1) * 16 * n; u += CUDA_THREADS) {
        const int tile = first_tile + u / (16 * n), at = u % (16 * n);
        const int first = tile * groups, last = first + groups;
        float low = 0, high = 0;
        bool done = false;
#pragma unroll 4
        for (int w = 0; w < CUDA_WARPS; w++) {
            int a = warp_first(from, length, w), b = warp_first(from, length, w + 1);
            if (a == b || b <= first || a >= last)
                continue;
            done = a <= first && b >= last;
            const float *theirs = slots + (w * 2 + (a < first)) * 32 * n + at;
            low += theirs[0];
            high += theirs[16 * n];
        }
        if (done)
            continue;
        if (from <= first && last <= to) {
            finish_two(p, tile, at / n, at % n, low, high);
        } else {
            float *mine = partial_of(p, block, first) + at;
            mine[0] = low;
            mine[16 * n] = high;
        }
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x < 2) {
        int k = threadIdx.x, tile = k ? last_tile : first_tile;
        if ((k && last_tile == first_tile) ||
            !leave_cut_tile(p, block, tile, &end->lo[k], &end->hi[k]))
            end->lo[k] = -1;
    }
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < 2; k++) {
        if (end->lo[k] < 0)
            continue;
        __threadfence();
        const int tile = k ? last_tile : first_tile;
#pragma unroll 1
        for (int at = threadIdx.x; at < 16 * n; at += CUDA_THREADS) {
            float low = 0, high = 0;
#pragma unroll 1
            for (int other = end->lo[k]; other <= end->hi[k]; other++) {
                const float *theirs = partial_of(p, other, tile * groups) + at;
                low += __ldcg(theirs);
                high += __ldcg(theirs + 16 * n);
            }
            finish_two(p, tile, at / n, at % n, low, high);
        }
    }
}

#endif
