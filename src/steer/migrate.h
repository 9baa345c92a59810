/*
 * migrate.h - a persona moves to another model: plan, extraction, tuning, and what both models do
 * before and after. See gyaru_migrate_options.
 *
 * The work is a row of phases. What a phase finds is kept in the report directory as
 * phase-NAME.json with a digest of all that it depends on, so that an interrupted migration goes
 * on where it was, and one with other models, pairs or options starts anew. A phase that makes a
 * file names it there with its digest; it is done again when the file is another.
 */
#ifndef STEER_MIGRATE_H
#define STEER_MIGRATE_H

#include "base/error.h"
#include "base/sha256.h"

#include <jansson.h>

enum migrate_side { SIDE_OLD, SIDE_NEW, MIGRATE_SIDES };

struct migration {
    const struct gyaru_migrate_options *options;
    struct gyaru_error *err;
    char base[SHA256_HEX]; /* digest of what every phase depends on */
    json_t *report;        /* what the phases found, by name; owned */
    json_t *resumed;       /* names of phases that were done already; borrowed from the report */
    const char *phase;     /* for the progress */
    int number;
    bool stopped;              /* by the user */
    struct gyaru_model *model; /* open now; NULL: none */
    enum migrate_side side;
    int sessions;
    char *vectors[MIGRATE_SIDES];    /* paths; NULL: none; owned */
    float strengths[MIGRATE_SIDES];  /* at which the sides are compared */
    int gauge_layers[MIGRATE_SIDES]; /* -1: the vector's own choice */
};

/* ---- migrate_plan.c ---------------------------------------------------------------------------
 */

/* See gyaru_migrate_plan(). NULL on failure. */
json_t *migrate_plan(const struct gyaru_migrate_options *options, struct gyaru_error *err);

/* ---- migrate.c --------------------------------------------------------------------------------
 */

/* Opens a side's model with so many sessions; keeps the one that is open if it is that. A context
 * of 0 is the model's own. */
int migrate_open(struct migration *m, enum migrate_side side, int sessions, int context);
void migrate_close(struct migration *m);

/* Attaches the side's vector, if it has one: *index, else -1. */
int migrate_attach(struct migration *m, enum migrate_side side, int *index);

/* A gyaru_progress for the phases' work: their names go before what they say. */
int migrate_progress(void *migration, const char *what, uint64_t done, uint64_t total);

/* Bytes of a file; 0 if it cannot be read. */
size_t migrate_file_size(const char *path);

/* Digest of a file's bytes. */
int migrate_digest(const char *path, char hex[SHA256_HEX], struct gyaru_error *err);

/* ---- phases: what they found, NULL on failure --------------------------------------------------
 */

json_t *migrate_extract(struct migration *m);                         /* migrate_vector.c */
json_t *migrate_tune(struct migration *m);                            /* migrate_vector.c */
json_t *migrate_speed(struct migration *m, enum migrate_side side);   /* migrate_measure.c */
json_t *migrate_quality(struct migration *m, enum migrate_side side); /* migrate_measure.c */

#endif
