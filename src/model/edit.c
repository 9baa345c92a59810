/*
 * edit.c - attached directions and their meters.
 *
 * Attached vectors are known by their contents, and added in the order of that: the same mix gives
 * the same sums and finds the same cached positions whatever was attached in between.
 *
 * The gauge is the projection of the hidden state on the meter's direction with the injected part
 * removed: to first order that part is the sum of everything added up to the meter's layer, whose
 * projection per unit of strength is computed once, when vectors are attached.
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
    free(edit->gauge);
    *edit = (struct model_edit){.gauge_layer = -1};
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

/* What is added at the input or the output of a layer up to the gauge's is in what the meter reads.
 */
static void recompute_injected(struct gyaru_model *m)
{
    for (int g = 0; g < GYARU_MAX_VECTORS; g++) {
        struct attached *a = &m->attached[g];
        for (int e = 0; e < GYARU_MAX_VECTORS; e++) {
            const struct attached *b = &m->attached[e];
            double sum = 0;
            if (a->used && a->edit.gauge && b->used)
                for (int l = 0; l <= a->edit.gauge_layer; l++)
                    if (b->edit.directions[l])
                        sum += (double)dot(a->edit.gauge, b->edit.directions[l],
                                           (size_t)m->shape.hidden);
            a->injected[e] = (float)sum;
        }
    }
}

static int upload(struct gyaru_model *m, struct attached *a, struct gyaru_error *err)
{
    size_t hidden = (size_t)m->shape.hidden;
    a->device = calloc((size_t)m->shape.n_layers, sizeof *a->device);
    a->meter = calloc((size_t)m->shape.max_rows, sizeof *a->meter);
    if (!a->device || !a->meter)
        return error_memory(err, (size_t)m->shape.max_rows * sizeof *a->meter, "a vector");
    for (int l = 0; l < m->shape.n_layers; l++)
        if (a->edit.directions[l] &&
            m->backend->vector_new(m->device, a->edit.directions[l], hidden, &a->device[l], err))
            return -1;
    if (!a->edit.gauge)
        return 0;
    return m->backend->vector_new(m->device, a->edit.gauge, hidden, &a->gauge, err);
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
    *edit = (struct model_edit){.gauge_layer = -1};
    a->id = edit_id(&a->edit, &m->shape);
    if (a->edit.gauge)
        a->edit.gauge_norm = sqrtf(dot(a->edit.gauge, a->edit.gauge, (size_t)m->shape.hidden));
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
    if (a->gauge)
        m->backend->vector_free(a->gauge);
    free(a->device);
    free(a->meter);
    model_edit_release(&a->edit, m->shape.n_layers);
    *a = (struct attached){0};
    recompute_order(m);
    recompute_injected(m);
}

int gyaru_model_gauge_layer(const struct gyaru_model *m, int index)
{
    if (index < 0 || index >= GYARU_MAX_VECTORS || !m->attached[index].used)
        return -1;
    return m->attached[index].edit.gauge_layer;
}

void model_read_meter(const struct gyaru_model *m, int index, int row, float *cosine, float *gauge)
{
    const struct attached *a = &m->attached[index];
    *cosine = *gauge = NAN;
    if (!a->used || !a->gauge)
        return;
    float projection = a->meter[row][0], length = sqrtf(a->meter[row][1]);
    *cosine = length > 0 ? projection / (length * a->edit.gauge_norm) : 0;
    float own = projection;
    for (int e = 0; e < GYARU_MAX_VECTORS; e++)
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
