/*
 * bake.c - gyaru_bake(): a control vector as biases of an ordinary checkpoint.
 *
 * What is added at the output of block L is the same for every token, so it may as well be the bias
 * of the last linear that writes into the residual stream there: down_proj. The weight files are
 * copied as files, never read as tensors; all biases that Llama has and Qwen2 lacks go into one
 * small file more, and an index says what lies where. To bake the same model again at another
 * strength changes only that file.
 *
 * The steered biases are float32, whatever the checkpoint's type: in float32 the result is exact,
 * and programs that compute in bf16 round them on loading, where the rest is rounded as well.
 */
#include "steer/bake.h"

#include "base/file.h"
#include "base/folder.h"
#include "base/json.h"
#include "base/str.h"
#include "format/checkpoint.h"
#include "model/model.h"
#include "model/source.h"
#include "steer/vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INDEX_NAME "model.safetensors.index.json"
#define N_ADDED    4          /* biases per block */
#define ENTRY      256        /* bytes, more than one tensor takes in the index or a header */
#define SLACK      (1u << 20) /* bytes for config.json and the file system's own needs */

/* What else belongs to a checkpoint; each is copied if it is there. */
static const char *const companions[] = {"tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "added_tokens.json",
                                         "vocab.json",
                                         "merges.txt",
                                         "chat_template.jinja",
                                         "chat_template.json",
                                         "generation_config.json",
                                         "LICENSE",
                                         "LICENSE.txt",
                                         "NOTICE"};

#define N_COMPANIONS (sizeof companions / sizeof *companions)

struct bake {
    const char *dir, *out;
    const struct gyaru_vector *vector;
    const struct gyaru_bake_options *options;
    struct model_config config;
    struct checkpoint *checkpoint;
    char fingerprint[65];
    char *warning;        /* NULL: nothing */
    enum dtype dtype;     /* of the weights that are not 4-bit */
    float **down;         /* [n_layers] -> [hidden] bias of down_proj, NULL: zero */
    char **names;         /* [N_ADDED * n_layers] of the added tensors */
    uint8_t *zeros;       /* [max(hidden, intermediate) * 4] */
    struct tensor *added; /* [N_ADDED * n_layers] */
    uint64_t dims[2];     /* hidden, intermediate */
};

void gyaru_bake_options_init(struct gyaru_bake_options *options)
{
    *options = (struct gyaru_bake_options){NAN, -1, -1, false, NULL, NULL};
}

static void release(struct bake *b)
{
    size_t n = (size_t)b->config.n_layers;
    for (size_t i = 0; b->down && i < n; i++)
        free(b->down[i]);
    for (size_t i = 0; b->names && i < N_ADDED * n; i++)
        free(b->names[i]);
    free(b->down);
    free(b->names);
    free(b->zeros);
    free(b->added);
    free(b->warning);
    checkpoint_close(b->checkpoint);
    model_config_release(&b->config);
}

/* ---- the model ------------------------------------------------------------------------------ */

static int open_model(struct bake *b, struct gyaru_error *err)
{
    if (model_config_read(b->dir, &b->config, err) ||
        checkpoint_open(b->dir, &b->checkpoint, err) ||
        model_fingerprint(&b->config, b->checkpoint, b->fingerprint, err))
        return -1;
    const struct tensor *embedding = checkpoint_find(b->checkpoint, "model.embed_tokens.weight");
    if (!embedding || (embedding->dtype != DTYPE_BF16 && embedding->dtype != DTYPE_F16 &&
                       embedding->dtype != DTYPE_F32))
        return error_set(err, GYARU_FAILED,
                         "%s: model.embed_tokens.weight is missing or neither bf16, fp16 nor fp32",
                         b->dir);
    b->dtype = embedding->dtype;
    const struct vector_model model = {b->dir, b->fingerprint, b->config.hidden,
                                       b->config.n_layers};
    return vector_admit(&model, b->vector, b->options->force, &b->warning, err);
}

/* ---- what is added ---------------------------------------------------------------------------
 */

static bool in_range(const struct gyaru_bake_options *o, int layer)
{
    return (o->layer_first < 0 || layer >= o->layer_first) &&
           (o->layer_last < 0 || layer <= o->layer_last);
}

/* The bias of the block at whose output the direction of `layer` is added. */
static int add_direction(struct bake *b, int layer, struct gyaru_error *err)
{
    int block = b->vector->hook == HOOK_RESID_PRE ? layer - 1 : layer;
    if (block < 0)
        return error_set(err, GYARU_FAILED,
                         "%s: its direction of layer 0 is added at the input of the first block, "
                         "where no bias lies: leave it out with --layers 1-%d",
                         b->vector->info.path, b->vector->info.layer_max);
    const float *direction = vector_direction(b->vector, layer);
    size_t hidden = (size_t)b->config.hidden;
    float *bias = malloc(hidden * sizeof *bias);
    if (!bias)
        return error_memory(err, hidden * sizeof *bias, "a bias");
    b->down[block] = bias;
    for (size_t i = 0; i < hidden; i++) {
        bias[i] = b->options->strength * direction[i];
        if (b->dtype == DTYPE_F16 && fabsf(bias[i]) > 65504)
            return error_set(err, GYARU_FAILED,
                             "layer %d: strength %g makes a bias of %g, which float16 (%s) cannot "
                             "hold: use a smaller strength",
                             layer, (double)b->options->strength, (double)bias[i], b->dir);
    }
    return 0;
}

static int make_directions(struct bake *b, struct gyaru_error *err)
{
    int n = 0;
    b->down = calloc((size_t)b->config.n_layers, sizeof *b->down);
    if (!b->down)
        return error_memory(err, (size_t)b->config.n_layers * sizeof *b->down, "the biases");
    for (int i = 0; i < b->vector->info.n_directions; i++) {
        int layer = b->vector->layers[i].layer;
        if (!in_range(b->options, layer))
            continue;
        if (add_direction(b, layer, err))
            return -1;
        n++;
    }
    if (!n)
        return error_set(err, GYARU_USAGE,
                         "--layers %d-%d: %s has directions for layers %d-%d only",
                         b->options->layer_first, b->options->layer_last, b->vector->info.path,
                         b->vector->info.layer_min, b->vector->info.layer_max);
    return 0;
}

/* The weight must be one that the engine could load; that it has no bias yet is what makes it
 * Qwen2. */
static int check_linear(const struct bake *b, int layer, const char *part, size_t rows, size_t cols,
                        const char *bias, struct gyaru_error *err)
{
    struct str name = STR_INIT;
    struct quant_source source;
    str_printf(&name, "model.layers.%d.%s.weight", layer, part);
    int rc = str_failed(&name) ? error_memory(err, 64, "a name")
                               : source_matrix(b->checkpoint, name.data, rows, cols, &source, err);
    str_release(&name);
    if (!rc && checkpoint_find(b->checkpoint, bias))
        rc = error_set(err, GYARU_FAILED, "%s: %s is there already: no plain qwen2 checkpoint",
                       b->dir, bias);
    return rc;
}

static int add_block(struct bake *b, int layer, struct gyaru_error *err)
{
    size_t hidden = (size_t)b->config.hidden, inner = (size_t)b->config.intermediate;
    size_t heads = (size_t)b->config.n_heads * (size_t)b->config.head_dim;
    const struct {
        const char *part;
        size_t rows, cols;
        int dims; /* index into b->dims */
        const float *values;
    } parts[N_ADDED] = {{"self_attn.o_proj", hidden, heads, 0, NULL},
                        {"mlp.gate_proj", inner, hidden, 1, NULL},
                        {"mlp.up_proj", inner, hidden, 1, NULL},
                        {"mlp.down_proj", hidden, inner, 0, b->down[layer]}};
    for (size_t i = 0; i < N_ADDED; i++) {
        size_t at = N_ADDED * (size_t)layer + i;
        struct str name = STR_INIT;
        str_printf(&name, "model.layers.%d.%s.bias", layer, parts[i].part);
        b->names[at] = str_take(&name);
        if (!b->names[at])
            return error_memory(err, 64, "a name");
        if (check_linear(b, layer, parts[i].part, parts[i].rows, parts[i].cols, b->names[at], err))
            return -1;
        enum dtype dtype = parts[i].values ? DTYPE_F32 : b->dtype;
        b->added[at] = (struct tensor){
            b->names[at],
            dtype,
            1,
            &b->dims[parts[i].dims],
            parts[i].values ? (const uint8_t *)parts[i].values : b->zeros,
            parts[i].rows * dtype_size(dtype),
        };
    }
    return 0;
}

static int make_added(struct bake *b, struct gyaru_error *err)
{
    size_t n = N_ADDED * (size_t)b->config.n_layers;
    b->dims[0] = (uint64_t)b->config.hidden;
    b->dims[1] = (uint64_t)b->config.intermediate;
    b->names = calloc(n, sizeof *b->names);
    b->added = calloc(n, sizeof *b->added);
    b->zeros = calloc(b->dims[0] > b->dims[1] ? b->dims[0] : b->dims[1], sizeof(float));
    if (!b->names || !b->added || !b->zeros)
        return error_memory(err, n * sizeof *b->added, "the biases");
    for (int l = 0; l < b->config.n_layers; l++)
        if (add_block(b, l, err))
            return -1;
    return 0;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Hugging Face's name of file i of n, counted from 0. */
static char *shard_name(size_t i, size_t n)
{
    struct str name = STR_INIT;
    str_printf(&name, "model-%05zu-of-%05zu.safetensors", i + 1, n);
    return str_take(&name);
}

/* Bytes of DIR/NAME; 0 and *there false if it is absent. */
static int file_size(const char *dir, const char *name, bool *there, uint64_t *size,
                     struct gyaru_error *err)
{
    struct stat st;
    char *path = file_join(dir, name);
    if (!path)
        return error_memory(err, strlen(dir), "a path");
    *there = !stat(path, &st);
    *size = *there ? (uint64_t)st.st_size : 0;
    free(path);
    return 0;
}

static int add_size(const struct bake *b, const char *name, uint64_t *total,
                    struct gyaru_error *err)
{
    bool there;
    uint64_t size;
    if (file_size(b->dir, name, &there, &size, err))
        return -1;
    *total += size;
    return 0;
}

/* Bytes that are copied. */
static int copied_bytes(const struct bake *b, uint64_t *total, struct gyaru_error *err)
{
    const char *name;
    *total = 0;
    for (size_t i = 0; i < checkpoint_shards(b->checkpoint); i++) {
        checkpoint_shard(b->checkpoint, i, &name);
        if (add_size(b, name, total, err))
            return -1;
    }
    for (size_t i = 0; i < N_COMPANIONS; i++)
        if (add_size(b, companions[i], total, err))
            return -1;
    return 0;
}

static int copy_file(const struct bake *b, struct folder_writer *w, const char *from,
                     const char *name, struct gyaru_error *err)
{
    char *path = file_join(b->dir, from);
    if (!path)
        return error_memory(err, strlen(b->dir), "a path");
    int rc = folder_writer_copy(w, path, name, err);
    free(path);
    return rc;
}

static int copy_files(const struct bake *b, struct folder_writer *w, struct gyaru_error *err)
{
    size_t n = checkpoint_shards(b->checkpoint);
    for (size_t i = 0; i < n; i++) {
        const char *from;
        char *name = shard_name(i, n + 1);
        checkpoint_shard(b->checkpoint, i, &from);
        int rc = name ? copy_file(b, w, from, name, err) : error_memory(err, 64, "a name");
        free(name);
        if (rc)
            return -1;
    }
    for (size_t i = 0; i < N_COMPANIONS; i++) {
        bool there;
        uint64_t size;
        if (file_size(b->dir, companions[i], &there, &size, err) ||
            (there && copy_file(b, w, companions[i], companions[i], err)))
            return -1;
    }
    return 0;
}

static int write_text(const struct folder_writer *w, const char *name, const char *text,
                      struct gyaru_error *err)
{
    char *path = file_join(w->temp, name);
    int rc = path ? file_write_atomic(path, text, strlen(text), err)
                  : error_memory(err, strlen(w->temp), "a path");
    free(path);
    return rc;
}

/* Dumps and releases `json`, which may be NULL for lack of memory. */
static int write_json(const struct folder_writer *w, const char *name, json_t *json,
                      struct gyaru_error *err)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    int rc = text ? write_text(w, name, text, err) : error_memory(err, 4096, name);
    free(text);
    return rc;
}

static int write_added(const struct bake *b, const struct folder_writer *w, const char *name,
                       struct gyaru_error *err)
{
    const struct safetensors_pair metadata[] = {{"format", "pt"}};
    char *path = file_join(w->temp, name);
    if (!path)
        return error_memory(err, strlen(w->temp), "a path");
    int rc =
        safetensors_write(path, b->added, N_ADDED * (size_t)b->config.n_layers, metadata, 1, err);
    free(path);
    return rc;
}

/* "weight_map" for every tensor, old and added. */
static int write_index(const struct bake *b, const struct folder_writer *w, struct gyaru_error *err)
{
    uint64_t total = 0;
    size_t n = checkpoint_shards(b->checkpoint), n_added = N_ADDED * (size_t)b->config.n_layers;
    json_t *map = json_object();
    bool failed = !map;
    for (size_t i = 0; i <= n && !failed; i++) {
        const char *from;
        char *name = shard_name(i, n + 1);
        const struct safetensors *file = i < n ? checkpoint_shard(b->checkpoint, i, &from) : NULL;
        size_t count = file ? safetensors_count(file) : n_added;
        failed = !name;
        for (size_t k = 0; k < count && !failed; k++) {
            const struct tensor *t = file ? safetensors_at(file, k) : &b->added[k];
            total += t->size;
            failed = json_object_set_new(map, t->name, json_string(name)) != 0;
        }
        free(name);
    }
    if (failed) {
        json_decref(map);
        return error_memory(err, n_added * 64, INDEX_NAME);
    }
    return write_json(
        w, INDEX_NAME,
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map),
        err);
}

/* ---- the record ------------------------------------------------------------------------------ */

static bool is_forced(const struct bake *b)
{
    return b->warning && !strncmp(b->warning, VECTOR_FORCED, strlen(VECTOR_FORCED));
}

/* What was baked, for config.json and the report. NULL when out of memory. */
static json_t *make_record(const struct bake *b)
{
    json_t *layers = json_array();
    for (int l = 0; l < b->config.n_layers; l++)
        if (b->down[l])
            json_array_append_new(layers, json_integer(l));
    return json_pack("{s:s, s:f, s:s, s:o, s:s, s:b, s:o}", "vector", b->vector->info.name,
                     "strength", (double)b->options->strength, "added_at", "resid_post", "layers",
                     layers, "model_fingerprint", b->fingerprint, "forced", (int)is_forced(b),
                     "warning", b->warning ? json_string(b->warning) : json_null());
}

static int write_config(const struct bake *b, const struct folder_writer *w, json_t *record,
                        struct gyaru_error *err)
{
    static const char *const names[DTYPE_COUNT] = {
        [DTYPE_BF16] = "bfloat16", [DTYPE_F16] = "float16", [DTYPE_F32] = "float32"};
    const struct bake_facts facts = {&b->config, names[b->dtype], record};
    char *text;
    if (bake_config(b->dir, &facts, &text, err))
        return -1;
    int rc = write_text(w, "config.json", text, err);
    free(text);
    return rc;
}

static int write_all(const struct bake *b, struct folder_writer *w, json_t *record,
                     struct gyaru_error *err)
{
    size_t n = checkpoint_shards(b->checkpoint);
    char *name = shard_name(n, n + 1);
    int rc = name ? 0 : error_memory(err, 64, "a name");
    if (!rc)
        rc = write_added(b, w, name, err);
    free(name);
    if (rc || write_index(b, w, err) || write_config(b, w, record, err))
        return -1;
    return copy_files(b, w, err);
}

static int write_folder(const struct bake *b, json_t *record, struct gyaru_error *err)
{
    uint64_t copied, added = 0;
    size_t n_added = N_ADDED * (size_t)b->config.n_layers;
    if (copied_bytes(b, &copied, err))
        return -1;
    for (size_t i = 0; i < n_added; i++)
        added += b->added[i].size;
    uint64_t names = ENTRY * (2 * (uint64_t)n_added + (uint64_t)checkpoint_count(b->checkpoint));
    struct folder_writer w;
    if (folder_writer_open(&w, b->out, copied + added + names + SLACK, err))
        return -1;
    w.what = is_forced(b) ? VECTOR_FORCED ": copying" : "copying";
    w.progress = b->options->progress;
    w.progress_user = b->options->progress_user;
    w.total = copied;
    if (write_all(b, &w, record, err)) {
        folder_writer_abort(&w);
        return -1;
    }
    json_object_set_new(record, "bytes", json_integer((json_int_t)(copied + added)));
    return folder_writer_commit(&w, err);
}

/* Above the strength up to which the vector was found safe, the persona may well be broken for
 * good: nobody can turn a baked one down. */
static int warn_strength(struct bake *b, struct gyaru_error *err)
{
    float max = b->vector->info.max_strength;
    if (!(fabsf(b->options->strength) > max))
        return 0;
    struct str text = STR_INIT;
    str_printf(&text, "%s%sstrength %g is above %g, the most that this vector was found fit for",
               b->warning ? b->warning : "", b->warning ? "; " : "", (double)b->options->strength,
               (double)max);
    free(b->warning);
    b->warning = str_take(&text);
    return b->warning ? 0 : error_memory(err, sizeof err->text, "a warning");
}

int gyaru_bake(const char *dir, const struct gyaru_vector *vector,
               const struct gyaru_bake_options *options, const char *out, char **report,
               struct gyaru_error *err)
{
    struct bake b = {.dir = dir, .out = out, .vector = vector, .options = options};
    if (!isfinite(options->strength))
        return error_set(err, GYARU_USAGE, "strength: expected a finite number");
    if (open_model(&b, err) || warn_strength(&b, err) || make_directions(&b, err) ||
        make_added(&b, err)) {
        release(&b);
        return -1;
    }
    json_t *record = make_record(&b);
    int rc = record ? write_folder(&b, record, err) : error_memory(err, 1024, "the record");
    char *text = NULL;
    if (!rc) {
        json_object_set_new(record, "out", json_string(out));
        text = json_dumps(record, JSON_INDENT(1));
        rc = text ? 0 : error_memory(err, 1024, "the report");
    }
    json_decref(record);
    release(&b);
    if (!rc)
        *report = text;
    return rc;
}
