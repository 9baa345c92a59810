/*
 * edit.c - attached directions and their meters.
 *
 * Attached vectors are known by their contents, and added in the order of that: the same mix gives
 * the same sums and finds the same cached positions whatever was attached in between.
 *
 * The meter is the cosine between the hidden state and a direction, at a layer of the user's
 * choice. What was injected on the way is in it, and cannot be taken out again: layers answer to
 * it.
 *
 * The gauge is read at the output of the lowest layer that has a direction. What comes from below
 * has seen no steering, at any position, so that the hidden state there is what the text alone
 * makes of it plus exactly what this layer's edits add; without that part it does not depend on the
 * strength. It is put on the scale of the vector's class means: 0 plain texts, 1 texts in the
 * style. There is no gauge where this does not hold: for directions added at a layer's input, whose
 * own layer works on them, and while another vector acts on lower layers.
 */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void model_edit_release(struct model_edit *edit, int n_layers)
{
    for (int l = 0; edit->directions && l < n_layers; l++)
        free(edit->directions[l]);
    free(edit->directions);
    free(edit->meter);
    *edit = (struct model_edit){.meter_layer = -1, .gauge_layer = -1};
}

static float dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return (float)sum;
}

static uint64_t fnv(uint64_t hash, const void *data, size_t len)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

/* FNV-1a over the hook and all directions with their layers. */
static uint64_t edit_id(const struct model_edit *edit, const struct backend_shape *shape)
{
    uint64_t hash = fnv(0xcbf29ce484222325u, &edit->at_input, sizeof edit->at_input);
    for (int l = 0; l < shape->n_layers; l++) {
        if (!edit->directions[l])
            continue;
        hash = fnv(hash, &l, sizeof l);
        hash = fnv(hash, edit->directions[l], (size_t)shape->hidden * sizeof(float));
    }
    return hash;
}

static bool comes_before(const struct gyaru_model *m, int a, int b)
{
    uint64_t x = m->attached[a].id, y = m->attached[b].id;
    return x != y ? x < y : a < b;
}

/* Insertion into a list of four. */
static void recompute_order(struct gyaru_model *m)
{
    int n = 0;
    for (int e = 0; e < GYARU_MAX_VECTORS; e++) {
        if (!m->attached[e].used)
            continue;
        int at = n++;
        while (at > 0 && comes_before(m, e, m->order[at - 1])) {
            m->order[at] = m->order[at - 1];
            at--;
        }
        m->order[at] = e;
    }
    m->n_attached = n;
}

/* The gauge of `a` at strength 1 of `b`: what b adds at a's layer is known, what it adds below is
 * not, because layers in between have worked on it. */
static float injected(const struct gyaru_model *m, const struct attached *a,
                      const struct attached *b)
{
    int at = a->edit.gauge_layer;
    if (!a->used || !b->used || at < 0)
        return 0;
    for (int l = 0; l <= at; l++)
        if (b->edit.directions[l] && (l < at || b->edit.at_input))
            return NAN;
    if (!b->edit.directions[at])
        return 0;
    return dot(a->edit.directions[at], b->edit.directions[at], (size_t)m->shape.hidden);
}

static void recompute_injected(struct gyaru_model *m)
{
    for (int g = 0; g < GYARU_MAX_VECTORS; g++)
        for (int e = 0; e < GYARU_MAX_VECTORS; e++)
            m->attached[g].injected[e] = injected(m, &m->attached[g], &m->attached[e]);
}

static int upload(struct gyaru_model *m, struct attached *a, struct gyaru_error *err)
{
    size_t hidden = (size_t)m->shape.hidden;
    a->device = calloc((size_t)m->shape.n_layers, sizeof *a->device);
    a->metered = calloc((size_t)m->shape.max_rows, sizeof *a->metered);
    a->gauged = calloc((size_t)m->shape.max_rows, sizeof *a->gauged);
    if (!a->device || !a->metered || !a->gauged)
        return error_memory(err, (size_t)m->shape.max_rows * sizeof *a->metered, "a vector");
    for (int l = 0; l < m->shape.n_layers; l++)
        if (a->edit.directions[l] &&
            m->backend->vector_new(m->device, a->edit.directions[l], hidden, &a->device[l], err))
            return -1;
    if (!a->edit.meter)
        return 0;
    return m->backend->vector_new(m->device, a->edit.meter, hidden, &a->meter, err);
}

int model_attach_edit(struct gyaru_model *m, struct model_edit *edit, int *index,
                      struct gyaru_error *err)
{
    int free_index = 0;
    while (free_index < GYARU_MAX_VECTORS && m->attached[free_index].used)
        free_index++;
    if (free_index == GYARU_MAX_VECTORS) {
        model_edit_release(edit, m->shape.n_layers);
        return error_set(err, GYARU_FAILED, "%d vectors are attached already: detach one first",
                         GYARU_MAX_VECTORS);
    }
    struct attached *a = &m->attached[free_index];
    *a = (struct attached){.used = true, .edit = *edit};
    *edit = (struct model_edit){.meter_layer = -1, .gauge_layer = -1};
    a->id = edit_id(&a->edit, &m->shape);
    if (a->edit.meter)
        a->edit.meter_norm = sqrtf(dot(a->edit.meter, a->edit.meter, (size_t)m->shape.hidden));
    if (upload(m, a, err)) {
        gyaru_model_detach(m, free_index);
        return -1;
    }
    recompute_order(m);
    recompute_injected(m);
    *index = free_index;
    return 0;
}

void gyaru_model_detach(struct gyaru_model *m, int index)
{
    if (index < 0 || index >= GYARU_MAX_VECTORS || !m->attached[index].used)
        return;
    struct attached *a = &m->attached[index];
    for (int l = 0; a->device && l < m->shape.n_layers; l++)
        if (a->device[l])
            m->backend->vector_free(a->device[l]);
    if (a->meter)
        m->backend->vector_free(a->meter);
    free(a->device);
    free(a->metered);
    free(a->gauged);
    model_edit_release(&a->edit, m->shape.n_layers);
    *a = (struct attached){0};
    recompute_order(m);
    recompute_injected(m);
}

int gyaru_model_gauge_layer(const struct gyaru_model *m, int index)
{
    if (index < 0 || index >= GYARU_MAX_VECTORS || !m->attached[index].used)
        return -1;
    return m->attached[index].edit.meter_layer;
}

void model_read_meter(const struct gyaru_model *m, int index, int row, float *cosine, float *gauge)
{
    *cosine = *gauge = NAN;
    if (index < 0 || !m->attached[index].used || !m->attached[index].meter)
        return;
    const struct attached *a = &m->attached[index];
    float projection = a->metered[row][0], length = sqrtf(a->metered[row][1]);
    *cosine = length > 0 ? projection / (length * a->edit.meter_norm) : 0;
    if (a->edit.gauge_layer < 0)
        return;
    float own = a->gauged[row][0];
    for (int e = 0; e < GYARU_MAX_VECTORS; e++)
        if (m->rows[row].strength[e] != 0)
            own -= m->rows[row].strength[e] * a->injected[e];
    *gauge = (own - a->edit.m_minus) / (a->edit.m_plus - a->edit.m_minus);
}

/* No steering is 0 whatever is attached. */
uint64_t model_steering_key(const struct gyaru_model *m, const float *strengths)
{
    uint64_t hash = 0xcbf29ce484222325u;
    bool acts = false;
    for (int i = 0; i < m->n_attached; i++) {
        int e = m->order[i];
        if (strengths[e] == 0)
            continue;
        hash = fnv(hash, &m->attached[e].id, sizeof m->attached[e].id);
        hash = fnv(hash, &strengths[e], sizeof strengths[e]);
        acts = true;
    }
    return acts ? hash : 0;
}
