/*
 * cut.cuh - how a product of many rows is shared out over the blocks of batch.cu, for it and for
 * the epilogues that add up what they leave.
 *
 * The steps of a product - one group of 64 columns of one block of CUDA_BLOCK_ROWS rows of W - form
 * one sequence, row block after row block. Block b takes those from b * steps / blocks on. A row
 * block that several of them share has a sum from each, in segments of their own: block b and row
 * block r meet in segment b + r, since either grows with every segment of the sequence.
 */
#ifndef CUDA_CUT_CUH
#define CUDA_CUT_CUH

#include "backend/cuda/chunk.h"
#include "backend/cuda/ptx.cuh"

static __device__ __forceinline__ int cut_first(const struct cuda_cut &c, int block)
{
    return (int)((unsigned)block * (unsigned)c.steps / (unsigned)c.blocks);
}

/* The block that takes a step: the last that begins at or before it. */
static __device__ __forceinline__ int cut_block(const struct cuda_cut &c, int step)
{
    return (int)((((unsigned)step + 1) * (unsigned)c.blocks - 1) / (unsigned)c.steps);
}

static __device__ __forceinline__ float4 add(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __device__ __forceinline__ float add(float a, float b)
{
    return a + b;
}

/* Columns c.. of a product's row: a float, or four of them if c is a multiple of four. The order of
 * additions is that of the blocks. UNROLL: how many segments are on their way at once. */
template <class T, int UNROLL = 8>
static __device__ __forceinline__ T product_at(const struct cuda_product_rows &p, int row, int c)
{
    if (!p.cut.blocks)
        return *(const T *)(p.product + (size_t)row * p.pitch + c);
    const int block_rows = c / CUDA_BLOCK_ROWS, step = block_rows * p.cut.groups;
    const int from = cut_block(p.cut, step), to = cut_block(p.cut, step + p.cut.groups - 1);
    const size_t pitch = (size_t)p.n * CUDA_BLOCK_ROWS;
    const float *at = p.product + (size_t)(from + block_rows) * pitch +
                      (size_t)row * CUDA_BLOCK_ROWS + c % CUDA_BLOCK_ROWS;
    T sum = {};
    for (int b = from; b <= to; b += UNROLL, at += UNROLL * pitch) {
        T v[UNROLL];
#pragma unroll
        for (int i = 0; i < UNROLL; i++)
            if (b + i <= to)
                v[i] = *(const T *)(at + i * pitch);
#pragma unroll
        for (int i = 0; i < UNROLL; i++)
            if (b + i <= to)
                sum = add(sum, v[i]);
    }
    return sum;
}

#endif
