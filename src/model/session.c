/*
 * session.c - sessions and their answers: start, reuse of the cached prefix, strength, end.
 *
 * Invariant: positions 0..n_cached-1 of the slot hold the KV of tokens[0..n_cached-1], each
 * computed under the steering state that keys[] names. A prefix is reused only while both are
 * equal, so an answer never depends on what was asked before.
 */
#include "model/session.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void gyaru_sampling_init(const struct gyaru_model *model, struct gyaru_sampling *sampling)
{
    *sampling = model->config.sampling;
    if (getrandom(&sampling->seed, sizeof sampling->seed, 0) != sizeof sampling->seed)
        sampling->seed = (uint64_t)(clock_seconds() * 1e9);
    sampling->seed &= 0xffffffff; /* short enough to be typed again */
}

void gyaru_request_init(const struct gyaru_model *model, struct gyaru_request *request)
{
    *request = (struct gyaru_request){.gauge = -1};
    gyaru_sampling_init(model, &request->sampling);
}

int session_free_slot(const struct gyaru_model *model)
{
    for (int i = 0; i < model->shape.n_slots; i++)
        if (!model->slots[i])
            return i;
    return -1;
}

int gyaru_session_new(struct gyaru_model *model, struct gyaru_session **out,
                      struct gyaru_error *err)
{
    int slot = session_free_slot(model);
    if (slot < 0)
        return error_set(err, GYARU_FAILED, "all %d sessions are in use", model->shape.n_slots);
    struct gyaru_session *s = calloc(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "a session");
    size_t context = (size_t)model->shape.context;
    s->model = model;
    s->slot = slot;
    s->tokens = calloc(context, sizeof *s->tokens);
    s->keys = calloc(context, sizeof *s->keys);
    s->seen = calloc((size_t)model->shape.vocab, 1);
    if (!s->tokens || !s->keys || !s->seen) {
        gyaru_session_free(s);
        return error_memory(err, context * (sizeof *s->tokens + sizeof *s->keys), "a session");
    }
    model->slots[slot] = s;
    *out = s;
    return 0;
}

void gyaru_session_free(struct gyaru_session *s)
{
    if (!s)
        return;
    if (s->model->slots[s->slot] == s)
        s->model->slots[s->slot] = NULL;
    reply_release(&s->reply);
    free(s->tokens);
    free(s->keys);
    free(s->seen);
    free(s);
}

static int check_strength(float strength, struct gyaru_error *err)
{
    if (isfinite(strength))
        return 0;
    return error_set(err, GYARU_USAGE, "strength: not a finite number");
}

static int check_sampling(const struct gyaru_sampling *p, struct gyaru_error *err)
{
    if (!(p->temperature >= 0 && p->temperature <= 100))
        return error_set(err, GYARU_USAGE, "temperature: expected 0..100");
    if (!(p->top_p >= 0 && p->top_p <= 1))
        return error_set(err, GYARU_USAGE, "top_p: expected 0..1");
    if (!(p->min_p >= 0 && p->min_p <= 1))
        return error_set(err, GYARU_USAGE, "min_p: expected 0..1");
    if (p->top_k < 0)
        return error_set(err, GYARU_USAGE, "top_k: expected 0 (off) or more");
    if (!(p->repeat_penalty >= 0.01f && p->repeat_penalty <= 100))
        return error_set(err, GYARU_USAGE, "repeat_penalty: expected 0.01..100");
    return 0;
}

static int check_request(const struct gyaru_session *s, const struct gyaru_request *r,
                         struct gyaru_error *err)
{
    const struct gyaru_model *m = s->model;
    if (s->busy)
        return error_set(err, GYARU_FAILED, "the session is answering: cancel it first");
    if (!r->n_prompt)
        return error_set(err, GYARU_USAGE, "the prompt is empty");
    if (r->n_prompt >= (size_t)m->shape.context)
        return error_reason(err, GYARU_USAGE, REASON_CONTEXT,
                            "the prompt's %zu tokens leave no room for an answer in a context of "
                            "%d: shorten it or raise --context",
                            r->n_prompt, m->shape.context);
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= m->shape.vocab)
            return error_set(err, GYARU_USAGE, "prompt: id %d at position %zu: expected 0..%d",
                             r->prompt[i], i, m->shape.vocab - 1);
    if (r->gauge >= GYARU_MAX_VECTORS || (r->gauge >= 0 && !m->attached[r->gauge].used))
        return error_set(err, GYARU_USAGE, "gauge: no vector is attached at %d", r->gauge);
    for (int e = 0; r->strengths && e < GYARU_MAX_VECTORS; e++)
        if (check_strength(r->strengths[e], err))
            return -1;
    return check_sampling(&r->sampling, err);
}

/* The last prompt token is always computed, for its logits. */
size_t gyaru_session_match(const struct gyaru_session *s, const int32_t *prompt, size_t n_prompt,
                           const float *strengths, size_t *held)
{
    static const float none[GYARU_MAX_VECTORS];
    uint64_t key = model_steering_key(s->model, strengths ? strengths : none);
    size_t n = 0, most = n_prompt && n_prompt - 1 < s->n_cached ? n_prompt - 1 : s->n_cached;
    *held = s->n_cached;
    while (n_prompt && n < most && s->tokens[n] == prompt[n] && s->keys[n] == key)
        n++;
    return n;
}

int gyaru_session_start(struct gyaru_session *s, const struct gyaru_request *r,
                        struct gyaru_error *err)
{
    if (check_request(s, r, err))
        return -1;
    if (reply_begin(&s->reply, r->stop, r->n_stop))
        return error_memory(err, r->n_stop * sizeof *r->stop, "the stop strings");
    for (int e = 0; e < GYARU_MAX_VECTORS; e++)
        s->strengths[e] = r->strengths ? r->strengths[e] : 0;
    size_t held;
    s->n_reused = s->n_cached = gyaru_session_match(s, r->prompt, r->n_prompt, s->strengths, &held);
    memcpy(s->tokens, r->prompt, r->n_prompt * sizeof *s->tokens);
    s->n_tokens = s->n_prompt = r->n_prompt;
    memset(s->seen, 0, (size_t)s->model->shape.vocab);
    for (size_t i = 0; i < r->n_prompt; i++)
        s->seen[r->prompt[i]] = 1;
    if (r->sampling.repeat_penalty != 1 && s->model->candidates &&
        s->model->backend->remember(s->model->stage, s->slot, s->seen, err))
        return -1;
    size_t room = (size_t)s->model->shape.context - r->n_prompt;
    size_t wanted = r->max_tokens > 0 ? (size_t)r->max_tokens : room;
    s->n_limit = r->n_prompt + (wanted < room ? wanted : room);
    s->sampling = r->sampling;
    s->random = r->sampling.seed;
    s->gauge = r->gauge;
    s->ignore_eos = r->ignore_eos;
    s->any_id = r->any_id;
    s->cancelled = false;
    s->busy = true;
    s->started = clock_seconds();
    s->first_token = s->ended = 0;
    return 0;
}

void gyaru_session_set_strength(struct gyaru_session *s, int index, float strength)
{
    if (index >= 0 && index < GYARU_MAX_VECTORS && isfinite(strength))
        s->strengths[index] = strength;
}

void gyaru_session_set_gauge(struct gyaru_session *s, int index)
{
    s->gauge = index >= 0 && index < GYARU_MAX_VECTORS ? index : -1;
}

void gyaru_session_cancel(struct gyaru_session *s)
{
    s->cancelled = true;
}

void gyaru_session_reset(struct gyaru_session *s)
{
    s->busy = false;
    s->n_tokens = s->n_cached = 0;
}

bool gyaru_session_busy(const struct gyaru_session *s)
{
    return s->busy;
}

void gyaru_session_timings(const struct gyaru_session *s, struct gyaru_timings *t)
{
    double end = s->busy ? clock_seconds() : s->ended;
    double first = s->first_token > 0 ? s->first_token : end;
    *t = (struct gyaru_timings){.n_prompt = s->n_prompt,
                                .n_cached = s->n_reused,
                                .n_generated = s->n_tokens - s->n_prompt,
                                .prefill_seconds = first - s->started,
                                .first_token_seconds = first - s->started,
                                .decode_seconds = end - first};
}
