/*
 * voice.h - the threads that talk to the voice engine: requests in, sounds out.
 *
 * An engine takes seconds for what it does and may not be there at all, so neither the event loop
 * nor the engine thread waits for it. A request has two owners, the connection and the threads; a
 * cancelled one ends within a tenth of a second, in the middle of a call too.
 */
#ifndef SERVER_VOICE_H
#define SERVER_VOICE_H

#include "base/error.h"
#include "base/str.h"

#include <stdatomic.h>
#include <stdint.h>

struct voice_options {
    const char *url; /* of the engine; NULL: there is none */
    int64_t speaker; /* style that speaks unless a request names another; -1: the engine's first */
    double timeout;  /* seconds for one call of the engine */
    int waiting;     /* requests that may wait */
};

struct log_options;

struct voice_request {
    /* Either what is to be said */
    char *text;  /* owned; sentences, each ended by '\n'; NULL: a call */
    char *voice; /* owned; a style's number, "NAME" or "NAME/STYLE"; NULL: the default */
    double speed;
    /* or a call of the engine that is passed on. */
    char *path;  /* owned; with its arguments */
    char *body;  /* owned; NULL: GET */
    bool sound;  /* the answer is a WAV file, else JSON */
    bool lookup; /* it takes no time: it need not wait for those that do */
};

struct voice_job {
    struct voice_request request;
    /* Written before `done`, read after it. */
    unsigned status;          /* for the client; 0: cancelled */
    struct str body;          /* of 200, and of 4xx if the engine said why */
    struct gyaru_error error; /* otherwise */

    /* private */
    atomic_int refs;
    atomic_bool cancelled, done;
    struct voice_job *next;
};

/* Since the server started. */
struct voice_totals {
    uint64_t spoken, failed, cancelled; /* requests to speak, by how they ended */
    double sound_seconds, busy_seconds; /* made, and spent on it */
};

struct voice;

/* `notify` is called from the threads when a job is done; the log's options outlive them. */
int voice_new(const struct voice_options *options, const struct log_options *log,
              void (*notify)(void *user), void *user, struct voice **out, struct gyaru_error *err);

/* Cancels everything and ends the threads; no notification comes after this. */
void voice_stop(struct voice *voice);
void voice_free(struct voice *voice);

bool voice_enabled(const struct voice *voice);

/* Takes over the request. NULL when the queue is full or out of memory. */
struct voice_job *voice_submit(struct voice *voice, struct voice_request *request);
bool voice_job_done(struct voice_job *job);
void voice_job_cancel(struct voice_job *job);
void voice_job_unref(struct voice_job *job);

void voice_request_release(struct voice_request *request);
struct voice_totals voice_totals(struct voice *voice);

#endif
