/*
 * product.cu - out = x * W^T for up to 32 rows of x at a time, bound by the reading of W.
 *
 * All chunks (32 rows x 64 columns) of all parts form one sequence, cut into equal runs, one per
 * warp ("worker"), so that every warp of the card reads the same number of bytes whatever the
 * shape. A run begins and ends in mid-tile: such sums go to `partial`, and whoever comes last at a
 * tile adds them in the order of the workers. Nothing waits, nothing is added atomically; the
 * result depends on the matrix and the number of workers, not on time or on other rows.
 */
#include "backend/cuda/format.cuh"

#define THREADS (CUDA_WARPS * 32)

/* What the kernels get: one pass over at most CUDA_PASS_ROWS rows. */
struct pass {
    struct cuda_product a;
    size_t plane; /* uint4 from the high to the low plane of x */
    int workers;
    int tiles;     /* of all parts; PAIR: halves of gate */
    float unscale; /* 1 / table_scale */
};

struct worker {
    int index, lane;
    int first, last; /* chunks */
};

static __device__ __forceinline__ int chunk_of(long long total, int worker, int workers)
{
    return (int)(total * worker / workers);
}

/* The last worker that begins at or before chunk c. */
static __device__ __forceinline__ int worker_of(long long total, int c, int workers)
{
    return (int)((((long long)c + 1) * workers - 1) / total);
}

/* Part of a tile; *tile becomes the part's own. */
static __device__ __forceinline__ int find_part(const struct pass &p, int *tile)
{
    int part = 0;
    while (part + 1 < p.a.n_parts && *tile >= p.a.parts[part].weights.tiles) {
        *tile -= p.a.parts[part].weights.tiles;
        part++;
    }
    return part;
}

static __device__ __forceinline__ void place_tile(const struct pass &p, int tile, int lane,
                                                  int per_group, int code_bytes,
                                                  struct tile_place *out)
{
    const bool pair = p.a.finish == CUDA_PAIR;
    int local = tile;
    int part = pair ? 0 : find_part(p, &local);
#pragma unroll
    for (int m = 0; m < 2; m++) {
        const struct cuda_weights &w = p.a.parts[pair ? m : part].weights;
        int half = pair ? tile : 2 * local + m;
        size_t at = (size_t)half * (size_t)w.groups;
        out->weights[m] = (const uint4 *)w.data + at * (size_t)per_group + lane;
        out->codes[m] = (const char *)w.codes + (at * 16 + lane / 4 * 2) * (size_t)code_bytes;
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
static __device__ __forceinline__ void put(const struct cuda_part &part, enum cuda_finish finish,
                                           size_t row, int col, float value)
{
    float *out = part.out + (size_t)col * part.weights.rows + row;
    if (finish == CUDA_ADD)
        *out += value;
    else if (finish == CUDA_GATE)
        *out = silu(*out) * value;
    else
        *out = part.bias ? value + part.bias[row] : value;
}

template <int NT>
static __device__ __forceinline__ void finish_tile(const struct pass &p, int tile, int lane,
                                                   const float (&sum)[2][NT][4])
{
    const int g = lane / 4, t = lane % 4;
    int local = tile;
    const bool pair = p.a.finish == CUDA_PAIR;
    const struct cuda_part &part = p.a.parts[pair ? 0 : find_part(p, &local)];
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int col = nt * 8 + 2 * t + i % 2;
            if (col >= p.a.n)
                continue;
            float scale = p.unscale * p.a.row_scale[col];
            if (pair) {
                size_t row = (size_t)tile * 16 + g + i / 2 * 8;
                if (row < part.weights.rows)
                    put(part, CUDA_STORE, row, col,
                        silu(sum[0][nt][i] * scale) * (sum[1][nt][i] * scale));
            } else
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    size_t row = (size_t)local * 32 + m * 16 + g + i / 2 * 8;
                    if (row < part.weights.rows)
                        put(part, p.a.finish, row, col, sum[m][nt][i] * scale);
                }
        }
}

/* The lane's own places in a partial tile, [32 rows][NT * 8 columns]. */
template <int NT> static __device__ __forceinline__ int partial_at(int lane, int m, int nt, int i)
{
    int row = m * 16 + lane / 4 + i / 2 * 8, col = nt * 8 + 2 * (lane % 4) + i % 2;
    return row * (NT * 8) + col;
}

template <int NT> static __device__ __forceinline__ bool partial_has(int n, int lane, int nt, int i)
{
    return nt * 8 + 2 * (lane % 4) + i % 2 < n;
}

/* Ends the worker's stay at a tile, in which it summed chunks of [tile's first, tile's last). */
template <int NT>
static __device__ __forceinline__ void leave_tile(const struct pass &p, const struct worker &w,
                                                  long long total, int tile, float (&sum)[2][NT][4])
{
    const int groups = p.a.parts[0].weights.groups;
    const int pitch = 32 * NT * 8;
    int from = worker_of(total, tile * groups, p.workers);
    int to = worker_of(total, (tile + 1) * groups - 1, p.workers);
    if (from != to) {
        float *mine = p.a.partial +
                      (size_t)(w.index * 2 + (tile == w.first / groups ? 0 : 1)) * (size_t)pitch;
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (partial_has<NT>(p.a.n, w.lane, nt, i))
                        mine[partial_at<NT>(w.lane, m, nt, i)] = sum[m][nt][i];
        __threadfence();
        __syncwarp();
        int before = 0;
        if (w.lane == 0)
            before = atomicAdd(p.a.counters + tile, 1);
        before = __shfl_sync(0xffffffffu, before, 0);
        if (before != to - from)
            return;
        __threadfence();
        if (w.lane == 0)
            p.a.counters[tile] = 0;
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[m][nt][i] = 0;
        for (int other = from; other <= to; other++) {
            int slot = tile == chunk_of(total, other, p.workers) / groups ? 0 : 1;
            const float *theirs = p.a.partial + (size_t)(other * 2 + slot) * (size_t)pitch;
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int nt = 0; nt < NT; nt++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (partial_has<NT>(p.a.n, w.lane, nt, i))
                            sum[m][nt][i] += __ldcg(theirs + partial_at<NT>(w.lane, m, nt, i));
        }
    }
    finish_tile<NT>(p, tile, w.lane, sum);
}

static __device__ __forceinline__ void fill_table(uint4 *table, const uint32_t *lut,
                                                  const float *map)
{
#pragma unroll 8
    for (int i = threadIdx.x; i < TABLE_BYTES / 16; i += THREADS) {
        uint32_t v = i % 16 < 8 ? __ldg(lut + i / 16)
                     : map      ? __float_as_uint(__ldg(map + i / 16))
                                : 0;
        table[i] = make_uint4(v, v, v, v);
    }
}

/* DEPTH chunks are on their way while one is multiplied. */
template <class F, int NT, int DEPTH, int PER_GROUP, int CODE_BYTES>
static __global__ void __launch_bounds__(THREADS, 1) product(const __grid_constant__ struct pass p)
{
    DYNAMIC_SHARED(uint4, table);
    const int groups = p.a.parts[0].weights.groups, shift = p.a.parts[0].weights.shift;
    const int lane = threadIdx.x % 32;
    const long long total = (long long)p.tiles * groups;
    struct worker w = {(int)(blockIdx.x * CUDA_WARPS + threadIdx.x / 32), lane, 0, 0};
    if (w.index < p.workers) {
        w.first = chunk_of(total, w.index, p.workers);
        w.last = chunk_of(total, w.index + 1, p.workers);
    }
    int tile = w.first / groups, group = w.first % groups;
    int next_tile = tile, next_group = group;
    struct tile_place place, next;
    if (w.first < w.last)
        place_tile(p, tile, lane, PER_GROUP, CODE_BYTES, &place);
    next = place;
    typename F::chunk chunks[DEPTH];
    auto load_next = [&](typename F::chunk &chunk) {
        F::load(chunk, next, next_group, shift);
        if (++next_group == groups) {
            next_group = 0;
            next_tile++;
            if (next_tile < p.tiles)
                place_tile(p, next_tile, lane, PER_GROUP, CODE_BYTES, &next);
        }
    };
#pragma unroll
    for (int s = 0; s < DEPTH; s++)
        if (w.first + s < w.last)
            load_next(chunks[s]);
    if (F::TABLE) {
        fill_table(table, p.a.parts[0].weights.lut, p.a.parts[0].weights.map);
        __syncthreads();
    }
    const uint32_t lane4 = lane * 4;
    const int column = NT == 1 ? min(lane / 4, p.a.n - 1) : lane / 4;
    const uint4 *x = (const uint4 *)p.a.x + column * 4 + lane % 4;
    float sum[2][NT][4] = {};
    for (int c = w.first; c < w.last;) {
#pragma unroll
        for (int s = 0; s < DEPTH; s++) {
            if (c >= w.last)
                break;
            F::template multiply<NT>(chunks[s], place, table, x + group * 64, groups * 64, p.plane,
                                     p.a.n, lane4, sum);
            if (c + DEPTH < w.last)
                load_next(chunks[s]);
            c++;
            if (++group == groups || c == w.last) {
                leave_tile<NT>(p, w, total, tile, sum);
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int nt = 0; nt < NT; nt++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            sum[m][nt][i] = 0;
                group = 0;
                tile++;
                if (c < w.last)
                    place_tile(p, tile, lane, PER_GROUP, CODE_BYTES, &place);
            }
        }
    }
}

/* float32 weights as stored: one warp per row of W, eight rows of x at a time. */
static __global__ void product_f32(const __grid_constant__ struct pass p)
{
    const struct cuda_part &part = p.a.parts[0];
    const size_t row = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32, cols = (int)part.weights.cols;
    if (row >= part.weights.rows)
        return;
    const float *weights = (const float *)part.weights.data + row * part.weights.cols;
    for (int first = 0; first < p.a.n; first += 8) {
        float sum[8] = {};
        for (int c = lane; c < cols; c += 32) {
            float v = weights[c];
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (first + i < p.a.n)
                    sum[i] =
                        fmaf(v, ((const float *)p.a.x)[(size_t)(first + i) * cols + c], sum[i]);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int o = 16; o; o >>= 1)
                sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], o);
            if (lane == 0 && first + i < p.a.n)
                put(part, p.a.finish, row, first + i, sum[i] * p.a.row_scale[first + i]);
        }
    }
}

template <class F, int NT, int DEPTH, int PER_GROUP, int CODE_BYTES>
static void run(const struct pass &p, cudaStream_t stream)
{
    int blocks = (p.workers + CUDA_WARPS - 1) / CUDA_WARPS;
    launch(product<F, NT, DEPTH, PER_GROUP, CODE_BYTES>, dim3(blocks), THREADS,
           F::TABLE ? TABLE_BYTES : 0, stream, p);
}

template <int NT> static void run_layout(const struct pass &p, cudaStream_t stream)
{
    const int ahead = NT == 1 ? 3 : 1, plain = NT == 1 ? 2 : 1;
    switch (p.a.parts[0].weights.layout) {
    case CUDA_NESTED:
        run<format_nested, NT, ahead, 32, 1>(p, stream);
        break;
    case CUDA_4BIT:
        run<format_4bit, NT, ahead, 32, 4>(p, stream);
        break;
    case CUDA_F16:
        run<format_16bit<false>, NT, plain, 128, 0>(p, stream);
        break;
    case CUDA_BF16:
        run<format_16bit<true>, NT, plain, 128, 0>(p, stream);
        break;
    case CUDA_F32:
        launch(product_f32, dim3((unsigned)((p.a.parts[0].weights.rows + 7) / 8)), 256, 0, stream,
               p);
        break;
    }
}

/* Rows [first, first+n) of x. */
static struct pass pass_of(const struct cuda_product *a, int first, int n)
{
    const struct cuda_weights *w = &a->parts[0].weights;
    struct pass p = {};
    p.a = *a;
    p.a.n = n;
    p.a.row_scale = a->row_scale + first;
    for (int i = 0; i < a->n_parts; i++) {
        p.a.parts[i].out += (size_t)first * a->parts[i].weights.rows;
        p.tiles += a->parts[i].weights.tiles;
    }
    if (w->layout == CUDA_F32)
        p.a.x = (const float *)a->x + (size_t)first * w->cols;
    else
        p.a.x = (const uint4 *)a->x + (size_t)(first / 8) * (size_t)w->groups * 64;
    p.plane = (size_t)((a->n + 7) / 8) * (size_t)w->groups * 64;
    if (a->finish == CUDA_PAIR)
        p.tiles = (int)((w->rows + 15) / 16);
    p.unscale = w->layout == CUDA_NESTED || w->layout == CUDA_4BIT ? 1.0f / w->table_scale : 1.0f;
    long long total = (long long)p.tiles * w->groups, most = (long long)a->blocks * CUDA_WARPS;
    p.workers = (int)(total < most ? total : most);
    return p;
}

void cuda_product(const struct cuda_product *a, cudaStream_t stream)
{
    for (int first = 0; first < a->n; first += CUDA_PASS_ROWS) {
        int n = a->n - first < CUDA_PASS_ROWS ? a->n - first : CUDA_PASS_ROWS;
        struct pass p = pass_of(a, first, n);
        if (n <= 8)
            run_layout<1>(p, stream);
        else
            run_layout<CUDA_PASS_ROWS / 8>(p, stream);
    }
}

template <class F, int NT, int DEPTH, int PER_GROUP, int CODE_BYTES> static cudaError_t allow(void)
{
    return cudaFuncSetAttribute((const void *)product<F, NT, DEPTH, PER_GROUP, CODE_BYTES>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, TABLE_BYTES);
}

cudaError_t cuda_kernels_init(void)
{
    cudaError_t e = allow<format_nested, 1, 3, 32, 1>();
    if (!e)
        e = allow<format_nested, CUDA_PASS_ROWS / 8, 1, 32, 1>();
    if (!e)
        e = allow<format_4bit, 1, 3, 32, 4>();
    if (!e)
        e = allow<format_4bit, CUDA_PASS_ROWS / 8, 1, 32, 4>();
    return e;
}
