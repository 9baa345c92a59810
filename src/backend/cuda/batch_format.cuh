/*
 * batch_format.cuh - how a warp of batch.cu holds 32 rows x 64 columns of W of each layout, out of
 * its own slot of shared memory. kernels.h describes the layouts.
 *
 * A format has: TABLE (does it need the byte table), BF16, PLANES of x, ENTRIES (uint4 that a lane
 * copies for a step), PER_GROUP (uint4 of a half and group), QUADS (16-byte pieces of codes of a
 * half and group), begin(), decode() and scales().
 */
#ifndef CUDA_BATCH_FORMAT_CUH
#define CUDA_BATCH_FORMAT_CUH

#include "backend/cuda/format.cuh"

/* A operands of four steps of mma for each half; what their sums are multiplied by (rows g, g+8).
 */
struct operands {
    uint4 words[2]; /* 4-bit: what they are decoded from */
    uint32_t a[2][4][4];
    float scale[2][2];
};

/* 4-bit weights. */
template <bool NESTED> struct batch_4bit {
    static const bool TABLE = true, BF16 = false;
    static const int PLANES = 1, ENTRIES = 2, PER_GROUP = 32, QUADS = NESTED ? 1 : 4;

    static __device__ __forceinline__ void begin(const uint4 *slot, struct operands &out)
    {
        out.words[0] = slot[0];
        out.words[1] = slot[32];
    }

    /* Quarter k of the operands: the pieces are spread over a step. */
    static __device__ __forceinline__ void decode(const uint4 *, const uint4 *table, uint32_t lane4,
                                                  int k, struct operands &out)
    {
        const uint4 &w = out.words[k / 2];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            out.a[k / 2][k % 2 * 2][j] = table_pair(table, k % 2 ? w.z : w.x, lane4, j);
            out.a[k / 2][k % 2 * 2 + 1][j] = table_pair(table, k % 2 ? w.w : w.y, lane4, j);
        }
    }

    /* codes: [2][QUADS] of the step */
    static __device__ __forceinline__ void scales(const uint4 *codes, const uint4 *table, int lane,
                                                  const struct tile_scales &place, int shift,
                                                  int group, struct operands &out)
    {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            if (!NESTED) {
                float2 s = ((const float2 *)(codes + m * QUADS))[lane / 4];
                out.scale[m][0] = s.x;
                out.scale[m][1] = s.y;
                continue;
            }
            const uint32_t code = ((const uint16_t *)(codes + m * QUADS))[lane / 4];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float nested = __ldg(place.scale[m] + ((place.flat[m][h] + group) >> shift));
                out.scale[m][h] =
                    fmaf(table_scale(table, code, (uint32_t)lane * 4, h), nested, place.offset[m]);
            }
        }
    }
};

/* 16-bit weights are operands as they lie; x comes in two planes. */
template <bool IS_BF16> struct batch_16bit {
    static const bool TABLE = false, BF16 = IS_BF16;
    static const int PLANES = 2, ENTRIES = 8, PER_GROUP = 128, QUADS = 0;

    static __device__ __forceinline__ void begin(const uint4 *, struct operands &)
    {
    }

    static __device__ __forceinline__ void decode(const uint4 *slot, const uint4 *, uint32_t, int k,
                                                  struct operands &out)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 v = slot[(2 * k + i) * 32];
            uint32_t(&a)[4] = out.a[k / 2][k % 2 * 2 + i];
            a[0] = v.x;
            a[1] = v.y;
            a[2] = v.z;
            a[3] = v.w;
        }
    }

    static __device__ __forceinline__ void scales(const uint4 *, const uint4 *, int,
                                                  const struct tile_scales &, int, int,
                                                  struct operands &)
    {
    }
};

#endif
