/*
 * engine.c - see engine.h.
 *
 * The thread's life: load, then rounds of {take jobs, start them in free slots, one gyaru_step
 * over the running slots, push what it said}. Between rounds without work it sleeps on the
 * condition.
 */
#include "server/engine_impl.h"

#include "base/clock.h"
#include "server/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the event loop's side ------------------------------------------------------------------ */

enum engine_state engine_state(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    enum engine_state state = engine->state;
    pthread_mutex_unlock(&engine->lock);
    return state;
}

const struct engine_info *engine_info(struct engine *engine)
{
    return engine_state(engine) == ENGINE_READY ? &engine->info : NULL;
}

double engine_progress(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    double progress = engine->progress;
    pthread_mutex_unlock(&engine->lock);
    return progress;
}

struct gyaru_error engine_error(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    struct gyaru_error error = engine->error;
    pthread_mutex_unlock(&engine->lock);
    return error;
}

struct engine_counts engine_counts(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    struct engine_counts counts = {engine->n_running, engine->options.sessions, engine->n_queue,
                                   engine->options.waiting};
    pthread_mutex_unlock(&engine->lock);
    return counts;
}

struct engine_totals engine_totals(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    struct engine_totals totals = engine->totals;
    pthread_mutex_unlock(&engine->lock);
    return totals;
}

int engine_submit(struct engine *engine, struct job *job)
{
    job->submitted = clock_seconds();
    pthread_mutex_lock(&engine->lock);
    /* A job that will have a slot at the next round is not counted as waiting. */
    int places = engine->options.waiting + engine->options.sessions;
    bool room = engine->n_queue + engine->n_running < places && !engine->stop;
    if (room) {
        engine->queue[engine->n_queue++] = job_ref(job);
        pthread_cond_signal(&engine->wake);
    }
    pthread_mutex_unlock(&engine->lock);
    return room ? 0 : -1;
}

void engine_wake(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->lock);
}

/* ---- totals --------------------------------------------------------------------------------- */

static void count_token(struct engine *engine, const struct job_event *event, double waited)
{
    pthread_mutex_lock(&engine->lock);
    totals_add_token(&engine->totals, event, waited);
    pthread_mutex_unlock(&engine->lock);
}

/* ---- steps ---------------------------------------------------------------------------------- */

static struct slot *slot_of(struct engine *engine, const struct gyaru_session *session)
{
    for (int i = 0; i < engine->options.sessions; i++) {
        if (engine->slots[i].session == session)
            return &engine->slots[i];
    }
    return NULL;
}

static void report(struct engine *engine, struct slot *slot, const struct gyaru_event *said)
{
    struct job_event event = {
        .kind = said->token >= 0 ? JOB_TOKEN
                : said->text_len ? JOB_TEXT
                                 : JOB_PREFILL,
        .n_prompt = said->n_prompt,
        .n_done = said->n_prompt_done,
        .n_cached = said->n_cached,
        .cosine = said->cosine,
        .gauge = said->gauge,
        .strength = said->strength,
        .layer = slot->claim.gauge_layer,
        .version = slot->version,
    };
    if (event.kind == JOB_TOKEN) {
        double now = clock_seconds();
        count_token(engine, &event, slot->n_tokens ? -1 : now - slot->job->submitted);
        if (slot->n_tokens++ == 0)
            slot->first_token = now;
        else if (now > slot->first_token)
            event.tokens_per_second =
                (float)((double)(slot->n_tokens - 1) / (now - slot->first_token));
    }
    if (engine->options.log.content)
        str_append(&slot->said, said->text, said->text_len);
    if (event.kind != JOB_PREFILL)
        engine_tap(engine, slot, event, said->text, said->text_len);
    if (event.kind != JOB_PREFILL || !said->finish)
        job_push_text(slot->job, &event, said->text, said->text_len);
    struct gyaru_error error;
    if (said->finish == GYARU_OVERFLOW) {
        error_reason(&error, GYARU_FAILED, REASON_OVERFLOW,
                     "the steering drove the model's numbers out of range: use a lower strength");
        engine_finish_slot(engine, slot, GYARU_STOP, &error);
    } else if (said->finish) {
        engine_finish_slot(engine, slot, said->finish, NULL);
    }
}

/* Steers what runs; returns how many run. */
static size_t prepare_step(struct engine *engine)
{
    size_t n = 0;
    engine_follow_live(engine);
    for (int i = 0; i < engine->options.sessions; i++) {
        struct slot *slot = &engine->slots[i];
        if (slot->job)
            engine->step_sessions[n++] = slot->session;
    }
    return n;
}

/* A failed step leaves no session to trust: all their answers end with the error. */
static void fail_all(struct engine *engine, const struct gyaru_error *error)
{
    log_event(&engine->options.log, LOG_LEVEL_ERROR, "step_failed",
              json_pack("{s:s}", "error", error->text));
    for (int i = 0; i < engine->options.sessions; i++) {
        struct slot *slot = &engine->slots[i];
        if (!slot->job)
            continue;
        engine_finish_slot(engine, slot, GYARU_STOP, error);
        gyaru_session_reset(slot->session);
    }
}

static void step(struct engine *engine, size_t n)
{
    struct gyaru_error error;
    size_t n_events = (size_t)engine->options.sessions;
    if (gyaru_step(engine->step_sessions, n, engine->step_events, &n_events, &error)) {
        fail_all(engine, &error);
    } else {
        for (size_t i = 0; i < n_events; i++) {
            struct slot *slot = slot_of(engine, engine->step_events[i].session);
            if (slot && slot->job)
                report(engine, slot, &engine->step_events[i]);
        }
    }
    engine->notify(engine->user);
}

/* ---- the thread ----------------------------------------------------------------------------- */

static int on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct engine *engine = user;
    pthread_mutex_lock(&engine->lock);
    bool stop = engine->stop;
    engine->progress = total ? (double)done / (double)total : -1;
    pthread_mutex_unlock(&engine->lock);
    return stop;
}

static int open_sessions(struct engine *engine, struct gyaru_error *err)
{
    size_t n = (size_t)engine->options.sessions;
    engine->slots = calloc(n, sizeof *engine->slots);
    engine->step_sessions = calloc(n, sizeof(struct gyaru_session *));
    engine->step_events = calloc(n, sizeof *engine->step_events);
    if (!engine->slots || !engine->step_sessions || !engine->step_events)
        return error_memory(err, n * sizeof *engine->slots, "the slots");
    for (size_t i = 0; i < n; i++) {
        if (gyaru_session_new(engine->loaded.model, &engine->slots[i].session, err))
            return -1;
    }
    return 0;
}

static void fill_info(struct engine *engine)
{
    const struct server_model *loaded = &engine->loaded;
    const struct gyaru_model_info *model = gyaru_model_info(loaded->model);
    engine->info = (struct engine_info){
        .model_name = model->name,
        .device = model->device,
        .fingerprint = model->fingerprint,
        .n_layers = model->n_layers,
        .hidden_size = model->hidden_size,
        .context = model->context,
        .load_seconds = model->load_seconds,
        .loaded_at = (int64_t)time(NULL),
        .sampling = loaded->sampling,
        .tokenizer = gyaru_model_tokenizer(loaded->model),
    };
}

static void set_state(struct engine *engine, enum engine_state state)
{
    pthread_mutex_lock(&engine->lock);
    engine->state = state;
    pthread_mutex_unlock(&engine->lock);
    engine->notify(engine->user);
}

static int load(struct engine *engine)
{
    struct gyaru_error error;
    const struct server_options *options = &engine->options;
    struct steer_mix mix = {0};
    int rc = options->load(options->user, on_progress, engine, &engine->loaded, &error);
    engine->loaded.vectors.log = &options->log;
    if (!rc && (open_sessions(engine, &error) ||
                shelf_open(engine->shelf, engine->loaded.model, &engine->loaded.vectors, &error)))
        rc = -1;
    if (!rc && engine->shelf->n && engine->loaded.vectors.main) {
        mix.parts[0] = (struct steer_part){shelf_ref(engine->shelf->vectors[0]),
                                           engine->loaded.strength, false, -1, -1};
        mix.n = 1;
    }
    if (rc) {
        pthread_mutex_lock(&engine->lock);
        engine->error = error;
        pthread_mutex_unlock(&engine->lock);
        set_state(engine, ENGINE_FAILED);
        return -1;
    }
    fill_info(engine);
    engine->places.model = engine->loaded.model;
    steering_set_mix(engine->steering, &mix);
    set_state(engine, ENGINE_READY);
    return 0;
}

/* Cancelled answers leave their slots before anybody looks for one: so a question right after
 * finds its conversation there. Nothing is computed for them. */
static void release_cancelled(struct engine *engine)
{
    size_t n = 0;
    for (int i = 0; i < engine->options.sessions; i++) {
        struct slot *slot = &engine->slots[i];
        if (slot->job && job_cancelled(slot->job)) {
            gyaru_session_cancel(slot->session);
            engine->step_sessions[n++] = slot->session;
        }
    }
    if (n)
        step(engine, n);
}

/* Waits for work; false when the thread is to end. */
static bool wait_for_work(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    while (!engine->stop && !engine->n_queue && !engine->n_running)
        pthread_cond_wait(&engine->wake, &engine->lock);
    bool go_on = !engine->stop;
    engine->n_known = engine->n_queue;
    pthread_mutex_unlock(&engine->lock);
    return go_on;
}

static void cancel_all(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    int n = engine->n_queue;
    engine->n_queue = 0;
    pthread_mutex_unlock(&engine->lock);
    for (int i = 0; i < n; i++)
        engine_finish_job(engine, engine->queue[i], GYARU_CANCELLED, NULL, NULL);
    for (int i = 0; engine->slots && i < engine->options.sessions; i++) {
        if (engine->slots[i].job)
            engine_finish_slot(engine, &engine->slots[i], GYARU_CANCELLED, NULL);
    }
    engine->notify(engine->user);
}

static void close_sessions(struct engine *engine)
{
    for (int i = 0; engine->slots && i < engine->options.sessions; i++) {
        if (engine->slots[i].session)
            gyaru_session_free(engine->slots[i].session);
    }
    free(engine->slots);
    free(engine->step_sessions);
    free(engine->step_events);
}

static void *engine_main(void *arg)
{
    struct engine *engine = arg;
    if (!load(engine)) {
        while (wait_for_work(engine)) {
            engine->round++;
            release_cancelled(engine);
            engine_start_jobs(engine);
            size_t n = prepare_step(engine);
            if (n)
                step(engine, n);
        }
    }
    cancel_all(engine);
    close_sessions(engine);
    mix_release(&engine->live);
    places_release(&engine->places);
    engine->options.unload(engine->options.user);
    return NULL;
}

int engine_new(const struct server_options *options, struct steering *steering, struct shelf *shelf,
               struct tap *tap, void (*notify)(void *user), void *user, struct engine **out,
               struct gyaru_error *err)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine)
        engine->queue =
            calloc((size_t)options->waiting + (size_t)options->sessions, sizeof(struct job *));
    if (!engine || !engine->queue) {
        free(engine);
        return error_memory(err, sizeof *engine, "the engine");
    }
    engine->options = *options;
    engine->steering = steering;
    engine->shelf = shelf;
    engine->tap = tap;
    engine->notify = notify;
    engine->user = user;
    engine->progress = -1;
    engine->totals.cosine = engine->totals.gauge = NAN;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->wake, NULL);
    if (pthread_create(&engine->thread, NULL, engine_main, engine)) {
        free(engine->queue);
        free(engine);
        return error_set(err, GYARU_FAILED, "cannot start the engine's thread");
    }
    *out = engine;
    return 0;
}

void engine_stop(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->stop = true;
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->lock);
    pthread_join(engine->thread, NULL);
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    pthread_cond_destroy(&engine->wake);
    pthread_mutex_destroy(&engine->lock);
    free(engine->queue);
    free(engine);
}
