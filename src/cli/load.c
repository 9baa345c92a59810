/*
 * load.c - from the shared options to an open model with its vector and its sampling settings.
 *
 * Order of precedence everywhere: command line, config file, what the model or vector says.
 */
#include "cli/options.h"

#include "base/file.h"
#include "base/str.h"

#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_MODEL    "models/rinne-base"
#define DEFAULT_STRENGTH 12.0f /* the document's standard preset */

#define AT(field) offsetof(struct common_options, field)

const struct option_spec common_model_options[] = {
    {'m', "model", OPTION_TEXT, AT(model), 0, 0, "DIR",
     "model directory (config: model.path, else " DEFAULT_MODEL ")"},
    {'c', "config", OPTION_TEXT, AT(config_path), 0, 0, "FILE",
     "settings (" CONFIG_DEFAULT_PATH ")"},
    {0, "device", OPTION_TEXT, AT(device), 0, 0, "NAME",
     "cpu, cuda, cuda:N, or cuda:N,M for GPUs that share the model; auto: a GPU if there is one "
     "and the model fits (config: model.device, else auto)"},
    {'t', "threads", OPTION_INT, AT(threads), 0, 1024, "N", "CPU threads; 0: all cores (0)"},
    {0, "context", OPTION_INT, AT(context), 0, 1 << 20, "N",
     "tokens that a conversation may hold; 0: the model's limit, at most 4096 (0)"},
    {0, "host-embedding", OPTION_FLAG, AT(host_embedding), 0, 0, NULL,
     "keep the embedding in the host's memory instead of a GPU's: 1.45 GiB of a 14B; its rows are "
     "read over the bus. Not if the embedding is the head, too"},
    {0, "kv", OPTION_TEXT, AT(kv), 0, 0, "TYPE",
     "KV cache: f16, f32, int8 (half of f16, on a GPU only) or auto: f32 on a CPU, f16 on a GPU "
     "(auto)"},
    OPTION_END};

const struct option_spec common_steering_options[] = {
    {'v', "vector", OPTION_TEXT, AT(vector), 0, 0, "FILE",
     "control vector: .safetensors, .pt or .gguf; none: no vector (config: steering.vector, else "
     "the one in " LOAD_VECTOR_FOLDER
     " whose fingerprint matches, else the model's own " LOAD_MODEL_VECTOR ")"},
    {'s', "strength", OPTION_NUMBER, AT(strength), GYARU_STRENGTH_MIN, GYARU_STRENGTH_MAX, "X",
     "factor on the vector, -10..30 (config: steering.strength, else what the vector recommends, "
     "else 12)"},
    {0, "layers", OPTION_LAYERS, AT(layers), 0, 0, "A-B",
     "use only these layers of the vector (all it has)"},
    {0, "gauge-layer", OPTION_INT, AT(gauge_layer), 0, 1000, "L",
     "layer of the meter (config: steering.visualise_layer, else the vector's last layer at or "
     "below 73% of the depth)"},
    {0, "force", OPTION_FLAG, AT(force), 0, 0, NULL,
     "take a vector of another model of the same hidden size"},
    OPTION_END};

void common_options_init(struct common_options *common)
{
    *common = (struct common_options){
        .threads = OPTION_UNSET,
        .context = OPTION_UNSET,
        .strength = NAN,
        .layers = {-1, -1},
        .gauge_layer = OPTION_UNSET,
    };
    config_init(&common->config);
}

void common_options_release(struct common_options *common)
{
    config_release(&common->config);
}

int common_options_finish(struct common_options *common, struct gyaru_error *err)
{
    if (config_read(common->config_path, &common->config, err))
        return -1;
    const struct config *config = &common->config;
    if (!common->device)
        common->device = config->device ? config->device : "auto";
    if (!common->vector)
        common->vector = config->vector;
    if (isnan(common->strength))
        common->strength = config->strength;
    if (common->gauge_layer == OPTION_UNSET)
        common->gauge_layer = config->visualise_layer;
    if (common->threads == OPTION_UNSET)
        common->threads = 0;
    if (common->context == OPTION_UNSET)
        common->context = 0;
    return 0;
}

/* ---- where the model is --------------------------------------------------------------------- */

/* "BASE/NAME" if it exists and holds `inside` (NULL: whatever it is), else NULL (also when out of
 * memory). */
static char *path_under(const char *base, const char *name, const char *inside)
{
    char *path = file_join(base, name);
    char *file = path && inside ? file_join(path, inside) : NULL;
    bool found = path && (inside ? file && file_exists(file) : file_exists(path));
    free(file);
    if (found)
        return path;
    free(path);
    return NULL;
}

/* Looks beside the running program: BUILD/gyaru -> the source tree, PREFIX/bin/gyaru ->
 * PREFIX/share/gyaru. */
static char *path_near_program(const char *name, const char *inside)
{
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    if (len <= 0)
        return NULL;
    program[len] = '\0';
    char *folder = dirname(program);
    static const char *const bases[] = {"..", "../share/gyaru"};
    char *found = NULL;
    for (size_t i = 0; !found && i < sizeof bases / sizeof bases[0]; i++) {
        char *base = file_join(folder, bases[i]);
        if (base)
            found = path_under(base, name, inside);
        free(base);
    }
    return found;
}

int common_data_path(const char *name, char **path, struct gyaru_error *err)
{
    char *found = NULL;
    if (name[0] != '/' && !file_exists(name))
        found = path_near_program(name, NULL);
    if (!found)
        found = strdup(name);
    if (!found)
        return error_memory(err, strlen(name), "a path");
    *path = found;
    return 0;
}

int common_vector_file(struct common_options *common, const char *given, const char **file,
                       struct gyaru_error *err)
{
    if (common_options_finish(common, err))
        return -1;
    *file = given ? given : common->config.vector;
    return *file ? 0 : error_set(err, GYARU_USAGE, "give the vector: -v FILE");
}

int common_model_dir(const struct common_options *common, char **dir, struct gyaru_error *err)
{
    const char *name = common->model ? common->model : common->config.model_path;
    bool asked = name != NULL;
    if (!name)
        name = DEFAULT_MODEL;
    char *path = NULL;
    if (name[0] != '/' && !file_exists(name))
        path = path_near_program(name, "config.json");
    if (!path)
        path = strdup(name);
    if (!path)
        return error_memory(err, strlen(name), "a path");
    if (!file_exists(path)) {
        error_set(err, GYARU_FAILED, "%s: no such model directory%s", path,
                  asked ? "" : "; name one with -m DIR or model.path in " CONFIG_DEFAULT_PATH);
        free(path);
        return -1;
    }
    *dir = path;
    return 0;
}

/* ---- model and vector ----------------------------------------------------------------------- */

/* The vector to use (caller frees), NULL in *path for none. */
static int choose_vector(const struct common_options *common, const struct load_options *load,
                         const struct gyaru_model *model, char **path, struct gyaru_error *err)
{
    *path = NULL;
    if (common->vector) {
        if (!strcmp(common->vector, "none"))
            return 0;
        *path = strdup(common->vector);
        return *path ? 0 : error_memory(err, strlen(common->vector), "a path");
    }
    if (!load->find_vector)
        return 0;
    const char *folder = load->folder ? load->folder : LOAD_VECTOR_FOLDER;
    if (file_exists(folder) && gyaru_vector_find(model, folder, path, err))
        return -1;
    if (*path)
        return 0;
    char *own = file_join(gyaru_model_info(model)->dir, LOAD_MODEL_VECTOR);
    if (!own)
        return error_memory(err, sizeof LOAD_MODEL_VECTOR, "a path");
    if (file_exists(own))
        *path = own;
    else
        free(own);
    return 0;
}

static float choose_strength(const struct common_options *common, float recommended)
{
    if (!isnan(common->strength))
        return common->strength;
    return isnan(recommended) ? DEFAULT_STRENGTH : recommended;
}

static int attach_vector(const struct common_options *common, const struct load_options *load,
                         struct loaded_model *loaded, struct gyaru_error *err)
{
    struct gyaru_vector *vector;
    int layer;
    if (gyaru_vector_open(loaded->vector_path, &vector, err))
        return -1;
    struct gyaru_attach_options *options = &loaded->attach;
    gyaru_attach_options_init(options);
    options->layer_first = common->layers.first;
    options->layer_last = common->layers.last;
    options->gauge_layer = common->gauge_layer == OPTION_UNSET ? -1 : common->gauge_layer;
    options->force = common->force;
    const struct gyaru_vector_info *info = gyaru_vector_info(vector);
    loaded->strength = choose_strength(common, info->recommended_strength);
    loaded->vector_name = strdup(info->name);
    int rc;
    if (!loaded->vector_name)
        rc = error_memory(err, strlen(info->name), "a vector's name");
    else if (load->check_only)
        rc = gyaru_model_admits(loaded->model, vector, options, &layer, &loaded->warning, err);
    else
        rc = gyaru_model_attach(loaded->model, vector, options, &loaded->vector, &loaded->warning,
                                err);
    gyaru_vector_close(vector);
    return rc;
}

static int parse_kv(const char *text, enum gyaru_kv *out, struct gyaru_error *err)
{
    for (enum gyaru_kv kv = GYARU_KV_AUTO; kv <= GYARU_KV_I8; kv++)
        if (!strcmp(text ? text : "auto", gyaru_kv_name(kv))) {
            *out = kv;
            return 0;
        }
    return error_set(err, GYARU_USAGE, "--kv %s: expected auto, f16, f32 or int8", text);
}

int common_model_options_apply(const struct common_options *common,
                               struct gyaru_model_options *options, struct gyaru_error *err)
{
    options->device = common->device;
    options->threads = common->threads;
    options->context = common->context;
    options->host_embedding = common->host_embedding;
    return parse_kv(common->kv, &options->kv, err);
}

int common_load(const struct common_options *common, const struct load_options *load,
                struct loaded_model *out, struct gyaru_error *err)
{
    struct gyaru_model_options options;
    gyaru_model_options_init(&options);
    options.sessions = load->sessions;
    options.chunk = load->chunk ? load->chunk : options.chunk;
    if (common_model_options_apply(common, &options, err))
        return -1;
    options.progress = load->progress;
    options.progress_user = load->progress_user;

    struct loaded_model loaded = {.vector = -1};
    char *dir;
    if (common_model_dir(common, &dir, err))
        return -1;
    int rc = gyaru_model_open(dir, &options, &loaded.model, err);
    free(dir);
    if (rc)
        return -1;
    if (choose_vector(common, load, loaded.model, &loaded.vector_path, err) ||
        (loaded.vector_path && attach_vector(common, load, &loaded, err))) {
        loaded_model_release(&loaded);
        return -1;
    }
    *out = loaded;
    return 0;
}

void loaded_model_release(struct loaded_model *loaded)
{
    if (loaded->model)
        gyaru_model_close(loaded->model);
    free(loaded->vector_path);
    free(loaded->vector_name);
    free(loaded->warning);
    *loaded = (struct loaded_model){.vector = -1};
}

static double gib(uint64_t bytes)
{
    return (double)bytes / (1u << 30);
}

char *loaded_model_line(const struct gyaru_model *model)
{
    const struct gyaru_model_info *info = gyaru_model_info(model);
    struct str line = STR_INIT;
    str_printf(&line, "%s on %s: planned %.2f GiB, took %.2f GiB", info->name, info->device,
               gib(info->weight_bytes + info->kv_bytes + info->workspace_bytes),
               gib(info->used_bytes));
    if (info->host_bytes)
        str_printf(&line, " and %.2f GiB of the host's memory", gib(info->host_bytes));
    str_printf(&line, "; %.2f GiB in use %s", gib(info->in_use_bytes),
               info->on_gpu ? "on the GPU by all" : "by this process");
    if (info->devices > 1)
        str_printf(&line, "; each on the GPU of %d that has most", info->devices);
    if (info->device_why[0])
        str_printf(&line, " (%s)", info->device_why);
    return str_take(&line);
}

void loaded_model_say(const char *command, const struct gyaru_model *model)
{
    const struct gyaru_model_info *info = gyaru_model_info(model);
    char *line = info->on_gpu || info->gpu_refused ? loaded_model_line(model) : NULL;
    if (line)
        fprintf(stderr, "gyaru %s: %s\n", command, line);
    free(line);
}

/* ---- sampling ------------------------------------------------------------------------------- */

#undef AT
#define AT(field) offsetof(struct sampling_options, field)

const struct option_spec sampling_options[] = {
    {0, "temp", OPTION_NUMBER, AT(temperature), 0, 5, "X",
     "temperature, 0..5; 0: greedy (config, else the model's own)"},
    {0, "top-p", OPTION_NUMBER, AT(top_p), 0, 1, "X",
     "only the likeliest tokens that sum to this, 0..1; 1: off (config, else the model's own)"},
    {0, "top-k", OPTION_INT, AT(top_k), 0, 1000000, "N",
     "only the N likeliest tokens; 0: off (config, else the model's own)"},
    {0, "min-p", OPTION_NUMBER, AT(min_p), 0, 1, "X",
     "only tokens at least this share as likely as the likeliest, 0..1; 0: off (config, else off)"},
    {0, "repeat-penalty", OPTION_NUMBER, AT(repeat_penalty), 0.1, 10, "X",
     "makes what was said less likely, 0.1..10; 1: off (config, else the model's own)"},
    {'n', "max-tokens", OPTION_INT, AT(max_tokens), 0, 1 << 20, "N",
     "tokens of one answer at most; 0: what the context leaves (config, else 0)"},
    {0, "seed", OPTION_SEED, AT(seed), 0, 0, "N", "of the random numbers; 0: a random one (0)"},
    OPTION_END};

void sampling_options_init(struct sampling_options *sampling)
{
    *sampling = (struct sampling_options){
        .temperature = NAN,
        .top_p = NAN,
        .min_p = NAN,
        .repeat_penalty = NAN,
        .top_k = OPTION_UNSET,
        .max_tokens = OPTION_UNSET,
    };
}

void sampling_options_finish(struct sampling_options *sampling, const struct config *config)
{
    if (isnan(sampling->temperature))
        sampling->temperature = config->temperature;
    if (isnan(sampling->top_p))
        sampling->top_p = config->top_p;
    if (isnan(sampling->min_p))
        sampling->min_p = config->min_p;
    if (isnan(sampling->repeat_penalty))
        sampling->repeat_penalty = config->repetition_penalty;
    if (sampling->top_k == OPTION_UNSET)
        sampling->top_k = config->top_k;
    if (sampling->max_tokens == OPTION_UNSET)
        sampling->max_tokens = config->max_tokens == CONFIG_UNSET ? 0 : config->max_tokens;
}

void sampling_options_apply(const struct sampling_options *sampling,
                            const struct gyaru_model *model, struct gyaru_sampling *out)
{
    gyaru_sampling_init(model, out);
    if (!isnan(sampling->temperature))
        out->temperature = sampling->temperature;
    if (!isnan(sampling->top_p))
        out->top_p = sampling->top_p;
    if (!isnan(sampling->min_p))
        out->min_p = sampling->min_p;
    if (!isnan(sampling->repeat_penalty))
        out->repeat_penalty = sampling->repeat_penalty;
    if (sampling->top_k != OPTION_UNSET)
        out->top_k = sampling->top_k;
    if (sampling->seed)
        out->seed = sampling->seed;
}
