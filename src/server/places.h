/*
 * places.h - which vectors are attached to the model, and where.
 *
 * The model has GYARU_MAX_VECTORS places. A mix claims one for each of its vectors (a vector at
 * other layers is another one); what is attached stays attached until its place is needed, and a
 * place that a running answer uses is never taken from it. Belongs to the engine's thread; attaches
 * and detaches between steps.
 */
#ifndef SERVER_PLACES_H
#define SERVER_PLACES_H

#include "server/steering.h"

struct place {
    struct shelf_vector *vector; /* a reference; NULL: empty */
    int layer_first, layer_last;
    int index;          /* in the model */
    uint64_t last_used; /* claim */
};

struct places {
    struct gyaru_model *model;
    struct place places[GYARU_MAX_VECTORS];
    uint64_t n_claims;
};

/* Where the parts of a mix are. */
struct claim {
    unsigned used;                /* set of places, one bit each */
    int index[GYARU_MAX_VECTORS]; /* of the mix's parts, in the model */
    int gauge;                    /* index of the main vector; -1: none */
    int gauge_layer;
};

enum claim_result { CLAIM_DONE, CLAIM_WAIT, CLAIM_FAILED };

/* `busy`: places that may not be taken. WAIT: too few are left; all is as it was. FAILED: err says
 * why. */
enum claim_result places_claim(struct places *places, const struct steer_mix *mix, unsigned busy,
                               struct claim *claim, struct gyaru_error *err);

/* Strengths as the model wants them, for every index; follows: the live main strength. */
void places_strengths(const struct steer_mix *mix, const struct claim *claim, float follows,
                      float strengths[GYARU_MAX_VECTORS]);
void places_release(struct places *places);

#endif
