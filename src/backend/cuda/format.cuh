/*
 * format.cuh - how a warp takes one chunk, 32 rows x 64 columns, of each layout into registers and
 * multiplies it with up to eight rows of x. kernels.h describes the layouts.
 *
 * A format has: struct chunk (what is loaded ahead), load(), multiply(), TABLE (does it need the
 * byte table in shared memory), PER_GROUP (uint4 of a half and group) and CODE_BYTES. The order of
 * additions into a sum depends on the matrix alone, never on how many rows of x there are: within a
 * group in the tensor core, groups one after the other in float32.
 */
#ifndef CUDA_FORMAT_CUH
#define CUDA_FORMAT_CUH

#include "backend/cuda/kernels.h"
#include "backend/cuda/ptx.cuh"

/* The table holds 256 bytes for each byte of codes: 32 copies, one per bank, of the half2 that the
 * byte stands for, then 32 copies of that code's nested absmax. One prmt makes an address of a byte
 * of weights and the lane; no two lanes of a warp ever meet in a bank. */
#define TABLE_BYTES 65536
#define TABLE_MAP   128

/* Where the lane's share of a tile's two halves starts. */
struct tile_place {
    const uint4 *weights[2];
    const void *codes[2];
};

/* What its nested scales are made of: they change seldom and stay in L1. */
struct tile_scales {
    const float *scale[2];
    int flat[2][2]; /* flat group of rows g and g+8 of the half, group 0 */
    float offset[2];
};

__device__ __forceinline__ uint32_t table_pair(const uint4 *table, uint32_t word, uint32_t lane4,
                                               int byte)
{
    uint32_t at = __byte_perm(word, lane4, 0x7604 | byte << 4);
    return *(const uint32_t *)((const char *)table + at);
}

__device__ __forceinline__ float table_scale(const uint4 *table, uint32_t word, uint32_t lane4,
                                             int byte)
{
    uint32_t at = __byte_perm(word, lane4, 0x7604 | byte << 4);
    return *(const float *)((const char *)table + at + TABLE_MAP);
}

/* Where the lane's own x lies, as cuda_pack leaves it: a group is X_GROUP further than the one
 * before it, the low plane `plane`. */
#define X_GROUP 64
struct x_place {
    const uint4 *at;
    size_t plane;
};

/* x of one group for eight rows: the B operands of four steps. */
struct group_x {
    uint4 a, b;
};

__device__ __forceinline__ struct group_x load_x(const uint4 *x)
{
    return {x[0], x[X_GROUP / 2]};
}

/* Half m of a 4-bit chunk times x; s: scales of rows g and g+8. */
__device__ __forceinline__ void multiply_4bit(const uint4 *table, const uint4 &w, float s0,
                                              float s1, const struct x_place &x, int group,
                                              uint32_t lane4, float (&sum)[4])
{
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    uint32_t a[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            a[i][j] = table_pair(table, words[i], lane4, j);
    struct group_x b = load_x(x.at + group * X_GROUP);
    float c[4] = {0, 0, 0, 0};
    mma_f16(c, a[0], b.a.x, b.a.y);
    mma_f16(c, a[1], b.a.z, b.a.w);
    mma_f16(c, a[2], b.b.x, b.b.y);
    mma_f16(c, a[3], b.b.z, b.b.w);
    sum[0] = fmaf(c[0], s0, sum[0]);
    sum[1] = fmaf(c[1], s0, sum[1]);
    sum[2] = fmaf(c[2], s1, sum[2]);
    sum[3] = fmaf(c[3], s1, sum[3]);
}

/* Double-quantised absmax: a code of 8 bits for each block, a float for each `1 << shift` codes. */
struct format_nested {
    static const bool TABLE = true;
    static const int PER_GROUP = 32, CODE_BYTES = 1;
    struct chunk {
        uint4 w[2];
        uint32_t codes[2];
    };

    static __device__ __forceinline__ void load(struct chunk &c, const struct tile_place &p,
                                                int group)
    {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            c.w[m] = load_once(p.weights[m] + group * 32);
            c.codes[m] = __ldg((const uint16_t *)p.codes[m] + group * 8);
        }
    }

    static __device__ __forceinline__ void multiply(const struct chunk &c,
                                                    const struct tile_scales &p, int shift,
                                                    const uint4 *table, const struct x_place &x,
                                                    int group, uint32_t lane4, float (&sum)[2][4])
    {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            float n0 = __ldg(p.scale[m] + ((p.flat[m][0] + group) >> shift));
            float n1 = __ldg(p.scale[m] + ((p.flat[m][1] + group) >> shift));
            float s0 = fmaf(table_scale(table, c.codes[m], lane4, 0), n0, p.offset[m]);
            float s1 = fmaf(table_scale(table, c.codes[m], lane4, 1), n1, p.offset[m]);
            multiply_4bit(table, c.w[m], s0, s1, x, group, lane4, sum[m]);
        }
    }
};

/* Plain float32 absmax. */
struct format_4bit {
    static const bool TABLE = true;
    static const int PER_GROUP = 32, CODE_BYTES = 4;
    struct chunk {
        uint4 w[2];
        float2 scale[2];
    };

    static __device__ __forceinline__ void load(struct chunk &c, const struct tile_place &p,
                                                int group)
    {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            c.w[m] = load_once(p.weights[m] + group * 32);
            c.scale[m] = __ldg((const float2 *)p.codes[m] + group * 8);
        }
    }

    static __device__ __forceinline__ void multiply(const struct chunk &c,
                                                    const struct tile_scales &p, int shift,
                                                    const uint4 *table, const struct x_place &x,
                                                    int group, uint32_t lane4, float (&sum)[2][4])
    {
#pragma unroll
        for (int m = 0; m < 2; m++)
            multiply_4bit(table, c.w[m], c.scale[m].x, c.scale[m].y, x, group, lane4, sum[m]);
    }
};

/* 16-bit weights. x comes as two planes whose sum has 16 (bf16) or 22 (fp16) bits of mantissa. */
template <bool BF16> struct format_16bit {
    static const bool TABLE = false;
    static const int PER_GROUP = 128, CODE_BYTES = 0;
    struct chunk {
        uint4 w[2][4];
    };

    static __device__ __forceinline__ void load(struct chunk &c, const struct tile_place &p,
                                                int group)
    {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                c.w[m][i] = load_once(p.weights[m] + (group * 4 + i) * 32);
    }

    static __device__ __forceinline__ void step(float (&c)[4], const uint4 &w, uint32_t b0,
                                                uint32_t b1)
    {
        const uint32_t a[4] = {w.x, w.y, w.z, w.w};
        if (BF16)
            mma_bf16(c, a, b0, b1);
        else
            mma_f16(c, a, b0, b1);
    }

    static __device__ __forceinline__ void multiply(const struct chunk &c,
                                                    const struct tile_scales &p, int shift,
                                                    const uint4 *table, const struct x_place &x,
                                                    int group, uint32_t lane4, float (&sum)[2][4])
    {
        const uint4 *at = x.at + group * X_GROUP;
        struct group_x high = load_x(at), low = load_x(at + x.plane);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            float v[4] = {0, 0, 0, 0};
            step(v, c.w[m][0], low.a.x, low.a.y);
            step(v, c.w[m][1], low.a.z, low.a.w);
            step(v, c.w[m][2], low.b.x, low.b.y);
            step(v, c.w[m][3], low.b.z, low.b.w);
            step(v, c.w[m][0], high.a.x, high.a.y);
            step(v, c.w[m][1], high.a.z, high.a.w);
            step(v, c.w[m][2], high.b.x, high.b.y);
            step(v, c.w[m][3], high.b.z, high.b.w);
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[m][i] += v[i];
        }
    }
};

#endif
