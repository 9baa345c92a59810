/*
 * steering_json.c - steering as clients write it and read it.
 *
 * Vectors are known by name alone: what looks like a path is a name that nothing has.
 */
#include "server/steering.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYER_MAX 1000

static const json_t *given(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);
    return json_is_null(value) ? NULL : value;
}

int steering_parse(const json_t *value, float *strength, struct gyaru_error *err)
{
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= (double)GYARU_STRENGTH_MIN) ||
        !(number <= (double)GYARU_STRENGTH_MAX))
        return error_reason(err, GYARU_USAGE, REASON_STRENGTH,
                            "the strength must be a number from %g to %g",
                            (double)GYARU_STRENGTH_MIN, (double)GYARU_STRENGTH_MAX);
    *strength = (float)number;
    return 0;
}

/* A usable vector (no reference of the caller's); a name is refused as what it is. */
static int find(const struct shelf *shelf, const json_t *name, struct shelf_vector **out,
                struct gyaru_error *err)
{
    if (!json_is_string(name))
        return error_reason(err, GYARU_USAGE, REASON_STEERING,
                            "vector: expected the name of a vector");
    struct shelf_vector *vector = strlen(json_string_value(name)) == json_string_length(name)
                                      ? shelf_find(shelf, json_string_value(name))
                                      : NULL;
    if (!vector)
        return error_reason(err, GYARU_USAGE, REASON_UNKNOWN_VECTOR,
                            "vector: there is none of this name; GET /v1/vectors lists them");
    if (!shelf_usable(vector))
        return error_reason(err, GYARU_MISMATCH, REASON_UNUSABLE_VECTOR,
                            "vector: '%s' cannot be used: %s", vector->name,
                            vector->reason ? vector->reason : "it was refused");
    *out = vector;
    return 0;
}

/* ---- layers --------------------------------------------------------------------------------- */

/* "A-B", "A" or [A, B]. */
static bool parse_layers(const json_t *json, int *first, int *last)
{
    const char *text = json_string_value(json);
    int end = -1;
    if (json_is_array(json) && json_array_size(json) == 2) {
        const json_t *a = json_array_get(json, 0), *b = json_array_get(json, 1);
        json_int_t x = json_integer_value(a), y = json_integer_value(b);
        if (!json_is_integer(a) || !json_is_integer(b) || x < 0 || y < x || y > LAYER_MAX)
            return false;
        *first = (int)x;
        *last = (int)y;
        return true;
    }
    if (!text || strspn(text, "0123456789-") != strlen(text) || strlen(text) > 9)
        return false;
    if (sscanf(text, "%4d-%4d%n", first, last, &end) == 2 && end == (int)strlen(text))
        return *first >= 0 && *last >= *first && *last <= LAYER_MAX;
    if (sscanf(text, "%4d%n", first, &end) != 1 || end != (int)strlen(text))
        return false;
    *last = *first;
    return *first >= 0 && *first <= LAYER_MAX;
}

/* The vector must have a direction among them. */
static int read_layers(const struct shelf *shelf, const json_t *json, struct steer_part *part,
                       struct gyaru_error *err)
{
    if (!json)
        return 0;
    struct gyaru_attach_options options = part->vector->options;
    int layer;
    char *warning = NULL;
    if (!parse_layers(json, &options.layer_first, &options.layer_last))
        return error_reason(err, GYARU_USAGE, REASON_LAYERS,
                            "layers: expected \"A-B\", \"A\" or [A, B]");
    options.gauge_layer = part->vector->gauge_layer;
    if (gyaru_model_admits(shelf->model, part->vector->vector, &options, &layer, &warning, err)) {
        const struct gyaru_vector_info *info = gyaru_vector_info(part->vector->vector);
        return error_reason(err, GYARU_USAGE, REASON_LAYERS_OUTSIDE,
                            "layers: '%s' has directions at %d to %d only", part->vector->name,
                            info->layer_min, info->layer_max);
    }
    free(warning);
    part->layer_first = options.layer_first;
    part->layer_last = options.layer_last;
    return 0;
}

/* ---- mixes ---------------------------------------------------------------------------------- */

/* One of {"vectors": [...]}. */
static int add_part(struct steer_mix *mix, const struct shelf *shelf, const json_t *json,
                    struct gyaru_error *err)
{
    struct steer_part part = {.layer_first = -1, .layer_last = -1};
    if (!json_is_object(json))
        return error_reason(err, GYARU_USAGE, REASON_STEERING,
                            "expected an object of vector, strength and layers");
    if (find(shelf, json_object_get(json, "vector"), &part.vector, err) ||
        steering_parse(json_object_get(json, "strength"), &part.strength, err) ||
        read_layers(shelf, given(json, "layers"), &part, err))
        return -1;
    if (mix_find(mix, part.vector->name))
        return error_reason(err, GYARU_USAGE, REASON_SAME_VECTOR, "vector: '%s' is named twice",
                            part.vector->name);
    shelf_ref(part.vector);
    return mix_add(mix, part, err);
}

static int read_mix(const struct shelf *shelf, const json_t *list, struct steer_mix *mix,
                    struct gyaru_error *err)
{
    size_t n = json_array_size(list);
    *mix = (struct steer_mix){0};
    if (!json_is_array(list))
        return error_reason(err, GYARU_USAGE, REASON_STEERING, "vectors: expected a list");
    if (n > GYARU_MAX_VECTORS)
        return error_reason(err, GYARU_USAGE, REASON_MANY_VECTORS,
                            "vectors: %zu, but at most %d can be mixed", n, GYARU_MAX_VECTORS);
    for (size_t i = 0; i < n; i++) {
        if (add_part(mix, shelf, json_array_get(list, i), err)) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "vectors[%zu]", i);
            mix_release(mix);
            return error_prefix(err, prefix);
        }
    }
    return 0;
}

/* {"strength", "vector", "layers"}: what is left out is the live main vector's. */
static int read_one(const struct steer_mix *live, const struct shelf *shelf, const json_t *json,
                    struct steer_mix *mix, bool *own, struct gyaru_error *err)
{
    const json_t *name = given(json, "vector"), *layers = given(json, "layers"),
                 *strength = given(json, "strength");
    struct steer_part part = {.follows = !strength, .layer_first = -1, .layer_last = -1};
    if (live->n)
        part = (struct steer_part){live->parts[0].vector, 0, !strength, live->parts[0].layer_first,
                                   live->parts[0].layer_last};
    if ((name && find(shelf, name, &part.vector, err)) ||
        (strength && steering_parse(strength, &part.strength, err)))
        return -1;
    if (!part.vector && (layers || part.strength != 0))
        return error_reason(err, GYARU_USAGE, REASON_NO_VECTOR, "no vector is loaded");
    bool main_vector = live->n && part.vector == live->parts[0].vector;
    if (!main_vector)
        part.layer_first = part.layer_last = -1;
    if (part.vector && read_layers(shelf, layers, &part, err))
        return -1;
    *own = part.vector && (!main_vector || strength || layers);
    if (!*own)
        return 0;
    shelf_ref(part.vector);
    return mix_add(mix, part, err);
}

int steering_read_request(struct steering *live, const struct shelf *shelf, const json_t *json,
                          struct steer_mix *mix, bool *own, struct gyaru_error *err)
{
    *mix = (struct steer_mix){0};
    *own = false;
    if (!json_is_object(json))
        return error_reason(err, GYARU_USAGE, REASON_STEERING,
                            "expected an object of strength, vector and layers");
    const json_t *list = given(json, "vectors");
    if (list) {
        if (given(json, "vector") || given(json, "strength") || given(json, "layers"))
            return error_reason(
                err, GYARU_USAGE, REASON_STEERING,
                "vectors: each has its own strength and layers; leave out the others");
        *own = true;
        return read_mix(shelf, list, mix, err);
    }
    struct steer_mix now;
    steering_copy(live, &now);
    int rc = read_one(&now, shelf, json, mix, own, err);
    mix_release(&now);
    return rc;
}

/* {"strength"} or {"strength", "vector", "layers"}: one vector of the mix, which joins it if need
 * be. */
static int change_one(struct steering *live, const struct shelf *shelf, const json_t *json,
                      struct gyaru_error *err)
{
    const json_t *name = given(json, "vector"), *layers = given(json, "layers");
    struct steer_mix mix;
    struct steer_part fresh = {.layer_first = -1, .layer_last = -1}, *part = NULL;
    float strength;
    if (steering_parse(json_object_get(json, "strength"), &strength, err) ||
        (name && find(shelf, name, &fresh.vector, err)))
        return -1;
    if (!name && !layers) {
        steering_set(live, strength);
        return 0;
    }
    steering_copy(live, &mix);
    int rc = 0;
    part = name ? mix_find(&mix, fresh.vector->name) : mix.n ? &mix.parts[0] : NULL;
    if (!part && !name)
        rc = error_reason(err, GYARU_USAGE, REASON_NO_VECTOR, "no vector is loaded");
    if (!part && name) {
        shelf_ref(fresh.vector);
        rc = mix_add(&mix, fresh, err);
        part = rc ? NULL : &mix.parts[mix.n - 1];
    }
    if (!rc)
        rc = read_layers(shelf, layers, part, err);
    if (!rc) {
        part->strength = strength;
        steering_set_mix(live, &mix);
    }
    mix_release(&mix);
    return rc;
}

int steering_change(struct steering *live, const struct shelf *shelf, const json_t *json,
                    struct gyaru_error *err)
{
    struct steer_mix mix;
    const json_t *list = given(json, "vectors");
    if (!json_is_object(json))
        return error_reason(err, GYARU_USAGE, REASON_STEERING,
                            "expected an object of strength, or of vectors");
    if (!list)
        return change_one(live, shelf, json, err);
    if (given(json, "vector") || given(json, "strength") || given(json, "layers"))
        return error_reason(err, GYARU_USAGE, REASON_STEERING,
                            "vectors: each has its own strength and layers; leave out the others");
    if (read_mix(shelf, list, &mix, err))
        return -1;
    steering_set_mix(live, &mix);
    return 0;
}

json_t *mix_json(const struct steer_mix *mix)
{
    json_t *list = json_array();
    for (int i = 0; list && i < mix->n; i++) {
        const struct steer_part *part = &mix->parts[i];
        json_t *json = json_pack("{s:s,s:f}", "vector", part->vector->name, "strength",
                                 (double)part->strength);
        if (json && part->layer_first >= 0)
            json_object_set_new(json, "layers",
                                json_sprintf("%d-%d", part->layer_first, part->layer_last));
        json_array_append_new(list, json);
    }
    return list;
}
