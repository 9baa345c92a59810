/*
 * plugin.c - the table of the CUDA backend, and what the plug-in exports.
 */
#include "backend/cuda/group.h"
#include "backend/plugin.h"

#include <stdlib.h>

int cuda_vector_new(struct backend_device *device, const float *values, size_t n,
                    struct backend_vector **out, struct gyaru_error *err)
{
    struct backend_vector *v = calloc(1, sizeof *v);
    if (!v)
        return error_memory(err, sizeof *v, "a vector");
    *v = (struct backend_vector){device, NULL, n};
    cuda_enter(device);
    if (cuda_check(cudaMalloc((void **)&v->data, n * sizeof *values), "a vector", err)) {
        free(v);
        return -1;
    }
    cudaError_t e = cudaMemcpyAsync(v->data, values, n * sizeof *values, cudaMemcpyHostToDevice,
                                    device->stream);
    if (!e)
        e = cudaStreamSynchronize(device->stream);
    if (cuda_check(e, "copying a vector", err)) {
        (void)cudaFree(v->data);
        free(v);
        return -1;
    }
    *out = v;
    return 0;
}

void cuda_vector_free(struct backend_vector *v)
{
    if (!v)
        return;
    cuda_enter(v->device);
    v->device->generation++;
    (void)cudaFree(v->data);
    free(v);
}

static const struct backend backend_cuda = {
    .name = "cuda",
    .default_kv = GYARU_KV_F16,
    .int8_kv = true,
    .default_rows = 2048,
    .open = cuda_open,
    .open_group = cuda_open_group,
    .close = cuda_close,
    .describe = cuda_describe,
    .memory = cuda_memory,
    .bandwidth = cuda_bandwidth,
    .check = cuda_check_shape,
    .matrix_bytes = cuda_matrix_bytes,
    .matrix_new = cuda_matrix_new,
    .matrix_free = cuda_matrix_free,
    .table_bytes = cuda_table_bytes,
    .table_new = cuda_table_new,
    .vector_new = cuda_vector_new,
    .vector_free = cuda_vector_free,
    .stage_bytes = cuda_stage_bytes,
    .stage_new = cuda_stage_new,
    .stage_free = cuda_stage_free,
    .begin = cuda_op_begin,
    .embed = cuda_op_embed,
    .qkv = cuda_op_qkv,
    .attend = cuda_op_attend,
    .project = cuda_op_project,
    .gate_up = cuda_op_gate_up,
    .down = cuda_op_down,
    .edit = cuda_op_edit,
    .meter = cuda_op_meter,
    .tap = cuda_op_tap,
    .head = cuda_op_head,
    .candidates = cuda_op_candidates,
    .end = cuda_op_end,
    .fetch = cuda_fetch,
    .remember = cuda_remember,
};

extern const struct backend_plugin gyaru_backend_plugin;

__attribute__((visibility("default"))) const struct backend_plugin gyaru_backend_plugin = {
    GYARU_VERSION, BACKEND_PLUGIN_SIZES, &backend_cuda};
