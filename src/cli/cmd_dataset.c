/*
 * cmd_dataset.c - `gyaru dataset`: contrastive pairs for `gyaru extract` from any OpenAI-compatible
 * endpoint.
 */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"

#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PERSONA "data/personas/gyaru.json"
#define KEY_LIMIT       4096 /* bytes of a key file */

struct dataset_options {
    const char *output, *api_base, *model, *key_file, *persona, *topics;
    int n_pairs, batch, retries;
    float timeout, temperature, backoff;
    bool json;
};

#define AT(field) offsetof(struct dataset_options, field)

static const struct option_spec dataset_specs[] = {
    {'o', "output", OPTION_TEXT, AT(output), 0, 0, "FILE",
     "the pairs to write, a JSON array; must not exist. What is finished is kept in FILE.partial, "
     "and the same command goes on there"},
    {0, "api-base", OPTION_TEXT, AT(api_base), 0, 0, "URL",
     "OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1"},
    {0, "model", OPTION_TEXT, AT(model), 0, 0, "NAME", "(the endpoint's only model)"},
    {0, "api-key-file", OPTION_TEXT, AT(key_file), 0, 0, "FILE",
     "file with the key in its first line; it is sent by https or to this machine only (no key)"},
    {0, "persona", OPTION_TEXT, AT(persona), 0, 0, "FILE",
     "the style: names, markers, rules, topics and prompt (" DEFAULT_PERSONA ")"},
    {0, "topics", OPTION_TEXT, AT(topics), 0, 0, "FILE|N",
     "topics, one a line or a JSON array; a number: the persona's first N (all of the persona's)"},
    {'n', "pairs", OPTION_INT, AT(n_pairs), 1, 100000, "N", "pairs in all, 1..100000 (120)"},
    {0, "batch", OPTION_INT, AT(batch), 1, 100, "N", "pairs in one request, 1..100 (10)"},
    {0, "retries", OPTION_INT, AT(retries), 0, 100, "N",
     "further tries of a failed request, and of a rejected pair, 0..100 (3)"},
    {0, "timeout", OPTION_NUMBER, AT(timeout), 0.1, 86400, "S",
     "seconds for one request, 0.1..86400 (120)"},
    {0, "backoff", OPTION_NUMBER, AT(backoff), 0, 3600, "S",
     "seconds before the first retry, 0..3600; doubles up to 60 (1)"},
    {0, "temp", OPTION_NUMBER, AT(temperature), 0, 2, "X", "temperature, 0..2 (0.9)"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL,
     "one JSON document: out, pairs, resumed, topics, requests, retries, rejected"},
    OPTION_END};

/* Lines and the progress bar share stderr. */
struct screen {
    struct progress progress;
};

static void show_notice(void *user, const char *line)
{
    struct screen *screen = user;
    progress_clear(&screen->progress);
    fprintf(stderr, "gyaru dataset: %s\n", line);
}

static int show_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct screen *screen = user;
    return progress_show(&screen->progress, what, done, total);
}

/* The first line of the file (caller frees). */
static int read_key(const char *path, char **key, struct gyaru_error *err)
{
    size_t len;
    char *text;
    if (file_read(path, KEY_LIMIT, &text, &len, err))
        return -1;
    text[strcspn(text, "\r\n")] = '\0';
    for (const char *p = text; *p; p++)
        if (*p <= ' ' || *p > '~') {
            free(text);
            return error_set(err, GYARU_FAILED, "%s: the first line is no key", path);
        }
    if (!*text) {
        free(text);
        return error_set(err, GYARU_FAILED, "%s: no key in its first line", path);
    }
    *key = text;
    return 0;
}

static void set_topics(const char *value, struct gyaru_generate_options *out)
{
    char *end;
    long n = value ? strtol(value, &end, 10) : 0;
    if (value && *value && !*end && n > 0 && n <= 100000)
        out->n_topics = (int)n;
    else
        out->topics = value;
}

static void set_options(const struct dataset_options *o, struct gyaru_generate_options *out)
{
    out->api_base = o->api_base;
    out->model = o->model;
    out->n_pairs = o->n_pairs;
    out->batch = o->batch;
    out->retries = o->retries;
    out->timeout = (double)o->timeout;
    out->backoff = (double)o->backoff;
    out->temperature = o->temperature;
    set_topics(o->topics, out);
}

static void print_report(const struct dataset_options *o, const char *report)
{
    struct gyaru_error ignored;
    json_t *json = json_parse(report, strlen(report), "the report", &ignored);
    json_int_t pairs = json_integer_value(json_object_get(json, "pairs"));
    json_int_t topics = json_integer_value(json_object_get(json, "topics"));
    if (o->json)
        puts(report);
    else
        printf("%s: %" JSON_INTEGER_FORMAT " pairs on %" JSON_INTEGER_FORMAT
               " topics, %zu rejected on the way\n",
               o->output, pairs, pairs < topics ? pairs : topics,
               json_array_size(json_object_get(json, "rejected")));
    json_decref(json);
}

static int generate(const struct dataset_options *o, const struct gyaru_generate_options *options,
                    struct gyaru_error *err)
{
    struct screen screen = {PROGRESS_INIT};
    struct gyaru_generate_options shown = *options;
    char *report;
    shown.notice = show_notice;
    shown.notice_user = &screen;
    shown.progress = show_progress;
    shown.progress_user = &screen;
    int rc = gyaru_generate(&shown, o->output, &report, err);
    progress_end(&screen.progress);
    if (!rc && report)
        print_report(o, report);
    free(report);
    return rc;
}

static int dataset(void *user, struct gyaru_error *err)
{
    const struct dataset_options *o = user;
    struct gyaru_generate_options options;
    gyaru_generate_options_init(&options);
    set_options(o, &options);
    if (!o->output)
        return error_set(err, GYARU_USAGE, "say where to write: -o FILE");
    if (!o->api_base)
        return error_set(err, GYARU_USAGE,
                         "give the endpoint's address: --api-base http://HOST:PORT/v1");
    char *key = NULL, *persona;
    int rc = common_data_path(o->persona ? o->persona : DEFAULT_PERSONA, &persona, err);
    if (rc)
        return -1;
    if (o->key_file)
        rc = read_key(o->key_file, &key, err);
    options.persona = persona;
    options.api_key = key;
    if (!rc)
        rc = generate(o, &options, err);
    free(persona);
    free(key);
    return rc;
}

static int main_dataset(int argc, char **argv)
{
    struct gyaru_generate_options defaults;
    gyaru_generate_options_init(&defaults);
    struct dataset_options options = {.n_pairs = defaults.n_pairs,
                                      .batch = defaults.batch,
                                      .retries = defaults.retries,
                                      .timeout = (float)defaults.timeout,
                                      .backoff = (float)defaults.backoff,
                                      .temperature = defaults.temperature};
    const struct option_group groups[] = {{dataset_specs, &options}, {NULL, NULL}};
    const struct option_help help = {
        "dataset", "-o FILE --api-base URL [options]",
        "Asks a language model for pairs of texts that say the same in a persona's style and\n"
        "plainly, checks each pair, and writes what `gyaru extract` reads.",
        groups};
    interrupt_catch();
    return options_run(&help, argc, argv, dataset, &options);
}

const struct command cmd_dataset = {"dataset", "pairs of texts from any OpenAI-compatible endpoint",
                                    main_dataset};
