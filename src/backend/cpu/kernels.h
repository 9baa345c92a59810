/*
 * kernels.h - the inner loops of the CPU backend, one table per instruction set.
 *
 * kernels_body.h holds the loops, written once over sixteen lanes; kernels_avx512.c,
 * kernels_avx2.c and kernels_scalar.c compile them with their simd_*.h.
 */
#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TILE 16 /* output rows that are computed together, one per lane */

/*
 * Weights [rows, cols], interleaved so that sixteen output rows are sixteen lanes:
 *   QUANT_4BIT  uint32 [tiles][cols/8][TILE], nibble j of a word is column 8c+j
 *   QUANT_F32   float  [tiles][cols][TILE];  QUANT_F16, QUANT_BF16: uint16 likewise
 * Scales are float32 [tiles][cols/group][TILE]. Rows past the end of the last tile are zero.
 */
struct backend_matrix {
    enum quant_type type;
    size_t rows, cols, tiles;
    size_t group;  /* columns that are summed before scaling; divides cols if 4-bit */
    float map[16]; /* 4-bit only */
    uint8_t *data; /* 64-byte aligned, owned */
    float *scales; /* NULL unless 4-bit, owned */
    size_t bytes;  /* of data and scales */
};

/* One sequence's K or V of one layer and kv head: [context, head_dim] of float or half. */
struct cpu_attention {
    const float *q; /* [n_queries, head_dim], the query heads that share the kv head */
    const void *k, *v;
    float *out;    /* [n_queries, head_dim] */
    float *scores; /* [n_queries, cpu_scores_stride(n)] scratch */
    size_t n;      /* positions */
    int n_queries, head_dim;
    float scale; /* 1 / sqrt(head_dim) */
    bool half;
};

static inline size_t cpu_scores_stride(size_t n)
{
    return (n + TILE - 1) / TILE * TILE;
}

struct cpu_kernels {
    const char *name;
    /* out [n, TILE] = x [n, stride] * tile^T. `buffer` is [group, TILE] scratch. The order of
     * additions does not depend on n. */
    void (*tile)(const struct backend_matrix *m, size_t tile, const float *x, size_t stride, int n,
                 float *out, float *buffer);
    void (*attend)(const struct cpu_attention *a);
    void (*store_half)(uint16_t *out, const float *in, size_t n); /* n multiple of 16 */
    float (*dot)(const float *a, const float *b, size_t n);
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a * x */
    /* out = x * scale * weight */
    void (*norm)(float *out, const float *x, float scale, const float *weight, size_t n);
    /* Rotates the pairs (x[i], x[half + i]) by angles given as `half` cosines, then sines. */
    void (*rotate)(float *x, const float *rope, size_t half);
    void (*gate)(float *gate, const float *up, size_t n); /* gate = silu(gate) * up; n of TILE */
};

extern const struct cpu_kernels kernels_avx512, kernels_avx2, kernels_scalar;

#endif
