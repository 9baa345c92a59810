/*
 * vector_file.c - control vectors from and to files; see vector.h.
 *
 * Our own format is safetensors with the tensors layer.N and metadata strings:
 *
 *     format               "gyaru-vector"
 *     version              "1"
 *     hook                 "resid_post" or "resid_pre"
 *     hidden_size          decimal
 *     n_layers             decimal, of the model; may be missing
 *     meter                JSON {"LAYER": {"m_plus": x, "m_minus": x, "residual_norm": x}, ...},
 *                          see struct vector_meter; may be missing
 *     model_fingerprint, model_name, method, position, dataset_sha256, template_sha256,
 *     recommended_strength, max_strength and any other: kept as they are
 *
 * A file whose metadata has no format=gyaru-vector is somebody else's: it loads at the hook it
 * names, or at resid_pre, with a warning.
 *
 * .pt and .gguf hold directions only. A GGUF's layer_count is not taken for the number of the
 * model's layers: repeng writes the number of directions there.
 */
#include "steer/vector.h"

#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "base/str.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "format/torch_pt.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT        "gyaru-vector"
#define VERSION       "1"
#define TENSOR_PREFIX "layer."
#define ENTRIES_MAX   4096 /* far more than any model has layers */

/* ---- reading: common ------------------------------------------------------------------------ */

/* The readers below fill a new vector from `path`; the vector's own checks do not know the path, so
 * it is put before their messages. */
static int set_direction(struct gyaru_vector *v, const char *path, int64_t layer,
                         const float *direction, struct gyaru_error *err)
{
    int number = layer < 0 || layer > INT32_MAX ? -1 : (int)layer;
    if (number >= 0 && vector_direction(v, number))
        return error_set(err, GYARU_FAILED, "%s: layer %d appears twice", path, number);
    if (vector_set_direction(v, number, direction, err))
        return error_prefix(err, path);
    return 0;
}

/* ---- reading: .pt and .gguf ------------------------------------------------------------------ */

static int fill_from_pt(struct gyaru_vector *v, const char *path, const struct torch_pt *pt,
                        struct gyaru_error *err)
{
    for (size_t i = 0; i < pt->n_entries; i++) {
        const struct torch_pt_entry *e = &pt->entries[i];
        if (e->n != pt->entries[0].n)
            return error_set(err, GYARU_FAILED, "%s: layer %jd has %zu elements, layer %jd %zu",
                             path, (intmax_t)e->key, e->n, (intmax_t)pt->entries[0].key,
                             pt->entries[0].n);
        if (e->key < 0)
            return error_set(err, GYARU_FAILED, "%s: key %jd is no layer", path, (intmax_t)e->key);
        if (set_direction(v, path, e->key, e->values, err))
            return -1;
    }
    return 0;
}

/* An int that vector_new() judges. */
static int hidden_of(size_t n)
{
    return n > INT32_MAX ? INT32_MAX : (int)n;
}

static int open_pt(const char *path, struct gyaru_vector **out, struct gyaru_error *err)
{
    struct torch_pt pt;
    if (torch_pt_read(path, &pt, err))
        return -1;
    int rc = vector_new(hidden_of(pt.entries[0].n), HOOK_RESID_PRE, out, err);
    rc = rc ? error_prefix(err, path) : fill_from_pt(*out, path, &pt, err);
    torch_pt_release(&pt);
    return rc;
}

static int open_gguf(const char *path, struct gyaru_vector **out, struct gyaru_error *err)
{
    struct gguf_vector gguf;
    if (gguf_vector_read(path, &gguf, err))
        return -1;
    int rc = vector_new(hidden_of(gguf.n), HOOK_RESID_POST, out, err);
    if (rc)
        error_prefix(err, path);
    for (size_t i = 0; i < gguf.n_directions && !rc; i++)
        rc = set_direction(*out, path, gguf.directions[i].layer, gguf.directions[i].values, err);
    if (!rc && !utf8_valid(gguf.model_hint, strlen(gguf.model_hint)))
        rc = error_set(err, GYARU_FAILED, "%s: controlvector.model_hint is no UTF-8", path);
    if (!rc && *gguf.model_hint)
        rc = vector_set_metadata(*out, "model_hint", gguf.model_hint, err);
    gguf_vector_release(&gguf);
    return rc;
}

/* ---- reading: safetensors -------------------------------------------------------------------- */

/* N of "layer.N": decimal without leading zeros; -1 for any other name. */
static int parse_layer(const char *name)
{
    const char *digits = name + strlen(TENSOR_PREFIX);
    if (strncmp(name, TENSOR_PREFIX, strlen(TENSOR_PREFIX)))
        return -1;
    size_t len = strspn(digits, "0123456789");
    if (!len || len > 6 || digits[len] || (len > 1 && digits[0] == '0'))
        return -1;
    return atoi(digits);
}

static int read_layer(struct gyaru_vector *v, const char *path, const struct tensor *t,
                      float *scratch, struct gyaru_error *err)
{
    int layer = parse_layer(t->name);
    if (layer < 0)
        return error_set(err, GYARU_FAILED, "%s: tensor '%.80s' is no " TENSOR_PREFIX "N", path,
                         t->name);
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16)
        return error_set(err, GYARU_FAILED, "%s: layer %d is %s: only F32 and F16 are read", path,
                         layer, dtype_name(t->dtype));
    size_t n = (size_t)v->info.hidden_size;
    if (t->n_dims != 1 || tensor_count(t) != n)
        return error_set(err, GYARU_FAILED,
                         "%s: layer %d has %zu dimensions and %zu elements, not one and %zu", path,
                         layer, t->n_dims, tensor_count(t), n);
    if (t->dtype == DTYPE_F32) {
        memcpy(scratch, t->data, t->size);
    } else {
        for (size_t i = 0; i < n; i++) {
            uint16_t bits;
            memcpy(&bits, t->data + 2 * i, sizeof bits);
            scratch[i] = half_to_float(bits);
        }
    }
    return set_direction(v, path, layer, scratch, err);
}

/* The hook that the metadata states; without ours, a guess and a warning. */
static int read_hook(const struct safetensors *file, const char *path, enum vector_hook *hook,
                     bool *guessed, struct gyaru_error *err)
{
    const char *format = safetensors_metadata(file, "format");
    const char *version = safetensors_metadata(file, "version");
    const char *name = safetensors_metadata(file, "hook");
    bool ours = format && !strcmp(format, FORMAT);
    if (ours && (!version || strcmp(version, VERSION)))
        return error_set(err, GYARU_FAILED,
                         "%s: version '%.20s' of " FORMAT
                         " is unknown: this program reads " VERSION,
                         path, version ? version : "(none)");
    if (ours && !name)
        return error_set(err, GYARU_FAILED, "%s: the metadata names no hook", path);
    *guessed = !name;
    *hook = HOOK_RESID_PRE;
    if (!name || !strcmp(name, "resid_pre"))
        return 0;
    *hook = HOOK_RESID_POST;
    if (!strcmp(name, "resid_post"))
        return 0;
    return error_set(err, GYARU_FAILED, "%s: hook '%.40s' is neither resid_pre nor resid_post",
                     path, name);
}

static int read_meter(struct gyaru_vector *v, const char *text, struct gyaru_error *err)
{
    json_t *json = json_parse(text, strlen(text), "metadata meter", err);
    if (!json)
        return -1;
    const char *key;
    json_t *value;
    int rc = 0;
    if (!json_is_object(json))
        rc = error_set(err, GYARU_FAILED, "metadata meter is no object");
    json_object_foreach(json, key, value)
    {
        struct str name = STR_INIT;
        str_printf(&name, TENSOR_PREFIX "%s", key);
        int layer = name.data ? parse_layer(name.data) : -1;
        str_release(&name);
        const json_t *plus = json_object_get(value, "m_plus");
        const json_t *minus = json_object_get(value, "m_minus");
        const json_t *norm = json_object_get(value, "residual_norm");
        struct vector_meter meter = {(float)json_number_value(plus),
                                     (float)json_number_value(minus),
                                     (float)json_number_value(norm)};
        if (layer < 0 || !json_is_number(plus) || !json_is_number(minus) || !json_is_number(norm))
            rc = error_set(err, GYARU_FAILED,
                           "metadata meter: '%.20s' is no layer with m_plus, m_minus and "
                           "residual_norm",
                           key);
        else
            rc = vector_set_meter(v, layer, &meter, err);
        if (rc)
            break;
    }
    json_decref(json);
    return rc;
}

/* All metadata strings, once the directions are known. */
static int read_metadata(struct gyaru_vector *v, const struct safetensors *file,
                         struct gyaru_error *err)
{
    for (size_t i = 0; i < safetensors_metadata_count(file); i++) {
        const char *key, *value;
        safetensors_metadata_at(file, i, &key, &value);
        if (!strcmp(key, "meter")) {
            if (read_meter(v, value, err))
                return -1;
        } else if (!strcmp(key, "hidden_size")) {
            char size[16];
            snprintf(size, sizeof size, "%d", v->info.hidden_size);
            if (strcmp(value, size))
                return error_set(err, GYARU_FAILED,
                                 "metadata hidden_size is '%.20s', the tensors have %s elements",
                                 value, size);
        } else if (strcmp(key, "format") && strcmp(key, "version") && strcmp(key, "hook")) {
            if (vector_set_metadata(v, key, value, err))
                return -1;
        }
    }
    if (v->info.n_layers && v->info.layer_max >= v->info.n_layers)
        return error_set(err, GYARU_FAILED, "layer %d in a vector for a model of %d layers",
                         v->info.layer_max, v->info.n_layers);
    return 0;
}

static int read_safetensors(const struct safetensors *file, const char *path,
                            struct gyaru_vector **out, struct gyaru_error *err)
{
    size_t n = safetensors_count(file);
    enum vector_hook hook = HOOK_RESID_PRE;
    bool guessed = false;
    if (n < 1 || n > ENTRIES_MAX)
        return error_set(err, GYARU_FAILED, "%s: %zu tensors are no control vector", path, n);
    if (read_hook(file, path, &hook, &guessed, err))
        return -1;
    size_t hidden = tensor_count(safetensors_at(file, 0));
    if (vector_new(hidden_of(hidden), hook, out, err))
        return error_prefix(err, path);
    float *scratch = malloc(hidden * sizeof *scratch);
    if (!scratch)
        return error_memory(err, hidden * sizeof *scratch, "a direction");
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = read_layer(*out, path, safetensors_at(file, i), scratch, err);
    free(scratch);
    if (!rc && read_metadata(*out, file, err))
        rc = error_prefix(err, path);
    if (!rc && guessed && !((*out)->warning = strdup("the file names no hook: taken as resid_pre")))
        rc = error_memory(err, 50, "a warning");
    return rc;
}

static int open_safetensors(const char *path, struct gyaru_vector **out, struct gyaru_error *err)
{
    struct safetensors *file;
    if (safetensors_open(path, &file, err))
        return -1;
    int rc = read_safetensors(file, path, out, err);
    safetensors_close(file);
    return rc;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static int open_by_content(const char *path, struct gyaru_vector **out, struct gyaru_error *err)
{
    struct file_map map;
    if (file_map_open(path, &map, err))
        return -1;
    bool zip = map.size >= 2 && !memcmp(map.data, "PK", 2);
    bool gguf = map.size >= 4 && !memcmp(map.data, "GGUF", 4);
    bool pickle = map.size >= 2 && map.data[0] == 0x80 && map.data[1] <= 5 &&
                  (map.size < 9 || map.data[8] != '{');
    file_map_close(&map);
    if (zip)
        return open_pt(path, out, err);
    if (gguf)
        return open_gguf(path, out, err);
    if (pickle)
        return error_set(
            err, GYARU_FAILED,
            "%s: a pickle outside a zip, torch's format before 1.6: save it again with "
            "a newer torch",
            path);
    return open_safetensors(path, out, err);
}

/* The file name without directory and extension. */
static char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return strndup(base, dot && dot != base ? (size_t)(dot - base) : strlen(base));
}

int gyaru_vector_open(const char *path, struct gyaru_vector **out, struct gyaru_error *err)
{
    struct gyaru_vector *v = NULL;
    int rc = open_by_content(path, &v, err);
    if (!rc) {
        v->path = strdup(path);
        v->name = name_of(path);
        if (!v->path || !v->name)
            rc = error_memory(err, strlen(path), "a path");
    }
    if (rc) {
        gyaru_vector_close(v);
        return -1;
    }
    v->info.path = v->path;
    v->info.name = v->name;
    *out = v;
    return 0;
}

/* ---- saving -----------------------------------------------------------------------------------
 */

/* JSON text of the meter (caller frees), "" if no layer has one; NULL when out of memory. */
static char *meter_text(const struct gyaru_vector *v)
{
    struct str s = STR_INIT;
    for (int i = 0; i < v->info.n_directions; i++) {
        const struct vector_layer *at = &v->layers[i];
        if (at->has_meter)
            str_printf(&s, "%s\"%d\":{\"m_plus\":%.9g,\"m_minus\":%.9g,\"residual_norm\":%.9g}",
                       s.len ? "," : "{", at->layer, (double)at->meter.m_plus,
                       (double)at->meter.m_minus, (double)at->meter.residual_norm);
    }
    if (s.len)
        str_putc(&s, '}');
    return str_take(&s);
}

static int write_safetensors(const struct gyaru_vector *v, const char *path,
                             const struct tensor *tensors, struct gyaru_error *err)
{
    char hidden[16];
    snprintf(hidden, sizeof hidden, "%d", v->info.hidden_size);
    char *meter = meter_text(v);
    struct safetensors_pair *pairs = malloc((v->n_metadata + 5) * sizeof *pairs);
    int rc;
    if (!meter || !pairs) {
        rc = error_memory(err, v->n_metadata * sizeof *pairs, "metadata");
    } else {
        size_t n = 0;
        pairs[n++] = (struct safetensors_pair){"format", FORMAT};
        pairs[n++] = (struct safetensors_pair){"version", VERSION};
        pairs[n++] = (struct safetensors_pair){"hook", v->info.hook};
        pairs[n++] = (struct safetensors_pair){"hidden_size", hidden};
        for (size_t i = 0; i < v->n_metadata; i++)
            pairs[n++] = (struct safetensors_pair){v->metadata[i].key, v->metadata[i].value};
        if (*meter)
            pairs[n++] = (struct safetensors_pair){"meter", meter};
        rc = safetensors_write(path, tensors, (size_t)v->info.n_directions, pairs, n, err);
    }
    free(meter);
    free(pairs);
    return rc;
}

static int save_safetensors(const struct gyaru_vector *v, const char *path, struct gyaru_error *err)
{
    size_t n = (size_t)v->info.n_directions;
    uint64_t dims[1] = {(uint64_t)v->info.hidden_size};
    struct tensor *tensors = malloc(n * sizeof *tensors);
    char(*names)[16] = malloc(n * sizeof *names);
    int rc;
    if (!tensors || !names) {
        rc = error_memory(err, n * sizeof *tensors, "the list of tensors");
    } else {
        for (size_t i = 0; i < n; i++) {
            snprintf(names[i], sizeof names[i], TENSOR_PREFIX "%d", v->layers[i].layer);
            tensors[i] = (struct tensor){.name = names[i],
                                         .dtype = DTYPE_F32,
                                         .n_dims = 1,
                                         .dims = dims,
                                         .data = (const uint8_t *)v->layers[i].direction,
                                         .size = dims[0] * sizeof(float)};
        }
        rc = write_safetensors(v, path, tensors, err);
    }
    free(tensors);
    free(names);
    return rc;
}

/* Layer number in a format that adds at `hook`: the output of L is the input of L+1. */
static int shifted(const struct gyaru_vector *v, int layer, enum vector_hook hook)
{
    if (v->hook == hook)
        return layer;
    return v->hook == HOOK_RESID_POST ? layer + 1 : layer - 1;
}

static int save_pt(const struct gyaru_vector *v, const char *path, struct gyaru_error *err)
{
    size_t n = (size_t)v->info.n_directions;
    struct torch_pt pt = {calloc(n, sizeof *pt.entries), n};
    if (!pt.entries)
        return error_memory(err, n * sizeof *pt.entries, "the tensors");
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        int key = shifted(v, v->layers[i].layer, HOOK_RESID_PRE);
        if (v->info.n_layers && key >= v->info.n_layers)
            rc = error_set(err, GYARU_FAILED,
                           "%s: layer %d is added at the output of the last block; .pt adds at "
                           "inputs and cannot say that: leave the layer out",
                           path, v->layers[i].layer);
        pt.entries[i] =
            (struct torch_pt_entry){key, (size_t)v->info.hidden_size, v->layers[i].direction};
    }
    if (!rc)
        rc = torch_pt_write(path, &pt, err);
    free(pt.entries); /* the values are the vector's */
    return rc;
}

static int save_gguf(const struct gyaru_vector *v, const char *path, struct gyaru_error *err)
{
    size_t n = (size_t)v->info.n_directions;
    const char *hint = vector_metadata(v, "model_hint");
    struct gguf_vector gguf = {.model_hint = (char *)(hint ? hint : "qwen2"),
                               .n = (size_t)v->info.hidden_size,
                               .directions = calloc(n, sizeof *gguf.directions),
                               .n_directions = n};
    if (!gguf.directions)
        return error_memory(err, n * sizeof *gguf.directions, "the directions");
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        int layer = shifted(v, v->layers[i].layer, HOOK_RESID_POST);
        if (layer < 1)
            rc = error_set(err, GYARU_FAILED,
                           "%s: layer %d is added at the %s of block 0; .gguf cannot say that: "
                           "leave the layer out",
                           path, v->layers[i].layer, layer < 0 ? "input" : "output");
        gguf.directions[i] = (struct gguf_direction){layer, v->layers[i].direction};
        gguf.layer_count = layer + 1;
    }
    if (v->info.n_layers)
        gguf.layer_count = v->info.n_layers;
    if (!rc)
        rc = gguf_vector_write(path, &gguf, err);
    free(gguf.directions); /* the values and the hint are the vector's */
    return rc;
}

static const struct {
    const char *extension;
    int (*save)(const struct gyaru_vector *v, const char *path, struct gyaru_error *err);
    bool keeps_metadata;
} formats[] = {
    {".safetensors", save_safetensors, true},
    {".pt", save_pt, false},
    {".gguf", save_gguf, false},
};

/* Metadata or a meter that a bare format would lose? */
static bool has_more(const struct gyaru_vector *v)
{
    for (int i = 0; i < v->info.n_directions; i++) {
        if (v->layers[i].has_meter)
            return true;
    }
    for (size_t i = 0; i < v->n_metadata; i++) {
        if (strcmp(v->metadata[i].key, "model_hint"))
            return true;
    }
    return false;
}

int vector_save(const struct gyaru_vector *v, const char *path, char **warning,
                struct gyaru_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash : path, '.');
    if (!v->info.n_directions)
        return error_set(err, GYARU_FAILED, "%s: the vector has no direction", path);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (!dot || strcmp(dot, formats[i].extension))
            continue;
        char *text = NULL;
        if (!formats[i].keeps_metadata && has_more(v) &&
            !(text = strdup("the format holds directions only: model, fingerprint, strengths and "
                            "meter are left out")))
            return error_memory(err, 100, "a warning");
        if (formats[i].save(v, path, err)) {
            free(text);
            return -1;
        }
        *warning = text;
        return 0;
    }
    return error_set(err, GYARU_USAGE, "%s: the name must end in .safetensors, .pt or .gguf", path);
}
