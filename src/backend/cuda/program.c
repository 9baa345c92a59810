/*
 * program.c - a step's list of operations as phases of the kernel that runs a step of few rows
 * whole.
 *
 * What that kernel cannot do - float32 weights, taps, an edit between a meter and what follows it,
 * rows of x that do not fit into shared memory - makes no program; such steps run as single
 * kernels.
 */
#include "backend/cuda/stage.h"

#include <string.h>

struct builder {
    const struct backend_stage *stage;
    const struct step_list *list;
    struct cuda_phase *phases;
    int n, capacity;
    size_t shared;
    const struct backend_matrix *table; /* whose byte table lies in shared memory */
    struct cuda_phase meters[CUDA_METERS];
    int n_meters;
    bool possible;
};

static void add(struct builder *b, const struct cuda_phase *phase)
{
    size_t shared = cuda_decode_shared(phase);
    if (b->n == b->capacity) {
        b->possible = false;
        return;
    }
    b->phases[b->n++] = *phase;
    if (shared > b->shared)
        b->shared = shared;
}

/* Meters read what no phase changes before the next projection: they run beside attention, which
 * leaves blocks idle, or after the head. */
static void add_meters(struct builder *b, bool wait)
{
    for (int i = 0; i < b->n_meters; i++) {
        b->meters[i].wait = wait && i == 0;
        add(b, &b->meters[i]);
    }
    b->n_meters = 0;
}

struct output {
    const struct backend_matrix *m;
    const struct backend_vector *bias; /* NULL: none */
    float *out;
};

struct input {
    const float *x;
    const struct backend_vector *norm; /* NULL: no rmsnorm */
    bool chosen;
    int n;
};

static void add_product(struct builder *b, const struct input *in, const struct output *outputs,
                        int n_outputs, enum cuda_finish finish)
{
    const struct backend_matrix *m = outputs[0].m;
    struct cuda_product product = {.n_parts = n_outputs,
                                   .finish = finish,
                                   .n = in->n,
                                   .x = in->x,
                                   .partial = b->stage->partial,
                                   .counters = b->stage->counters,
                                   .blocks = b->stage->device->multiprocessors};
    struct cuda_phase phase = {.kind = CUDA_PHASE_PRODUCT, .wait = true, .chosen = in->chosen};
    if (m->w.layout == CUDA_F32) {
        b->possible = false;
        return;
    }
    for (int i = 0; i < n_outputs; i++)
        product.parts[i] = (struct cuda_part){
            outputs[i].m->w, outputs[i].bias ? outputs[i].bias->data : NULL, outputs[i].out};
    phase.vector = in->norm ? in->norm->data : NULL;
    phase.pass = cuda_pass_of(&product, 0, in->n);
    phase.pass.a.x = in->x;
    bool has_table = m->w.layout == CUDA_NESTED || m->w.layout == CUDA_4BIT;
    phase.fill = has_table && !(b->table && cuda_tables_alike(b->table, m));
    b->table = has_table ? m : NULL;
    add(b, &phase);
}

static void add_qkv(struct builder *b, const struct step_op *op)
{
    const struct backend_stage *s = b->stage;
    struct input in = {s->x, op->norm, false, b->list->n};
    float *outs[3] = {s->q, s->k, s->v};
    struct output outputs[3];
    for (int i = 0; i < 3; i++)
        outputs[i] = (struct output){op->matrix[i], op->bias[i], outs[i]};
    if (cuda_matrix_alike(op->matrix[0], op->matrix[1]) &&
        cuda_matrix_alike(op->matrix[0], op->matrix[2]))
        add_product(b, &in, outputs, 3, CUDA_STORE);
    else
        for (int i = 0; i < 3; i++)
            add_product(b, &in, &outputs[i], 1, CUDA_STORE);
}

static void add_gate_up(struct builder *b, const struct step_op *op)
{
    const struct backend_stage *s = b->stage;
    struct input in = {s->x, op->norm, false, b->list->n};
    struct output outputs[2] = {{op->matrix[0], NULL, s->h}, {op->matrix[1], NULL, s->h}};
    if (cuda_matrix_alike(op->matrix[0], op->matrix[1])) {
        add_product(b, &in, outputs, 2, CUDA_PAIR);
        return;
    }
    add_product(b, &in, &outputs[0], 1, CUDA_STORE);
    add_product(b, &in, &outputs[1], 1, CUDA_GATE);
}

static void add_to_stream(struct builder *b, const struct step_op *op, const float *x)
{
    struct input in = {x, NULL, false, b->list->n};
    add_product(b, &in, &(struct output){op->matrix[0], NULL, b->stage->x}, 1, CUDA_ADD);
}

/* An edit belongs to the phase that wrote the stream. */
static void add_edit(struct builder *b, const struct step_op *op)
{
    struct cuda_phase *last = b->n ? &b->phases[b->n - 1] : NULL;
    if (!last || b->n_meters || last->pass.n_edits == CUDA_EDITS ||
        !(last->kind == CUDA_PHASE_EMBED ||
          (last->kind == CUDA_PHASE_PRODUCT && last->pass.a.finish == CUDA_ADD))) {
        b->possible = false;
        return;
    }
    last->pass.edits[last->pass.n_edits].index = op->index;
    last->pass.edits[last->pass.n_edits++].direction = op->norm->data;
}

static void add_op(struct builder *b, const struct step_op *op)
{
    const struct backend_stage *s = b->stage;
    switch (op->kind) {
    case STEP_EMBED:
        add(b, &(struct cuda_phase){.kind = CUDA_PHASE_EMBED, .table = op->matrix[0]->w});
        break;
    case STEP_QKV:
        add_qkv(b, op);
        break;
    case STEP_ATTEND:
        add(b, &(struct cuda_phase){.kind = CUDA_PHASE_ATTEND, .wait = true, .index = op->index});
        add_meters(b, false);
        break;
    case STEP_PROJECT:
        add_to_stream(b, op, s->attention);
        break;
    case STEP_GATE_UP:
        add_gate_up(b, op);
        break;
    case STEP_DOWN:
        add_to_stream(b, op, s->h);
        break;
    case STEP_EDIT:
        add_edit(b, op);
        break;
    case STEP_METER:
        b->meters[b->n_meters++] = (struct cuda_phase){
            .kind = CUDA_PHASE_METER,
            .vector = op->norm->data,
            .out = s->meters + (size_t)op->index * (size_t)s->shape.max_rows * 2};
        break;
    case STEP_CHOOSE: /* behind the kernel: cuda_step_results */
        break;
    case STEP_TAP:
        b->possible = false;
        break;
    case STEP_HEAD:
        if (b->list->n_logits) {
            struct input in = {s->x, op->norm, true, b->list->n_logits};
            add_product(b, &in, &(struct output){op->matrix[0], NULL, s->logits}, 1, CUDA_STORE);
            add_meters(b, false);
        }
        break;
    }
}

void cuda_program_build(const struct backend_stage *stage, const struct step_list *list,
                        struct cuda_phase *out, struct step_program *program)
{
    struct builder b = {stage, list, out, 0, stage->max_phases, 0, NULL, {{0}}, 0, true};
    program->n = 0;
    if (list->n > CUDA_GRAPH_ROWS || stage->cache.type == CUDA_KV_INT8)
        return; /* one kernel appends what it attends to as fp16 or float32 */
    for (int i = 0; i < list->n_ops && b.possible; i++)
        add_op(&b, &list->ops[i]);
    add_meters(&b, true);
    program->shared = b.shared;
    program->n = b.possible && b.shared <= stage->device->shared ? b.n : 0;
    for (int i = 1; i < program->n; i++)
        if (out[i - 1].kind != CUDA_PHASE_PRODUCT && out[i].kind == CUDA_PHASE_PRODUCT)
            program->main = out[i].pass.a.parts[0].weights.layout;
}

void cuda_program_enqueue(struct backend_stage *stage, const struct step_list *list,
                          const struct step_program *program)
{
    const struct backend_shape *shape = &stage->shape;
    cudaStream_t stream = stage->device->stream;
    (void)cudaMemcpyAsync(stage->rows, stage->rows_host, (size_t)list->n * sizeof *stage->rows_host,
                          cudaMemcpyHostToDevice, stream);
    cuda_decode(&(struct cuda_decode){.phases = program->phases,
                                      .n_phases = program->n,
                                      .n = list->n,
                                      .hidden = shape->hidden,
                                      .rows = stage->rows,
                                      .x = stage->x,
                                      .eps = shape->norm_eps,
                                      .attention = cuda_stage_attention(stage, 0, list->n),
                                      .rope = stage->rope,
                                      .k = stage->k,
                                      .v = stage->v,
                                      .barrier = stage->barrier,
                                      .main = program->main,
                                      .blocks = stage->device->multiprocessors,
                                      .shared = program->shared,
                                      .ahead = CUDA_AHEAD},
                stream);
    cuda_step_results(stage, list);
}
