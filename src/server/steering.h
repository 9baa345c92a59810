/*
 * steering.h - what steers: a mix of vectors, each at its strength; the live one has a version.
 *
 * The first vector of a mix is its main one: the meter follows it, and a strength without a name is
 * its. The event loop writes the live mix, the engine reads it between steps; value and version
 * always belong together.
 */
#ifndef SERVER_STEERING_H
#define SERVER_STEERING_H

#include "server/shelf.h"

#include <pthread.h>

struct steer_part {
    struct shelf_vector *vector; /* a reference */
    float strength;
    bool follows;                /* at the live main strength instead */
    int layer_first, layer_last; /* of the vector's layers; -1: as the vector's entry says */
};

struct steer_mix {
    int n; /* 0: nothing steers */
    struct steer_part parts[GYARU_MAX_VECTORS];
};

/* The copy has references of its own. */
void mix_copy(struct steer_mix *to, const struct steer_mix *from);
void mix_release(struct steer_mix *mix);

/* Takes over the part's reference; -1 if the mix is full. */
int mix_add(struct steer_mix *mix, struct steer_part part, struct gyaru_error *err);

/* NULL if the mix does not have it. */
struct steer_part *mix_find(struct steer_mix *mix, const char *name);

struct steering {
    pthread_mutex_t lock;
    struct steer_mix mix;
    float alone;      /* the main strength while the mix is empty: nothing follows it */
    uint64_t version; /* grows by one with every write; 0 before the model is loaded */
};

/* The main strength. */
struct steering_value {
    float strength;
    uint64_t version;
};

void steering_init(struct steering *steering);
void steering_release(struct steering *steering);

struct steering_value steering_set(struct steering *steering, float strength);

/* The mix is taken over and left empty. */
void steering_set_mix(struct steering *steering, struct steer_mix *mix);
struct steering_value steering_get(struct steering *steering);

/* The version of the copy (mix_release). */
uint64_t steering_copy(struct steering *steering, struct steer_mix *mix);

/* After the shelf was read again: the same names, strengths and layers with today's entries; what
 * is gone leaves the mix, with a line in the log. */
void steering_renew(struct steering *steering, const struct shelf *shelf);

/* Reads a strength that a client sent: a JSON number in range. NULL: it is missing. */
int steering_parse(const json_t *value, float *strength, struct gyaru_error *err);

/* ---- what clients send: docs/clients.md ---- */

/* A request's {"strength", "vector", "layers"} or {"vectors": [...]}: what is left out is as the
 * live mix has it. *own: it names something that is not live. */
int steering_read_request(struct steering *live, const struct shelf *shelf, const json_t *json,
                          struct steer_mix *mix, bool *own, struct gyaru_error *err);

/* PUT /v1/steering: {"strength"}, {"strength", "vector"} or {"vectors": [...]}. */
int steering_change(struct steering *live, const struct shelf *shelf, const json_t *json,
                    struct gyaru_error *err);

/* [{"vector", "strength", "layers"}] */
json_t *mix_json(const struct steer_mix *mix);

#endif
