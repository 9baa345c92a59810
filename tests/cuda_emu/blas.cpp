/*
 * blas.cpp - cuBLASLt on the host, in place of src/backend/cuda/blas.c. See cublasLt.h beside it.
 */
#include "base/half.h"

extern "C" {
#include "backend/cuda/blas.h"
}

#include <vector>

struct emu_blas {
    int unused;
};
struct emu_desc {
    bool transposed;
};
struct emu_layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};
struct emu_preference {
    size_t workspace;
};

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new emu_blas();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    *desc = new emu_desc();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t size)
{
    if (name != CUBLASLT_MATMUL_DESC_TRANSA || size != sizeof(int32_t))
        return CUBLAS_STATUS_INVALID_VALUE;
    desc->transposed = *(const int32_t *)value == CUBLAS_OP_T;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    if (ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *layout = new emu_layout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new emu_preference();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t size)
{
    if (name != CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES || size != sizeof(size_t))
        return CUBLAS_STATUS_INVALID_VALUE;
    preference->workspace = *(const size_t *)value;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

static bool fit(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                cublasLtMatrixLayout_t c)
{
    return desc->transposed && a->type == CUDA_R_16F && b->type == CUDA_R_16F &&
           c->type == CUDA_R_32F && a->rows == b->rows && a->cols == c->rows && b->cols == c->cols;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    *found = fit(desc, a, b, d) && wanted > 0;
    if (*found)
        *results = cublasLtMatmulHeuristicResult_t();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    if (!fit(desc, a_layout, b_layout, d_layout) || c != d || !workspace)
        return CUBLAS_STATUS_INVALID_VALUE;
    const size_t k = a_layout->rows, m = d_layout->rows, n = d_layout->cols;
    const float scale = *(const float *)alpha, old = *(const float *)beta;
    std::vector<float> w(k * m), x(k);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < k; j++)
            w[i * k + j] = half_to_float(((const uint16_t *)a)[i * (size_t)a_layout->ld + j]);
    for (size_t col = 0; col < n; col++) {
        float *out = (float *)d + col * (size_t)d_layout->ld;
        for (size_t j = 0; j < k; j++)
            x[j] = half_to_float(((const uint16_t *)b)[col * (size_t)b_layout->ld + j]);
        for (size_t i = 0; i < m; i++) {
            double sum = 0;
            for (size_t j = 0; j < k; j++)
                sum += (double)w[i * k + j] * (double)x[j];
            out[i] = (float)(sum * (double)scale) + (old != 0 ? old * out[i] : 0);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

void cuda_blas_open(struct cuda_blas *blas)
{
    static int here;
    blas->library = &here;
#define FIND(name, function) blas->name = function;
    CUDA_BLAS_FUNCTIONS(FIND)
#undef FIND
}

void cuda_blas_close(struct cuda_blas *blas)
{
    blas->library = NULL;
}
}
