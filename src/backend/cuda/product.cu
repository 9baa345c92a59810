/*
 * product.cu - products as kernels of their own: what is not a step of few rows, and float32.
 *
 * product.cuh has the cut and the arithmetic. More than eight rows do not fit into a block's shared
 * memory: each worker leaves a cut tile in `partial`, and whoever comes last adds in the same
 * order.
 */
#include "backend/cuda/product.cuh"

/* The last worker (block * CUDA_WARPS + warp) that begins at or before chunk c and is not idle. */
static __device__ __forceinline__ int find_worker(const struct cuda_pass &p, int c)
{
    long long total = (long long)p.tiles * p.a.parts[0].weights.groups;
    int block = (int)((((long long)c + 1) * p.blocks - 1) / total);
    int first = block_first(p, block), length = block_first(p, block + 1) - first;
    return block * CUDA_WARPS + ((c - first + 1) * CUDA_WARPS - 1) / length;
}

static __device__ __forceinline__ struct worker other_worker(const struct cuda_pass &p, int index)
{
    int block = index / CUDA_WARPS, warp = index % CUDA_WARPS;
    int first = block_first(p, block), length = block_first(p, block + 1) - first;
    return {block, warp, 0, warp_first(first, length, warp), warp_first(first, length, warp + 1)};
}

/* A tile of a worker in `partial`, [32 rows][CUDA_PASS_ROWS], first or last of its run. */
static __device__ __forceinline__ float *worker_partial(const struct cuda_pass &p, int index,
                                                        bool later)
{
    return p.a.partial + (size_t)(index * 2 + later) * 32 * CUDA_PASS_ROWS;
}

template <int NT> struct leave_tile {
    const struct cuda_pass &p;
    const struct worker &w;

    __device__ __forceinline__ void finish(int tile, const float (&sum)[2][NT][4])
    {
        each_sum<NT>(p.a.n, w.lane, sum, [&](int i, int col, float low, float high) {
            finish_two(p, NULL, p.a.row_scale, tile, i, col, low, high);
        });
    }

    __device__ __forceinline__ void operator()(int tile, float (&sum)[2][NT][4])
    {
        const int first = tile * p.a.parts[0].weights.groups;
        const int last = first + p.a.parts[0].weights.groups;
        if (w.first <= first && last <= w.last) {
            finish(tile, sum);
            return;
        }
        float *mine = worker_partial(p, w.block * CUDA_WARPS + w.warp, w.first < first);
        each_sum<NT>(p.a.n, w.lane, sum, [&](int i, int col, float low, float high) {
            mine[i * CUDA_PASS_ROWS + col] = low;
            mine[(i + 16) * CUDA_PASS_ROWS + col] = high;
        });
        __threadfence();
        __syncwarp();
        const int from = find_worker(p, first), to = find_worker(p, last - 1);
        int others = -1, before = 0;
        for (int o = from; o <= to; o++) {
            struct worker other = other_worker(p, o);
            others += other.first < other.last;
        }
        if (w.lane == 0)
            before = atomicAdd(p.a.counters + tile, 1);
        before = __shfl_sync(0xffffffffu, before, 0);
        if (before != others)
            return;
        __threadfence();
        if (w.lane == 0)
            p.a.counters[tile] = 0;
        each_sum<NT>(p.a.n, w.lane, sum, [&](int i, int col, float, float) {
            float total[2] = {}, block[2] = {};
            for (int o = from; o <= to; o++) {
                struct worker other = other_worker(p, o);
                if (other.first == other.last)
                    continue;
                const float *theirs =
                    worker_partial(p, o, other.first < first) + i * CUDA_PASS_ROWS + col;
                for (int h = 0; h < 2; h++) {
                    block[h] += __ldcg(theirs + h * 16 * CUDA_PASS_ROWS);
                    if (o == to || o % CUDA_WARPS == CUDA_WARPS - 1) {
                        total[h] += block[h];
                        block[h] = 0;
                    }
                }
            }
            finish_two(p, NULL, p.a.row_scale, tile, i, col, total[0], total[1]);
        });
    }
};

template <class F, int NT, int DEPTH>
static __global__ void __launch_bounds__(CUDA_THREADS, 1)
    product(const __grid_constant__ struct cuda_pass p)
{
    DYNAMIC_SHARED(uint4, table);
    float *slots = (float *)(F::TABLE ? table + TABLE_BYTES / 16 : table);
    const struct worker w = worker_of(p, blockIdx.x);
    stream<F, DEPTH> s;
    s.start(p, w);
    if (F::TABLE) {
        fill_table(table, p.a.parts[0].weights);
        __syncthreads();
    }
    const int column = NT == 1 ? min(w.lane / 4, p.a.n - 1) : w.lane / 4;
    const int groups = p.a.parts[0].weights.groups;
    const struct x_place x = {(const uint4 *)p.a.x + column * 4 + w.lane % 4, 32, 64, groups * 64,
                              p.plane};
    if constexpr (NT == 1) {
        __shared__ struct block_end end;
        s.template run<1>(p, w, table, x, leave_warp{p, w, slots, NULL, p.a.row_scale});
        __syncthreads();
        block_finish(p, blockIdx.x, slots, NULL, p.a.row_scale, &end);
    } else
        s.template run<NT>(p, w, table, x, leave_tile<NT>{p, w});
}

/* float32 weights as stored: one warp per row of W, eight rows of x at a time. */
static __global__ void product_f32(const __grid_constant__ struct cuda_pass p)
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
                put(p, part, NULL, row, first + i, sum[i] * p.a.row_scale[first + i]);
        }
    }
}

static size_t shared_bytes(bool table, int nt)
{
    return (table ? TABLE_BYTES : 0) + (nt == 1 ? SLOTS_BYTES(8) : 0);
}

template <class F, int NT, int DEPTH>
static void run(const struct cuda_pass &p, cudaStream_t stream)
{
    launch(product<F, NT, DEPTH>, dim3(p.blocks), CUDA_THREADS, shared_bytes(F::TABLE, NT), stream,
           p);
}

template <int NT> static void run_layout(const struct cuda_pass &p, cudaStream_t stream)
{
    const int ahead = NT == 1 ? 3 : 1, plain = NT == 1 ? 2 : 1;
    switch (p.a.parts[0].weights.layout) {
    case CUDA_NESTED:
        run<format_nested, NT, ahead>(p, stream);
        break;
    case CUDA_4BIT:
        run<format_4bit, NT, ahead>(p, stream);
        break;
    case CUDA_F16:
        run<format_16bit<false>, NT, plain>(p, stream);
        break;
    case CUDA_BF16:
        run<format_16bit<true>, NT, plain>(p, stream);
        break;
    case CUDA_F32:
        launch(product_f32, dim3((unsigned)((p.a.parts[0].weights.rows + 7) / 8)), 256, 0, stream,
               p);
        break;
    }
}

struct cuda_pass cuda_pass_of(const struct cuda_product *a, int first, int n)
{
    const struct cuda_weights *w = &a->parts[0].weights;
    struct cuda_pass p = {};
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
    int total = p.tiles * w->groups;
    p.blocks = total < a->blocks ? total : a->blocks;
    p.quotient = total / p.blocks;
    p.rest = total % p.blocks;
    return p;
}

void cuda_product(const struct cuda_product *a, cudaStream_t stream)
{
    for (int first = 0; first < a->n; first += CUDA_PASS_ROWS) {
        int n = a->n - first < CUDA_PASS_ROWS ? a->n - first : CUDA_PASS_ROWS;
        struct cuda_pass p = cuda_pass_of(a, first, n);
        if (n <= 8)
            run_layout<1>(p, stream);
        else
            run_layout<CUDA_PASS_ROWS / 8>(p, stream);
    }
}

template <class F, int NT, int DEPTH> static cudaError_t allow(void)
{
    return cudaFuncSetAttribute((const void *)product<F, NT, DEPTH>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)shared_bytes(F::TABLE, NT));
}

cudaError_t cuda_products_init(void)
{
    cudaError_t e = allow<format_nested, 1, 3>();
    if (!e)
        e = allow<format_nested, CUDA_PASS_ROWS / 8, 1>();
    if (!e)
        e = allow<format_4bit, 1, 3>();
    if (!e)
        e = allow<format_4bit, CUDA_PASS_ROWS / 8, 1>();
    return e;
}
