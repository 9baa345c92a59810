/*
 * engine_impl.h - between engine.c (the thread, its steps) and engine_jobs.c (jobs and what steers
 * them).
 *
 * `lock` guards the queue, the counts, the totals, the state and `stop`; everything else belongs to
 * the thread alone.
 */
#ifndef SERVER_ENGINE_IMPL_H
#define SERVER_ENGINE_IMPL_H

#include "server/engine.h"
#include "server/places.h"

struct slot {
    struct gyaru_session *session;
    struct job *job;    /* NULL: idle */
    uint64_t last_used; /* round */
    uint64_t answer;    /* number of the job, for the tap */
    size_t n_tokens;
    double first_token; /* seconds, clock */
    uint64_t version;   /* of the live steering that the session has */
    struct claim claim; /* of the job's own mix, or of the live one */
    struct str said;    /* the answer so far, if the log is to have it */
};

struct engine {
    struct server_options options;
    struct steering *steering;
    struct tap *tap;
    struct shelf *shelf; /* filled while loading; the event loop's afterwards */
    void (*notify)(void *user);
    void *user;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    enum engine_state state;
    double progress; /* of loading, 0..1; -1: unknown */
    struct gyaru_error error;
    struct job **queue;   /* [options.waiting + options.sessions], oldest first */
    int n_queue, n_known; /* those there when the round began: the engine thread's */
    int n_running;
    bool stop;
    struct engine_totals totals;

    struct server_model loaded;
    struct engine_info info;
    struct places places;
    struct steer_mix live; /* as last read */
    uint64_t live_version; /* of it */
    bool live_waits;       /* its vectors find no place: nobody may take the next free one */
    bool crowded;          /* the oldest job waits for a place of its vectors */
    struct slot *slots;    /* [options.sessions] */
    uint64_t round;
    uint64_t n_started; /* jobs; varies the seed */

    /* One step's arguments and results, allocated once. */
    struct gyaru_session **step_sessions; /* [options.sessions] */
    struct gyaru_event *step_events;      /* [options.sessions] */
};

/* Ends the job: failed with an error, else as `finish` says. `text`: what was said, NULL if it is
 * not kept. */
void engine_finish_job(struct engine *engine, struct job *job, enum gyaru_finish finish,
                       const struct gyaru_error *error, const char *text);

/* The same for a running one, whose slot is free then. */
void engine_finish_slot(struct engine *engine, struct slot *slot, enum gyaru_finish finish,
                        const struct gyaru_error *error);

/* What a running answer says, for those who only watch. */
void engine_tap(struct engine *engine, const struct slot *slot, struct job_event event,
                const char *text, size_t len);

/* Starts the waiting jobs that find a slot and places for their vectors. */
void engine_start_jobs(struct engine *engine);

/* Gives the running sessions the live steering. While its vectors have no place, answers go on
 * under the one before. */
void engine_follow_live(struct engine *engine);

#endif
