/*
 * cmd_bench.c - `gyaru bench`: how fast a model answers here, and how far that is from the limit.
 *
 * Decoding one token reads every weight once, so the memory's read bandwidth, measured in the same
 * run, bounds it: the fraction reached is a figure that other machines and days can be compared by.
 */
#include "cli/bandwidth.h"
#include "cli/cli.h"
#include "cli/figures.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"

#include "base/json.h"
#include "base/proc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_options {
    const char *shape, *only;
    int prompt, tokens, prefill, runs, chunk;
    bool full, json;
};

#define AT(field) offsetof(struct bench_options, field)

static const struct option_spec bench_specs[] = {
    {0, "shape", OPTION_TEXT, AT(shape), 0, 0, "SIZE",
     "random NF4 weights in the shape of Qwen2.5 0.5b, 1.5b, 7b, 14b or 32b, in place of a model"},
    {'p', "prompt", OPTION_INT, AT(prompt), 1, 1 << 20, "N", "tokens of the question (50)"},
    {'n', "tokens", OPTION_INT, AT(tokens), 2, 1 << 20, "N", "tokens of the answer (100)"},
    {0, "prefill", OPTION_INT, AT(prefill), 0, 1 << 20, "N",
     "tokens of a long question, for prefill tokens/s; 0: leave it out (256)"},
    {0, "full", OPTION_FLAG, AT(full), 0, 0, NULL,
     "all that a device is judged by: several contexts, prompts and streams, the memory's own "
     "speed, what steering costs (always on a GPU; -p, -n and --prefill then say nothing)"},
    {0, "only", OPTION_TEXT, AT(only), 0, 0, "PART",
     "of --full: decode, prefill, streams, steering, or figures by how their names in --json "
     "begin"},
    {0, "chunk", OPTION_INT, AT(chunk), 0, 4096, "N",
     "rows of a prefill chunk; 0: what suits the device (0)"},
    {0, "runs", OPTION_INT, AT(runs), 1, 99, "N",
     "of each of these figures, whose median is shown; 1: without one to warm up (5)"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL, "one JSON document"},
    OPTION_END};

struct result {
    struct gyaru_timings chat, prefill; /* the question and answer; the long question */
    double bandwidth;                   /* bytes/s; 0: not measured */
    uint64_t resident;                  /* bytes, the most that this process has used */
};

/* One answer to n_prompt arbitrary ids. Nothing of an earlier one is reused. */
static int answer(struct gyaru_session *session, const struct gyaru_model *model, int n_prompt,
                  int n_tokens, struct gyaru_timings *timings, struct gyaru_error *err)
{
    const struct gyaru_model_info *info = gyaru_model_info(model);
    int32_t *ids = malloc((size_t)n_prompt * sizeof *ids);
    if (!ids)
        return error_memory(err, (size_t)n_prompt * sizeof *ids, "the prompt");
    for (int i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)((int64_t)i * 7919 % info->n_tokens);
    struct gyaru_request request;
    gyaru_request_init(model, &request);
    request.prompt = ids;
    request.n_prompt = (size_t)n_prompt;
    request.max_tokens = n_tokens;
    request.sampling.temperature = 0;
    request.ignore_eos = true;
    gyaru_session_reset(session);
    int rc = gyaru_session_start(session, &request, err);
    free(ids);
    while (!rc && gyaru_session_busy(session)) {
        struct gyaru_event event;
        size_t n;
        rc = gyaru_step(&session, 1, &event, &n, err);
        if (!rc && n && event.finish == GYARU_OVERFLOW)
            rc = error_set(err, GYARU_FAILED, "the model's numbers overflowed");
        if (!rc && interrupt_seen())
            rc = error_set(err, GYARU_FAILED, "stopped");
    }
    gyaru_session_timings(session, timings);
    return rc;
}

static int measure(const struct bench_options *o, const struct common_options *common,
                   struct gyaru_model *model, struct result *result, struct gyaru_error *err)
{
    struct gyaru_session *session;
    struct gyaru_timings warm_up;
    if (gyaru_session_new(model, &session, err))
        return -1;
    int rc = answer(session, model, 8, 2, &warm_up, err);
    if (!rc)
        rc = answer(session, model, o->prompt, o->tokens, &result->chat, err);
    if (!rc && o->prefill)
        rc = answer(session, model, o->prefill, 1, &result->prefill, err);
    result->resident = proc_bytes(PROC_SELF, "VmHWM");
    if (!rc && !gyaru_model_info(model)->on_gpu)
        rc = bandwidth_read(common->threads, &result->bandwidth, err);
    gyaru_session_free(session);
    return rc;
}

static double rate(double count, double seconds)
{
    return seconds > 0 ? count / seconds : 0;
}

static double decode_rate(const struct gyaru_timings *t)
{
    return rate((double)(t->n_generated - 1), t->decode_seconds);
}

static double prefill_rate(const struct gyaru_timings *t)
{
    return rate((double)t->n_prompt, t->prefill_seconds);
}

static double reached(const struct result *r, const struct gyaru_model_info *info)
{
    return rate((double)info->token_bytes * decode_rate(&r->chat), r->bandwidth);
}

static void print_json(const struct result *r, const struct gyaru_model_info *info)
{
    const struct gyaru_timings *t = &r->chat;
    json_t *root = json_pack(
        "{s:s, s:s, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "model", info->name, "device",
        info->device, "context", info->context, "prompt_tokens", (json_int_t)t->n_prompt,
        "generated_tokens", (json_int_t)t->n_generated, "load_seconds", info->load_seconds,
        "first_token_seconds", t->first_token_seconds, "total_seconds",
        t->first_token_seconds + t->decode_seconds, "prefill_tokens_per_second", prefill_rate(t),
        "decode_tokens_per_second", decode_rate(t));
    if (r->prefill.n_prompt)
        json_object_set_new(root, "long_prefill",
                            json_pack("{s:I, s:f}", "tokens", (json_int_t)r->prefill.n_prompt,
                                      "tokens_per_second", prefill_rate(&r->prefill)));
    json_object_set_new(root, "memory",
                        json_pack("{s:I, s:I, s:I, s:I}", "weight_bytes",
                                  (json_int_t)info->weight_bytes, "kv_bytes",
                                  (json_int_t)info->kv_bytes, "workspace_bytes",
                                  (json_int_t)info->workspace_bytes, "peak_resident_bytes",
                                  (json_int_t)r->resident));
    json_object_set_new(root, "weight_bytes_per_token",
                        json_integer((json_int_t)info->token_bytes));
    if (r->bandwidth > 0) {
        json_object_set_new(root, "read_bandwidth_bytes_per_second", json_real(r->bandwidth));
        json_object_set_new(root, "bandwidth_fraction", json_real(reached(r, info)));
    }
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(root);
}

static void print_table(const struct result *r, const struct gyaru_model_info *info)
{
    const struct gyaru_timings *t = &r->chat;
    const double gb = 1e9, gib = 1u << 30;
    printf("%s on %s\n\n", info->name, info->device);
    printf("  %-14s %8.2f s\n", "load", info->load_seconds);
    printf("  %-14s %8.2f s       %zu tokens in\n", "first token", t->first_token_seconds,
           t->n_prompt);
    printf("  %-14s %8.2f s       %zu in, %zu out\n", "answer",
           t->first_token_seconds + t->decode_seconds, t->n_prompt, t->n_generated);
    printf("  %-14s %8.1f tok/s   %zu tokens\n", "prefill", prefill_rate(t), t->n_prompt);
    if (r->prefill.n_prompt)
        printf("  %-14s %8.1f tok/s   %zu tokens\n", "prefill, long", prefill_rate(&r->prefill),
               r->prefill.n_prompt);
    printf("  %-14s %8.1f tok/s   %.3f GB of weights per token\n", "decode", decode_rate(t),
           (double)info->token_bytes / gb);
    if (r->bandwidth > 0)
        printf("  %-14s %8.1f GB/s    memory gives %.1f GB/s: decode reaches %.0f%%\n", "",
               (double)info->token_bytes * decode_rate(t) / gb, r->bandwidth / gb,
               100 * reached(r, info));
    printf("  %-14s %8.2f GiB     weights %.2f, KV cache %.2f (%d positions), workspace %.2f%s\n",
           "memory", (double)r->resident / gib, (double)info->weight_bytes / gib,
           (double)info->kv_bytes / gib, info->context, (double)info->workspace_bytes / gib,
           info->devices > 1 ? " on each GPU" : "");
}

/* ---- opening ----------------------------------------------------------------------------------
 */

struct opening {
    const struct bench_options *options;
    const struct common_options *common;
    struct progress *progress;
};

/* Of random weights only the timings mean anything, so the config's model settings are not read. */
static int open_random(const struct opening *o, int sessions, int context, struct gyaru_model **out,
                       struct gyaru_error *err)
{
    struct gyaru_model_options options;
    gyaru_model_options_init(&options);
    if (common_model_options_apply(o->common, &options, err))
        return -1;
    options.sessions = sessions;
    options.context = context ? context : options.context;
    options.chunk = o->options->chunk;
    options.progress = progress_show;
    options.progress_user = o->progress;
    return gyaru_model_open_random(o->options->shape, &options, out, err);
}

static int open_model(const struct opening *o, int sessions, int context, struct gyaru_model **out,
                      struct gyaru_error *err)
{
    struct common_options common = *o->common; /* its config stays the owner's */
    struct load_options load = {.sessions = sessions,
                                .chunk = o->options->chunk,
                                .progress = progress_show,
                                .progress_user = o->progress};
    struct loaded_model loaded;
    common.context = context ? context : common.context;
    if (o->options->shape)
        return open_random(o, sessions, context, out, err);
    if (common_load(&common, &load, &loaded, err))
        return -1;
    *out = loaded.model; /* without a vector there is nothing else */
    return 0;
}

/* ---- one answer -------------------------------------------------------------------------------
 */

static int bench_answer(const struct opening *o, struct gyaru_model *model, struct gyaru_error *err)
{
    struct result result = {0};
    int rc = measure(o->options, o->common, model, &result, err);
    if (!rc && o->options->json)
        print_json(&result, gyaru_model_info(model));
    else if (!rc)
        print_table(&result, gyaru_model_info(model));
    return rc;
}

/* ---- all figures ------------------------------------------------------------------------------
 */

static int open_for_figures(void *user, int sessions, int context, struct gyaru_model **out,
                            struct gyaru_error *err)
{
    const struct opening *o = user;
    int rc = open_model(o, sessions, context, out, err);
    progress_end(o->progress);
    return rc;
}

static void print_figures_json(const char *title, const struct figures *figures)
{
    json_t *root = json_object(), *out = json_array();
    json_object_set_new(root, "model", json_string(title));
    for (int i = 0; i < figures->n; i++) {
        const struct figure *f = &figures->list[i];
        if (f->key[0])
            json_object_set_new(root, f->key, json_real(f->value));
        else
            json_array_append_new(out, json_pack("{s:s, s:s}", "figure", f->what, "why", f->note));
    }
    json_object_set_new(root, "left_out", out);
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(root);
}

static void print_figures(const char *title, const struct figures *figures)
{
    printf("%s\n\n", title);
    for (int i = 0; i < figures->n; i++) {
        const struct figure *f = &figures->list[i];
        int digits = f->value < 0.1 ? 4 : f->value < 10 ? 3 : 1;
        if (f->key[0])
            printf("  %-34s %10.*f %-6s %s\n", f->what, digits, f->value, f->unit, f->note);
        else
            printf("  %-34s %10s %-6s %s\n", f->what, "-", "", f->note);
    }
}

static int bench_figures(const struct opening *o, struct gyaru_error *err)
{
    struct figures figures;
    struct figures_source source = {.open = open_for_figures,
                                    .user = (void *)o,
                                    .only = o->options->only,
                                    .runs = o->options->runs,
                                    .stop = interrupt_seen};
    if (figures_measure(&source, &figures, err))
        return -1;
    if (o->options->json)
        print_figures_json(source.title, &figures);
    else
        print_figures(source.title, &figures);
    return 0;
}

static int bench(struct bench_options *options, struct common_options *common,
                 struct gyaru_error *err)
{
    if (options->shape && common->model)
        return error_set(err, GYARU_USAGE, "give either --shape or -m");
    if (options->only && !figures_known(options->only))
        return error_set(err, GYARU_USAGE,
                         "--only %s: unknown: decode, prefill, streams, steering, or a figure's "
                         "name in --json",
                         options->only);
    if (common_options_finish(common, err))
        return -1;
    struct progress progress = PROGRESS_INIT;
    struct opening opening = {options, common, &progress};
    options->full = options->full || options->only || !strncmp(common->device, "cuda", 4);
    if (options->full)
        return bench_figures(&opening, err);
    struct gyaru_model *model;
    if (open_model(&opening, 1, 0, &model, err))
        return -1;
    progress_end(&progress);
    options->full = gyaru_model_info(model)->on_gpu; /* found by itself */
    int rc = options->full ? 0 : bench_answer(&opening, model, err);
    gyaru_model_close(model);
    return !rc && options->full ? bench_figures(&opening, err) : rc;
}

static int main_bench(int argc, char **argv)
{
    struct gyaru_error err;
    struct bench_options options = {.prompt = 50, .tokens = 100, .prefill = 256, .runs = 5};
    struct common_options common;
    common_options_init(&common);
    common.vector = "none";
    const struct option_group groups[] = {
        {bench_specs, &options}, {common_model_options, &common}, {NULL, NULL}};
    const struct option_help help = {
        "bench", "[--shape SIZE | -m DIR] [options]",
        "Times a question and its answer: prefill and decode (tokens/s), first token (s), memory, "
        "and\n"
        "the fraction of the memory's read bandwidth that decoding reaches. On a GPU, and with "
        "--full:\n"
        "decode at several contexts, prefill, several streams, memory, the cost of steering.",
        groups};
    interrupt_catch();
    enum option_result parsed = options_parse(&help, &argc, argv, &err);
    int code = GYARU_OK;
    if (parsed == OPTIONS_BAD)
        code = options_fail("bench", &err);
    else if (parsed == OPTIONS_OK) {
        if (argc > 1)
            error_set(&err, GYARU_USAGE, "%s: unexpected: a model goes after -m", argv[1]);
        if (argc > 1 || bench(&options, &common, &err))
            code = options_fail("bench", &err);
    }
    common_options_release(&common);
    return code;
}

const struct command cmd_bench = {"bench", "tokens per second here, and the limit", main_bench};
