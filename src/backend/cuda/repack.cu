/*
 * repack.cu - weights as the checkpoint stores them -> the layouts of kernels.h, on the device.
 * One thread writes one uint4; rows past the end become zero.
 */
#include "backend/cuda/kernels.h"
#include "backend/cuda/ptx.cuh"

#define THREADS 256

static __device__ __forceinline__ uint4 words_of(const uint32_t (&v)[4])
{
    return make_uint4(v[0], v[1], v[2], v[3]);
}

/* e: [half][group][lane] within the piece. cols is a multiple of 64. */
static __device__ uint4 gather_4bit(const struct cuda_repack &a, size_t e)
{
    const size_t lane = e % 32, group = e / 32 % a.groups, half = e / 32 / a.groups;
    uint32_t out[4] = {};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            size_t row = half * 16 + lane / 4 + j % 2 * 8;
            size_t byte = group * 32 + lane % 4 * 8 + i * 2 + j / 2;
            if (row < a.rows)
                out[i] |= (uint32_t)((const uint8_t *)a.raw)[row * (a.cols / 2) + byte] << (8 * j);
        }
    return words_of(out);
}

/* e: [half][group][step][lane] */
static __device__ uint4 gather_16bit(const struct cuda_repack &a, size_t e)
{
    const size_t lane = e % 32, step = e / 32 % 4, group = e / 128 % a.groups;
    const size_t half = e / 128 / a.groups;
    uint32_t out[4] = {};
    for (int j = 0; j < 4; j++)
        for (int k = 0; k < 2; k++) {
            size_t row = half * 16 + lane / 4 + j % 2 * 8;
            size_t col = group * 64 + lane % 4 * 16 + step * 4 + j / 2 * 2 + k;
            if (row < a.rows && col < a.cols)
                out[j] |= (uint32_t)((const uint16_t *)a.raw)[row * a.cols + col] << (16 * k);
        }
    return words_of(out);
}

template <class CODE> static __device__ void move_code(const struct cuda_repack &a, size_t e)
{
    const size_t h = e % 2, g = e / 2 % 8, group = e / 16 % a.groups, half = e / 16 / a.groups;
    const size_t row = half * 16 + g + h * 8, first = a.first / 16 * a.groups * 16;
    ((CODE *)a.codes)[first + e] =
        row < a.rows ? ((const CODE *)a.raw_codes)[row * a.groups + group] : CODE(0);
}

static __global__ void repack(const __grid_constant__ struct cuda_repack a)
{
    const size_t halves = (a.rows + 31) / 32 * 2, units = halves * a.groups * 32;
    const size_t e = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const size_t first = a.first / 16 * a.groups * 32;
    if (a.layout == CUDA_F16 || a.layout == CUDA_BF16) {
        if (e < 4 * units)
            ((uint4 *)a.data)[4 * first + e] = gather_16bit(a, e);
        return;
    }
    if (e < units)
        ((uint4 *)a.data)[first + e] = gather_4bit(a, e);
    if (e < units / 2) {
        if (a.layout == CUDA_NESTED)
            move_code<uint8_t>(a, e);
        else
            move_code<float>(a, e);
    }
}

void cuda_repack(const struct cuda_repack *a, cudaStream_t stream)
{
    size_t units = (a->rows + 31) / 32 * 2 * (size_t)a->groups * 32;
    if (a->layout == CUDA_F16 || a->layout == CUDA_BF16)
        units *= 4;
    launch(repack, dim3((unsigned)((units + THREADS - 1) / THREADS)), THREADS, 0, stream, *a);
}
