/*
 * step.c - the operations of backend.h: noted as they are called, enqueued by end().
 */
#include "backend/cuda/stage.h"

#include <string.h>

/* ---- noting -----------------------------------------------------------------------------------
 */

void cuda_op_begin(struct backend_stage *stage, const struct backend_row *rows, int n)
{
    stage->failed = NULL;
    stage->n_meters = 0;
    stage->candidates_out = NULL;
    stage->step.n = n;
    stage->step.n_ops = stage->step.n_logits = 0;
    for (int r = 0; r < n; r++) {
        struct cuda_row *to = &stage->rows_host[r];
        to->token = rows[r].token;
        to->slot = rows[r].slot;
        to->pos = rows[r].pos;
        to->logits = rows[r].logits ? stage->step.n_logits++ : -1;
        memcpy(to->strength, rows[r].strength, sizeof to->strength);
        to->choice = rows[r].choice;
    }
    if (n < 1 || n > stage->shape.max_rows || stage->step.n_logits > stage->shape.max_logits)
        stage->failed = "more rows than the stage was made for";
}

static struct step_op *note(struct backend_stage *stage, enum step_kind kind)
{
    if (stage->step.n_ops == stage->capacity) {
        stage->failed = "more operations than the stage was made for";
        stage->step.n_ops--;
    }
    struct step_op *op = &stage->step.ops[stage->step.n_ops++];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    return op;
}

void cuda_op_embed(struct backend_stage *stage, const struct backend_matrix *table)
{
    note(stage, STEP_EMBED)->matrix[0] = table;
}

void cuda_op_qkv(struct backend_stage *stage, int layer, const struct backend_vector *norm,
                 const struct backend_matrix *const weights[3],
                 const struct backend_vector *const biases[3])
{
    struct step_op *op = note(stage, STEP_QKV);
    op->index = layer;
    op->norm = norm;
    for (int i = 0; i < 3; i++) {
        op->matrix[i] = weights[i];
        op->bias[i] = biases[i];
    }
}

void cuda_op_attend(struct backend_stage *stage, int layer)
{
    note(stage, STEP_ATTEND)->index = layer;
}

void cuda_op_project(struct backend_stage *stage, const struct backend_matrix *output)
{
    note(stage, STEP_PROJECT)->matrix[0] = output;
}

void cuda_op_gate_up(struct backend_stage *stage, const struct backend_vector *norm,
                     const struct backend_matrix *gate, const struct backend_matrix *up)
{
    struct step_op *op = note(stage, STEP_GATE_UP);
    op->norm = norm;
    op->matrix[0] = gate;
    op->matrix[1] = up;
}

void cuda_op_down(struct backend_stage *stage, const struct backend_matrix *down)
{
    note(stage, STEP_DOWN)->matrix[0] = down;
}

void cuda_op_edit(struct backend_stage *stage, int index, const struct backend_vector *direction)
{
    struct step_op *op = note(stage, STEP_EDIT);
    op->index = index;
    op->norm = direction;
}

void cuda_op_meter(struct backend_stage *stage, const struct backend_vector *direction, float *out)
{
    if (stage->n_meters == CUDA_METERS) {
        stage->failed = "more meters than the stage was made for";
        return;
    }
    struct step_op *op = note(stage, STEP_METER);
    op->index = stage->n_meters;
    op->norm = direction;
    stage->meter_out[stage->n_meters++] = out;
}

void cuda_op_tap(struct backend_stage *stage, float *out)
{
    note(stage, STEP_TAP)->out = out;
}

void cuda_op_head(struct backend_stage *stage, const struct backend_vector *norm,
                  const struct backend_matrix *weights)
{
    struct step_op *op = note(stage, STEP_HEAD);
    op->norm = norm;
    op->matrix[0] = weights;
}

void cuda_op_candidates(struct backend_stage *stage, struct backend_candidates *out)
{
    note(stage, STEP_CHOOSE);
    stage->candidates_out = out;
}

/* ---- enqueueing -------------------------------------------------------------------------------
 */

/* One input of products: the rows of x, and in which layout they lie packed now. */
struct input {
    const float *x;
    const struct backend_vector *norm; /* NULL: no rmsnorm */
    bool chosen;                       /* only rows that want logits */
    int n;
    int packed; /* enum cuda_layout, -1: not yet */
};

static int packing_of(enum cuda_layout layout)
{
    return layout == CUDA_NESTED ? CUDA_4BIT : (int)layout;
}

static void pack(struct backend_stage *stage, struct input *in, const struct backend_matrix *m)
{
    if (in->packed == packing_of(m->w.layout))
        return;
    in->packed = packing_of(m->w.layout);
    cuda_pack(&(struct cuda_pack){.layout = m->w.layout,
                                  .x = in->x,
                                  .norm = in->norm ? in->norm->data : NULL,
                                  .eps = stage->shape.norm_eps,
                                  .n = in->n,
                                  .cols = (int)m->w.cols,
                                  .groups = m->w.groups,
                                  .rows = in->chosen ? stage->rows : NULL,
                                  .n_rows = stage->step.n,
                                  .out = stage->packed,
                                  .row_scale = stage->row_scale},
              stage->device->stream);
}

struct output {
    const struct backend_matrix *m;
    const struct backend_vector *bias; /* NULL: none */
    float *out;
};

/* Outputs whose matrices are alike, in one kernel. */
static void multiply(struct backend_stage *stage, struct input *in, const struct output *outputs,
                     int n_outputs, enum cuda_finish finish)
{
    pack(stage, in, outputs[0].m);
    struct cuda_product product = {.n_parts = n_outputs,
                                   .finish = finish,
                                   .n = in->n,
                                   .x = stage->packed,
                                   .row_scale = stage->row_scale,
                                   .partial = stage->partial,
                                   .counters = stage->counters,
                                   .blocks = stage->device->multiprocessors};
    for (int i = 0; i < n_outputs; i++)
        product.parts[i] = (struct cuda_part){
            outputs[i].m->w, outputs[i].bias ? outputs[i].bias->data : NULL, outputs[i].out};
    cuda_product(&product, stage->device->stream);
}

static void run_qkv(struct backend_stage *stage, const struct step_op *op, int n)
{
    struct input in = {stage->x, op->norm, false, n, -1};
    float *outs[3] = {stage->q, stage->k, stage->v};
    struct output outputs[3];
    for (int i = 0; i < 3; i++)
        outputs[i] = (struct output){op->matrix[i], op->bias[i], outs[i]};
    if (cuda_matrix_alike(op->matrix[0], op->matrix[1]) &&
        cuda_matrix_alike(op->matrix[0], op->matrix[2]))
        multiply(stage, &in, outputs, 3, CUDA_STORE);
    else
        for (int i = 0; i < 3; i++)
            multiply(stage, &in, &outputs[i], 1, CUDA_STORE);
    cuda_append(&(struct cuda_append){stage->cache, op->index, stage->rows, stage->rope, stage->q,
                                      stage->k, stage->v, n},
                stage->device->stream);
}

static void run_gate_up(struct backend_stage *stage, const struct step_op *op, int n)
{
    struct input in = {stage->x, op->norm, false, n, -1};
    struct output outputs[2] = {{op->matrix[0], NULL, stage->h}, {op->matrix[1], NULL, stage->h}};
    if (cuda_matrix_alike(op->matrix[0], op->matrix[1])) {
        multiply(stage, &in, outputs, 2, CUDA_PAIR);
        return;
    }
    multiply(stage, &in, &outputs[0], 1, CUDA_STORE);
    multiply(stage, &in, &outputs[1], 1, CUDA_GATE);
}

static void run_add(struct backend_stage *stage, const struct step_op *op, const float *x, int n)
{
    struct input in = {x, NULL, false, n, -1};
    multiply(stage, &in, &(struct output){op->matrix[0], NULL, stage->x}, 1, CUDA_ADD);
}

static void run_head(struct backend_stage *stage, const struct step_op *op, int n_logits)
{
    if (!n_logits)
        return;
    struct input in = {stage->x, op->norm, true, n_logits, -1};
    multiply(stage, &in, &(struct output){op->matrix[0], NULL, stage->logits}, 1, CUDA_STORE);
}

struct cuda_attention cuda_stage_attention(const struct backend_stage *stage, int layer, int n)
{
    return (struct cuda_attention){.cache = stage->cache,
                                   .layer = layer,
                                   .n = n,
                                   .rows = stage->rows,
                                   .q = stage->q,
                                   .out = stage->attention,
                                   .splits = (stage->shape.context + CUDA_SPLIT - 1) / CUDA_SPLIT,
                                   .partial = stage->split,
                                   .counters = stage->counters};
}

static void run_attend(struct backend_stage *stage, const struct step_op *op, int n)
{
    struct cuda_attention attention = cuda_stage_attention(stage, op->index, n);
    cuda_attend(&attention, stage->device->stream);
}

static void run_meter(struct backend_stage *stage, const struct step_op *op, int n)
{
    size_t at = (size_t)op->index * (size_t)stage->shape.max_rows * 2;
    cuda_meter(stage->x, n, stage->shape.hidden, op->norm->data, stage->meters + at,
               stage->device->stream);
}

void cuda_step_results(struct backend_stage *stage, const struct step_list *list)
{
    cudaStream_t stream = stage->device->stream;
    size_t pitch = (size_t)stage->shape.max_rows * 2;
    bool head = false, choose = false;
    int meters = 0;
    for (int i = 0; i < list->n_ops; i++) {
        head = head || list->ops[i].kind == STEP_HEAD;
        choose = choose || list->ops[i].kind == STEP_CHOOSE;
        meters += list->ops[i].kind == STEP_METER;
    }
    if (choose)
        cuda_choose_enqueue(stage, list);
    else if (head && list->n_logits)
        (void)cudaMemcpyAsync(stage->logits_host, stage->logits,
                              (size_t)list->n_logits * (size_t)stage->shape.vocab * sizeof(float),
                              cudaMemcpyDeviceToHost, stream);
    if (meters)
        (void)cudaMemcpyAsync(stage->meter_host, stage->meters,
                              (size_t)meters * pitch * sizeof(float), cudaMemcpyDeviceToHost,
                              stream);
}

void cuda_step_op(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    cudaStream_t stream = stage->device->stream;
    int n = list->n;
    if (cuda_chunk_op(stage, list, i))
        return;
    switch (op->kind) {
    case STEP_EMBED:
        cuda_embed(&op->matrix[0]->w, stage->rows, n, stage->x, stream);
        break;
    case STEP_QKV:
        run_qkv(stage, op, n);
        break;
    case STEP_ATTEND:
        run_attend(stage, op, n);
        break;
    case STEP_PROJECT:
        run_add(stage, op, stage->attention, n);
        break;
    case STEP_GATE_UP:
        run_gate_up(stage, op, n);
        break;
    case STEP_DOWN:
        run_add(stage, op, stage->h, n);
        break;
    case STEP_EDIT:
        cuda_edit(stage->rows, n, op->index, op->norm->data, stage->shape.hidden, stage->x, stream);
        break;
    case STEP_METER:
        run_meter(stage, op, n);
        break;
    case STEP_TAP:
        (void)cudaMemcpyAsync(op->out, stage->x,
                              (size_t)n * (size_t)stage->shape.hidden * sizeof(float),
                              cudaMemcpyDeviceToHost, stream);
        break;
    case STEP_HEAD:
        run_head(stage, op, list->n_logits);
        break;
    case STEP_CHOOSE: /* cuda_step_results */
        break;
    }
}

void cuda_step_begin(struct backend_stage *stage, const struct step_list *list)
{
    (void)cudaMemcpyAsync(stage->rows, stage->rows_host, (size_t)list->n * sizeof *stage->rows_host,
                          cudaMemcpyHostToDevice, stage->device->stream);
    cuda_chunk_begin(stage, list);
}

void cuda_step_enqueue(struct backend_stage *stage, const struct step_list *list)
{
    cuda_step_begin(stage, list);
    for (int i = 0; i < list->n_ops; i++)
        cuda_step_op(stage, list, i);
    cuda_step_results(stage, list);
}

int cuda_step_check(const struct backend_stage *stage, struct gyaru_error *err)
{
    if (!stage->failed)
        return 0;
    return error_set(err, GYARU_FAILED, "cuda: a step of %d rows: %s", stage->step.n,
                     stage->failed);
}

int cuda_step_finish(struct backend_stage *stage, struct gyaru_error *err)
{
    cuda_enter(stage->device);
    if (cuda_check(cudaStreamSynchronize(stage->device->stream), "running a step", err) ||
        cuda_step_check(stage, err)) /* what failed while it was enqueued */
        return -1;
    for (int i = 0; i < stage->n_meters; i++)
        memcpy(stage->meter_out[i],
               stage->meter_host + (size_t)i * (size_t)stage->shape.max_rows * 2,
               (size_t)stage->step.n * 2 * sizeof(float));
    cuda_choose_finish(stage);
    return 0;
}

int cuda_op_end(struct backend_stage *stage, float **logits, struct gyaru_error *err)
{
    if (cuda_step_check(stage, err))
        return -1;
    cuda_enter(stage->device);
    if (cuda_graph_run(stage, err) || cuda_step_finish(stage, err))
        return -1;
    *logits = stage->logits_host;
    return 0;
}
