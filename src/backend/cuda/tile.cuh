/*
 * tile.cuh - tiles of 16-bit values in shared memory: copied in without passing registers, and read
 * as the fragments of mma.
 *
 * A row of a tile holds W values (a multiple of 64) in chunks of eight (16 bytes); chunk c of row r
 * lies at c ^ (r & 7), so that eight rows of one chunk never meet in a bank. As for ptx.cuh,
 * tests/cuda_emu has a twin of the functions marked so.
 */
#ifndef CUDA_TILE_CUH
#define CUDA_TILE_CUH

#include "backend/cuda/async.cuh"

/* Place of a chunk within a tile, in values. */
template <int W> static __device__ __forceinline__ int tile_at(int row, int chunk)
{
    return row * W + ((chunk ^ (row & 7)) << 3);
}

/* Four values from column c on; what lies past `cols` is zero. Rows of a multiple of four floats
 * are read whole. */
static __device__ __forceinline__ float4 read_four(const float *row, int c, int cols)
{
    if (cols % 4 == 0)
        return c < cols ? *(const float4 *)(row + c) : make_float4(0, 0, 0, 0);
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = c + i < cols ? row[c + i] : 0;
    return make_float4(v[0], v[1], v[2], v[3]);
}

#endif
