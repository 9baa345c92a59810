/*
 * wide.h - a product of many rows, by one of two ways: batch.cu, which reads the weights as they
 * lie, or, of 4-bit weights and CUDA_CHUNK_ROWS rows and more, expanded and through cuBLASLt. What
 * can go neither way (float32 weights, parts that are not alike) is for step.c.
 */
#ifndef CUDA_WIDE_H
#define CUDA_WIDE_H

#include "backend/cuda/stage.h"

enum cuda_way { CUDA_WAY_NONE, CUDA_WAY_BATCH, CUDA_WAY_GEMM };

/* Weights of one product, one part under the other: out gets `pitch` columns. */
struct cuda_wide {
    enum cuda_way way;
    const struct backend_matrix *const *parts;
    int n_parts, pitch, cols;
    int at[3]; /* column of out where a part begins */
    float alpha;
    struct cuda_cut cut;
};

bool cuda_all_4bit(const struct backend_matrix *const *parts, int n);
/* Of a layout and with tables that batch.cu takes as one. */
bool cuda_all_alike(const struct backend_matrix *const *parts, int n);

/* Of a product of n rows. */
enum cuda_way cuda_way_of(const struct backend_stage *stage, int n,
                          const struct backend_matrix *const *parts, int n_parts);

/* The product of some matrices, ready to be multiplied by rows. */
struct cuda_wide cuda_widen(struct backend_stage *stage, enum cuda_way way,
                            const struct backend_matrix *const *parts, int n);

/* How many rows of a product are made at once, of n: equal shares. */
int cuda_wide_share(const struct backend_stage *stage, const struct cuda_wide *w, int n);

/* Rows [first, first+n) of x, of which there are `all`. row_scale: of row 0, NULL: none. */
struct cuda_product_rows cuda_wide_multiply(struct backend_stage *stage, const struct cuda_wide *w,
                                            const void *x, int all, int first, int n,
                                            const float *row_scale);

/* What cuBLASLt refuses fails the step. */
void cuda_wide_gemm(struct backend_stage *stage, const struct cuda_gemm *gemm);

static inline size_t padded_to(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

#endif
