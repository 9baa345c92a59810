/*
 * migrate_plan.c - what a migration means, before any weight is loaded.
 */
#include "base/file.h"
#include "base/json.h"
#include "steer/migrate.h"
#include "steer/vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_VECTOR "gyaru.safetensors" /* beside the weights of a bundled model */

void gyaru_migrate_options_init(struct gyaru_migrate_options *options)
{
    *options = (struct gyaru_migrate_options){.layer_first = -1,
                                              .layer_last = -1,
                                              .strength = NAN,
                                              .from_strength = NAN,
                                              .max_tokens = 96,
                                              .device = "auto",
                                              .seed = 1};
}

static json_t *inspect(const struct gyaru_migrate_options *o, const char *dir,
                       struct gyaru_error *err)
{
    struct gyaru_model_options options;
    char *text;
    gyaru_model_options_init(&options);
    options.device = o->device;
    options.threads = o->threads;
    if (gyaru_inspect(dir, &options, &text, err))
        return NULL;
    json_t *json = json_parse(text, strlen(text), dir, err);
    free(text);
    if (json && strcmp(json_text_at(json, "kind"), "model")) {
        error_set(err, GYARU_USAGE, "%s: a vector: --from and --to name model directories", dir);
        json_decref(json);
        return NULL;
    }
    return json;
}

/* The device that the model would run on: a GPU if there is one. NULL: none of those asked for. */
static const json_t *device_of(const json_t *model)
{
    const json_t *devices = json_object_get(model, "devices"), *device, *found = NULL;
    size_t i;
    json_array_foreach(devices, i, device) if (json_is_true(json_object_get(device, "present")))
        found = device;
    return found;
}

/* ---- the old vector ---------------------------------------------------------------------------
 */

/* The old model's vector (caller frees), NULL in *path for none. */
static int find_old_vector(const struct gyaru_migrate_options *o, const char *fingerprint,
                           char **path, struct gyaru_error *err)
{
    *path = NULL;
    if (o->from_vector) {
        *path = strdup(o->from_vector);
        return *path ? 0 : error_memory(err, strlen(o->from_vector), "a path");
    }
    if (o->folder && file_exists(o->folder) && vector_find(fingerprint, o->folder, path, err))
        return -1;
    if (*path)
        return 0;
    char *own = file_join(o->from, MODEL_VECTOR);
    if (!own)
        return error_memory(err, strlen(o->from), "a path");
    if (file_exists(own))
        *path = own;
    else
        free(own);
    return 0;
}

/* {"fits": bool, "reason": why not, "warning": what could not be checked} */
static json_t *check_json(const char *dir, const struct gyaru_vector *vector,
                          struct gyaru_error *err)
{
    char *warning = NULL;
    bool fits = !gyaru_vector_check(dir, vector, &warning, err);
    if (!fits && err->status != GYARU_MISMATCH)
        return NULL;
    json_t *out = json_pack("{s:b, s:s?, s:s?}", "fits", (int)fits, "reason",
                            fits ? NULL : err->text, "warning", warning);
    free(warning);
    return out;
}

/* A named vector that does not belong to the old model either cannot show what was. */
static int check_old(const json_t *check, const char *path, const char *from,
                     struct gyaru_error *err)
{
    if (json_is_true(json_object_get(check, "fits")))
        return 0;
    return error_set(err, GYARU_MISMATCH,
                     "%s: not a vector of the old model %s: %.250s; name its own with "
                     "--old-vector, or none",
                     path, from, json_text_at(check, "reason"));
}

/* What the file knows of each of its layers: figures of the extraction, if ours made it. */
static json_t *layers_json(const struct gyaru_vector *vector)
{
    static const char *const keys[] = {"auroc", "cohens_d", "explained_variance_ratio"};
    struct gyaru_error ignored;
    const char *text = vector_metadata(vector, "statistics");
    json_t *statistics =
        text ? json_parse(text, strlen(text), "the vector's statistics", &ignored) : NULL;
    json_t *layers = json_array();
    for (int i = 0; i < vector->info.n_directions; i++) {
        const struct vector_layer *at = &vector->layers[i];
        char name[16];
        snprintf(name, sizeof name, "%d", at->layer);
        const json_t *figures = json_object_get(statistics, name);
        json_t *layer =
            json_pack("{s:i, s:f, s:o}", "layer", at->layer, "norm", vector_norm(vector, at->layer),
                      "residual_norm",
                      at->has_meter ? json_real((double)at->meter.residual_norm) : json_null());
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            json_object_set_new(layer, keys[k], json_finite(json_number_at(figures, keys[k])));
        json_array_append_new(layers, layer);
    }
    json_decref(statistics);
    return layers;
}

static json_t *vector_json(const struct gyaru_migrate_options *o, const char *path,
                           struct gyaru_error *err)
{
    struct gyaru_vector *vector;
    if (gyaru_vector_open(path, &vector, err))
        return NULL;
    const struct gyaru_vector_info *info = gyaru_vector_info(vector);
    json_t *old = check_json(o->from, vector, err);
    json_t *new =
        old && !check_old(old, path, o->from, err) ? check_json(o->to, vector, err) : NULL;
    json_t *out = NULL;
    if (new)
        out = json_pack(
            "{s:s, s:I, s:s, s:i, s:i, s:i, s:i, s:o, s:o, s:O, s:O}", "path", path, "file_bytes",
            (json_int_t)migrate_file_size(path), "hook", info->hook, "hidden_size",
            info->hidden_size, "layer_min", info->layer_min, "layer_max", info->layer_max,
            "directions", info->n_directions, "layers", layers_json(vector), "recommended_strength",
            json_finite((double)info->recommended_strength), "with_old", old, "with_new", new);
    json_decref(old);
    json_decref(new);
    gyaru_vector_close(vector);
    return out;
}

/* null: the old model has no vector. */
static json_t *old_vector_json(const struct gyaru_migrate_options *o, const json_t *from,
                               struct gyaru_error *err)
{
    char *path;
    if (o->from_vector && !strcmp(o->from_vector, "none"))
        return json_null();
    if (find_old_vector(o, json_text_at(from, "fingerprint"), &path, err))
        return NULL;
    json_t *out = path ? vector_json(o, path, err) : json_null();
    free(path);
    return out;
}

/* ---- all --------------------------------------------------------------------------------------
 */

static double bytes_of(const json_t *device)
{
    return json_number_value(json_object_get(device, "total_bytes"));
}

static json_t *memory_json(const json_t *from, const json_t *to)
{
    const json_t *a = device_of(from), *b = device_of(to);
    if (!a || !b)
        return json_null();
    double saved = bytes_of(a) > 0 ? 1 - bytes_of(b) / bytes_of(a) : 0;
    return json_pack("{s:s, s:O, s:O, s:f}", "device", json_text_at(b, "device"), "from", a, "to",
                     b, "saved", saved);
}

json_t *migrate_plan(const struct gyaru_migrate_options *o, struct gyaru_error *err)
{
    json_t *from = inspect(o, o->from, err);
    json_t *to = from ? inspect(o, o->to, err) : NULL;
    json_t *vector = to ? old_vector_json(o, from, err) : NULL;
    json_t *out = NULL;
    if (vector) {
        bool same = !strcmp(json_text_at(from, "fingerprint"), json_text_at(to, "fingerprint"));
        out = json_pack("{s:O, s:O, s:o, s:O, s:b}", "from", from, "to", to, "memory",
                        memory_json(from, to), "old_vector", vector, "same_model", (int)same);
        if (!out)
            error_memory(err, 1 << 16, "the plan");
    }
    json_decref(from);
    json_decref(to);
    json_decref(vector);
    return out;
}

int gyaru_migrate_plan(const struct gyaru_migrate_options *options, char **plan,
                       struct gyaru_error *err)
{
    json_t *json = migrate_plan(options, err);
    if (!json)
        return -1;
    char *text = json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(json);
    if (!text)
        return error_memory(err, 1 << 16, "the plan");
    *plan = text;
    return 0;
}
