/* config.c - see config.h. */
#include "model/config.h"

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT (16u << 20) /* bytes; real ones have about one KiB */

/* Bounds that no real model comes near; they keep later products inside 64 bits. */
#define MAX_LAYERS 4096
#define MAX_WIDTH  (1 << 20)
#define MAX_VOCAB  (1 << 24)

static int read_int(const json_t *json, const char *key, int max, int otherwise, int *out,
                    struct gyaru_error *err)
{
    const json_t *value = json_object_get(json, key);
    if ((!value || json_is_null(value)) && otherwise > 0) {
        *out = otherwise;
        return 0;
    }
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 1 || n > max)
        return error_set(err, GYARU_FAILED, "config.json: %s: %s: expected an integer in 1..%d",
                         key, value ? "out of range" : "missing", max);
    *out = (int)n;
    return 0;
}

static int refuse(struct gyaru_error *err, const char *key, const char *value, const char *what)
{
    return error_set(err, GYARU_FAILED, "config.json: %s is \"%s\": %s", key, value, what);
}

static int check_kind(const json_t *json, struct gyaru_error *err)
{
    const char *type = json_string_value(json_object_get(json, "model_type"));
    if (!type || strcmp(type, "qwen2"))
        return refuse(err, "model_type", type ? type : "(missing)",
                      "only qwen2 models (Qwen2, Qwen2.5) can be loaded");
    const char *act = json_string_value(json_object_get(json, "hidden_act"));
    if (act && strcmp(act, "silu"))
        return refuse(err, "hidden_act", act, "only silu is implemented");
    if (json_is_true(json_object_get(json, "use_sliding_window")))
        return refuse(err, "use_sliding_window", "true", "sliding windows are not implemented");
    return 0;
}

static int check_quantisation(const json_t *json, struct gyaru_error *err)
{
    const json_t *q = json_object_get(json, "quantization_config");
    if (!q || json_is_null(q))
        return 0;
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    if (json_is_true(json_object_get(q, "load_in_8bit")) ||
        json_is_true(json_object_get(q, "_load_in_8bit")))
        return refuse(err, "quantization_config.load_in_8bit", "true",
                      "int8 checkpoints are not supported: use a 4-bit (NF4) or bf16 one");
    if (method && strcmp(method, "bitsandbytes"))
        return refuse(err, "quantization_config.quant_method", method,
                      "only bitsandbytes 4-bit or unquantised checkpoints can be loaded");
    return 0;
}

/* rope_scaling and rope_parameters may say "default" and nothing else. */
static int check_rope_type(const json_t *rope, const char *key, struct gyaru_error *err)
{
    if (!rope || json_is_null(rope))
        return 0;
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (!type)
        type = json_string_value(json_object_get(rope, "type"));
    if (!json_is_object(rope) || (type && strcmp(type, "default")))
        return refuse(err, key, type ? type : "(not an object)",
                      "scaled rope is not implemented: remove it to use the plain context");
    return 0;
}

static int read_rope(const json_t *json, struct model_config *c, struct gyaru_error *err)
{
    const json_t *parameters = json_object_get(json, "rope_parameters");
    if (check_rope_type(json_object_get(json, "rope_scaling"), "rope_scaling", err) ||
        check_rope_type(parameters, "rope_parameters", err))
        return -1;
    const json_t *theta = json_object_get(parameters, "rope_theta");
    if (!theta)
        theta = json_object_get(json, "rope_theta");
    double value = theta ? json_number_value(theta) : 10000.0;
    if (!(value >= 1 && value <= 1e12))
        return error_set(err, GYARU_FAILED, "config.json: rope_theta: expected a number >= 1");
    c->rope_theta = (float)value;
    return 0;
}

static int read_shape(const json_t *json, struct model_config *c, struct gyaru_error *err)
{
    if (read_int(json, "num_hidden_layers", MAX_LAYERS, 0, &c->n_layers, err) ||
        read_int(json, "hidden_size", MAX_WIDTH, 0, &c->hidden, err) ||
        read_int(json, "num_attention_heads", 4096, 0, &c->n_heads, err) ||
        read_int(json, "num_key_value_heads", 4096, c->n_heads, &c->n_kv_heads, err) ||
        read_int(json, "intermediate_size", MAX_WIDTH, 0, &c->intermediate, err) ||
        read_int(json, "vocab_size", MAX_VOCAB, 0, &c->vocab, err) ||
        read_int(json, "max_position_embeddings", 1 << 24, 32768, &c->max_position, err) ||
        read_int(json, "head_dim", 1024, c->hidden / c->n_heads, &c->head_dim, err))
        return -1;
    if (c->n_heads % c->n_kv_heads)
        return error_set(err, GYARU_FAILED,
                         "config.json: %d attention heads are no multiple of %d key/value heads",
                         c->n_heads, c->n_kv_heads);
    const json_t *eps = json_object_get(json, "rms_norm_eps");
    double value = eps ? json_number_value(eps) : 1e-6;
    if (!(value > 0 && value < 1))
        return error_set(err, GYARU_FAILED, "config.json: rms_norm_eps: expected 0 < x < 1");
    c->norm_eps = (float)value;
    c->tied = json_is_true(json_object_get(json, "tie_word_embeddings"));
    return 0;
}

static int add_eos(const json_t *id, struct model_config *c, struct gyaru_error *err)
{
    if (!id || json_is_null(id))
        return 0;
    json_int_t n = json_integer_value(id);
    if (!json_is_integer(id) || n < 0 || n >= c->vocab)
        return error_set(err, GYARU_FAILED, "eos_token_id: expected ids below vocab_size %d",
                         c->vocab);
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == n)
            return 0;
    int32_t *eos = realloc(c->eos, (c->n_eos + 1) * sizeof *eos);
    if (!eos)
        return error_memory(err, (c->n_eos + 1) * sizeof *eos, "the stop ids");
    eos[c->n_eos++] = (int32_t)n;
    c->eos = eos;
    return 0;
}

static int read_eos(const json_t *json, struct model_config *c, struct gyaru_error *err)
{
    const json_t *eos = json_object_get(json, "eos_token_id");
    if (!json_is_array(eos))
        return add_eos(eos, c, err);
    for (size_t i = 0; i < json_array_size(eos); i++)
        if (add_eos(json_array_get(eos, i), c, err))
            return -1;
    return 0;
}

static float number_or(const json_t *json, const char *key, double min, double max, float otherwise)
{
    const json_t *value = json_object_get(json, key);
    double x = json_number_value(value);
    return json_is_number(value) && x >= min && x <= max ? (float)x : otherwise;
}

/* Absent file or key: plain sampling, nothing that changes a greedy choice. */
static int read_generation(const char *dir, struct model_config *c, struct gyaru_error *err)
{
    c->sampling = (struct gyaru_sampling){
        .temperature = 0.7f, .top_p = 0.9f, .top_k = 0, .min_p = 0, .repeat_penalty = 1};
    char *path = file_join(dir, "generation_config.json");
    if (!path)
        return error_memory(err, strlen(dir), "a path");
    if (!file_exists(path)) {
        free(path);
        return 0;
    }
    json_t *json = json_parse_file(path, FILE_LIMIT, err);
    free(path);
    if (!json)
        return -1;
    struct gyaru_sampling *s = &c->sampling;
    s->temperature = number_or(json, "temperature", 0, 100, s->temperature);
    s->top_p = number_or(json, "top_p", 0, 1, s->top_p);
    s->min_p = number_or(json, "min_p", 0, 1, s->min_p);
    s->top_k = (int)number_or(json, "top_k", 0, MAX_VOCAB, (float)s->top_k);
    s->repeat_penalty = number_or(json, "repetition_penalty", 0.01, 100, s->repeat_penalty);
    if (json_is_false(json_object_get(json, "do_sample")))
        s->temperature = 0;
    int rc = read_eos(json, c, err);
    json_decref(json);
    return rc;
}

int model_config_read(const char *dir, struct model_config *out, struct gyaru_error *err)
{
    json_t *json = json_parse_file_in(dir, "config.json", FILE_LIMIT, err);
    if (!json)
        return -1;
    struct model_config c = {0};
    int rc = check_kind(json, err);
    if (!rc)
        rc = check_quantisation(json, err);
    if (!rc)
        rc = read_shape(json, &c, err);
    if (!rc)
        rc = read_rope(json, &c, err);
    if (!rc)
        rc = read_eos(json, &c, err);
    json_decref(json);
    if (!rc)
        rc = read_generation(dir, &c, err);
    if (rc) {
        model_config_release(&c);
        return error_prefix(err, dir);
    }
    *out = c;
    return 0;
}

void model_config_release(struct model_config *config)
{
    free(config->eos);
    *config = (struct model_config){0};
}
