/*
 * steering.h - the live strength: one value for the whole server, with a version.
 *
 * The event loop writes it, the engine thread reads it once per token; value and version always
 * belong together.
 */
#ifndef SERVER_STEERING_H
#define SERVER_STEERING_H

#include "base/error.h"

#include <jansson.h>
#include <pthread.h>

struct steering {
    pthread_mutex_t lock;
    float strength;
    uint64_t version; /* grows by one with every write; 0 before the model is loaded */
};

struct steering_value {
    float strength;
    uint64_t version;
};

void steering_init(struct steering *steering);
void steering_release(struct steering *steering);
struct steering_value steering_set(struct steering *steering, float strength);
struct steering_value steering_get(struct steering *steering);

/* Reads a strength that a client sent: a JSON number in range. NULL: it is missing. */
int steering_parse(const json_t *value, float *strength, struct gyaru_error *err);

#endif
