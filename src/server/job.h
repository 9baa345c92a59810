/*
 * job.h - one answer being made: the request, and the ring of events that comes back.
 *
 * Two owners, each with a reference: the connection that asked (reads events, may cancel) and the
 * engine (writes events). The request is fixed before job_submit; `end` is written before the
 * JOB_END event is pushed and read after it was popped. The ring is bounded: an owner that does
 * not read makes it overflow, which cancels the job.
 */
#ifndef SERVER_JOB_H
#define SERVER_JOB_H

#include "base/error.h"
#include "base/str.h"
#include "server/steering.h"

#define JOB_TEXT_MAX 64 /* bytes of text in one event; longer text takes several */

enum job_event_kind {
    JOB_PREFILL, /* n_prompt, n_done, n_cached */
    JOB_TOKEN,   /* one token: text (may be empty), meter, strength */
    JOB_TEXT,    /* more text of the token before */
    JOB_END      /* the last event: see job->end */
};

struct job_event {
    enum job_event_kind kind;
    size_t n_prompt, n_done, n_cached; /* positions */
    float cosine, gauge;               /* NaN: no meter */
    float strength;
    int layer;        /* of the meter */
    uint64_t version; /* of the live steering */
    float tokens_per_second;
    size_t text_len;
    char text[JOB_TEXT_MAX]; /* whole UTF-8 characters, not terminated */
};

struct job_end {
    enum gyaru_finish finish; /* not RUNNING unless failed */
    bool failed;
    struct gyaru_error error; /* if failed */
    struct gyaru_timings timings;
};

/* What a request sets for itself; all zero: nothing, the server's values hold. */
struct job_options {
    bool steers; /* by a mix of its own, not the live one */
    struct steer_mix mix;
    bool has_sampling;
    struct gyaru_sampling sampling;
    bool has_seed; /* sampling.seed is the client's: the same request gives the same answer */
    char **stop;   /* [n_stop] owned; the answer ends before any of them */
    size_t n_stop;
    char *prompt; /* owned; raw text with special tokens, instead of messages; NULL: none */
};

struct job {
    /* the request */
    struct job_options options;
    struct gyaru_message *messages;
    size_t n_messages;
    int max_tokens;      /* 0: what the context leaves */
    uint64_t connection; /* number of the WebSocket that asked, which may speak it; 0: none */

    double submitted; /* seconds, clock */
    struct job_end end;
    atomic_size_t dropped; /* oldest messages left out because the context is full */

    /* private */
    atomic_int refs;
    atomic_bool cancelled, overflowed;
    pthread_mutex_t lock;
    size_t head, count, cap; /* cap leaves one place for JOB_END */
    struct job_event *ring;  /* [cap + 1] */
};

void job_options_release(struct job_options *options);

/* Takes over the messages, also on failure. NULL when out of memory. Options, if any, are put into
 * job->options (which then owns them) before the job is submitted. */
struct job *job_new(struct gyaru_message *messages, size_t n_messages, int max_tokens,
                    int ring_events);
struct job *job_ref(struct job *job);
void job_unref(struct job *job);

/* The engine ends the job at its next step; its owner need not read any further. */
void job_cancel(struct job *job);
bool job_cancelled(struct job *job);

/* Engine's side. A push that finds the ring full cancels the job. */
void job_push(struct job *job, const struct job_event *event);
void job_push_text(struct job *job, struct job_event *event, const char *text, size_t len);
void job_push_end(struct job *job);

/* Puts as many whole characters of the text into the event as it holds; gives their bytes. */
size_t job_event_fill(struct job_event *event, const char *text, size_t len);

/* Owner's side: takes the oldest event; false if there is none. */
bool job_pop(struct job *job, struct job_event *event);
/* Appends the event's text. Models can say U+0000, which would end the text for every reader of C
 * strings, the next prompt included: it becomes U+FFFD. */
void job_event_text(const struct job_event *event, struct str *out);
bool job_pending(struct job *job);
bool job_overflowed(struct job *job);

#endif
