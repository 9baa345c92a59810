/*
 * cmd_check.c - `gyaru check -m DIR -v FILE`: do model and vector belong together? One line, and an
 * exit code for scripts.
 */
#include "cli/cli.h"
#include "cli/options.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>

struct check_options {
    const char *vector;
    bool json;
    struct common_options common;
};

static const struct option_spec check_specs[] = {
    {'v', "vector", OPTION_TEXT, offsetof(struct check_options, vector), 0, 0, "FILE",
     "control vector: .safetensors, .pt or .gguf (config: steering.vector)"},
    {0, "json", OPTION_FLAG, offsetof(struct check_options, json), 0, 0, NULL,
     "one JSON document: match, reason, warning"},
    OPTION_END};

static json_t *text(const char *value)
{
    return value ? json_string(value) : json_null();
}

static void print_json(bool match, const char *reason, const char *warning)
{
    json_t *root = json_pack("{s:b, s:o, s:o}", "match", (int)match, "reason", text(reason),
                             "warning", text(warning));
    json_dumpf(root, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(root);
}

static int check(void *user, struct gyaru_error *err)
{
    struct check_options *o = user;
    struct common_options *common = &o->common;
    const char *file;
    char *dir, *warning = NULL;
    struct gyaru_vector *vector;
    if (common_vector_file(common, o->vector, &file, err) || common_model_dir(common, &dir, err))
        return -1;
    int rc = gyaru_vector_open(file, &vector, err);
    if (!rc) {
        rc = gyaru_vector_check(dir, vector, &warning, err);
        gyaru_vector_close(vector);
        if (o->json && (!rc || err->status == GYARU_MISMATCH))
            print_json(!rc, rc ? err->text : NULL, warning);
        else if (!rc && warning)
            printf("%s fits %s, as far as can be known: %s\n", file, dir, warning);
        else if (!rc)
            printf("%s belongs to %s\n", file, dir);
    }
    free(warning);
    free(dir);
    return rc;
}

static int main_check(int argc, char **argv)
{
    struct check_options options = {0};
    common_options_init(&options.common);
    const struct option_group groups[] = {
        {check_specs, &options}, {common_model_options, &options.common}, {NULL, NULL}};
    const struct option_help help = {
        "check", "-m DIR -v FILE [options]",
        "Do model and vector belong together? Exit code 0: yes; 3: no, with the reason: hidden "
        "size,\n"
        "number of layers, a layer outside the model, or the fingerprint.",
        groups};
    int code = options_run(&help, argc, argv, check, &options);
    common_options_release(&options.common);
    return code;
}

const struct command cmd_check = {"check", "do model and vector belong together?", main_check};
