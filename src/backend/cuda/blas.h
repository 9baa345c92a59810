/*
 * blas.h - cuBLASLt, found at run time: the plug-in works without it, slower on long prompts.
 */
#ifndef CUDA_BLAS_H
#define CUDA_BLAS_H

#include "base/error.h"

#include <cublasLt.h>
#include <stdbool.h>
#include <stddef.h>

/* The functions that are used, under their own types. */
#define CUDA_BLAS_FUNCTIONS(X)                                                                     \
    X(create, cublasLtCreate)                                                                      \
    X(destroy, cublasLtDestroy)                                                                    \
    X(desc_new, cublasLtMatmulDescCreate)                                                          \
    X(desc_set, cublasLtMatmulDescSetAttribute)                                                    \
    X(desc_free, cublasLtMatmulDescDestroy)                                                        \
    X(layout_new, cublasLtMatrixLayoutCreate)                                                      \
    X(layout_free, cublasLtMatrixLayoutDestroy)                                                    \
    X(preference_new, cublasLtMatmulPreferenceCreate)                                              \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute)                                        \
    X(preference_free, cublasLtMatmulPreferenceDestroy)                                            \
    X(advise, cublasLtMatmulAlgoGetHeuristic)                                                      \
    X(matmul, cublasLtMatmul)

struct cuda_blas {
    void *library; /* NULL: not found */
#define DECLARE(name, function) __typeof__(function) *name;
    CUDA_BLAS_FUNCTIONS(DECLARE)
#undef DECLARE
};

/* Leaves library NULL where there is none, or none with all functions. */
void cuda_blas_open(struct cuda_blas *blas);
void cuda_blas_close(struct cuda_blas *blas);

/* out [n][pitch of out] = alpha * x [n][k] * w [m][k]^T + beta * out; fp16 in, float32 sums. */
struct cuda_gemm {
    int m, n, k;
    const void *w, *x; /* half, rows of k values */
    float *out;
    int pitch;
    float alpha, beta; /* beta: 0 or 1 */
};

#define CUDA_GEMM_PLANS     32
#define CUDA_GEMM_WORKSPACE ((size_t)32 << 20)

/* How one shape is multiplied, as the library advises. */
struct cuda_gemm_plan {
    int m, n, k, pitch; /* m 0: empty */
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algo;
};

struct cuda_gemms {
    const struct cuda_blas *blas;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    struct cuda_gemm_plan plans[CUDA_GEMM_PLANS];
    int next;        /* plan to be replaced */
    void *workspace; /* device [CUDA_GEMM_WORKSPACE], of the caller */
};

int cuda_gemms_init(struct cuda_gemms *gemms, const struct cuda_blas *blas,
                    struct gyaru_error *err);
void cuda_gemms_release(struct cuda_gemms *gemms);

/* Asynchronous on the stream; false if the library refuses. */
bool cuda_gemm_run(struct cuda_gemms *gemms, const struct cuda_gemm *gemm, cudaStream_t stream);

#endif
