/*
 * group_step.c - stages and steps of a group. See group.h.
 *
 * A sum: all members add their product to the stream, the first to what is there, the others to
 * zeros, and the streams are added. All then hold the same bits, and with two members there is one
 * order only in which two numbers can be added.
 */
#include "backend/cuda/group.h"

#include <stdlib.h>

/* ---- shapes -----------------------------------------------------------------------------------
 */

static int group_heads(const struct backend_shape *s)
{
    return s->n_heads / s->n_kv_heads;
}

/* The model that a member sees. */
static struct backend_shape member_shape(const struct backend_shape *s, int member, int n)
{
    struct backend_shape out = *s;
    out.n_kv_heads = (int)quant_share((size_t)s->n_kv_heads, 1, member, n).n;
    out.n_heads = out.n_kv_heads * group_heads(s);
    out.intermediate = (int)quant_share((size_t)s->intermediate, BACKEND_CUT, member, n).n;
    out.vocab = (int)quant_share((size_t)s->vocab, BACKEND_CUT, member, n).n;
    return out;
}

int group_check(const struct backend_device *device, const struct backend_shape *s,
                struct gyaru_error *err)
{
    const struct group_device *g = group_of(device);
    if (cuda_check_shape(g->members[0], s, err))
        return -1;
    for (int m = 0; m < g->n; m++) {
        struct backend_shape own = member_shape(s, m, g->n);
        if (!own.n_kv_heads || !own.intermediate || !own.vocab)
            return error_set(err, GYARU_USAGE,
                             "%d GPUs cannot share a model of %d kv heads, %d columns of the MLP "
                             "and %d ids: each needs a kv head and %d of the others: use fewer "
                             "GPUs: --device cuda:0",
                             g->n, s->n_kv_heads, s->intermediate, s->vocab, BACKEND_CUT);
    }
    return 0;
}

void group_stage_bytes(const struct backend_device *device, const struct backend_shape *shape,
                       uint64_t *kv, uint64_t *workspace)
{
    const struct group_device *g = group_of(device);
    *kv = *workspace = 0;
    for (int m = 0; m < g->n; m++) {
        struct backend_shape own = member_shape(shape, m, g->n);
        uint64_t own_kv, own_workspace;
        cuda_stage_bytes(g->members[m], &own, &own_kv, &own_workspace);
        *kv = own_kv > *kv ? own_kv : *kv;
        *workspace = own_workspace > *workspace ? own_workspace : *workspace;
    }
}

int group_stage_new(struct backend_device *device, const struct backend_shape *shape,
                    struct backend_stage **out, struct gyaru_error *err)
{
    if (group_check(device, shape, err))
        return -1;
    struct group_stage *s = calloc(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the workspace");
    struct group_device *g = s->group = group_of(device);
    s->shape = *shape;
    int rc = 0;
    for (int m = 0; m < g->n && !rc; m++) {
        struct backend_shape own = member_shape(shape, m, g->n);
        s->heads[m] = quant_share((size_t)shape->n_kv_heads, 1, m, g->n);
        s->ids[m] = quant_share((size_t)shape->vocab, BACKEND_CUT, m, g->n);
        rc = cuda_stage_new(g->members[m], &own, &s->members[m], err);
        if (!rc)
            s->members[m]->member = true;
    }
    *out = (struct backend_stage *)(void *)s;
    if (rc || group_sample_init(s, err)) {
        group_stage_free(*out);
        return -1;
    }
    return 0;
}

void group_stage_free(struct backend_stage *stage)
{
    struct group_stage *s = group_stage_of(stage);
    if (!s)
        return;
    for (int m = 0; m < s->group->n; m++)
        cuda_stage_free(s->members[m]);
    group_sample_release(s);
    free(s);
}

/* ---- noting -----------------------------------------------------------------------------------
 */

void group_op_begin(struct backend_stage *stage, const struct backend_row *rows, int n)
{
    struct group_stage *s = group_stage_of(stage);
    s->failed = NULL;
    s->out = NULL;
    for (int m = 0; m < s->group->n; m++)
        cuda_op_begin(s->members[m], rows, n);
}

void group_op_embed(struct backend_stage *stage, const struct backend_matrix *table)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++)
        cuda_op_embed(s->members[m], group_matrix_of(table)->parts[m]);
}

/* What of a bias belongs to a member's heads, `width` values to each kv head; NULL of NULL. */
static const struct backend_vector *bias_of(const struct group_stage *s, int m,
                                            const struct backend_vector *bias, size_t width)
{
    struct group_vector *all = group_vector_of(bias);
    if (!all)
        return NULL;
    struct backend_vector *view = &all->views[m];
    *view = *all->whole[m];
    view->data += s->heads[m].first * width;
    view->n = s->heads[m].n * width;
    return view;
}

void group_op_qkv(struct backend_stage *stage, int layer, const struct backend_vector *norm,
                  const struct backend_matrix *const weights[3],
                  const struct backend_vector *const biases[3])
{
    struct group_stage *s = group_stage_of(stage);
    size_t keys = (size_t)s->shape.head_dim, queries = keys * (size_t)group_heads(&s->shape);
    for (int m = 0; m < s->group->n; m++) {
        const struct backend_matrix *own[3];
        const struct backend_vector *bias[3];
        for (int i = 0; i < 3; i++) {
            own[i] = group_matrix_of(weights[i])->parts[m];
            bias[i] = bias_of(s, m, biases[i], i ? keys : queries);
        }
        cuda_op_qkv(s->members[m], layer, group_vector_of(norm)->whole[m], own, bias);
    }
}

void group_op_attend(struct backend_stage *stage, int layer)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++)
        cuda_op_attend(s->members[m], layer);
}

void group_op_project(struct backend_stage *stage, const struct backend_matrix *output)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++)
        cuda_op_project(s->members[m], group_matrix_of(output)->parts[m]);
}

void group_op_gate_up(struct backend_stage *stage, const struct backend_vector *norm,
                      const struct backend_matrix *gate, const struct backend_matrix *up)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++)
        cuda_op_gate_up(s->members[m], group_vector_of(norm)->whole[m],
                        group_matrix_of(gate)->parts[m], group_matrix_of(up)->parts[m]);
}

void group_op_down(struct backend_stage *stage, const struct backend_matrix *down)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++)
        cuda_op_down(s->members[m], group_matrix_of(down)->parts[m]);
}

void group_op_edit(struct backend_stage *stage, int index, const struct backend_vector *direction)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++)
        cuda_op_edit(s->members[m], index, group_vector_of(direction)->whole[m]);
}

void group_op_meter(struct backend_stage *stage, const struct backend_vector *direction, float *out)
{
    struct group_stage *s = group_stage_of(stage);
    cuda_op_meter(s->members[0], group_vector_of(direction)->whole[0], out);
}

void group_op_tap(struct backend_stage *stage, float *out)
{
    cuda_op_tap(group_stage_of(stage)->members[0], out);
}

/* A matrix that is whole on each is the embedding, too: a member takes the rows of its ids. */
void group_op_head(struct backend_stage *stage, const struct backend_vector *norm,
                   const struct backend_matrix *weights)
{
    struct group_stage *s = group_stage_of(stage);
    struct group_matrix *all = group_matrix_of(weights);
    for (int m = 0; m < s->group->n; m++) {
        const struct backend_matrix *part = all->parts[m];
        if (all->whole) {
            if (!cuda_matrix_rows(part, s->ids[m].first, s->ids[m].n, &all->views[m]))
                s->failed = "the head's scales cannot be cut between the GPUs";
            part = &all->views[m];
        }
        cuda_op_head(s->members[m], group_vector_of(norm)->whole[m], part);
    }
}

/* ---- running ----------------------------------------------------------------------------------
 */

/* A member's operations from *at on, up to a sum and with its own part of it; false: there was
 * none. Its sum alone begins with what was in the stream before. */
static bool run_to_sum(struct group_stage *s, int m, int *at)
{
    struct backend_stage *member = s->members[m];
    const struct step_list *list = &member->step;
    while (*at < list->n_ops) {
        enum step_kind kind = list->ops[*at].kind;
        bool sum = kind == STEP_PROJECT || kind == STEP_DOWN;
        if (sum && m)
            (void)cudaMemsetAsync(member->x, 0,
                                  (size_t)list->n * (size_t)s->shape.hidden * sizeof(float),
                                  member->device->stream);
        cuda_step_op(member, list, (*at)++);
        if (sum)
            return true;
    }
    return false;
}

static int enqueue(struct group_stage *s, struct gyaru_error *err)
{
    float *streams[BACKEND_DEVICES];
    int at[BACKEND_DEVICES] = {0};
    for (int m = 0; m < s->group->n; m++) {
        cuda_enter(s->members[m]->device);
        cuda_step_begin(s->members[m], &s->members[m]->step);
        streams[m] = s->members[m]->x;
    }
    for (bool sum = true; sum;) {
        for (int m = 0; m < s->group->n; m++) {
            cuda_enter(s->members[m]->device);
            sum = run_to_sum(s, m, &at[m]);
        }
        size_t n = (size_t)s->members[0]->step.n * (size_t)s->shape.hidden;
        if (sum && group_sum(s->group, streams, n, err))
            return -1;
    }
    for (int m = 0; m < s->group->n; m++) {
        cuda_enter(s->members[m]->device);
        group_results(s, m);
    }
    return cuda_check(cudaGetLastError(), "starting a step", err);
}

int group_op_end(struct backend_stage *stage, float **logits, struct gyaru_error *err)
{
    struct group_stage *s = group_stage_of(stage);
    if (s->failed)
        return error_set(err, GYARU_FAILED, "cuda: a step: %s", s->failed);
    for (int m = 0; m < s->group->n; m++)
        if (cuda_step_check(s->members[m], err))
            return -1;
    int rc = enqueue(s, err);
    for (int m = 0; m < s->group->n; m++) {
        struct gyaru_error other; /* the first is reported, and all are waited for */
        if (cuda_step_finish(s->members[m], rc ? &other : err))
            rc = -1;
    }
    if (rc)
        return -1;
    group_gather(s);
    *logits = s->logits;
    return 0;
}
