/*
 * product.cu - products of few rows as kernels of their own, where a step has no program, and
 * products of float32 weights. product.cuh has the cut and the arithmetic.
 */
#include "backend/cuda/product.cuh"

template <class F, int DEPTH>
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
    __shared__ struct block_end end;
    const int column = min(w.lane / 4, p.a.n - 1);
    const struct x_place x = {(const uint4 *)p.a.x + column * 4 + w.lane % 4, p.plane};
    s.run(p, w, table, x, leave_warp{p, w, slots});
    __syncthreads();
    block_finish(p, blockIdx.x, slots, &end);
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
                put(p, part, row, first + i, sum[i] * p.a.row_scale[first + i]);
        }
    }
}

static size_t shared_bytes(bool table)
{
    return (table ? TABLE_BYTES : 0) + SLOTS_BYTES(CUDA_PASS_ROWS);
}

template <class F, int DEPTH> static void run(const struct cuda_pass &p, cudaStream_t stream)
{
    launch(product<F, DEPTH>, dim3(p.blocks), CUDA_THREADS, shared_bytes(F::TABLE), stream, p);
}

static void run_layout(const struct cuda_pass &p, cudaStream_t stream)
{
    switch (p.a.parts[0].weights.layout) {
    case CUDA_NESTED:
        run<format_nested, 3>(p, stream);
        break;
    case CUDA_4BIT:
        run<format_4bit, 3>(p, stream);
        break;
    case CUDA_F16:
        run<format_16bit<false>, 2>(p, stream);
        break;
    case CUDA_BF16:
        run<format_16bit<true>, 2>(p, stream);
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
        run_layout(cuda_pass_of(a, first, n), stream);
    }
}

template <class F, int DEPTH> static cudaError_t allow(void)
{
    return cudaFuncSetAttribute((const void *)product<F, DEPTH>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)shared_bytes(F::TABLE));
}

cudaError_t cuda_products_init(void)
{
    cudaError_t e = allow<format_nested, 3>();
    return e ? e : allow<format_4bit, 3>();
}
