/*
 * qwen2.c - the layer loop of Qwen2 and Qwen2.5, written once for prefill, decode and batches.
 *
 * Source: the Qwen2 architecture as Hugging Face implements it: pre-norm blocks, biases on q, k and
 * v, rotary positions, grouped-query attention, SwiGLU.
 */
#include "model/model.h"

/* Adds every attached vector's direction at this point; rows of strength 0 stay untouched. */
static void edit(struct gyaru_model *m, int layer, bool at_input)
{
    for (int i = 0; i < m->n_attached; i++) {
        const struct attached *a = &m->attached[m->order[i]];
        if (a->edit.at_input == at_input && a->device[layer])
            m->backend->edit(m->stage, m->order[i], a->device[layer]);
    }
}

static void meter(struct gyaru_model *m, int layer)
{
    for (int i = 0; i < m->n_attached; i++) {
        const struct attached *a = &m->attached[m->order[i]];
        if (a->meter && a->edit.meter_layer == layer)
            m->backend->meter(m->stage, a->meter, a->metered[0]);
        if (a->edit.gauge_layer == layer)
            m->backend->meter(m->stage, a->device[layer], a->gauged[0]);
    }
}

static void tap(struct gyaru_model *m, const struct model_taps *taps, int point, int n)
{
    if (taps && taps->hidden)
        m->backend->tap(m->stage,
                        taps->hidden + (size_t)point * (size_t)n * (size_t)m->shape.hidden);
}

int qwen2_forward(struct gyaru_model *m, const struct backend_row *rows, int n,
                  const struct model_taps *taps, float **logits, struct gyaru_error *err)
{
    const struct backend *b = m->backend;
    struct backend_stage *s = m->stage;

    b->begin(s, rows, n);
    b->embed(s, m->embedding);
    tap(m, taps, 0, n);
    for (int l = 0; l < m->shape.n_layers; l++) {
        const struct model_layer *w = &m->layers[l];
        edit(m, l, true);
        b->qkv(s, l, w->attention_norm, (const struct backend_matrix *const *)w->qkv,
               (const struct backend_vector *const *)w->qkv_bias);
        b->attend(s, l);
        b->project(s, w->output);
        b->gate_up(s, w->mlp_norm, w->gate, w->up);
        b->down(s, w->down);
        edit(m, l, false);
        meter(m, l);
        tap(m, taps, l + 1, n);
    }
    b->head(s, m->norm, m->head);
    if (taps && taps->candidates)
        b->candidates(s, taps->candidates);
    return b->end(s, logits, err);
}
