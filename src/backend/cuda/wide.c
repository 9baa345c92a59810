/*
 * wide.c - products of many rows. See wide.h.
 */
#include "backend/cuda/wide.h"

#include <math.h>

static bool is_4bit(const struct backend_matrix *m)
{
    return m->w.layout == CUDA_NESTED || m->w.layout == CUDA_4BIT;
}

bool cuda_all_4bit(const struct backend_matrix *const *parts, int n)
{
    for (int i = 0; i < n; i++)
        if (!is_4bit(parts[i]))
            return false;
    return true;
}

bool cuda_all_alike(const struct backend_matrix *const *parts, int n)
{
    for (int i = 0; i < n; i++)
        if (parts[i]->w.layout == CUDA_F32 || parts[i]->host ||
            !cuda_matrix_alike(parts[0], parts[i]))
            return false;
    return true;
}

enum cuda_way cuda_way_of(const struct backend_stage *stage, int n,
                          const struct backend_matrix *const *parts, int n_parts)
{
    if (n <= CUDA_GRAPH_ROWS)
        return CUDA_WAY_NONE;
    if (stage->gemms.blas && n >= CUDA_CHUNK_ROWS && cuda_all_4bit(parts, n_parts))
        return CUDA_WAY_GEMM;
    return cuda_all_alike(parts, n_parts) ? CUDA_WAY_BATCH : CUDA_WAY_NONE;
}

/* The power of two that brings the largest weight of all parts below 2^15. */
static int exponent_of(const struct backend_matrix *const *parts, int n)
{
    float ceiling = 0;
    int e = 0;
    for (int i = 0; i < n; i++)
        ceiling = fmaxf(ceiling, parts[i]->w.ceiling);
    if (!(ceiling > 0) || isinf(ceiling))
        return 0;
    (void)frexpf(ceiling, &e); /* ceiling < 2^e */
    e = 15 - e;
    return e > 100 ? 100 : e < -100 ? -100 : e;
}

static void expand(struct backend_stage *stage, struct cuda_wide *w)
{
    int e = exponent_of(w->parts, w->n_parts);
    w->alpha = ldexpf(1, -e);
    for (int i = 0; i < w->n_parts; i++) {
        size_t padded = padded_to(w->parts[i]->w.rows, CUDA_PAD);
        w->at[i] = w->pitch;
        cuda_expand(&(struct cuda_expand){.w = w->parts[i]->w,
                                          .padded = padded,
                                          .scale = ldexpf(1, e),
                                          .out = (uint16_t *)stage->expanded +
                                                 (size_t)w->pitch * (size_t)w->cols},
                    stage->device->stream);
        w->pitch += (int)padded;
    }
}

struct cuda_wide cuda_widen(struct backend_stage *stage, enum cuda_way way,
                            const struct backend_matrix *const *parts, int n)
{
    struct cuda_wide out = {
        .way = way, .parts = parts, .n_parts = n, .cols = parts[0]->w.groups * CUDA_GROUP};
    if (way == CUDA_WAY_GEMM) {
        expand(stage, &out);
        return out;
    }
    struct cuda_weights weights[3];
    for (int i = 0; i < n; i++) {
        weights[i] = parts[i]->w;
        out.at[i] = out.pitch;
        out.pitch += parts[i]->w.tiles * CUDA_TILE_ROWS;
    }
    out.cut = cuda_cut_of(weights, n, stage->device->multiprocessors);
    return out;
}

void cuda_wide_gemm(struct backend_stage *stage, const struct cuda_gemm *gemm)
{
    if (!cuda_gemm_run(&stage->gemms, gemm, stage->device->stream))
        stage->failed = "cuBLASLt refused a product";
}

struct cuda_product_rows cuda_wide_multiply(struct backend_stage *stage, const struct cuda_wide *w,
                                            const void *x, int all, int first, int n,
                                            const float *row_scale)
{
    const uint16_t *from = (const uint16_t *)x + (size_t)first * (size_t)w->cols;
    struct cuda_product_rows out = {.n = n,
                                    .pitch = w->pitch,
                                    .row_scale = row_scale ? row_scale + first : NULL,
                                    .cut = w->cut};
    if (w->way == CUDA_WAY_GEMM) {
        cuda_wide_gemm(stage, &(struct cuda_gemm){.m = w->pitch,
                                                  .n = n,
                                                  .k = w->cols,
                                                  .w = stage->expanded,
                                                  .x = from,
                                                  .out = stage->h,
                                                  .pitch = w->pitch,
                                                  .alpha = w->alpha});
        out.product = stage->h;
        return out;
    }
    struct cuda_batch batch = {.n_parts = w->n_parts,
                               .cut = w->cut,
                               .n = n,
                               .x = from,
                               .plane = (size_t)all * (size_t)w->cols / 8,
                               .unscale = 1 / w->parts[0]->w.table_scale,
                               .shared = stage->device->shared,
                               .out = stage->partial};
    for (int i = 0; i < w->n_parts; i++)
        batch.parts[i] = w->parts[i]->w;
    cuda_batch(&batch, stage->device->stream);
    out.product = stage->partial;
    return out;
}

int cuda_wide_share(const struct backend_stage *stage, const struct cuda_wide *w, int n)
{
    size_t most = stage->h_floats / (size_t)w->pitch;
    if (w->way == CUDA_WAY_BATCH) {
        const int kernel = cuda_batch_rows(w->parts[0]->w.layout, stage->device->shared);
        most =
            stage->partial_floats / ((size_t)(w->cut.blocks + w->cut.row_blocks) * CUDA_BLOCK_ROWS);
        most = most < (size_t)kernel ? most : (size_t)kernel;
    }
    int parts = (int)(((size_t)n + most - 1) / most);
    int rows = (int)padded_to((size_t)((n + parts - 1) / parts), CUDA_PAD);
    return rows < (int)most ? rows : (int)most;
}
