/*
 * group.c - the GPUs of a group, what joins them, and weights in parts. See group.h.
 */
#include "backend/cuda/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int nccl_check(const struct cuda_nccl *nccl, int result, const char *what,
                      struct gyaru_error *err)
{
    if (!result)
        return 0;
    return error_set(err, GYARU_FAILED,
                     "cuda: NCCL: %s: %s (NCCL_DEBUG=WARN says more): or use one GPU: --device "
                     "cuda:0",
                     what, nccl->words(result));
}

/* ---- the sum ----------------------------------------------------------------------------------
 */

void group_give_up(struct group_device *g)
{
    for (int m = 0; m < g->n; m++) {
        if (g->comms[m])
            (void)g->nccl.abort(g->comms[m]);
        g->comms[m] = NULL;
    }
}

int group_sum(struct group_device *g, float *const *buffers, size_t n, struct gyaru_error *err)
{
    if (!g->comms[0])
        return error_set(err, GYARU_FAILED,
                         "cuda: the GPUs have lost each other in an earlier step: start again");
    int failed = g->nccl.begin();
    for (int m = 0; m < g->n && !failed; m++)
        failed = g->nccl.all_reduce(buffers[m], buffers[m], n, NCCL_FLOAT32, NCCL_SUM, g->comms[m],
                                    g->members[m]->stream);
    int ended = g->nccl.end();
    if (!failed && !ended)
        return 0;
    group_give_up(g);
    return nccl_check(&g->nccl, failed ? failed : ended, "adding over the GPUs", err);
}

/* The first exchange makes NCCL allocate what it needs, before anybody counts what is free; and a
 * link that does not add is found before a model is loaded. */
static int try_sum(struct group_device *g, float *const *buffers, struct gyaru_error *err)
{
    float want = 0;
    for (int m = 0; m < g->n; m++) {
        float value = (float)(m + 1);
        want += value;
        cuda_enter(g->members[m]);
        if (cuda_check(cudaMemcpyAsync(buffers[m], &value, sizeof value, cudaMemcpyHostToDevice,
                                       g->members[m]->stream),
                       "trying the link", err) ||
            cuda_check(cudaStreamSynchronize(g->members[m]->stream), "trying the link", err))
            return -1;
    }
    if (group_sum(g, buffers, 1, err))
        return -1;
    for (int m = 0; m < g->n; m++) {
        float got = 0;
        cuda_enter(g->members[m]);
        if (cuda_check(cudaMemcpyAsync(&got, buffers[m], sizeof got, cudaMemcpyDeviceToHost,
                                       g->members[m]->stream),
                       "trying the link", err) ||
            cuda_check(cudaStreamSynchronize(g->members[m]->stream), "trying the link", err))
            return -1;
        if (got != want)
            return error_set(err, GYARU_FAILED,
                             "cuda:%d: the sum over the GPUs is %g instead of %g: their link does "
                             "not work (peer access, IOMMU): use one GPU: --device cuda:0",
                             g->members[m]->index, (double)got, (double)want);
    }
    return 0;
}

/* ---- devices ----------------------------------------------------------------------------------
 */

static void group_close(struct backend_device *device)
{
    struct group_device *g = group_of(device);
    if (!g)
        return;
    for (int m = 0; m < g->n; m++)
        if (g->comms[m])
            (void)g->nccl.destroy(g->comms[m]);
    for (int m = 0; m < g->n; m++)
        cuda_close(g->members[m]);
    if (g->nccl.library)
        cuda_nccl_close(&g->nccl);
    free(g);
}

static void describe_members(struct group_device *g)
{
    int version = 0;
    bool alike = true;
    char by[40];
    (void)g->nccl.version(&version);
    snprintf(by, sizeof by, "by NCCL %d.%d.%d", version / 10000, version / 100 % 100,
             version % 100);
    for (int m = 1; m < g->n; m++)
        alike = alike && !strcmp(g->members[m]->text, g->members[0]->text);
    if (alike) {
        snprintf(g->text, sizeof g->text, "%d x %.180s, %s", g->n, g->members[0]->text, by);
        return;
    }
    size_t used = 0;
    for (int m = 0; m < g->n && used < sizeof g->text; m++)
        used += (size_t)snprintf(g->text + used, sizeof g->text - used, "%s%.60s", m ? " + " : "",
                                 g->members[m]->text);
    if (used < sizeof g->text)
        snprintf(g->text + used, sizeof g->text - used,
                 ", %s; not alike: the slowest and the smallest decide", by);
}

static int join(struct group_device *g, const int *indices, struct gyaru_error *err)
{
    float *buffers[BACKEND_DEVICES] = {0};
    int rc =
        nccl_check(&g->nccl, g->nccl.init(g->comms, g->n, indices), "connecting the GPUs", err);
    if (rc)
        memset(g->comms, 0, sizeof g->comms);
    for (int m = 0; m < g->n && !rc; m++) {
        cuda_enter(g->members[m]);
        rc = cuda_check(cudaMalloc((void **)&buffers[m], sizeof(float)), "trying the link", err);
    }
    if (!rc)
        rc = try_sum(g, buffers, err);
    for (int m = 0; m < g->n; m++) {
        cuda_enter(g->members[m]);
        (void)cudaFree(buffers[m]);
    }
    return rc;
}

int cuda_open_group(const int *indices, int n, const struct backend **table,
                    struct backend_device **out, struct gyaru_error *err)
{
    struct group_device *g = calloc(1, sizeof *g);
    if (!g)
        return error_memory(err, sizeof *g, "the CUDA backend");
    int rc = 0;
    for (; g->n < n && !rc; g->n += !rc)
        rc = cuda_open(indices[g->n], 0, &g->members[g->n], err);
    if (rc || cuda_nccl_open(&g->nccl, err) || join(g, indices, err)) {
        group_close((struct backend_device *)(void *)g);
        return -1;
    }
    describe_members(g);
    *table = &cuda_group_backend;
    *out = (struct backend_device *)(void *)g;
    return 0;
}

static const char *group_describe(const struct backend_device *device)
{
    return group_of(device)->text;
}

/* Of the member that has least left; `used` of the one where it is most. */
static void group_memory(const struct backend_device *device, struct backend_memory *out)
{
    const struct group_device *g = group_of(device);
    uint64_t used = 0;
    for (int m = 0; m < g->n; m++) {
        struct backend_memory one;
        cuda_memory(g->members[m], &one);
        used = one.used > used ? one.used : used;
        if (!m || one.available < out->available)
            *out = one;
    }
    out->used = used;
    out->devices = g->n;
}

/* One GPU's: each reads its own part of the weights. The slowest's. */
static int group_bandwidth(struct backend_device *device, double *read, double *copy,
                           struct gyaru_error *err)
{
    const struct group_device *g = group_of(device);
    for (int m = 0; m < g->n; m++) {
        double r, c;
        cuda_enter(g->members[m]);
        if (cuda_bandwidth(g->members[m], &r, &c, err))
            return -1;
        *read = !m || r < *read ? r : *read;
        *copy = !m || c < *copy ? c : *copy;
    }
    return 0;
}

/* ---- weights ----------------------------------------------------------------------------------
 */

/* The largest part's. Parts of no rows are refused by group_check(). */
static uint64_t group_matrix_bytes(const struct backend_device *device,
                                   const struct quant_source *source)
{
    const struct group_device *g = group_of(device);
    uint64_t most = 0;
    if (source->cut == QUANT_WHOLE)
        return cuda_matrix_bytes(g->members[0], source);
    for (int m = 0; m < g->n; m++) {
        struct quant_source part = quant_part_describe(source, m, g->n);
        uint64_t bytes = part.rows && part.cols ? cuda_matrix_bytes(g->members[m], &part) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static void group_matrix_free(struct backend_matrix *matrix)
{
    struct group_matrix *all = group_matrix_of(matrix);
    for (int m = 0; all && m < (all->shared ? 1 : all->group->n); m++)
        cuda_matrix_free(all->parts[m]);
    free(all);
}

static int load_part(struct group_matrix *all, const struct quant_source *source, int m,
                     struct gyaru_error *err)
{
    struct backend_device *device = all->group->members[m];
    struct quant_part part;
    if (all->whole)
        return cuda_matrix_new(device, source, &all->parts[m], err);
    if (quant_part_new(source, m, all->group->n, &part, err))
        return -1;
    int rc = cuda_matrix_new(device, &part.source, &all->parts[m], err);
    quant_part_release(&part);
    return rc;
}

static int group_matrix_new(struct backend_device *device, const struct quant_source *source,
                            struct backend_matrix **out, struct gyaru_error *err)
{
    struct group_matrix *all = calloc(1, sizeof *all);
    if (!all)
        return error_memory(err, sizeof *all, "weights");
    all->group = group_of(device);
    all->whole = source->cut == QUANT_WHOLE;
    for (int m = 0; m < all->group->n; m++)
        if (load_part(all, source, m, err)) {
            group_matrix_free((struct backend_matrix *)(void *)all);
            return -1;
        }
    *out = (struct backend_matrix *)(void *)all;
    return 0;
}

static uint64_t group_table_bytes(const struct backend_device *device,
                                  const struct quant_source *source)
{
    return cuda_table_bytes(group_of(device)->members[0], source);
}

/* Pinned memory of the host is every GPU's. */
static int group_table_new(struct backend_device *device, const struct quant_source *source,
                           struct backend_matrix **out, struct gyaru_error *err)
{
    struct group_matrix *all = calloc(1, sizeof *all);
    if (!all)
        return error_memory(err, sizeof *all, "weights");
    all->group = group_of(device);
    all->shared = all->whole = true;
    if (cuda_table_new(all->group->members[0], source, &all->parts[0], err)) {
        free(all);
        return -1;
    }
    for (int m = 1; m < all->group->n; m++)
        all->parts[m] = all->parts[0];
    *out = (struct backend_matrix *)(void *)all;
    return 0;
}

static void group_vector_free(struct backend_vector *vector)
{
    struct group_vector *all = group_vector_of(vector);
    for (int m = 0; all && m < all->group->n; m++)
        cuda_vector_free(all->whole[m]);
    free(all);
}

static int group_vector_new(struct backend_device *device, const float *values, size_t n,
                            struct backend_vector **out, struct gyaru_error *err)
{
    struct group_vector *all = calloc(1, sizeof *all);
    if (!all)
        return error_memory(err, sizeof *all, "a vector");
    all->group = group_of(device);
    for (int m = 0; m < all->group->n; m++)
        if (cuda_vector_new(all->group->members[m], values, n, &all->whole[m], err)) {
            group_vector_free((struct backend_vector *)(void *)all);
            return -1;
        }
    *out = (struct backend_vector *)(void *)all;
    return 0;
}

const struct backend cuda_group_backend = {
    .name = "cuda",
    .default_kv = GYARU_KV_F16,
    .int8_kv = true,
    .default_rows = 2048,
    .close = group_close,
    .describe = group_describe,
    .memory = group_memory,
    .bandwidth = group_bandwidth,
    .check = group_check,
    .matrix_bytes = group_matrix_bytes,
    .matrix_new = group_matrix_new,
    .matrix_free = group_matrix_free,
    .table_bytes = group_table_bytes,
    .table_new = group_table_new,
    .vector_new = group_vector_new,
    .vector_free = group_vector_free,
    .stage_bytes = group_stage_bytes,
    .stage_new = group_stage_new,
    .stage_free = group_stage_free,
    .begin = group_op_begin,
    .embed = group_op_embed,
    .qkv = group_op_qkv,
    .attend = group_op_attend,
    .project = group_op_project,
    .gate_up = group_op_gate_up,
    .down = group_op_down,
    .edit = group_op_edit,
    .meter = group_op_meter,
    .tap = group_op_tap,
    .head = group_op_head,
    .candidates = group_op_candidates,
    .end = group_op_end,
    .fetch = group_fetch,
    .remember = group_remember,
};
