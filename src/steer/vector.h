/*
 * vector.h - a control vector in memory: one direction per layer, where it is added, and what is
 * known about it. gyaru_vector_open(), _close() and _info() of gyaru.h are implemented here.
 *
 * Layers are 0-based blocks; the hook says whether a direction is added at the block's input
 * (resid_pre) or output (resid_post). Files, by content and not by name:
 *
 *     .safetensors   layer.N F32 or F16; hook and the rest from the metadata, see vector_file.c
 *     .pt            key L is added at the input of L
 *     .gguf          direction.N is added at the output of N
 *
 * Directions are finite, and their largest element is neither below nor beyond what float16 can
 * hold as a normal number (2^-14 .. 65504): zero and denormal vectors do nothing, larger ones
 * overflow in the model.
 */
#ifndef STEER_VECTOR_H
#define STEER_VECTOR_H

#include "base/error.h"

enum vector_hook { HOOK_RESID_PRE, HOOK_RESID_POST };

/* What the gauge needs at the OUTPUT of a layer, whatever the hook: h is the residual stream
 * there, v the layer's direction as stored (not normalised). */
struct vector_meter {
    float m_plus;        /* mean of v.h over the texts in the style */
    float m_minus;       /* the same over the plain ones; differs from m_plus */
    float residual_norm; /* median of |h|, > 0 */
};

struct vector_layer {
    int layer;
    float *direction; /* [hidden_size] */
    bool has_meter;
    struct vector_meter meter;
};

struct vector_pair {
    char *key, *value;
};

struct gyaru_vector {
    struct gyaru_vector_info info; /* its strings belong to the fields below */
    enum vector_hook hook;
    struct vector_layer *layers;  /* [info.n_directions] ascending */
    struct vector_pair *metadata; /* all other strings that the file has */
    size_t n_metadata;
    char *path, *name;
    char *warning; /* what the file leaves open, NULL: nothing */
};

/* An empty vector; close it with gyaru_vector_close(). */
int vector_new(int hidden_size, enum vector_hook hook, struct gyaru_vector **out,
               struct gyaru_error *err);

/* Copies direction [hidden_size] for `layer`, replacing an earlier one. */
int vector_set_direction(struct gyaru_vector *v, int layer, const float *direction,
                         struct gyaru_error *err);

/* The layer must have a direction. */
int vector_set_meter(struct gyaru_vector *v, int layer, const struct vector_meter *meter,
                     struct gyaru_error *err);

/* Any string; n_layers, model_fingerprint, model_name, method, position, recommended_strength and
 * max_strength are checked and appear in the info. What vector_save() derives itself (format,
 * version, hook, hidden_size, meter) is refused. */
int vector_set_metadata(struct gyaru_vector *v, const char *key, const char *value,
                        struct gyaru_error *err);

const char *vector_metadata(const struct gyaru_vector *v, const char *key); /* NULL: absent */
const float *vector_direction(const struct gyaru_vector *v, int layer); /* [hidden_size] or NULL */
const struct vector_meter *vector_meter(const struct gyaru_vector *v, int layer); /* or NULL */
double vector_norm(const struct gyaru_vector *v, int layer); /* 0 without a direction */

/* Writes path, whose extension chooses the format, atomically. The hook of .pt is resid_pre, that
 * of .gguf resid_post: layers move by one where needed, and a direction that has no place there is
 * an error naming its layer. *warning (caller frees, may come back NULL) says what the format
 * cannot hold. */
int vector_save(const struct gyaru_vector *v, const char *path, char **warning,
                struct gyaru_error *err);

/* What vector_check() needs to know of a model. */
struct vector_model {
    const char *name;
    const char *fingerprint; /* hex; "" if unknown */
    int hidden_size, n_layers;
};

/* 0 if the vector fits; -1 with GYARU_MISMATCH and the reason. *warning (caller frees, may come
 * back NULL) says what could not be checked and what the vector's file leaves open. */
int vector_check(const struct vector_model *model, const struct gyaru_vector *v, char **warning,
                 struct gyaru_error *err);

/* See gyaru_vector_find(). */
int vector_find(const char *fingerprint, const char *folder, char **path, struct gyaru_error *err);

/* Begins the warning about a vector that was taken although it does not belong. */
#define VECTOR_FORCED "FORCED"

/* The same, but with `force` a vector of another model is taken if the sizes fit; what was wrong
 * becomes the warning. */
int vector_admit(const struct vector_model *model, const struct gyaru_vector *v, bool force,
                 char **warning, struct gyaru_error *err);

#endif
