/*
 * extract.h - a run of gyaru_extract() from the inside, shared by its steps.
 *
 * How a stored direction is scaled, and what strength 1 then means:
 *
 *     raw       mean: the mean difference itself, so that strength 1 is the way from the plain
 *               texts to the styled ones; pca and probe: the same length; pca_last: length 1, as
 *               the original has it
 *     unit      length 1 at every layer
 *     residual  length step * (median length of the layer's residual stream) / (number of layers
 *               stored)
 *
 * With `residual` and the default step, strength s moves the stream by 5 s % of its length, over
 * all layers that have a direction, whatever the model's width and depth: 40 % at 8 (mild), 60 % at
 * 12 (standard), 125 % at 25 (collapse). It is a starting point; `tune` measures the strength to
 * use.
 */
#ifndef STEER_EXTRACT_H
#define STEER_EXTRACT_H

#include "base/json.h"
#include "steer/capture.h"
#include "steer/dataset.h"
#include "steer/extract_methods.h"
#include "steer/validate.h"
#include "steer/vector.h"

#define EXTRACT_STEP 5.0 /* percent */

enum extract_scale { SCALE_RAW, SCALE_UNIT, SCALE_RESIDUAL, EXTRACT_SCALES };

struct extract_layer {
    int layer;
    bool selected;
    bool measured;   /* false: the differences leave no direction, see fault */
    char fault[120]; /* why `auto` leaves it out; "" if it does not */
    struct layer_stats stats;
    double residual_norm;        /* median length of the answers' hidden states */
    double *direction;           /* [hidden] raw; owned */
    double stored_norm;          /* length in the file */
    double means[CAPTURE_SIDES]; /* raw direction . mean content state of the class */
};

struct extraction {
    struct gyaru_model *model;
    const struct gyaru_extract_options *options;
    const char *path;
    enum direction_method method;
    enum capture_position position;
    enum extract_scale scale;
    enum vector_hook hook; /* pca_last: resid_pre, the original's mismatch; else resid_post */
    bool automatic;        /* layers are chosen by validation */
    bool split;
    struct dataset dataset;
    enum dataset_part *parts; /* [dataset.n] */
    size_t counts[DATASET_PARTS];
    struct capture capture;
    struct extract_layer *layers; /* [n_layers] those measured */
    size_t n_layers, n_selected;
    int best; /* index into layers; -1 without validation */
    struct methods methods;
    bool written;
    double seconds;
};

const char *extract_position_name(enum capture_position position);
const char *extract_scale_name(enum extract_scale scale);

/* Training differences, then plain and styled held-out texts, in one block (caller frees). NULL
 * when out of memory. */
double *extract_gather(const struct extraction *x, int layer, enum capture_position position,
                       struct layer_data *out);

/* Says so and where it goes on; -1. */
int extract_interrupted(const struct extraction *x, struct gyaru_error *err);

/* extract_report.c: the JSON document; NULL when out of memory. */
json_t *extract_report(const struct extraction *x);

/* What the vector file says about one layer. */
json_t *extract_layer_json(const struct extract_layer *layer);

#endif
