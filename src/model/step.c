/*
 * step.c - one forward pass over many sessions: build the rows, run, sample, report.
 *
 * Sessions that decode have one row each; those that prefill share what is left of the chunk, so
 * that nobody's answer waits for somebody's long prompt.
 */
#include "model/session.h"

#include "base/clock.h"
#include "model/sampler.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdlib.h>

/* Draws of one token; only a model far out of its mind needs more than a few. */
#define REDRAWS 256

static bool decoding(const struct gyaru_session *s)
{
    return s->n_cached + 1 == s->n_tokens;
}

/* Ids past the tokenizer are the head's padding. */
static int n_choices(const struct gyaru_session *s)
{
    return s->any_id ? s->model->shape.vocab : s->model->info.n_tokens;
}

static void add_rows(struct gyaru_session *s, int count, int *n)
{
    uint64_t key = model_steering_key(s->model, s->strengths);
    s->first_row = *n;
    s->n_rows = count;
    for (int i = 0; i < count; i++) {
        size_t pos = s->n_cached + (size_t)i;
        struct backend_row *row = &s->model->rows[(*n)++];
        *row = (struct backend_row){.token = s->tokens[pos],
                                    .slot = s->slot,
                                    .pos = (int32_t)pos,
                                    .logits = pos + 1 == s->n_tokens,
                                    .choice = {.temperature = s->sampling.temperature,
                                               .penalty = s->sampling.repeat_penalty,
                                               .n_ids = n_choices(s)}};
        for (int e = 0; e < GYARU_MAX_VECTORS; e++)
            row->strength[e] = s->strengths[e];
        s->keys[pos] = key;
    }
}

/* Decoding sessions first, one row each; the rest of the chunk is shared by those that prefill. */
static int build_rows(struct gyaru_session *const *sessions, size_t n_sessions, int max_rows)
{
    int n = 0, prefilling = 0;
    for (size_t i = 0; i < n_sessions; i++) {
        struct gyaru_session *s = sessions[i];
        s->n_rows = 0;
        if (!s->busy || s->cancelled)
            continue;
        if (decoding(s))
            add_rows(s, 1, &n);
        else
            prefilling++;
    }
    for (size_t i = 0; i < n_sessions && prefilling; i++) {
        struct gyaru_session *s = sessions[i];
        if (!s->busy || s->cancelled || s->n_rows)
            continue;
        int share = (max_rows - n) / prefilling--;
        size_t left = s->n_tokens - s->n_cached;
        add_rows(s, left < (size_t)share ? (int)left : share, &n);
    }
    return n;
}

static bool ends_answer(const struct gyaru_session *s, int32_t id)
{
    if (s->ignore_eos)
        return false;
    for (size_t i = 0; i < s->model->config.n_eos; i++)
        if (s->model->config.eos[i] == id)
            return true;
    return false;
}

static void finish(struct gyaru_session *s, struct gyaru_event *event, enum gyaru_finish why)
{
    reply_finish(&s->reply);
    event->finish = why;
    s->busy = false;
    s->ended = clock_seconds();
}

/* Text of one token goes to the reply; special tokens have none, nor has any token of a model
 * without a tokenizer. True at a stop string. */
static bool push_text(struct gyaru_session *s, int32_t id)
{
    const uint8_t *bytes;
    size_t n;
    if (!s->model->tokenizer || tokenizer_is_special(s->model->tokenizer, id) ||
        tokenizer_bytes(s->model->tokenizer, id, &bytes, &n))
        return false;
    return reply_push(&s->reply, bytes, n);
}

/* Bytes that no character can contain are never said: a token that would break a character, or end
 * the answer inside one, is drawn again. Raw ids are left alone. */
static bool breaks_character(const struct gyaru_session *s, int32_t id)
{
    const uint8_t *bytes;
    size_t n;
    if (s->any_id || !s->model->tokenizer)
        return false;
    if (tokenizer_is_special(s->model->tokenizer, id) ||
        tokenizer_bytes(s->model->tokenizer, id, &bytes, &n))
        return s->reply.utf8.n_pending > 0;
    return !utf8_stream_accepts(&s->reply.utf8, bytes, n);
}

/* The next id from logits that have their penalty, -1 if none is finite. Every refused id leaves
 * the logits, so this ends; where nothing fits, the first choice stands. */
static int32_t draw(struct gyaru_session *s, float *logits)
{
    struct gyaru_model *m = s->model;
    struct gyaru_sampling sampling = s->sampling;
    int n_ids = n_choices(s);
    sampling.repeat_penalty = 1;
    int32_t first = sampler_pick(m->sampler, logits, n_ids, &sampling, s->seen, &s->random);
    int32_t id = first;
    for (int tries = 0; id >= 0 && breaks_character(s, id) && tries < REDRAWS; tries++) {
        logits[id] = -INFINITY;
        id = sampler_pick(m->sampler, logits, n_ids, &sampling, s->seen, &s->random);
    }
    return id >= 0 && !breaks_character(s, id) ? id : first;
}

/* The same id from a device's candidates; SAMPLER_UNSURE if they do not do. */
static int32_t draw_offered(struct gyaru_session *s, const struct backend_candidates *from)
{
    struct sampler *sampler = s->model->sampler;
    uint64_t random = s->random;
    sampler_offer(sampler, from, n_choices(s));
    int32_t id = sampler_pick_offered(sampler, &s->sampling, &random);
    while (id >= 0 && breaks_character(s, id)) {
        sampler_refuse(sampler, id, &s->sampling);
        id = sampler_pick_offered(sampler, &s->sampling, &random);
    }
    if (id >= 0)
        s->random = random;
    return id;
}

/* What a step leaves of the rows that wanted logits: all of them or candidates. */
struct heads {
    float *logits;                               /* [n, vocab] */
    const struct backend_candidates *candidates; /* [n]; NULL: logits are there */
    int next;
};

static int next_id(struct gyaru_session *s, struct heads *heads, int32_t *id,
                   struct gyaru_error *err)
{
    struct gyaru_model *m = s->model;
    int row = heads->next++;
    int n_ids = n_choices(s);
    if (!heads->candidates) {
        struct backend_candidates candidates;
        float *logits = heads->logits + (size_t)row * (size_t)m->shape.vocab;
        sampler_penalise(logits, n_ids, s->seen, s->sampling.repeat_penalty);
        sampler_choose(logits, n_ids, &s->sampling, &candidates);
        *id = draw_offered(s, &candidates);
        if (*id == SAMPLER_UNSURE)
            *id = draw(s, logits);
        return 0;
    }
    float *logits;
    *id = draw_offered(s, &heads->candidates[row]);
    if (*id != SAMPLER_UNSURE)
        return 0;
    if (m->backend->fetch(m->stage, row, &logits, err))
        return -1;
    sampler_penalise(logits, n_ids, s->seen, s->sampling.repeat_penalty);
    *id = draw(s, logits);
    return 0;
}

static int take_token(struct gyaru_session *s, struct heads *heads, struct gyaru_event *event,
                      struct gyaru_error *err)
{
    struct gyaru_model *m = s->model;
    int32_t id;
    if (next_id(s, heads, &id, err))
        return -1;
    if (id < 0) {
        finish(s, event, GYARU_OVERFLOW);
        return 0;
    }
    if (s->first_token <= 0)
        s->first_token = clock_seconds();
    event->token = id;
    if (s->gauge >= 0) {
        model_read_meter(m, s->gauge, s->first_row + s->n_rows - 1, &event->cosine, &event->gauge);
        event->strength = m->rows[s->first_row + s->n_rows - 1].strength[s->gauge];
    }
    s->tokens[s->n_tokens++] = id;
    s->seen[id] = 1;
    if (ends_answer(s, id))
        finish(s, event, GYARU_STOP);
    else if (push_text(s, id))
        finish(s, event, GYARU_STOP);
    else if (s->n_tokens == s->n_limit)
        finish(s, event, GYARU_LENGTH);
    return 0;
}

static int report(struct gyaru_session *s, struct heads *heads, struct gyaru_event *event,
                  struct gyaru_error *err)
{
    *event = (struct gyaru_event){.session = s,
                                  .token = -1,
                                  .cosine = NAN,
                                  .gauge = NAN,
                                  .n_prompt = s->n_prompt,
                                  .n_cached = s->n_reused};
    str_clear(&s->reply.out);
    if (s->cancelled)
        finish(s, event, GYARU_CANCELLED);
    else {
        s->n_cached += (size_t)s->n_rows;
        if (s->n_cached == s->n_tokens && take_token(s, heads, event, err))
            return -1;
    }
    event->n_prompt_done = s->n_cached < s->n_prompt ? s->n_cached : s->n_prompt;
    event->text = s->reply.out.data ? s->reply.out.data : "";
    event->text_len = s->reply.out.len;
    return 0;
}

/* Rows were built in two rounds: events must walk them in the order of the rows, because logits
 * lie in that order. */
static struct gyaru_session *session_at_row(struct gyaru_session *const *sessions, size_t n,
                                            int row)
{
    for (size_t i = 0; i < n; i++)
        if (sessions[i]->n_rows && sessions[i]->first_row == row)
            return sessions[i];
    return NULL;
}

int gyaru_step(struct gyaru_session *const *sessions, size_t n, struct gyaru_event *events,
               size_t *n_events, struct gyaru_error *err)
{
    *n_events = 0;
    if (!n)
        return 0;
    struct gyaru_model *m = sessions[0]->model;
    int n_rows = build_rows(sessions, n, m->shape.max_rows);
    struct heads heads = {.candidates = m->candidates};
    struct model_taps taps = {.candidates = m->candidates};
    if (n_rows && qwen2_forward(m, m->rows, n_rows, &taps, &heads.logits, err))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (sessions[i]->busy && sessions[i]->cancelled &&
            report(sessions[i], &heads, &events[(*n_events)++], err))
            return -1;
    for (int row = 0; row < n_rows;) {
        struct gyaru_session *s = session_at_row(sessions, n, row);
        row += s->n_rows;
        if (report(s, &heads, &events[(*n_events)++], err))
            return -1;
    }
    return 0;
}
