/*
 * program.c - a step's list of operations as phases of the kernel that runs a step of few rows
 * whole.
 *
 * What that kernel cannot do - float32 weights, taps, rows of an odd width or wider than 16 warps
 * can hold - makes no program; such steps run as single kernels. So do all steps where a block has
 * too little shared memory.
 */
#include "backend/cuda/stage.h"

#include <string.h>

struct builder {
    const struct backend_stage *stage;
    const struct step_list *list;
    struct cuda_phase *phases;
    int n, capacity;
    struct cuda_source stream;          /* where the residual stream is after the phases so far */
    int product;                        /* the last phase that is one, -1: none yet */
    const struct backend_matrix *table; /* whose byte table lies in shared memory */
    struct cuda_phase meters[CUDA_METERS];
    int n_meters;
    bool possible;
};

static void add(struct builder *b, const struct cuda_phase *phase)
{
    if (b->n == b->capacity)
        b->possible = false;
    else
        b->phases[b->n++] = *phase;
}

/* Meters read what phases that follow leave alone until the next projection: they run beside
 * attention, which leaves blocks idle, or after the head. */
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
    struct cuda_source source;
    const struct backend_vector *norm; /* NULL: no rmsnorm */
    bool chosen;
    int n;
};

#define PART_TILES                                                                                 \
    16 /* adding a part of as many tiles costs what multiplying one more group does */

/* log2 of the parts that a row's groups are cut into: few parts, but so that blocks get about the
 * same number of tiles, and warps of groups. -1: too wide. One part where a block must see whole
 * rows. */
static int parts_of(int tiles, int groups, int blocks, bool whole)
{
    int best = -1;
    int64_t least = 0;
    for (int log = 0; 1 << log <= (whole ? 1 : CUDA_PARTS) && 1 << log <= blocks; log++) {
        int parts = 1 << log, share = blocks / parts, ranges = parts * CUDA_WARPS;
        if ((groups + ranges - 1) / ranges > CUDA_GROUPS)
            continue;
        int64_t most = (tiles + share - 1) / share;
        int64_t cost = most * CUDA_WARPS * ((groups + ranges - 1) / ranges) * PART_TILES +
                       (int64_t)tiles * parts;
        if (best < 0 || cost < least) {
            best = log;
            least = cost;
        }
    }
    return best;
}

/* Do the nested scales of a load fit beside its weights? They are few but for odd block sizes.
 * Warps have as many groups as a share has on average, rounded down or up. */
static bool loads_fit(const struct cuda_run *c)
{
    int average = c->groups / (CUDA_WARPS << c->parts);
    for (int own = average; own <= average + 1 && c->layout == CUDA_NESTED; own++) {
        int n = own > CUDA_LOAD_GROUPS ? (own + 1) / 2 : own;
        if (n * 528 + CUDA_SPAN_BYTES(c->groups, n, c->shift) > CUDA_LOAD_BYTES)
            return false;
    }
    return true;
}

/* False: too wide. */
static bool cut_product(const struct builder *b, const struct output *outputs, int n_outputs,
                        bool pair, bool whole, struct cuda_run *out)
{
    const struct cuda_weights *first = &outputs[0].m->w;
    struct cuda_run c = {.groups = first->groups,
                         .shift = first->shift,
                         .layout = (int)first->layout,
                         .pair = pair,
                         .next = -1};
    int tiles = 0, blocks = b->stage->device->multiprocessors;
    for (int i = 0; i < n_outputs; i++) {
        const struct cuda_weights *w = &outputs[i].m->w;
        c.data[i] = w->data;
        c.codes[i] = w->codes;
        c.scale[i] = w->scale;
        c.offset[i] = w->offset;
        c.tiles[i] = (int)((w->rows + 15) / 16);
        tiles += i && pair ? 0 : c.tiles[i];
    }
    int parts = parts_of(tiles, c.groups, blocks, whole);
    c.parts = (uint16_t)parts;
    if (parts < 0 || !loads_fit(&c))
        return false;
    c.quotient = tiles / (blocks >> parts);
    c.rest = tiles % (blocks >> parts);
    *out = c;
    return true;
}

/* Rows of x that one product takes: 16-bit weights see each row twice. */
static int rows_at_once(const struct cuda_weights *w)
{
    bool halves = w->layout == CUDA_F16 || w->layout == CUDA_BF16;
    return halves ? CUDA_GRAPH_ROWS / 2 : CUDA_GRAPH_ROWS;
}

/* keep: where the input comes to be left; the outputs of parts, if there may be any, lie one behind
 * the other. Returns their number. */
static int add_product(struct builder *b, const struct input *in, const struct output *outputs,
                       int n_outputs, enum cuda_finish finish, float *keep)
{
    const struct cuda_weights *w = &outputs[0].m->w;
    bool has_table = w->layout == CUDA_NESTED || w->layout == CUDA_4BIT;
    struct cuda_phase phase = {.kind = CUDA_PHASE_PRODUCT,
                               .wait = true,
                               .chosen = in->chosen,
                               .weights = *w,
                               .in = in->source,
                               .vector = in->norm ? in->norm->data : NULL,
                               .unscale = 1 / w->table_scale,
                               .keep = keep,
                               .finish = finish};
    bool whole = outputs[0].out != b->stage->parts;
    if (w->layout == CUDA_F32 || w->cols % 2 ||
        !cut_product(b, outputs, n_outputs, finish == CUDA_PAIR, whole, &phase.cut)) {
        b->possible = false;
        return 1;
    }
    phase.fill = has_table && !(b->table && cuda_tables_alike(b->table, outputs[0].m));
    b->table = has_table ? outputs[0].m : b->table;
    for (int i = 0; i < n_outputs; i++) {
        phase.rows[i] = (int)outputs[i].m->w.rows;
        phase.bias[i] = outputs[i].bias ? outputs[i].bias->data : NULL;
    }
    phase.out_pitch = (size_t)in->n * w->rows;
    for (; phase.first < in->n && b->possible; phase.first += phase.n) {
        phase.n = in->n - phase.first < rows_at_once(w) ? in->n - phase.first : rows_at_once(w);
        phase.inverse = 65536 / phase.n + 1;
        phase.room = CUDA_WARP_SUMS / (16 * phase.n) & ~1;
        for (int i = 0; i < n_outputs; i++)
            phase.out[i] = outputs[i].out + (size_t)phase.first * (size_t)phase.rows[i];
        if (b->product >= 0)
            b->phases[b->product].cut.next = b->n;
        b->product = b->n;
        add(b, &phase);
        phase.wait = phase.fill = false;
    }
    return 1 << phase.cut.parts;
}

/* The stream as the next product's input, which leaves it whole in the other of two buffers. */
static struct input take_stream(struct builder *b, const struct backend_vector *norm, float **keep)
{
    const struct backend_stage *s = b->stage;
    struct input in = {b->stream, norm, false, b->list->n};
    *keep = NULL;
    if (b->stream.n_parts || b->stream.n_edits) {
        *keep = b->stream.x == s->x ? s->other_x : s->x;
        b->stream = (struct cuda_source){.x = *keep};
    }
    return in;
}

/* Several outputs of one input: in one phase if their matrices are alike. */
static void add_outputs(struct builder *b, const struct backend_vector *norm,
                        const struct output *outputs, int n_outputs, enum cuda_finish together,
                        enum cuda_finish later)
{
    bool alike = true;
    float *keep;
    for (int i = 1; i < n_outputs; i++)
        alike = alike && cuda_matrix_alike(outputs[0].m, outputs[i].m);
    for (int i = 0; i < n_outputs; i += alike ? n_outputs : 1) {
        struct input in = take_stream(b, norm, &keep);
        add_product(b, &in, outputs + i, alike ? n_outputs : 1,
                    alike ? together
                    : i   ? later
                          : CUDA_STORE,
                    keep);
    }
}

static void add_qkv(struct builder *b, const struct step_op *op)
{
    const struct backend_stage *s = b->stage;
    float *outs[3] = {s->q, s->k, s->v};
    struct output outputs[3];
    for (int i = 0; i < 3; i++)
        outputs[i] = (struct output){op->matrix[i], op->bias[i], outs[i]};
    add_outputs(b, op->norm, outputs, 3, CUDA_STORE, CUDA_STORE);
}

static void add_gate_up(struct builder *b, const struct step_op *op)
{
    float *h = b->stage->h;
    const struct output outputs[2] = {{op->matrix[0], NULL, h}, {op->matrix[1], NULL, h}};
    add_outputs(b, op->norm, outputs, 2, CUDA_PAIR, CUDA_GATE);
}

static void add_to_stream(struct builder *b, const struct step_op *op, const float *x)
{
    const struct input in = {{.x = x}, NULL, false, b->list->n};
    const struct output out = {op->matrix[0], NULL, b->stage->parts};
    b->stream.parts = b->stage->parts;
    b->stream.n_parts = add_product(b, &in, &out, 1, CUDA_STORE, NULL);
}

static void add_edit(struct builder *b, const struct step_op *op)
{
    if (b->stream.n_edits == CUDA_EDITS) {
        b->possible = false;
        return;
    }
    b->stream.edits[b->stream.n_edits].index = op->index;
    b->stream.edits[b->stream.n_edits++].direction = op->norm->data;
}

static void add_op(struct builder *b, const struct step_op *op)
{
    const struct backend_stage *s = b->stage;
    switch (op->kind) {
    case STEP_EMBED:
        add(b, &(struct cuda_phase){.kind = CUDA_PHASE_EMBED, .weights = op->matrix[0]->w});
        b->stream.x = s->x;
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
            .in = b->stream,
            .vector = op->norm->data,
            .out = {s->meters + (size_t)op->index * (size_t)s->shape.max_rows * 2}};
        break;
    case STEP_CHOOSE: /* behind the kernel: cuda_step_results */
        break;
    case STEP_TAP:
        b->possible = false;
        break;
    case STEP_HEAD:
        if (b->list->n_logits) {
            const struct input in = {b->stream, op->norm, true, b->list->n_logits};
            const struct output out = {op->matrix[0], NULL, s->logits};
            add_product(b, &in, &out, 1, CUDA_STORE, NULL);
            add_meters(b, false);
        }
        break;
    }
}

void cuda_program_build(const struct backend_stage *stage, const struct step_list *list,
                        struct cuda_phase *out, struct step_program *program)
{
    struct builder b = {.stage = stage,
                        .list = list,
                        .phases = out,
                        .capacity = stage->max_phases,
                        .product = -1,
                        .possible = true};
    program->n = 0;
    if (list->n > CUDA_GRAPH_ROWS || stage->device->shared < cuda_decode_shared() ||
        stage->shape.hidden % 2 || stage->cache.type == CUDA_KV_INT8)
        return; /* one kernel appends what it attends to as fp16 or float32 */
    for (int i = 0; i < list->n_ops && b.possible; i++)
        add_op(&b, &list->ops[i]);
    add_meters(&b, true);
    program->n = b.possible ? b.n : 0;
    program->product = -1;
    for (int i = program->n - 1; i >= 0; i--)
        if (out[i].kind == CUDA_PHASE_PRODUCT)
            program->product = i;
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
                                      .product = program->product,
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
                                      .blocks = stage->device->multiprocessors},
                stream);
    cuda_step_results(stage, list);
}
