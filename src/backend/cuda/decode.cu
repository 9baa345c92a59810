/*
 * decode.cu - a whole step of at most eight rows in one kernel: one block per multiprocessor, all
 * alive together, walks through the step's phases with a barrier of the grid between them.
 *
 * Weights come through rings that know nothing of phases (stream.cuh). What is left between two
 * products is kept short: no tile is shared by two blocks, so that a product ends with plain
 * stores; where the columns are cut into parts, whoever reads the stream next adds the parts, and
 * the edits of steering with them; every warp packs the columns of x that it multiplies, straight
 * into registers; rmsnorm's factor is applied to the sums.
 *
 * The order of additions depends on the matrices and the number of blocks, not on the number of
 * rows. It is not that of the single kernels: a step gives their result, not their bits.
 */
#include "backend/cuda/decode_product.cuh"
#include "backend/cuda/rope.cuh"

/* ---- the other phases -------------------------------------------------------------------------
 */

static __device__ __forceinline__ void embed_phase(const struct cuda_decode &a,
                                                   const struct cuda_phase &phase,
                                                   const struct cuda_row *rows)
{
    const int all = gridDim.x * CUDA_THREADS;
#pragma unroll 1
    for (int i = blockIdx.x * CUDA_THREADS + threadIdx.x; i < a.n * a.hidden; i += all)
        a.x[i] = element(phase.weights, rows[i / a.hidden].token, i % a.hidden);
}

/* Rows from the last block down: attention begins with the first. */
static __device__ __forceinline__ void meter_phase(struct control &control,
                                                   const struct cuda_phase &phase)
{
    const int cols = control.a.hidden, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
    for (int r = (int)(gridDim.x - 1 - blockIdx.x); r < control.a.n; r += (int)gridDim.x) {
        float along = 0, total = 0;
#pragma unroll 1
        for (int c = warp * 4 * CUDA_GROUP + 2 * lane; c < cols; c += CUDA_WARPS * 4 * CUDA_GROUP) {
            float2 v[4], direction[4];
            load_row<0>(phase.vector, c, cols, direction);
            read_stream<0>(control, phase.in, r, c, cols, v);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                along = fmaf(v[i].x, direction[i].x, fmaf(v[i].y, direction[i].y, along));
                total = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, total));
            }
        }
        along = block_sum(along, control.reduce);
        total = block_sum(total, control.reduce);
        if (threadIdx.x == 0) {
            phase.out[0][2 * r] = along;
            phase.out[0][2 * r + 1] = total;
        }
    }
}

/* Item number i of the step's attention; false past the last. */
static __device__ __forceinline__ bool find_item(const struct cuda_attention &a,
                                                 const struct cuda_row *rows, int i,
                                                 struct attend_item *item, int *lane)
{
    const int group = a.cache.heads / a.cache.kv_heads;
    if (a.alone) { /* one split each: a query head is an item */
        const int r = i / a.cache.heads, head = i % a.cache.heads;
        if (r >= a.n)
            return false;
        *item = {r, head / group, head, 1, 0, 1, rows[r].pos, 0};
        item->cache =
            (((size_t)a.layer * a.cache.slots + rows[r].slot) * a.cache.kv_heads + item->kv_head) *
            (size_t)a.cache.context;
        *lane = 0;
        return true;
    }
    const int batches = (group + CUDA_QUERIES - 1) / CUDA_QUERIES;
    const int lanes = a.cache.kv_heads * batches;
#pragma unroll 1
    for (int r = 0; r < a.n; r++) {
        const int items = (rows[r].pos / CUDA_SPLIT + 1) * lanes;
        if (i >= items) {
            i -= items;
            continue;
        }
        *item = attend_item_of(a, rows[r], r, i % lanes / batches, i % batches);
        item->split = i / lanes;
        *lane = r * lanes + i % lanes;
        return true;
    }
    return false;
}

/* Rows of this step that lie in the item's slot and split go into the cache first. Blocks that
 * share such a position write the same values to the same place. */
static __device__ __forceinline__ void append_fresh(const struct cuda_decode &a,
                                                    const struct cuda_row *rows,
                                                    const struct attend_item &item)
{
    const struct cuda_cache &c = a.attention.cache;
#pragma unroll 1
    for (int r = 0; r < a.n; r++) {
        const int pos = rows[r].pos;
        if (rows[r].slot != rows[item.row].slot || pos / CUDA_SPLIT != item.split)
            continue;
        const size_t from = ((size_t)r * c.kv_heads + item.kv_head) * c.head_dim;
#pragma unroll 1
        for (int i = threadIdx.x; i < c.head_dim / 2; i += CUDA_THREADS)
            cache_append(c, (item.cache + (size_t)pos) * c.head_dim, i,
                         a.rope + (size_t)pos * c.head_dim, a.k + from, a.v + from);
    }
}

static __device__ __forceinline__ void
rotate_queries(const struct cuda_decode &a, const struct attend_item &item, struct attend_space &w)
{
    const struct cuda_cache &c = a.attention.cache;
    const int half = c.head_dim / 2;
    const float *rope = a.rope + (size_t)item.pos * c.head_dim;
    const float *q = a.attention.q + ((size_t)item.row * c.heads + item.head) * c.head_dim;
#pragma unroll 1
    for (int i = threadIdx.x; i < item.heads * half; i += CUDA_THREADS) {
        const int h = i / half, d = i % half;
        const float *from = q + h * c.head_dim;
        float2 turned = rotate(from[d], from[half + d], rope[d], rope[half + d]);
        w.q[h][d] = turned.x;
        w.q[h][half + d] = turned.y;
    }
}

template <int KV> static __device__ __noinline__ void attend_phase(int index)
{
    const struct shared_place at = places();
    const struct cuda_decode &a = at.control->a;
    const struct cuda_row *rows = at.control->rows;
    struct attend_space &w = *(struct attend_space *)at.scratch;
    struct cuda_attention attention = a.attention;
    struct attend_item item;
    int lane;
    attention.layer = at.control->phases[index % 2].index;
    attention.alone = at.control->alone;
#pragma unroll 1
    for (int i = blockIdx.x; find_item(attention, rows, i, &item, &lane); i += gridDim.x) {
        struct running r;
        reset(r);
        __syncthreads();
        append_fresh(a, rows, item);
        rotate_queries(a, item, w);
        TIME(index, packed);
        attend_split<KV>(w, attention.cache, item, r);
        TIME(index, run);
        if (item.splits == 1)
            attend_finish(attention, item, r);
        else
            attend_leave(w, attention, item, lane, r);
    }
}

/* ---- fetching ahead ---------------------------------------------------------------------------
 */

#define LINE 128 /* bytes */

/* K and V of the block's first item: nothing of the step under way is needed to know where. */
static __device__ __forceinline__ void fetch_cache(const struct cuda_decode &a, int layer,
                                                   const struct cuda_row *rows)
{
    struct cuda_attention attention = a.attention;
    const struct cuda_cache &c = attention.cache;
    struct attend_item item;
    int lane;
    attention.layer = layer;
    attention.alone = places().control->alone;
    if (!find_item(attention, rows, blockIdx.x, &item, &lane))
        return;
    const size_t size = c.type == CUDA_KV_HALF ? 2 : 4;
    const int positions = min(CUDA_SPLIT, item.pos - item.split * CUDA_SPLIT);
    const size_t from = (item.cache + (size_t)item.split * CUDA_SPLIT) * c.head_dim * size;
    const int bytes = positions * c.head_dim * (int)size;
#pragma unroll 1
    for (int i = threadIdx.x * LINE; i < bytes; i += CUDA_THREADS * LINE) {
        fetch((const char *)c.k + from + i);
        fetch((const char *)c.v + from + i);
    }
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

template <class T> static __device__ __forceinline__ void copy(const T *from, T *to, int n)
{
#pragma unroll 1
    for (int i = threadIdx.x; i < n * (int)(sizeof *to / 4); i += CUDA_THREADS)
        ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
}

static __device__ __forceinline__ void begin(const struct cuda_decode &a, struct control &control)
{
    if (threadIdx.x == 0) {
        control.a = a;
        control.side = grid_side(a.barrier);
    }
    copy(a.phases, control.phases, 1);
    copy(a.rows, control.rows, a.n);
    __syncthreads();
    if (threadIdx.x == 0) {
        bool alone = a.n * a.attention.cache.heads <= (int)gridDim.x;
        for (int r = 0; r < a.n; r++)
            alone = alone && control.rows[r].pos < CUDA_SPLIT;
        control.alone = alone;
    }
    if ((int)threadIdx.x < a.n && control.rows[threadIdx.x].logits >= 0)
        control.order[control.rows[threadIdx.x].logits] = threadIdx.x;
    __syncthreads();
}

static __device__ __noinline__ void run_other(int index)
{
    struct control &control = *places().control;
    const struct cuda_decode &a = control.a;
    const struct cuda_phase &phase = control.phases[index % 2];
    TIME(index, start);
    if (phase.wait)
        barrier_wait(control);
    TIME(index, released);
    if (phase.kind == CUDA_PHASE_EMBED)
        embed_phase(a, phase, control.rows);
    else if (phase.kind == CUDA_PHASE_METER)
        meter_phase(control, phase);
    else if (a.attention.cache.type == CUDA_KV_HALF)
        attend_phase<CUDA_KV_HALF>(index);
    else
        attend_phase<CUDA_KV_FLOAT>(index);
}

static __device__ __noinline__ void fetch_next(int index)
{
    struct control &control = *places().control;
    const struct cuda_phase &phase = control.phases[index % 2];
    if (phase.kind == CUDA_PHASE_ATTEND)
        fetch_cache(control.a, phase.index, control.rows);
}

static __global__ void __launch_bounds__(CUDA_THREADS, 1)
    decode(const __grid_constant__ struct cuda_decode a)
{
    const struct shared_place at = places();
    struct control &control = *at.control;
    const int warp = threadIdx.x / 32;
    TIME_BEGIN(control);
    struct cursor cursor =
        start_cursor(control.feeds[warp], ring_of(at, warp), a.phases, a.product);
    begin(a, control);
    if (shared_address(at.table) % TABLE_BYTES)
        __trap();
#pragma unroll 1
    for (int i = 0; i < a.n_phases; i++) {
        const struct cuda_phase &phase = control.phases[i % 2];
        const bool more = i + 1 < a.n_phases, mine = more && threadIdx.x < PHASE_WORDS;
        uint32_t word = 0; /* of the next phase */
        if (mine)
            word = __ldg((const uint32_t *)(a.phases + i + 1) + threadIdx.x);
        if (phase.kind == CUDA_PHASE_PRODUCT) {
            cursor = run_product(cursor, i, phase.cut);
            __syncthreads();
            finish_tiles(control, phase, at);
        } else
            run_other(i);
        if (mine)
            ((uint32_t *)&control.phases[(i + 1) % 2])[threadIdx.x] = word;
        __syncthreads();
        TIME(i, end);
        TIME_KEY(i, phase);
        if (!more)
            break;
        if (control.phases[(i + 1) % 2].wait && threadIdx.x == 0)
            grid_arrive(a.barrier);
        fetch_next(i + 1);
    }
    TIME_END();
}

size_t cuda_decode_shared(void)
{
    return ALL_BYTES;
}

void cuda_decode(const struct cuda_decode *a, cudaStream_t stream)
{
    tune();
    launch_together(decode, dim3(a->blocks), CUDA_THREADS, cuda_decode_shared(), stream, *a);
}

cudaError_t cuda_decode_init(size_t shared)
{
    if (shared < cuda_decode_shared())
        return cudaSuccess; /* there are no programs for it */
    return cudaFuncSetAttribute((const void *)decode, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)cuda_decode_shared());
}
