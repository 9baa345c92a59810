/*
 * cmd_inspect.c - `gyaru inspect PATH`: what a model or a vector is, before anything is loaded.
 *
 * The library describes it as JSON; without --json that document is laid out as tables.
 */
#include "cli/cli.h"
#include "cli/human.h"
#include "cli/options.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inspect_options {
    bool json;
};

static const struct option_spec inspect_specs[] = {{0, "json", OPTION_FLAG,
                                                    offsetof(struct inspect_options, json), 0, 0,
                                                    NULL, "one JSON document"},
                                                   OPTION_END};

/* ---- a model ------------------------------------------------------------------------------- */

static void print_model_facts(const json_t *m)
{
    printf("%s\n\n", human_text_at(m, "path"));
    printf("  %-16s %s, %lld layers, hidden size %lld\n", "architecture",
           human_text_at(m, "architecture"), human_int_at(m, "n_layers"),
           human_int_at(m, "hidden_size"));
    printf("  %-16s %lld heads, %lld for keys and values, %lld wide\n", "attention",
           human_int_at(m, "n_heads"), human_int_at(m, "n_kv_heads"), human_int_at(m, "head_dim"));
    printf("  %-16s intermediate size %lld\n", "mlp", human_int_at(m, "intermediate_size"));
    printf("  %-16s %lld ids, %s\n", "vocabulary", human_int_at(m, "vocab_size"),
           json_is_true(json_object_get(m, "tied_head")) ? "the embedding is the head"
                                                         : "embedding and head apart");
    printf("  %-16s %lld positions (the model's limit: %lld)\n", "context",
           human_int_at(m, "context"), human_int_at(m, "max_position"));
    printf("  %-16s %s\n", "parameters", human_count((uint64_t)human_int_at(m, "parameters")).text);
    printf("  %-16s %.2f in the file", "bits per weight", human_real_at(m, "bits_per_weight"));
    if (human_int_at(m, "four_bit_parameters"))
        printf("; %.2f of the 4-bit tensors, %.0f%% of the weights",
               human_real_at(m, "four_bit_bits_per_weight"),
               100 * human_real_at(m, "four_bit_parameters") / human_real_at(m, "parameters"));
    printf(
        "\n  %-16s layers %lld to %lld (30%% to 80%% of the depth), meter at layer %lld (73%%)\n",
        "steering", human_int_at(m, "layer_first"), human_int_at(m, "layer_last"),
        human_int_at(m, "visualise_layer"));
    printf("  %-16s %s\n", "fingerprint", human_text_at(m, "fingerprint"));
}

static void print_group(const char *part, const char *type, long long count, long long parameters,
                        long long disk, long long memory)
{
    printf("  %-16s %-20s %7lld %12s %12s %12s %7.2f\n", part, type, count,
           human_count((uint64_t)parameters).text, human_bytes((uint64_t)disk).text,
           human_bytes((uint64_t)memory).text, 8.0 * (double)disk / (double)parameters);
}

static void print_tensors(const json_t *groups)
{
    long long count = 0, parameters = 0, disk = 0, memory = 0;
    size_t i;
    const json_t *g;
    printf("\n  %-16s %-20s %7s %12s %12s %12s %7s\n", "tensors", "type", "count", "parameters",
           "in the file", "in memory", "bits");
    json_array_foreach(groups, i, g)
    {
        print_group(human_text_at(g, "part"), human_text_at(g, "type"), human_int_at(g, "count"),
                    human_int_at(g, "parameters"), human_int_at(g, "disk_bytes"),
                    human_int_at(g, "memory_bytes"));
        count += human_int_at(g, "count");
        parameters += human_int_at(g, "parameters");
        disk += human_int_at(g, "disk_bytes");
        memory += human_int_at(g, "memory_bytes");
    }
    print_group("total", "", count, parameters, disk, memory);
}

static void print_plan(const json_t *d)
{
    if (!json_is_true(json_object_get(d, "present"))) {
        printf("\n  %-16s not available: %s\n", human_text_at(d, "device"),
               human_text_at(d, "reason"));
        return;
    }
    printf("\n  %-16s %s\n", human_text_at(d, "device"), human_text_at(d, "description"));
    if (human_int_at(d, "devices") > 1)
        printf("  %-16s %lld GPUs share the model; what each of them takes at most:\n", "",
               human_int_at(d, "devices"));
    printf("  %-16s %12s   %s are read for each token\n", "weights",
           human_bytes_at(d, "weight_bytes").text,
           human_bytes_at(d, "weight_bytes_per_token").text);
    printf("  %-16s %12s   %s per token, %lld x %lld tokens, %s\n", "KV cache",
           human_bytes_at(d, "kv_bytes").text, human_bytes_at(d, "kv_bytes_per_token").text,
           human_int_at(d, "sessions"), human_int_at(d, "context"), human_text_at(d, "kv_type"));
    printf("  %-16s %12s\n", "workspace", human_bytes_at(d, "workspace_bytes").text);
    printf("  %-16s %12s   of %s available (%s in all): %s\n", "together",
           human_bytes_at(d, "total_bytes").text, human_bytes_at(d, "available_bytes").text,
           human_bytes_at(d, "memory_bytes").text,
           json_is_true(json_object_get(d, "fits")) ? "fits" : "DOES NOT FIT");
}

static void print_model(const json_t *m)
{
    size_t i;
    const json_t *device;
    print_model_facts(m);
    print_tensors(json_object_get(m, "tensors"));
    json_array_foreach(json_object_get(m, "devices"), i, device) print_plan(device);
}

/* ---- a vector ------------------------------------------------------------------------------ */

static void print_strength(const char *name, const json_t *value)
{
    if (json_is_number(value))
        printf("  %-16s %g\n", name, json_number_value(value));
    else
        printf("  %-16s unknown\n", name);
}

static void print_vector_facts(const json_t *v)
{
    bool at_input = !strcmp(human_text_at(v, "hook"), "resid_pre");
    printf("%s\n\n", human_text_at(v, "path"));
    printf("  %-16s %s: added at the %s of its layers\n", "hook", human_text_at(v, "hook"),
           at_input ? "input" : "output");
    printf("  %-16s %lld\n", "hidden size", human_int_at(v, "hidden_size"));
    printf("  %-16s %lld directions, %lld to %lld", "layers", human_int_at(v, "n_directions"),
           human_int_at(v, "layer_min"), human_int_at(v, "layer_max"));
    if (human_int_at(v, "n_layers"))
        printf(", of a model of %lld", human_int_at(v, "n_layers"));
    printf("\n  %-16s %s\n", "model", human_text_at(v, "model_name"));
    printf("  %-16s %s\n", "fingerprint", human_text_at(v, "model_fingerprint"));
    printf("  %-16s %s\n", "method", human_text_at(v, "method"));
    printf("  %-16s %s\n", "position", human_text_at(v, "position"));
    print_strength("recommended", json_object_get(v, "recommended_strength"));
    print_strength("maximum", json_object_get(v, "max_strength"));
    if (json_is_string(json_object_get(v, "warning")))
        printf("  %-16s %s\n", "warning", human_text_at(v, "warning"));
}

/* What the table above does not say already. */
static void print_metadata(json_t *metadata)
{
    static const char *const said[] = {
        "n_layers", "model_fingerprint",    "model_name",   "method",
        "position", "recommended_strength", "max_strength",
    };
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof said / sizeof *said; i++)
            known = known || !strcmp(key, said[i]);
        if (!known)
            printf("  %-16s %s\n", key, json_string_value(value));
    }
}

#define BAR 32 /* characters of the longest direction */

static void print_layers(const json_t *layers)
{
    size_t i;
    const json_t *layer;
    double longest = 0;
    json_array_foreach(layers, i, layer)
    {
        double norm = human_real_at(layer, "norm");
        longest = norm > longest ? norm : longest;
    }
    printf("\n  %5s %10s  %-*s %10s %10s %10s\n", "layer", "norm", BAR, "", "m+", "m-", "|h|");
    json_array_foreach(layers, i, layer)
    {
        const json_t *meter = json_object_get(layer, "meter");
        int width = (int)(BAR * human_real_at(layer, "norm") / longest + 0.5);
        printf("  %5lld %10.4g  ", human_int_at(layer, "layer"), human_real_at(layer, "norm"));
        for (int k = 0; k < BAR; k++)
            putchar(k < width ? '=' : ' ');
        if (meter)
            printf(" %10.4g %10.4g %10.4g", human_real_at(meter, "m_plus"),
                   human_real_at(meter, "m_minus"), human_real_at(meter, "residual_norm"));
        else
            printf(" %10s %10s %10s", "-", "-", "-");
        putchar('\n');
    }
}

static void print_vector(const json_t *v)
{
    print_vector_facts(v);
    print_metadata(json_object_get(v, "metadata"));
    print_layers(json_object_get(v, "layers"));
}

/* ---- the command --------------------------------------------------------------------------- */

static int inspect(const char *path, const struct inspect_options *o, struct common_options *common,
                   struct gyaru_error *err)
{
    struct gyaru_model_options options;
    gyaru_model_options_init(&options);
    if (common_options_finish(common, err) || common_model_options_apply(common, &options, err))
        return -1;
    char *dir = NULL, *text;
    if (!path && common_model_dir(common, &dir, err))
        return -1;
    int rc = gyaru_inspect(path ? path : dir, &options, &text, err);
    free(dir);
    if (rc)
        return -1;
    json_t *root = o->json ? NULL : json_parse(text, strlen(text), "inspect", err);
    if (o->json)
        puts(text);
    else if (!root)
        rc = -1;
    else if (!strcmp(human_text_at(root, "kind"), "model"))
        print_model(root);
    else
        print_vector(root);
    json_decref(root);
    free(text);
    return rc;
}

static int main_inspect(int argc, char **argv)
{
    struct gyaru_error err;
    struct inspect_options options = {0};
    struct common_options common;
    common_options_init(&common);
    const struct option_group groups[] = {
        {inspect_specs, &options}, {common_model_options, &common}, {NULL, NULL}};
    const struct option_help help = {
        "inspect", "[PATH] [options]",
        "Describes a model directory (which tensors are 4-bit, what they cost, the memory plan of\n"
        "each device) or a vector file (metadata, norms). PATH may also be given with -m.",
        groups};
    enum option_result parsed = options_parse(&help, &argc, argv, &err);
    int code = GYARU_OK;
    if (parsed == OPTIONS_BAD)
        code = options_fail("inspect", &err);
    else if (parsed == OPTIONS_OK) {
        if (argc > 2)
            error_set(&err, GYARU_USAGE, "%s: unexpected: one PATH at a time", argv[2]);
        if (argc > 2 || inspect(argc > 1 ? argv[1] : NULL, &options, &common, &err))
            code = options_fail("inspect", &err);
    }
    common_options_release(&common);
    return code;
}

const struct command cmd_inspect = {"inspect", "what a model or a vector is and costs",
                                    main_inspect};
