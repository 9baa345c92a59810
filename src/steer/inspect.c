/*
 * inspect.c - gyaru_inspect(): a directory is a model, a file is a vector.
 */
#include "base/json.h"
#include "model/inspect.h"
#include "steer/vector.h"

#include <stdlib.h>
#include <sys/stat.h>

static json_t *text(const char *value)
{
    return *value ? json_string(value) : json_null();
}

static json_t *layer_json(const struct gyaru_vector *v, const struct vector_layer *layer)
{
    json_t *json =
        json_pack("{s:i, s:f}", "layer", layer->layer, "norm", vector_norm(v, layer->layer));
    if (json && layer->has_meter)
        json_object_set_new(json, "meter",
                            json_pack("{s:f, s:f, s:f}", "m_plus", (double)layer->meter.m_plus,
                                      "m_minus", (double)layer->meter.m_minus, "residual_norm",
                                      (double)layer->meter.residual_norm));
    return json;
}

static json_t *vector_json(const struct gyaru_vector *v)
{
    const struct gyaru_vector_info *info = &v->info;
    json_t *layers = json_array(), *metadata = json_object();
    for (int i = 0; i < info->n_directions; i++)
        json_array_append_new(layers, layer_json(v, &v->layers[i]));
    for (size_t i = 0; i < v->n_metadata; i++)
        json_object_set_new(metadata, v->metadata[i].key, json_string(v->metadata[i].value));
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:o, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:o, s:o, s:s*}",
        "kind", "vector", "path", info->path, "name", info->name, "hook", info->hook, "hidden_size",
        info->hidden_size, "n_layers", info->n_layers ? json_integer(info->n_layers) : json_null(),
        "layer_min", info->layer_min, "layer_max", info->layer_max, "n_directions",
        info->n_directions, "model_fingerprint", text(info->model_fingerprint), "model_name",
        text(info->model_name), "method", text(info->method), "position", text(info->position),
        "recommended_strength", json_finite((double)info->recommended_strength), "max_strength",
        json_finite((double)info->max_strength), "metadata", metadata, "layers", layers, "warning",
        v->warning);
}

static json_t *vector_inspect(const char *path, struct gyaru_error *err)
{
    struct gyaru_vector *vector;
    if (gyaru_vector_open(path, &vector, err))
        return NULL;
    json_t *root = vector_json(vector);
    gyaru_vector_close(vector);
    if (!root)
        error_memory(err, 1 << 16, "the description");
    return root;
}

int gyaru_inspect(const char *path, const struct gyaru_model_options *options, char **json,
                  struct gyaru_error *err)
{
    struct stat st;
    if (stat(path, &st))
        return error_errno(err, path, "cannot open");
    json_t *root =
        S_ISDIR(st.st_mode) ? model_inspect(path, options, err) : vector_inspect(path, err);
    if (!root)
        return -1;
    char *dumped = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(root);
    if (!dumped)
        return error_memory(err, 1 << 16, "the description");
    *json = dumped;
    return 0;
}
