/*
 * engine.h - the thread that owns the model: jobs in, events out.
 *
 * Every running job has a slot (a session of the library), whose KV cache keeps the conversation
 * that it served. A job takes the free slot that holds most of its prompt, so that a follow-up
 * finds its conversation even when the client keeps no connection and sends everything again;
 * otherwise the slot that idled longest. Jobs that find no slot wait in a bounded queue.
 */
#ifndef SERVER_ENGINE_H
#define SERVER_ENGINE_H

#include "server/job.h"
#include "server/server.h"
#include "server/steering.h"
#include "server/tap.h"

enum engine_state { ENGINE_LOADING, ENGINE_READY, ENGINE_FAILED };

/* What the event loop may know about the model; never changes once the state is READY. */
struct engine_info {
    const char *model_name, *device;
    const char *fingerprint; /* of the model */
    int n_layers, hidden_size, context;
    double load_seconds;
    int64_t loaded_at; /* seconds since 1970 */
    struct gyaru_sampling sampling;
    const struct gyaru_tokenizer *tokenizer; /* constant: any thread may use it */
};

struct engine_counts {
    int running, slots;
    int waiting, places;
};

#define ENGINE_FIRST_BUCKETS 10

/* Since the server started. */
struct engine_totals {
    uint64_t stopped, cut, cancelled, failed;                /* answers, by how they ended */
    uint64_t prompt_tokens, cached_tokens, generated_tokens; /* of answers that ended */
    double prefill_seconds, decode_seconds;                  /* the same, summed over answers */
    uint64_t first_counts[ENGINE_FIRST_BUCKETS + 1];         /* first tokens, by waiting time */
    double first_seconds;                                    /* summed, from request to token */
    float cosine, gauge; /* meter of the newest token of any answer; NaN: none */
};

/* Upper bounds of the buckets of first_counts, seconds; the last one has none. */
extern const double engine_first_bounds[ENGINE_FIRST_BUCKETS];

/* `waited`: seconds from the request to its first token; negative: it is not the first. */
void totals_add_token(struct engine_totals *totals, const struct job_event *event, double waited);
void totals_add_answer(struct engine_totals *totals, const struct job_end *end);

/* A line on an answer that ended, `seconds` after it was asked for. `text` is what was said (NULL:
 * not kept), for logs with content. */
void engine_log_answer(const struct log_options *log, const struct job *job, double seconds,
                       const char *text);

struct engine;

/* Starts the thread, which begins to load; it fills the shelf and does not touch it once the state
 * is READY. `notify` is called from it whenever there is news: a new state, or events in some job;
 * what all answers say also goes into the tap. */
int engine_new(const struct server_options *options, struct steering *steering, struct shelf *shelf,
               struct tap *tap, void (*notify)(void *user), void *user, struct engine **out,
               struct gyaru_error *err);

/* Ends every job as cancelled, stops the thread and waits for it; no notification comes after
 * this. Nothing is accepted any more. */
void engine_stop(struct engine *engine);
void engine_free(struct engine *engine);

enum engine_state engine_state(struct engine *engine);
const struct engine_info *engine_info(struct engine *engine); /* NULL unless READY */
double engine_progress(struct engine *engine);                /* of loading, 0..1; -1: unknown */
struct gyaru_error engine_error(struct engine *engine);       /* if FAILED */
struct engine_counts engine_counts(struct engine *engine);
struct engine_totals engine_totals(struct engine *engine);

/* Queues the job (takes a reference of its own); -1 if the queue is full. */
int engine_submit(struct engine *engine, struct job *job);

/* Tells the thread that some job was cancelled. */
void engine_wake(struct engine *engine);

#endif
