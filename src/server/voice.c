/*
 * voice.c - see voice.h.
 *
 * `lock` guards the queue, the totals and the default speaker. The last thread takes look-ups
 * only, so that the list of speakers does not wait for a long sentence.
 */
#include "server/voice.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/wav.h"
#include "server/log.h"
#include "server/voicevox.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 3

struct worker {
    struct voice *voice;
    pthread_t thread;
    bool lookups; /* nothing else */
};

struct voice {
    struct voice_options options;
    const struct log_options *log;
    void (*notify)(void *user);
    void *user;
    struct worker workers[THREADS];
    int n_workers;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct voice_job *queue, *queue_last; /* oldest first */
    int n_queue;
    atomic_bool stop;
    bool was_absent;
    int64_t speaker; /* the default; -1: not known yet */
    struct voice_totals totals;
};

/* ---- jobs ----------------------------------------------------------------------------------- */

void voice_request_release(struct voice_request *request)
{
    free(request->text);
    free(request->voice);
    free(request->path);
    free(request->body);
    *request = (struct voice_request){.text = NULL};
}

bool voice_job_done(struct voice_job *job)
{
    return atomic_load(&job->done);
}

void voice_job_cancel(struct voice_job *job)
{
    atomic_store(&job->cancelled, true);
}

void voice_job_unref(struct voice_job *job)
{
    if (atomic_fetch_sub(&job->refs, 1) != 1)
        return;
    voice_request_release(&job->request);
    str_release(&job->body);
    free(job);
}

struct voice_job *voice_submit(struct voice *voice, struct voice_request *request)
{
    struct voice_job *job = calloc(1, sizeof *job);
    pthread_mutex_lock(&voice->lock);
    bool room = job && voice->n_queue < voice->options.waiting && !atomic_load(&voice->stop);
    if (room) {
        job->request = *request;
        job->body = (struct str)STR_INIT;
        atomic_init(&job->refs, 2);
        if (voice->queue_last)
            voice->queue_last->next = job;
        else
            voice->queue = job;
        voice->queue_last = job;
        voice->n_queue++;
        pthread_cond_broadcast(&voice->wake);
    }
    pthread_mutex_unlock(&voice->lock);
    if (room) {
        *request = (struct voice_request){.text = NULL};
        return job;
    }
    voice_request_release(request);
    free(job);
    return NULL;
}

/* The oldest job that this worker takes, NULL if there is none. With the lock. */
static struct voice_job *take(struct worker *worker)
{
    struct voice *voice = worker->voice;
    struct voice_job **link = &voice->queue, *before = NULL;
    while (*link && worker->lookups && !(*link)->request.lookup) {
        before = *link;
        link = &(*link)->next;
    }
    struct voice_job *job = *link;
    if (!job)
        return NULL;
    *link = job->next;
    if (voice->queue_last == job)
        voice->queue_last = before;
    job->next = NULL;
    voice->n_queue--;
    return job;
}

/* ---- work ----------------------------------------------------------------------------------- */

/* One job in the hands of a worker. */
struct work {
    struct voice *voice;
    struct voice_job *job;
    struct voicevox engine;
};

static int is_stopped(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct work *work = user;
    return atomic_load(&work->job->cancelled) || atomic_load(&work->voice->stop);
}

/* The number of a style; the engine is asked for names, and for its first style once. */
static unsigned find_speaker(struct work *work, int64_t *speaker)
{
    struct voice *voice = work->voice;
    struct voice_job *job = work->job;
    const char *name = job->request.voice;
    struct str list;
    if (name && *name && strspn(name, "0123456789") == strlen(name) && strlen(name) < 16) {
        *speaker = strtoll(name, NULL, 10);
        return 200;
    }
    pthread_mutex_lock(&voice->lock);
    *speaker = name ? -1 : voice->speaker;
    pthread_mutex_unlock(&voice->lock);
    if (*speaker >= 0)
        return 200;
    unsigned status = voicevox_call(&work->engine, "/speakers", NULL, false, &list, &job->error);
    if (status != 200) {
        str_release(&list);
        return status;
    }
    json_t *speakers = json_parse(list.data, list.len, "speakers", &job->error);
    bool found = voicevox_find(speakers, name, speaker);
    json_decref(speakers);
    str_release(&list);
    if (!found && name) {
        error_set(&job->error, GYARU_USAGE,
                  "voice: there is none of this name; /voicevox/speakers lists them");
        return 400;
    }
    if (!found) {
        error_set(&job->error, GYARU_FAILED, "the voice engine has no speakers");
        return 502;
    }
    if (!name) {
        pthread_mutex_lock(&voice->lock);
        voice->speaker = *speaker;
        pthread_mutex_unlock(&voice->lock);
    }
    return 200;
}

/* A default that the engine refuses is looked up again: another engine may have taken its place. */
static void forget_speaker(struct voice *voice)
{
    pthread_mutex_lock(&voice->lock);
    voice->speaker = voice->options.speaker;
    pthread_mutex_unlock(&voice->lock);
}

/* Joins a sentence to what has been made. The first is passed on as it came. */
static int add_sound(struct str *body, struct str *wav, bool only, double *seconds,
                     struct gyaru_error *err)
{
    struct wav sound;
    if (wav_read(wav->data, wav->len, &sound, err))
        return -1;
    *seconds += wav_seconds(&sound);
    if (body->len + wav->len > VOICEVOX_SOUND_BYTES)
        return error_set(err, GYARU_FAILED, "the speech is too long");
    if (!only)
        return wav_append(body, &sound, err);
    str_release(body);
    *body = *wav;
    *wav = (struct str)STR_INIT;
    return 0;
}

static unsigned speak(struct work *work, double *seconds)
{
    struct voice_job *job = work->job;
    int64_t speaker;
    unsigned status = find_speaker(work, &speaker);
    const char *text = job->request.text;
    for (size_t len; status == 200 && *text; text += len + 1) {
        struct str wav;
        len = strcspn(text, "\n");
        status =
            voicevox_say(&work->engine, text, len, speaker, job->request.speed, &wav, &job->error);
        bool only = text == job->request.text && !text[len + 1];
        if (status == 200 && add_sound(&job->body, &wav, only, seconds, &job->error))
            status = 502;
        str_release(&wav);
    }
    if (status >= 400 && status < 500 && !job->request.voice)
        forget_speaker(work->voice);
    return status;
}

static void note_presence(struct voice *voice, unsigned status)
{
    pthread_mutex_lock(&voice->lock);
    bool absent = status == 503, changed = status && absent != voice->was_absent;
    if (changed)
        voice->was_absent = absent;
    pthread_mutex_unlock(&voice->lock);
    if (changed)
        log_event(voice->log, absent ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
                  absent ? "voice_absent" : "voice_present",
                  json_pack("{s:s}", "url", voice->options.url));
}

static void count(struct voice *voice, unsigned status, double sound, double busy)
{
    pthread_mutex_lock(&voice->lock);
    struct voice_totals *totals = &voice->totals;
    ++*(status == 200 ? &totals->spoken : status ? &totals->failed : &totals->cancelled);
    totals->sound_seconds += status == 200 ? sound : 0;
    totals->busy_seconds += busy;
    pthread_mutex_unlock(&voice->lock);
}

static void run_job(struct voice *voice, struct voice_job *job)
{
    struct work work = {.voice = voice,
                        .job = job,
                        .engine = {.base = voice->options.url,
                                   .timeout = voice->options.timeout,
                                   .stopped = is_stopped}};
    double start = clock_seconds(), sound = 0;
    work.engine.user = &work;
    if (is_stopped(&work, NULL, 0, 0))
        job->status = 0;
    else if (job->request.text)
        job->status = speak(&work, &sound);
    else
        job->status = voicevox_call(&work.engine, job->request.path, job->request.body,
                                    job->request.sound, &job->body, &job->error);
    if (job->status != 200 && job->request.text)
        str_clear(&job->body);
    note_presence(voice, job->status);
    if (job->request.text)
        count(voice, job->status, sound, clock_seconds() - start);
    atomic_store(&job->done, true);
    voice->notify(voice->user);
    voice_job_unref(job);
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct voice *voice = worker->voice;
    pthread_mutex_lock(&voice->lock);
    for (;;) {
        struct voice_job *job = take(worker);
        if (!job && atomic_load(&voice->stop))
            break;
        if (!job) {
            pthread_cond_wait(&voice->wake, &voice->lock);
            continue;
        }
        pthread_mutex_unlock(&voice->lock);
        run_job(voice, job);
        pthread_mutex_lock(&voice->lock);
    }
    pthread_mutex_unlock(&voice->lock);
    return NULL;
}

/* ---- life ----------------------------------------------------------------------------------- */

int voice_new(const struct voice_options *options, const struct log_options *log,
              void (*notify)(void *user), void *user, struct voice **out, struct gyaru_error *err)
{
    struct voice *voice = calloc(1, sizeof *voice);
    if (!voice)
        return error_memory(err, sizeof *voice, "the voice");
    voice->options = *options;
    voice->log = log;
    voice->notify = notify;
    voice->user = user;
    voice->speaker = options->speaker;
    pthread_mutex_init(&voice->lock, NULL);
    pthread_cond_init(&voice->wake, NULL);
    for (int i = 0; i < THREADS && options->url; i++) {
        struct worker *worker = &voice->workers[i];
        *worker = (struct worker){.voice = voice, .lookups = i == THREADS - 1};
        if (pthread_create(&worker->thread, NULL, worker_main, worker)) {
            voice_stop(voice);
            voice_free(voice);
            return error_set(err, GYARU_FAILED, "cannot start the voice's threads");
        }
        voice->n_workers++;
    }
    *out = voice;
    return 0;
}

void voice_stop(struct voice *voice)
{
    pthread_mutex_lock(&voice->lock);
    atomic_store(&voice->stop, true);
    pthread_cond_broadcast(&voice->wake);
    pthread_mutex_unlock(&voice->lock);
    for (; voice->n_workers; voice->n_workers--)
        pthread_join(voice->workers[voice->n_workers - 1].thread, NULL);
}

void voice_free(struct voice *voice)
{
    if (!voice)
        return;
    pthread_cond_destroy(&voice->wake);
    pthread_mutex_destroy(&voice->lock);
    free(voice);
}

bool voice_enabled(const struct voice *voice)
{
    return voice->options.url != NULL;
}

struct voice_totals voice_totals(struct voice *voice)
{
    pthread_mutex_lock(&voice->lock);
    struct voice_totals totals = voice->totals;
    pthread_mutex_unlock(&voice->lock);
    return totals;
}
