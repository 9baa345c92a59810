/*
 * extract_methods.h - the methods side by side: what directions mean, pca, pca_last and probe make
 * of the same pairs, split and layers, how well each separates the held-out texts, and, where that
 * was asked for, what each makes the model say at the same dose.
 *
 * Each method reads where it would read by itself: pca_last at the last token, the others where the
 * run does (content, if the run itself is pca_last). The dose is the strength of a vector whose
 * directions have, at the layers that the run selected, the length that scale `residual` gives: the
 * stream is moved by the same fraction whatever the method. pca_last is added at the layers'
 * inputs, as the original does it.
 */
#ifndef STEER_EXTRACT_METHODS_H
#define STEER_EXTRACT_METHODS_H

#include "base/json.h"
#include "steer/direction.h"

struct extraction;

/* One method at one layer; everything is NaN unless found. */
struct method_layer {
    bool found;        /* the differences leave a direction */
    double *direction; /* [hidden] of length 1; owned */
    double auroc, cohens_d, split_half;
    double content_auroc;      /* over the answers' own tokens, which steering changes */
    double explained_variance; /* share of the variance of the differences along the direction */
};

struct methods {
    struct method_layer *at; /* [n_layers][DIRECTION_METHODS]; NULL: not compared */
    json_t *effect;          /* NULL: not measured */
};

/* Every layer of the run, which has a split. */
int methods_measure(struct extraction *x, struct gyaru_error *err);

/* What the model says; after layers were selected. */
int methods_effect(struct extraction *x, struct gyaru_error *err);

/* null: not compared. */
json_t *methods_json(const struct extraction *x);
void methods_release(struct extraction *x);

#endif
