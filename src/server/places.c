/* places.c - see places.h. */
#include "server/places.h"

#include <stdlib.h>

static bool holds(const struct place *place, const struct steer_part *part)
{
    return place->vector == part->vector && place->layer_first == part->layer_first &&
           place->layer_last == part->layer_last;
}

static void empty(struct places *places, struct place *place)
{
    if (!place->vector)
        return;
    gyaru_model_detach(places->model, place->index);
    shelf_unref(place->vector);
    *place = (struct place){0};
}

static int attach(struct places *places, struct place *place, const struct steer_part *part,
                  struct gyaru_error *err)
{
    struct gyaru_attach_options options = part->vector->options;
    char *warning = NULL;
    int index;
    /* The meter stays where it is for the vector, whatever layers are used. */
    options.gauge_layer = part->vector->gauge_layer;
    if (part->layer_first >= 0) {
        options.layer_first = part->layer_first;
        options.layer_last = part->layer_last;
    }
    if (gyaru_model_attach(places->model, part->vector->vector, &options, &index, &warning, err))
        return -1;
    free(warning);
    *place = (struct place){shelf_ref(part->vector), part->layer_first, part->layer_last, index, 0};
    return 0;
}

/* The place that holds the part; else an empty one; else the one unused for longest. -1: none. */
static int choose(const struct places *places, const struct steer_part *part, unsigned taken)
{
    int best = -1;
    for (int i = 0; i < GYARU_MAX_VECTORS; i++) {
        const struct place *place = &places->places[i];
        if (place->vector && holds(place, part))
            return i;
        if (taken & (1u << i))
            continue;
        if (best < 0 || place->last_used < places->places[best].last_used)
            best = i;
    }
    return best;
}

/* Chooses all before anything is changed. */
static bool plan(const struct places *places, const struct steer_mix *mix, unsigned busy,
                 int where[GYARU_MAX_VECTORS], unsigned *used)
{
    *used = 0;
    /* Those that are attached first, so that no other part takes their places. */
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < mix->n; i++) {
            if (pass && where[i] >= 0)
                continue;
            where[i] = choose(places, &mix->parts[i], busy | *used);
            if (!pass && (where[i] < 0 || !places->places[where[i]].vector ||
                          !holds(&places->places[where[i]], &mix->parts[i])))
                where[i] = -1;
            else if (where[i] < 0)
                return false;
            else
                *used |= 1u << where[i];
        }
    }
    return true;
}

enum claim_result places_claim(struct places *places, const struct steer_mix *mix, unsigned busy,
                               struct claim *claim, struct gyaru_error *err)
{
    int where[GYARU_MAX_VECTORS];
    *claim = (struct claim){.gauge = -1, .gauge_layer = -1};
    if (!plan(places, mix, busy, where, &claim->used))
        return CLAIM_WAIT;
    places->n_claims++;
    for (int i = 0; i < mix->n; i++) {
        struct place *place = &places->places[where[i]];
        if (!place->vector || !holds(place, &mix->parts[i])) {
            empty(places, place);
            if (attach(places, place, &mix->parts[i], err))
                return CLAIM_FAILED;
        }
        place->last_used = places->n_claims;
        claim->index[i] = place->index;
    }
    if (mix->n) {
        claim->gauge = claim->index[0];
        claim->gauge_layer = mix->parts[0].vector->gauge_layer;
    }
    return CLAIM_DONE;
}

void places_strengths(const struct steer_mix *mix, const struct claim *claim, float follows,
                      float strengths[GYARU_MAX_VECTORS])
{
    for (int e = 0; e < GYARU_MAX_VECTORS; e++)
        strengths[e] = 0;
    for (int i = 0; i < mix->n; i++)
        strengths[claim->index[i]] = mix->parts[i].follows ? follows : mix->parts[i].strength;
}

void places_release(struct places *places)
{
    for (int i = 0; i < GYARU_MAX_VECTORS; i++)
        empty(places, &places->places[i]);
}
