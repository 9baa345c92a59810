/*
 * cmd_convert.c - `gyaru convert`: a vector from one file format to another.
 */
#include "cli/cli.h"
#include "cli/options.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct convert_options {
    struct layer_range layers;
    bool json;
};

static const struct option_spec convert_specs[] = {
    {0, "layers", OPTION_LAYERS, offsetof(struct convert_options, layers), 0, 0, "A-B",
     "only these layers, as IN counts them (all)"},
    {0, "json", OPTION_FLAG, offsetof(struct convert_options, json), 0, 0, NULL,
     "print what OUT holds as JSON"},
    OPTION_END};

static int print_result(const char *path, bool json, struct gyaru_error *err)
{
    struct gyaru_vector *v;
    if (gyaru_vector_open(path, &v, err))
        return -1;
    const struct gyaru_vector_info *info = gyaru_vector_info(v);
    if (json) {
        json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i}", "path", path, "hook", info->hook,
                                 "directions", info->n_directions, "layer_min", info->layer_min,
                                 "layer_max", info->layer_max, "hidden_size", info->hidden_size);
        json_dumpf(root, stdout, JSON_INDENT(1));
        putchar('\n');
        json_decref(root);
    } else {
        printf("%s: %d directions, layers %d-%d, added at the %s\n", path, info->n_directions,
               info->layer_min, info->layer_max,
               !strcmp(info->hook, "resid_pre") ? "input" : "output");
    }
    gyaru_vector_close(v);
    return 0;
}

static int convert(const struct convert_options *o, int argc, char **argv, struct gyaru_error *err)
{
    char *warning = NULL;
    if (argc != 3)
        return error_set(err, GYARU_USAGE, "give two files: IN OUT");
    if (gyaru_convert(argv[1], argv[2], o->layers.first, o->layers.last, &warning, err))
        return -1;
    if (warning)
        fprintf(stderr, "gyaru convert: warning: %s\n", warning);
    free(warning);
    return print_result(argv[2], o->json, err);
}

static int main_convert(int argc, char **argv)
{
    struct gyaru_error err;
    struct convert_options options = {.layers = {-1, -1}};
    const struct option_group groups[] = {{convert_specs, &options}, {NULL, NULL}};
    const struct option_help help = {
        "convert", "IN OUT [options]",
        "Rewrites a vector as .safetensors, .pt or .gguf, whichever OUT is named. Layers move by\n"
        "one where the formats mean different points: .pt adds at a layer's input, .gguf at its\n"
        "output.",
        groups};
    enum option_result parsed = options_parse(&help, &argc, argv, &err);
    if (parsed == OPTIONS_HELPED)
        return GYARU_OK;
    if (parsed == OPTIONS_BAD || convert(&options, argc, argv, &err))
        return options_fail("convert", &err);
    return GYARU_OK;
}

const struct command cmd_convert = {"convert", "change a vector's file format", main_convert};
