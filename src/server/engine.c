/*
 * engine.c - see engine.h.
 *
 * The thread's life: load, then rounds of {take jobs, start them in free slots, one gyaru_step
 * over the running slots, push what it said}. Between rounds without work it sleeps on the
 * condition. `lock` guards the queue, the counts, the totals, the state and `stop`; everything else
 * belongs to the thread alone.
 */
#include "server/engine.h"

#include "base/clock.h"
#include "server/log.h"
#include "talk/prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct slot {
    struct gyaru_session *session;
    struct job *job;    /* NULL: idle */
    uint64_t last_used; /* round */
    size_t n_tokens;
    double first_token; /* seconds, clock */
    uint64_t version;   /* of the strength that the session has */
};

struct engine {
    struct server_options options;
    struct steering *steering;
    void (*notify)(void *user);
    void *user;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    enum engine_state state;
    double progress; /* of loading, 0..1; -1: unknown */
    struct gyaru_error error;
    struct job **queue; /* [options.waiting + options.sessions], oldest first */
    int n_queue;
    int n_running;
    bool stop;
    struct engine_totals totals;

    struct server_model loaded;
    struct engine_info info;
    struct slot *slots; /* [options.sessions] */
    uint64_t round;
    uint64_t n_started; /* jobs; varies the seed */

    /* One step's arguments and results, allocated once. */
    struct gyaru_session **step_sessions; /* [options.sessions] */
    struct gyaru_event *step_events;      /* [options.sessions] */
};

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

const double engine_first_bounds[ENGINE_FIRST_BUCKETS] = {0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 60};

static void count_end(struct engine_totals *totals, const struct job_end *end)
{
    uint64_t *how = end->failed                      ? &totals->failed
                    : end->finish == GYARU_CANCELLED ? &totals->cancelled
                    : end->finish == GYARU_LENGTH    ? &totals->cut
                                                     : &totals->stopped;
    ++*how;
    totals->prompt_tokens += end->timings.n_prompt;
    totals->cached_tokens += end->timings.n_cached;
    totals->generated_tokens += end->timings.n_generated;
    totals->prefill_seconds += end->timings.prefill_seconds;
    totals->decode_seconds += end->timings.decode_seconds;
}

static void count_token(struct engine *engine, const struct job_event *event, double waited)
{
    pthread_mutex_lock(&engine->lock);
    struct engine_totals *totals = &engine->totals;
    totals->cosine = event->cosine;
    totals->gauge = event->gauge;
    if (waited >= 0) {
        int i = 0;
        while (i < ENGINE_FIRST_BUCKETS && waited > engine_first_bounds[i])
            i++;
        totals->first_counts[i]++;
        totals->first_seconds += waited;
    }
    pthread_mutex_unlock(&engine->lock);
}

/* ---- jobs ----------------------------------------------------------------------------------- */

static void finish_job(struct engine *engine, struct job *job, enum gyaru_finish finish,
                       const struct gyaru_error *error)
{
    job->end.finish = finish;
    if (error) {
        job->end.failed = true;
        job->end.error = *error;
    }
    pthread_mutex_lock(&engine->lock);
    count_end(&engine->totals, &job->end);
    pthread_mutex_unlock(&engine->lock);
    job_push_end(job);
    job_unref(job);
}

static void finish_slot(struct engine *engine, struct slot *slot, enum gyaru_finish finish,
                        const struct gyaru_error *error)
{
    struct job *job = slot->job;
    slot->job = NULL;
    slot->last_used = engine->round;
    gyaru_session_timings(slot->session, &job->end.timings);
    /* Who reads that the answer ended also reads that its slot is free. */
    pthread_mutex_lock(&engine->lock);
    engine->n_running--;
    pthread_mutex_unlock(&engine->lock);
    finish_job(engine, job, finish, error);
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

static int start_job(struct engine *engine, struct job *job, struct gyaru_error *err)
{
    const struct job_options *own = &job->options;
    int32_t *ids;
    size_t n_ids;
    if (encode_job(engine, job, &ids, &n_ids, err))
        return -1;
    struct steering_value live = steering_get(engine->steering);
    float strengths[GYARU_MAX_VECTORS] = {0};
    if (engine->loaded.vector >= 0)
        strengths[engine->loaded.vector] = own->has_strength ? own->strength : live.strength;
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
    request.gauge = engine->loaded.vector;
    struct slot *slot = choose_slot(engine, ids, n_ids, strengths);
    int rc = gyaru_session_start(slot->session, &request, err);
    free(ids);
    if (rc)
        return -1;
    slot->job = job;
    slot->n_tokens = 0;
    slot->version = live.version;
    return 0;
}

/* Takes the oldest job that can start or was cancelled (*cancelled); NULL if there is none. One
 * that can start counts as running, so that there is a free slot for it. */
static struct job *take_job(struct engine *engine, bool *cancelled)
{
    struct job *taken = NULL;
    pthread_mutex_lock(&engine->lock);
    int kept = 0;
    for (int i = 0; i < engine->n_queue; i++) {
        struct job *job = engine->queue[i];
        if (!taken &&
            ((*cancelled = job_cancelled(job)) || engine->n_running < engine->options.sessions))
            taken = job;
        else
            engine->queue[kept++] = job;
    }
    engine->n_queue = kept;
    if (taken && !*cancelled)
        engine->n_running++;
    pthread_mutex_unlock(&engine->lock);
    return taken;
}

static void start_jobs(struct engine *engine)
{
    bool cancelled = false;
    struct job *job;
    while ((job = take_job(engine, &cancelled))) {
        struct gyaru_error error;
        if (cancelled) {
            finish_job(engine, job, GYARU_CANCELLED, NULL);
            continue;
        }
        if (start_job(engine, job, &error)) {
            pthread_mutex_lock(&engine->lock);
            engine->n_running--;
            pthread_mutex_unlock(&engine->lock);
            finish_job(engine, job, GYARU_STOP, &error);
        }
        engine->notify(engine->user);
    }
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
    if (event.kind != JOB_PREFILL || !said->finish)
        job_push_text(slot->job, &event, said->text, said->text_len);
    struct gyaru_error error;
    if (said->finish == GYARU_OVERFLOW) {
        error_set(&error, GYARU_FAILED,
                  "the steering drove the model's numbers out of range: use a lower strength");
        finish_slot(engine, slot, GYARU_STOP, &error);
    } else if (said->finish) {
        finish_slot(engine, slot, said->finish, NULL);
    }
}

/* Gives the running sessions the live strength; returns how many run. */
static size_t prepare_step(struct engine *engine)
{
    struct steering_value live = steering_get(engine->steering);
    size_t n = 0;
    for (int i = 0; i < engine->options.sessions; i++) {
        struct slot *slot = &engine->slots[i];
        if (!slot->job)
            continue;
        if (slot->version != live.version) {
            slot->version = live.version;
            if (engine->loaded.vector >= 0 && !slot->job->options.has_strength)
                gyaru_session_set_strength(slot->session, engine->loaded.vector, live.strength);
        }
        engine->step_sessions[n++] = slot->session;
    }
    return n;
}

/* A failed step leaves no session to trust: all their answers end with the error. */
static void fail_all(struct engine *engine, const struct gyaru_error *error)
{
    log_line("error: a step failed: %s", error->text);
    for (int i = 0; i < engine->options.sessions; i++) {
        struct slot *slot = &engine->slots[i];
        if (!slot->job)
            continue;
        finish_slot(engine, slot, GYARU_STOP, error);
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
        .vector_name = loaded->vector_name,
        .warning = loaded->warning,
        .fingerprint = model->fingerprint,
        .n_layers = model->n_layers,
        .hidden_size = model->hidden_size,
        .context = model->context,
        .gauge_layer =
            loaded->vector >= 0 ? gyaru_model_gauge_layer(loaded->model, loaded->vector) : -1,
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
    int rc = options->load(options->user, on_progress, engine, &engine->loaded, &error);
    if (!rc && open_sessions(engine, &error))
        rc = -1;
    if (rc) {
        pthread_mutex_lock(&engine->lock);
        engine->error = error;
        pthread_mutex_unlock(&engine->lock);
        set_state(engine, ENGINE_FAILED);
        return -1;
    }
    fill_info(engine);
    steering_set(engine->steering, engine->loaded.strength);
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
        finish_job(engine, engine->queue[i], GYARU_CANCELLED, NULL);
    for (int i = 0; engine->slots && i < engine->options.sessions; i++) {
        if (engine->slots[i].job)
            finish_slot(engine, &engine->slots[i], GYARU_CANCELLED, NULL);
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
            start_jobs(engine);
            size_t n = prepare_step(engine);
            if (n)
                step(engine, n);
        }
    }
    cancel_all(engine);
    close_sessions(engine);
    engine->options.unload(engine->options.user);
    return NULL;
}

int engine_new(const struct server_options *options, struct steering *steering,
               void (*notify)(void *user), void *user, struct engine **out, struct gyaru_error *err)
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
    engine->notify = notify;
    engine->user = user;
    engine->loaded.vector = -1;
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
