/*
 * gemm.c - products of fp16 matrices through cuBLASLt. What the library advises for a shape is
 * asked once and remembered: prompts come in few lengths, layers in four shapes.
 *
 * cuBLAS counts columns first: out [n][m] is its m x n matrix, w [m][k] its k x m, transposed.
 */
#include "backend/cuda/blas.h"

#include <string.h>

int cuda_gemms_init(struct cuda_gemms *g, const struct cuda_blas *blas, struct gyaru_error *err)
{
    const int transposed = CUBLAS_OP_T;
    *g = (struct cuda_gemms){.blas = blas};
    if (blas->create(&g->handle) || blas->desc_new(&g->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) ||
        blas->desc_set(g->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed)) {
        cuda_gemms_release(g);
        return error_set(err, GYARU_FAILED,
                         "cuda: cuBLASLt was found but does not start: does its version fit the "
                         "driver?");
    }
    return 0;
}

static void forget(struct cuda_gemms *g, struct cuda_gemm_plan *p)
{
    cublasLtMatrixLayout_t layouts[] = {p->w, p->x, p->out};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            (void)g->blas->layout_free(layouts[i]);
    memset(p, 0, sizeof *p);
}

void cuda_gemms_release(struct cuda_gemms *g)
{
    if (!g->blas)
        return;
    for (int i = 0; i < CUDA_GEMM_PLANS; i++)
        forget(g, &g->plans[i]);
    if (g->desc)
        (void)g->blas->desc_free(g->desc);
    if (g->handle)
        (void)g->blas->destroy(g->handle);
    memset(g, 0, sizeof *g);
}

static bool advise(struct cuda_gemms *g, struct cuda_gemm_plan *p)
{
    const struct cuda_blas *b = g->blas;
    const size_t workspace = CUDA_GEMM_WORKSPACE;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    bool ok = !b->preference_new(&preference) &&
              !b->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                 sizeof workspace) &&
              !b->advise(g->handle, g->desc, p->w, p->x, p->out, p->out, preference, 1, &result,
                         &found) &&
              found == 1;
    if (preference)
        (void)b->preference_free(preference);
    if (ok)
        p->algo = result.algo;
    return ok;
}

/* The plan of a shape, made if there is none; NULL if the library has none. */
static struct cuda_gemm_plan *plan_for(struct cuda_gemms *g, const struct cuda_gemm *a)
{
    const struct cuda_blas *b = g->blas;
    for (int i = 0; i < CUDA_GEMM_PLANS; i++) {
        struct cuda_gemm_plan *p = &g->plans[i];
        if (p->m == a->m && p->n == a->n && p->k == a->k && p->pitch == a->pitch)
            return p;
    }
    struct cuda_gemm_plan *p = &g->plans[g->next];
    g->next = (g->next + 1) % CUDA_GEMM_PLANS;
    forget(g, p);
    uint64_t m = (uint64_t)a->m, n = (uint64_t)a->n, k = (uint64_t)a->k;
    if (b->layout_new(&p->w, CUDA_R_16F, k, m, a->k) ||
        b->layout_new(&p->x, CUDA_R_16F, k, n, a->k) ||
        b->layout_new(&p->out, CUDA_R_32F, m, n, a->pitch) || !advise(g, p)) {
        forget(g, p);
        return NULL;
    }
    p->m = a->m;
    p->n = a->n;
    p->k = a->k;
    p->pitch = a->pitch;
    return p;
}

bool cuda_gemm_run(struct cuda_gemms *g, const struct cuda_gemm *a, cudaStream_t stream)
{
    const struct cuda_gemm_plan *p = plan_for(g, a);
    return p && !g->blas->matmul(g->handle, g->desc, &a->alpha, a->w, p->w, a->x, p->x, &a->beta,
                                 a->out, p->out, a->out, p->out, &p->algo, g->workspace,
                                 CUDA_GEMM_WORKSPACE, stream);
}
