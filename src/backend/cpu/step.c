/*
 * step.c - the table of backend.h on the CPU: records the operations of a step, runs them at its
 * end.
 */
#include "backend/cpu/stage.h"

#include <stdlib.h>
#include <string.h>

static int vector_new(struct backend_device *device, const float *values, size_t n,
                      struct backend_vector **out, struct gyaru_error *err)
{
    struct backend_vector *v = malloc(sizeof *v + n * sizeof *values);
    if (!v)
        return error_memory(err, n * sizeof *values, "a vector");
    v->n = n;
    memcpy(v->values, values, n * sizeof *values);
    *out = v;
    return 0;
}

static void vector_free(struct backend_vector *vector)
{
    free(vector);
}

static void record(struct backend_stage *stage, const struct cpu_op *op)
{
    if (stage->n_ops == stage->max_ops)
        cpu_run_program(stage);
    stage->ops[stage->n_ops++] = *op;
}

static void op_begin(struct backend_stage *stage, const struct backend_row *rows, int n)
{
    stage->n = n;
    stage->n_ops = 0;
    memcpy(stage->rows, rows, (size_t)n * sizeof *rows);
    cpu_rope(stage);
}

static void op_embed(struct backend_stage *stage, const struct backend_matrix *table)
{
    record(stage, &(struct cpu_op){.run = cpu_embed, .weights = {table}});
}

static void op_qkv(struct backend_stage *stage, int layer, const struct backend_vector *norm,
                   const struct backend_matrix *const weights[3],
                   const struct backend_vector *const biases[3])
{
    record(stage, &(struct cpu_op){.run = cpu_qkv,
                                   .index = layer,
                                   .vector = norm,
                                   .weights = {weights[0], weights[1], weights[2]},
                                   .biases = {biases[0], biases[1], biases[2]}});
}

static void op_attend(struct backend_stage *stage, int layer)
{
    record(stage, &(struct cpu_op){.run = cpu_attend, .index = layer});
}

static void op_project(struct backend_stage *stage, const struct backend_matrix *output)
{
    record(stage, &(struct cpu_op){.run = cpu_project, .weights = {output}});
}

static void op_gate_up(struct backend_stage *stage, const struct backend_vector *norm,
                       const struct backend_matrix *gate, const struct backend_matrix *up)
{
    record(stage, &(struct cpu_op){.run = cpu_gate_up, .vector = norm, .weights = {gate, up}});
}

static void op_down(struct backend_stage *stage, const struct backend_matrix *down)
{
    record(stage, &(struct cpu_op){.run = cpu_down, .weights = {down}});
}

static void op_edit(struct backend_stage *stage, int index, const struct backend_vector *direction)
{
    record(stage, &(struct cpu_op){.run = cpu_edit, .index = index, .vector = direction});
}

static void op_meter(struct backend_stage *stage, const struct backend_vector *direction,
                     float *out)
{
    record(stage, &(struct cpu_op){.run = cpu_meter, .vector = direction, .out = out});
}

static void op_tap(struct backend_stage *stage, float *out)
{
    record(stage, &(struct cpu_op){.run = cpu_tap, .out = out});
}

static void op_head(struct backend_stage *stage, const struct backend_vector *norm,
                    const struct backend_matrix *weights)
{
    record(stage, &(struct cpu_op){.run = cpu_head, .vector = norm, .weights = {weights}});
}

static int op_end(struct backend_stage *stage, float **logits, struct gyaru_error *err)
{
    cpu_run_program(stage);
    *logits = stage->logits;
    return 0;
}

const struct backend backend_cpu = {
    .name = "cpu",
    .default_kv = GYARU_KV_F32,
    .default_rows = 128,
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .memory = cpu_memory,
    .matrix_bytes = cpu_matrix_bytes,
    .matrix_new = cpu_matrix_new,
    .matrix_free = cpu_matrix_free,
    .vector_new = vector_new,
    .vector_free = vector_free,
    .stage_bytes = cpu_stage_bytes,
    .stage_new = cpu_stage_new,
    .stage_free = cpu_stage_free,
    .begin = op_begin,
    .embed = op_embed,
    .qkv = op_qkv,
    .attend = op_attend,
    .project = op_project,
    .gate_up = op_gate_up,
    .down = op_down,
    .edit = op_edit,
    .meter = op_meter,
    .tap = op_tap,
    .head = op_head,
    .end = op_end,
};
