/*
 * cmd_bake.c - `gyaru bake`: a steered model as an ordinary checkpoint, for other engines.
 */
#include "cli/cli.h"
#include "cli/human.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bake_options {
    const char *vector, *out;
    float strength;
    struct layer_range layers;
    bool force, json;
    struct common_options common;
};

#define AT(field) offsetof(struct bake_options, field)

static const struct option_spec bake_specs[] = {
    {'v', "vector", OPTION_TEXT, AT(vector), 0, 0, "FILE",
     "control vector: .safetensors, .pt or .gguf (config: steering.vector)"},
    {'s', "strength", OPTION_NUMBER, AT(strength), GYARU_STRENGTH_MIN, GYARU_STRENGTH_MAX, "X",
     "factor on the vector, -10..30 (what the vector recommends)"},
    {'o', "out", OPTION_TEXT, AT(out), 0, 0, "DIR", "directory to make; must not exist"},
    {0, "layers", OPTION_LAYERS, AT(layers), 0, 0, "A-B",
     "use only these layers of the vector (all it has)"},
    {0, "force", OPTION_FLAG, AT(force), 0, 0, NULL,
     "take a vector of another model of the same hidden size"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL,
     "one JSON document: out, bytes, vector, strength, layers, forced, warning"},
    OPTION_END};

/* "14-38", or "1 2 5" if there are gaps; the layers ascend. */
static void print_layers(const json_t *layers)
{
    size_t n = json_array_size(layers);
    json_int_t first = json_integer_value(json_array_get(layers, 0));
    json_int_t last = json_integer_value(json_array_get(layers, n - 1));
    if (last - first + 1 == (json_int_t)n && n > 1) {
        printf("%" JSON_INTEGER_FORMAT "-%" JSON_INTEGER_FORMAT, first, last);
        return;
    }
    for (size_t i = 0; i < n; i++)
        printf("%s%" JSON_INTEGER_FORMAT, i ? " " : "",
               json_integer_value(json_array_get(layers, i)));
}

static int print_report(const struct bake_options *o, const char *report, struct gyaru_error *err)
{
    json_t *json = json_parse(report, strlen(report), "the report", err);
    if (!json)
        return -1;
    const char *warning = json_string_value(json_object_get(json, "warning"));
    if (warning)
        fprintf(stderr, "gyaru bake: warning: %s\n", warning);
    if (o->json) {
        puts(report);
    } else {
        printf("%s%s: %s, strength %g baked into the output of layers ",
               json_is_true(json_object_get(json, "forced")) ? "FORCED: " : "", o->out,
               human_bytes_at(json, "bytes").text,
               json_number_value(json_object_get(json, "strength")));
        print_layers(json_object_get(json, "layers"));
        putchar('\n');
    }
    json_decref(json);
    return 0;
}

/* -s, what the vector recommends, or nothing: a baked strength cannot be changed any more, so none
 * is guessed. */
static int choose_strength(const struct bake_options *o, const struct gyaru_vector *vector,
                           float *out, struct gyaru_error *err)
{
    *out = isnan(o->strength) ? gyaru_vector_info(vector)->recommended_strength : o->strength;
    if (isnan(*out))
        return error_set(err, GYARU_USAGE, "%s recommends no strength: give one with -s X",
                         gyaru_vector_info(vector)->path);
    return 0;
}

static int bake_vector(const struct bake_options *o, const char *dir,
                       const struct gyaru_vector *vector, struct gyaru_error *err)
{
    struct progress progress = PROGRESS_INIT;
    struct gyaru_bake_options options;
    gyaru_bake_options_init(&options);
    if (choose_strength(o, vector, &options.strength, err))
        return -1;
    options.layer_first = o->layers.first;
    options.layer_last = o->layers.last;
    options.force = o->force;
    options.progress = progress_show;
    options.progress_user = &progress;
    char *report;
    int rc = gyaru_bake(dir, vector, &options, o->out, &report, err);
    progress_end(&progress);
    if (rc)
        return -1;
    rc = print_report(o, report, err);
    free(report);
    return rc;
}

static int bake(void *user, struct gyaru_error *err)
{
    struct bake_options *o = user;
    struct common_options *common = &o->common;
    const char *file;
    char *dir;
    struct gyaru_vector *vector;
    if (common_vector_file(common, o->vector, &file, err))
        return -1;
    if (!o->out)
        return error_set(err, GYARU_USAGE, "say where to write: -o DIR");
    if (common_model_dir(common, &dir, err))
        return -1;
    int rc = gyaru_vector_open(file, &vector, err);
    if (!rc) {
        rc = bake_vector(o, dir, vector, err);
        gyaru_vector_close(vector);
    }
    free(dir);
    return rc;
}

static int main_bake(int argc, char **argv)
{
    struct bake_options options = {.strength = NAN, .layers = {-1, -1}};
    common_options_init(&options.common);
    const struct option_group groups[] = {
        {bake_specs, &options}, {common_model_options, &options.common}, {NULL, NULL}};
    const struct option_help help = {
        "bake", "-m DIR -v FILE -s X -o OUT [options]",
        "Writes an ordinary Hugging Face checkpoint (LlamaForCausalLM) with the steering in its\n"
        "biases, for vLLM and other engines; the weight files are copied as they are. The "
        "strength\n"
        "is fixed then. docs/bake.md says how to serve it.",
        groups};
    interrupt_catch();
    int code = options_run(&help, argc, argv, bake, &options);
    common_options_release(&options.common);
    return code;
}

const struct command cmd_bake = {"bake", "a checkpoint with the steering in its biases", main_bake};
