/*
 * engine_jobs.c - jobs between the queue and their slots, and what steers each: see engine_impl.h.
 */
#include "server/engine_impl.h"

#include "base/clock.h"
#include "talk/prompt.h"

#include <stdlib.h>
#include <string.h>

/* ---- the end -------------------------------------------------------------------------------- */

void engine_finish_job(struct engine *engine, struct job *job, enum gyaru_finish finish,
                       const struct gyaru_error *error, const char *text)
{
    job->end.finish = finish;
    if (error) {
        job->end.failed = true;
        job->end.error = *error;
    }
    pthread_mutex_lock(&engine->lock);
    totals_add_answer(&engine->totals, &job->end);
    pthread_mutex_unlock(&engine->lock);
    engine_log_answer(&engine->options.log, job, clock_seconds() - job->submitted, text);
    job_push_end(job);
    job_unref(job);
}

void engine_tap(struct engine *engine, const struct slot *slot, struct job_event event,
                const char *text, size_t len)
{
    struct tap_event tapped = {.answer = slot->answer,
                               .owner = slot->job->connection,
                               .own_strength = slot->job->options.steers,
                               .event = event};
    tap_push(engine->tap, &tapped, text, len);
}

void engine_finish_slot(struct engine *engine, struct slot *slot, enum gyaru_finish finish,
                        const struct gyaru_error *error)
{
    struct job *job = slot->job;
    engine_tap(engine, slot, (struct job_event){.kind = JOB_END}, NULL, 0);
    slot->job = NULL;
    slot->last_used = engine->round;
    gyaru_session_timings(slot->session, &job->end.timings);
    /* Who reads that the answer ended also reads that its slot is free. */
    pthread_mutex_lock(&engine->lock);
    engine->n_running--;
    pthread_mutex_unlock(&engine->lock);
    engine_finish_job(engine, job, finish, error, slot->said.data);
    str_release(&slot->said);
}

/* The free slot for this prompt: the one that holds the longest part of it under the same steering,
 * if that is all of it (an answer is asked for again) or more than what the slot would lose (the
 * conversation goes on), whoever sends it. Else the one that idled longest. */
static struct slot *choose_slot(struct engine *engine, const int32_t *ids, size_t n_ids,
                                const float *strengths)
{
    struct slot *oldest = NULL, *best = NULL;
    size_t longest = 0;
    for (int i = 0; i < engine->options.sessions; i++) {
        struct slot *slot = &engine->slots[i];
        if (slot->job)
            continue;
        size_t held, n = gyaru_session_match(slot->session, ids, n_ids, strengths, &held);
        if (n > longest && (n > held - n || n + 1 == n_ids)) {
            longest = n;
            best = slot;
        }
        if (!oldest || slot->last_used < oldest->last_used)
            oldest = slot;
    }
    return best ? best : oldest;
}

/* The prompt's ids; caller frees. */
static int encode_job(struct engine *engine, struct job *job, int32_t **ids, size_t *n_ids,
                      struct gyaru_error *err)
{
    const struct gyaru_model *model = engine->loaded.model;
    const char *prompt = job->options.prompt;
    size_t dropped = 0;
    if (prompt)
        return gyaru_tokenize(gyaru_model_tokenizer(model), prompt, strlen(prompt), true, ids,
                              n_ids, err);
    if (prompt_encode(model, job->messages, job->n_messages, job->max_tokens, ids, n_ids, &dropped,
                      err))
        return -1;
    atomic_store(&job->dropped, dropped);
    return 0;
}

/* Places that running answers use; with `own`, only those that steer themselves. */
static unsigned busy_places(const struct engine *engine, bool own)
{
    unsigned busy = 0;
    for (int i = 0; i < engine->options.sessions; i++) {
        const struct slot *slot = &engine->slots[i];
        if (slot->job && (!own || slot->job->options.steers))
            busy |= slot->claim.used;
    }
    return busy;
}

static void read_live(struct engine *engine)
{
    if (steering_get(engine->steering).version == engine->live_version)
        return;
    mix_release(&engine->live);
    engine->live_version = steering_copy(engine->steering, &engine->live);
}

static float live_strength(const struct engine *engine)
{
    return engine->live.n ? engine->live.parts[0].strength : 0;
}

static float main_strength(const struct engine *engine, const struct steer_mix *mix)
{
    return mix->n && !mix->parts[0].follows ? mix->parts[0].strength : live_strength(engine);
}

static int start_session(struct engine *engine, struct job *job, const struct steer_mix *mix,
                         const struct claim *claim, struct gyaru_error *err)
{
    const struct job_options *own = &job->options;
    int32_t *ids;
    size_t n_ids;
    if (encode_job(engine, job, &ids, &n_ids, err))
        return -1;
    float strengths[GYARU_MAX_VECTORS];
    places_strengths(mix, claim, live_strength(engine), strengths);
    struct gyaru_request request;
    gyaru_request_init(engine->loaded.model, &request);
    request.prompt = ids;
    request.n_prompt = n_ids;
    request.max_tokens = job->max_tokens;
    request.sampling = own->has_sampling ? own->sampling : engine->loaded.sampling;
    uint64_t nth = engine->n_started++;
    if (!own->has_seed)
        request.sampling.seed = engine->loaded.sampling.seed + nth;
    request.stop = (const char *const *)own->stop;
    request.n_stop = own->n_stop;
    request.strengths = strengths;
    request.gauge = claim->gauge;
    struct slot *slot = choose_slot(engine, ids, n_ids, strengths);
    int rc = gyaru_session_start(slot->session, &request, err);
    free(ids);
    if (rc)
        return -1;
    slot->job = job;
    slot->claim = *claim;
    slot->answer = nth + 1;
    slot->n_tokens = 0;
    slot->version = engine->live_version;
    engine_tap(engine, slot,
               (struct job_event){.kind = JOB_PREFILL, .strength = main_strength(engine, mix)},
               NULL, 0);
    return 0;
}

/* CLAIM_WAIT: its vectors have no place yet. */
static enum claim_result start_job(struct engine *engine, struct job *job, struct gyaru_error *err)
{
    struct claim claim;
    read_live(engine);
    const struct steer_mix *mix = job->options.steers ? &job->options.mix : &engine->live;
    enum claim_result claimed =
        places_claim(&engine->places, mix, busy_places(engine, false), &claim, err);
    if (claimed == CLAIM_DONE && start_session(engine, job, mix, &claim, err))
        return CLAIM_FAILED;
    return claimed;
}

/* Takes the oldest job that can start or was cancelled (*cancelled); NULL if there is none. One
 * that can start counts as running, so that there is a free slot for it. Nobody overtakes a job
 * whose vectors wait for a place. Who came after this round began waits for the next: the answer
 * that it replaces may have been cancelled since, and still hold the slot with its conversation. */
static struct job *take_job(struct engine *engine, bool *cancelled)
{
    struct job *taken = NULL;
    pthread_mutex_lock(&engine->lock);
    int kept = 0;
    for (int i = 0; i < engine->n_queue; i++) {
        struct job *job = engine->queue[i];
        if (!taken && i < engine->n_known &&
            ((*cancelled = job_cancelled(job)) ||
             (!engine->crowded && engine->n_running < engine->options.sessions)))
            taken = job;
        else
            engine->queue[kept++] = job;
    }
    engine->n_queue = kept;
    engine->n_known -= taken != NULL;
    if (taken && !*cancelled)
        engine->n_running++;
    pthread_mutex_unlock(&engine->lock);
    return taken;
}

/* A job that was taken and cannot start yet is the oldest one again. */
static void put_back(struct engine *engine, struct job *job)
{
    pthread_mutex_lock(&engine->lock);
    memmove(engine->queue + 1, engine->queue, (size_t)engine->n_queue * sizeof(struct job *));
    engine->queue[0] = job;
    engine->n_queue++;
    engine->n_known++;
    engine->n_running--;
    pthread_mutex_unlock(&engine->lock);
    engine->crowded = true;
}

void engine_start_jobs(struct engine *engine)
{
    bool cancelled = false;
    struct job *job;
    engine->crowded = engine->live_waits;
    while ((job = take_job(engine, &cancelled))) {
        struct gyaru_error error;
        if (cancelled) {
            engine_finish_job(engine, job, GYARU_CANCELLED, NULL, NULL);
            continue;
        }
        enum claim_result started = start_job(engine, job, &error);
        if (started == CLAIM_WAIT) {
            put_back(engine, job);
            continue;
        }
        if (started == CLAIM_FAILED) {
            pthread_mutex_lock(&engine->lock);
            engine->n_running--;
            pthread_mutex_unlock(&engine->lock);
            engine_finish_job(engine, job, GYARU_STOP, &error, NULL);
        }
        engine->notify(engine->user);
    }
}

/* ---- the live steering ---------------------------------------------------------------------- */

static void set_strengths(struct engine *engine, struct slot *slot, const struct steer_mix *mix)
{
    float strengths[GYARU_MAX_VECTORS];
    places_strengths(mix, &slot->claim, live_strength(engine), strengths);
    for (int e = 0; e < GYARU_MAX_VECTORS; e++)
        gyaru_session_set_strength(slot->session, e, strengths[e]);
    gyaru_session_set_gauge(slot->session, slot->claim.gauge);
    slot->version = engine->live_version;
}

void engine_follow_live(struct engine *engine)
{
    struct gyaru_error error;
    struct claim claim;
    enum claim_result claimed = CLAIM_WAIT;
    bool tried = false;
    read_live(engine);
    for (int i = 0; i < engine->options.sessions; i++) {
        struct slot *slot = &engine->slots[i];
        if (!slot->job || slot->version == engine->live_version)
            continue;
        if (slot->job->options.steers) {
            set_strengths(engine, slot, &slot->job->options.mix);
            continue;
        }
        if (!tried)
            claimed = places_claim(&engine->places, &engine->live, busy_places(engine, true),
                                   &claim, &error);
        tried = true;
        if (claimed == CLAIM_DONE) {
            slot->claim = claim;
            set_strengths(engine, slot, &engine->live);
        } else if (claimed == CLAIM_FAILED) {
            engine_finish_slot(engine, slot, GYARU_STOP, &error);
            gyaru_session_reset(slot->session);
        }
    }
    engine->live_waits = tried && claimed == CLAIM_WAIT;
}
