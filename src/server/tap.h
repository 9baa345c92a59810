/*
 * tap.h - what every answer says while it is made, for those who only watch.
 *
 * The engine thread writes, the event loop reads; the ring is bounded and forgets its oldest
 * events, because watching must never hold up an answer.
 */
#ifndef SERVER_TAP_H
#define SERVER_TAP_H

#include "server/job.h"

#define TAP_EVENTS 1024

struct tap_event {
    uint64_t answer;        /* number of the answer, from 1 */
    uint64_t owner;         /* job->connection */
    bool own_strength;      /* it does not follow the live strength */
    bool lost;              /* events were forgotten before this one */
    struct job_event event; /* JOB_PREFILL: it begins */
};

struct tap {
    pthread_mutex_t lock;
    size_t head, count;
    bool lost;
    struct tap_event ring[TAP_EVENTS];
};

void tap_init(struct tap *tap);
void tap_release(struct tap *tap);

/* `text` may be longer than an event holds; event->event then takes several. */
void tap_push(struct tap *tap, struct tap_event *event, const char *text, size_t len);

/* Takes the oldest event; false if there is none. */
bool tap_pop(struct tap *tap, struct tap_event *event);

#endif
