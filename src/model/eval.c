/*
 * eval.c - teacher-forced passes: what the model says about ids that are given.
 */
#include "model/session.h"

#include "format/safetensors.h"
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int check(const struct gyaru_model *m, const struct gyaru_eval *e, struct gyaru_error *err)
{
    if (!e->n || e->n > (size_t)m->shape.context)
        return error_set(err, GYARU_USAGE, "eval: %zu ids: expected 1..%d (the context)", e->n,
                         m->shape.context);
    for (size_t i = 0; i < e->n; i++)
        if (e->ids[i] < 0 || e->ids[i] >= m->shape.vocab)
            return error_set(err, GYARU_USAGE, "eval: id %d at position %zu: expected 0..%d",
                             e->ids[i], i, m->shape.vocab - 1);
    if (e->gauge >= GYARU_MAX_VECTORS || (e->gauge >= 0 && !m->attached[e->gauge].used))
        return error_set(err, GYARU_USAGE, "eval: no vector is attached at %d", e->gauge);
    for (int v = 0; e->strengths && v < GYARU_MAX_VECTORS; v++)
        if (!isfinite(e->strengths[v]))
            return error_set(err, GYARU_USAGE, "eval: strength is not a finite number");
    return 0;
}

static double nll_of(const float *logits, int vocab, int32_t id)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < vocab; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - max);
    // cppcheck-suppress invalidFunctionArg ; vocab >= 1, so that sum >= exp(0)
    return log(sum) + max - (double)logits[id];
}

static void take_row(const struct gyaru_model *m, struct gyaru_eval *e, size_t pos, int row,
                     const float *logits)
{
    int vocab = m->shape.vocab;
    if (e->argmax)
        e->argmax[pos] = sampler_argmax(logits, vocab);
    if (e->nll && pos + 1 < e->n)
        e->nll[pos] = nll_of(logits, vocab, e->ids[pos + 1]);
    if (e->logits)
        memcpy(e->logits + pos * (size_t)vocab, logits, (size_t)vocab * sizeof *logits);
    float cosine, gauge;
    model_read_meter(m, e->gauge, row, &cosine, &gauge);
    if (e->cosine)
        e->cosine[pos] = cosine;
    if (e->calibrated)
        e->calibrated[pos] = gauge;
}

/* Rows [first, first+n) of the text in slot `slot`. */
static int eval_chunk(struct gyaru_model *m, struct gyaru_eval *e, int slot, size_t first, int n,
                      float *hidden, struct gyaru_error *err)
{
    bool wants_logits = e->argmax || e->nll || e->logits;
    for (int i = 0; i < n; i++) {
        struct backend_row *row = &m->rows[i];
        *row = (struct backend_row){.token = e->ids[first + (size_t)i],
                                    .slot = slot,
                                    .pos = (int32_t)(first + (size_t)i),
                                    .logits = wants_logits};
        for (int v = 0; e->strengths && v < GYARU_MAX_VECTORS; v++)
            row->strength[v] = e->strengths[v];
    }
    float *logits;
    struct model_taps taps = {.hidden = hidden};
    if (qwen2_forward(m, m->rows, n, &taps, &logits, err))
        return -1;
    for (int i = 0; i < n; i++)
        take_row(m, e, first + (size_t)i, i,
                 wants_logits ? logits + (size_t)i * (size_t)m->shape.vocab : NULL);
    return 0;
}

int gyaru_model_eval(struct gyaru_model *m, struct gyaru_eval *e, struct gyaru_error *err)
{
    if (check(m, e, err))
        return -1;
    int slot = session_free_slot(m);
    if (slot < 0)
        return error_set(err, GYARU_FAILED, "eval: all %d sessions are in use", m->shape.n_slots);
    int chunk = m->shape.max_rows < MODEL_EVAL_ROWS ? m->shape.max_rows : MODEL_EVAL_ROWS;
    size_t hidden = (size_t)m->shape.hidden, points = (size_t)m->shape.n_layers + 1;
    float *taps = NULL;
    if (e->hidden) {
        taps = malloc(points * (size_t)chunk * hidden * sizeof *taps);
        if (!taps)
            return error_memory(err, points * (size_t)chunk * hidden * sizeof *taps, "the taps");
    }
    int rc = 0;
    for (size_t first = 0; !rc && first < e->n; first += (size_t)chunk) {
        int n = e->n - first < (size_t)chunk ? (int)(e->n - first) : chunk;
        rc = eval_chunk(m, e, slot, first, n, taps, err);
        for (size_t p = 0; taps && !rc && p < points; p++)
            memcpy(e->hidden + p * hidden, taps + (p * (size_t)n + (size_t)n - 1) * hidden,
                   hidden * sizeof *taps);
    }
    free(taps);
    return rc;
}

int gyaru_eval_dump(const struct gyaru_model *m, const struct gyaru_eval *e, const char *path,
                    struct gyaru_error *err)
{
    const uint64_t logits[] = {e->n, (uint64_t)m->shape.vocab};
    const uint64_t hidden[] = {(uint64_t)m->shape.n_layers + 1, (uint64_t)m->shape.hidden};
    const struct tensor tensors[] = {
        {"logits", DTYPE_F32, 2, logits, (const uint8_t *)e->logits, logits[0] * logits[1] * 4},
        {"hidden", DTYPE_F32, 2, hidden, (const uint8_t *)e->hidden, hidden[0] * hidden[1] * 4},
    };
    return safetensors_write(path, tensors, 2, NULL, 0, err);
}
