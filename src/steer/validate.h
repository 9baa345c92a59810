/*
 * validate.h - how good a layer's direction is, measured on pairs that it was not made from.
 *
 * A text's score is the projection of its features on the direction. Pairs are the unit of chance
 * throughout: labels are shuffled by swapping the two texts of a pair, halves are halves of pairs.
 */
#ifndef STEER_VALIDATE_H
#define STEER_VALIDATE_H

#include "steer/direction.h"

/* Limits below which a layer is left out of `auto`. */
#define VALIDATE_AUROC      0.9
#define VALIDATE_SPLIT_HALF 0.8

/* Features of one layer, row-major. */
struct layer_data {
    const double *train;               /* [n_train, hidden] differences, styled minus plain */
    const double *positive, *negative; /* [n_held, hidden] each: the held-out pairs' texts */
    size_t n_train, n_held, hidden;
};

struct layer_stats {
    double explained_variance; /* ratio, see direction_explained() */
    double norm;               /* length of the mean difference */
    double cosine_mean_pca;    /* mean difference and first centred component */
    double pairwise_cosine;    /* mean cosine between two differences */
    double split_half;         /* mean cosine between the directions of two halves */
    /* NaN without held-out pairs: */
    double auroc;      /* of the scores, styled against plain */
    double cohens_d;   /* difference of the mean scores over their pooled standard deviation */
    double misordered; /* share of held-out pairs whose plain text scores higher */
    /* and without controls: */
    double shuffled_auroc; /* 95th percentile over shuffled labels, of the whole procedure */
    double random_auroc;   /* 95th percentile over random directions of the better sign */
};

struct validate_options {
    enum direction_method method;
    uint64_t seed;
    int n_halves;   /* random halvings */
    int n_controls; /* shuffles, and random directions; 0: none */
};

void validate_options_init(struct validate_options *options);

/* Fills stats and the direction's weights [n_train] over the training differences. */
int validate_layer(const struct layer_data *data, const struct validate_options *options,
                   struct layer_stats *stats, double *weights, struct gyaru_error *err);

/* Why the layer is left out of `auto`, NULL if it is not. */
const char *validate_fault(const struct layer_stats *stats);

/* Is a better than b? By what separates the held-out texts best. */
bool validate_better(const struct layer_stats *a, const struct layer_stats *b);

/* Chance that a positive score is above a negative one, ties counting half; [n] each, both are
 * sorted in place. */
double validate_auroc(double *positive, double *negative, size_t n);

#endif
