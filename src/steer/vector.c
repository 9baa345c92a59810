/*
 * vector.c - see vector.h. Owner of the directions and strings; files are in vector_file.c.
 */
#include "steer/vector.h"

#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HIDDEN_MAX (1 << 20)
#define LAYER_MAX  9999 /* far more than any model has */

static const char *const hook_names[] = {
    [HOOK_RESID_PRE] = "resid_pre",
    [HOOK_RESID_POST] = "resid_post",
};

int vector_new(int hidden_size, enum vector_hook hook, struct gyaru_vector **out,
               struct gyaru_error *err)
{
    if (hidden_size < 1 || hidden_size > HIDDEN_MAX)
        return error_set(err, GYARU_FAILED, "a vector of %d elements: 1 to %d are possible",
                         hidden_size, HIDDEN_MAX);
    struct gyaru_vector *v = calloc(1, sizeof *v);
    if (!v)
        return error_memory(err, sizeof *v, "a vector");
    v->hook = hook;
    v->info = (struct gyaru_vector_info){.path = "",
                                         .name = "",
                                         .hook = hook_names[hook],
                                         .model_fingerprint = "",
                                         .model_name = "",
                                         .method = "",
                                         .position = "",
                                         .hidden_size = hidden_size,
                                         .layer_min = -1,
                                         .layer_max = -1,
                                         .recommended_strength = NAN,
                                         .max_strength = NAN};
    *out = v;
    return 0;
}

void gyaru_vector_close(struct gyaru_vector *v)
{
    if (!v)
        return;
    for (int i = 0; i < v->info.n_directions; i++)
        free(v->layers[i].direction);
    for (size_t i = 0; i < v->n_metadata; i++) {
        free(v->metadata[i].key);
        free(v->metadata[i].value);
    }
    free(v->layers);
    free(v->metadata);
    free(v->path);
    free(v->name);
    free(v->warning);
    free(v);
}

const struct gyaru_vector_info *gyaru_vector_info(const struct gyaru_vector *v)
{
    return &v->info;
}

/* ---- directions ----------------------------------------------------------------------------- */

static int check_direction(const struct gyaru_vector *v, int layer, const float *direction,
                           struct gyaru_error *err)
{
    if (layer < 0 || layer > LAYER_MAX)
        return error_set(err, GYARU_FAILED, "layer %d: no model has such a layer", layer);
    float largest = 0;
    for (int i = 0; i < v->info.hidden_size; i++) {
        float magnitude = fabsf(direction[i]);
        if (!isfinite(magnitude))
            return error_reason(err, GYARU_FAILED, REASON_NOT_FINITE,
                                "layer %d: element %d is %s: make the vector again", layer, i,
                                isnan(magnitude) ? "NaN" : "infinite");
        if (magnitude > largest)
            largest = magnitude;
    }
    if (largest < 0x1p-14f)
        return error_reason(err, GYARU_FAILED, REASON_NO_DIRECTION,
                            "layer %d: %s direction (largest element %g): make the vector again",
                            layer, largest > 0 ? "denormal" : "zero", (double)largest);
    if (largest > 65504)
        return error_reason(
            err, GYARU_FAILED, REASON_TOO_LONG,
            "layer %d: element %g is beyond what a model can add (65504): make the vector again",
            layer, (double)largest);
    return 0;
}

/* Index of the layer, or of where it belongs. */
static int find_place(const struct gyaru_vector *v, int layer)
{
    int i = 0;
    while (i < v->info.n_directions && v->layers[i].layer < layer)
        i++;
    return i;
}

static struct vector_layer *find_layer(const struct gyaru_vector *v, int layer)
{
    int i = find_place(v, layer);
    return i < v->info.n_directions && v->layers[i].layer == layer ? &v->layers[i] : NULL;
}

int vector_set_direction(struct gyaru_vector *v, int layer, const float *direction,
                         struct gyaru_error *err)
{
    if (check_direction(v, layer, direction, err))
        return -1;
    size_t bytes = (size_t)v->info.hidden_size * sizeof *direction;
    struct vector_layer *old = find_layer(v, layer);
    if (old) {
        memcpy(old->direction, direction, bytes);
        return 0;
    }
    int n = v->info.n_directions, place = find_place(v, layer);
    struct vector_layer *layers = realloc(v->layers, (size_t)(n + 1) * sizeof *layers);
    if (layers)
        v->layers = layers;
    float *copy = layers ? malloc(bytes) : NULL;
    if (!copy)
        return error_memory(err, bytes, "a direction");
    memcpy(copy, direction, bytes);
    memmove(&layers[place + 1], &layers[place], (size_t)(n - place) * sizeof *layers);
    layers[place] = (struct vector_layer){.layer = layer, .direction = copy};
    v->info.n_directions = n + 1;
    v->info.layer_min = layers[0].layer;
    v->info.layer_max = layers[n].layer;
    return 0;
}

int vector_set_meter(struct gyaru_vector *v, int layer, const struct vector_meter *meter,
                     struct gyaru_error *err)
{
    struct vector_layer *at = find_layer(v, layer);
    if (!at)
        return error_set(err, GYARU_FAILED, "meter of layer %d, which has no direction", layer);
    if (!isfinite(meter->m_plus) || !isfinite(meter->m_minus) || !isfinite(meter->residual_norm) ||
        meter->m_plus == meter->m_minus || meter->residual_norm <= 0)
        return error_set(err, GYARU_FAILED,
                         "meter of layer %d: m_plus %g and m_minus %g must be finite and differ, "
                         "residual_norm %g must be positive",
                         layer, (double)meter->m_plus, (double)meter->m_minus,
                         (double)meter->residual_norm);
    at->meter = *meter;
    at->has_meter = true;
    return 0;
}

const float *vector_direction(const struct gyaru_vector *v, int layer)
{
    const struct vector_layer *at = find_layer(v, layer);
    return at ? at->direction : NULL;
}

const struct vector_meter *vector_meter(const struct gyaru_vector *v, int layer)
{
    const struct vector_layer *at = find_layer(v, layer);
    return at && at->has_meter ? &at->meter : NULL;
}

double vector_norm(const struct gyaru_vector *v, int layer)
{
    const float *direction = vector_direction(v, layer);
    double sum = 0;
    for (int i = 0; direction && i < v->info.hidden_size; i++)
        sum += (double)direction[i] * (double)direction[i];
    return sqrt(sum);
}

/* ---- metadata ------------------------------------------------------------------------------- */

/* A whole number from 1. */
static int parse_count(const char *key, const char *value, int *out, struct gyaru_error *err)
{
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno || end == value || *end || number < 1 || number > HIDDEN_MAX)
        return error_set(err, GYARU_FAILED, "metadata %s: '%.40s' is no whole number from 1", key,
                         value);
    *out = (int)number;
    return 0;
}

static int parse_strength(const char *key, const char *value, float *out, struct gyaru_error *err)
{
    char *end;
    float number = strtof(value, &end);
    if (end == value || *end || !isfinite(number))
        return error_set(err, GYARU_FAILED, "metadata %s: '%.40s' is no finite number", key, value);
    *out = number;
    return 0;
}

/* Shows a known key in the info; `value` is owned by the vector. */
static int show(struct gyaru_vector *v, const char *key, const char *value, struct gyaru_error *err)
{
    struct gyaru_vector_info *info = &v->info;
    struct {
        const char *key, **field;
    } texts[] = {{"model_fingerprint", &info->model_fingerprint},
                 {"model_name", &info->model_name},
                 {"method", &info->method},
                 {"position", &info->position}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!strcmp(key, texts[i].key))
            *texts[i].field = value;
    }
    if (!strcmp(key, "n_layers"))
        return parse_count(key, value, &info->n_layers, err);
    if (!strcmp(key, "recommended_strength"))
        return parse_strength(key, value, &info->recommended_strength, err);
    if (!strcmp(key, "max_strength"))
        return parse_strength(key, value, &info->max_strength, err);
    return 0;
}

static bool is_derived(const char *key)
{
    static const char *const derived[] = {"format", "version", "hook", "hidden_size", "meter"};
    for (size_t i = 0; i < sizeof derived / sizeof *derived; i++) {
        if (!strcmp(key, derived[i]))
            return true;
    }
    return false;
}

static struct vector_pair *find_pair(const struct gyaru_vector *v, const char *key)
{
    for (size_t i = 0; i < v->n_metadata; i++) {
        if (!strcmp(v->metadata[i].key, key))
            return &v->metadata[i];
    }
    return NULL;
}

int vector_set_metadata(struct gyaru_vector *v, const char *key, const char *value,
                        struct gyaru_error *err)
{
    if (is_derived(key))
        return error_set(err, GYARU_FAILED, "metadata %s cannot be set by hand", key);
    char *copy = strdup(value);
    if (!copy)
        return error_memory(err, strlen(value), "metadata");
    if (show(v, key, copy, err)) {
        free(copy);
        return -1;
    }
    struct vector_pair *old = find_pair(v, key);
    if (old) {
        free(old->value);
        old->value = copy;
        return 0;
    }
    struct vector_pair *pairs = realloc(v->metadata, (v->n_metadata + 1) * sizeof *pairs);
    if (pairs)
        v->metadata = pairs;
    char *name = pairs ? strdup(key) : NULL;
    if (!name) {
        show(v, key, "", &(struct gyaru_error){0}); /* the info must not keep `copy` */
        free(copy);
        return error_memory(err, sizeof *pairs, "metadata");
    }
    pairs[v->n_metadata++] = (struct vector_pair){name, copy};
    return 0;
}

const char *vector_metadata(const struct gyaru_vector *v, const char *key)
{
    const struct vector_pair *pair = find_pair(v, key);
    return pair ? pair->value : NULL;
}

/* ---- does it fit? -----------------------------------------------------------------------------
 */

static int mismatch(const struct vector_model *model, const struct gyaru_vector *v,
                    enum reason reason, const char *why, struct gyaru_error *err)
{
    return error_reason(err, GYARU_MISMATCH, reason,
                        "vector '%.80s' does not belong to model '%.80s': %s: extract one from "
                        "this model",
                        v->info.name, model->name, why);
}

/* Why the vector is not the model's; nothing is written if it may be. */
static enum reason find_mismatch(const struct vector_model *model,
                                 const struct gyaru_vector_info *info, struct str *why)
{
    if (info->hidden_size != model->hidden_size) {
        str_printf(why, "hidden size %d, the model has %d", info->hidden_size, model->hidden_size);
        return REASON_HIDDEN_SIZE;
    }
    if (info->n_layers && info->n_layers != model->n_layers) {
        str_printf(why, "made for %d layers, the model has %d", info->n_layers, model->n_layers);
        return REASON_DEPTH;
    }
    if (info->layer_max >= model->n_layers) {
        str_printf(why, "it steers layer %d, the model's last is %d", info->layer_max,
                   model->n_layers - 1);
        return REASON_DEPTH;
    }
    if (!*info->model_fingerprint || !*model->fingerprint ||
        !strcmp(info->model_fingerprint, model->fingerprint))
        return REASON_NONE;
    str_printf(why, "made for another model of the same size (fingerprint %.12s, not %.12s)",
               info->model_fingerprint, model->fingerprint);
    return REASON_FINGERPRINT;
}

int vector_check(const struct vector_model *model, const struct gyaru_vector *v, char **warning,
                 struct gyaru_error *err)
{
    const struct gyaru_vector_info *info = &v->info;
    struct str why = STR_INIT;
    enum reason reason = find_mismatch(model, info, &why);
    if (reason != REASON_NONE) {
        mismatch(model, v, reason, why.data ? why.data : "sizes differ", err);
        str_release(&why);
        return -1;
    }
    if (v->warning)
        str_printf(&why, "%s", v->warning);
    if (!*info->model_fingerprint || !*model->fingerprint)
        str_printf(&why,
                   "%sthe %s has no fingerprint: sizes fit, but whether it was made for this "
                   "model is unknown",
                   why.len ? "; " : "", *info->model_fingerprint ? "model" : "vector");
    *warning = NULL;
    if (!why.len && !str_failed(&why))
        return 0;
    *warning = str_take(&why);
    return *warning ? 0 : error_memory(err, sizeof err->text, "a warning");
}

int vector_admit(const struct vector_model *model, const struct gyaru_vector *v, bool force,
                 char **warning, struct gyaru_error *err)
{
    if (!vector_check(model, v, warning, err))
        return 0;
    if (!force || err->status != GYARU_MISMATCH || v->info.hidden_size != model->hidden_size ||
        v->info.layer_max >= model->n_layers)
        return -1;
    struct str text = STR_INIT;
    str_printf(&text, VECTOR_FORCED ": %s", err->text);
    *warning = str_take(&text);
    return *warning ? 0 : error_memory(err, sizeof err->text, "a warning");
}
