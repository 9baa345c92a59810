/*
 * cmd_measure.c - `gyaru measure`: the butler test. A system prompt asks for one style, the vector
 * pulls to another; the table shows at which strength the vector wins and where the text collapses.
 */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/texts.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS  16
#define CONTEXT   512 /* tokens of prompt and answer, unless --context says more */
#define PROMPT    "butler"
#define STRENGTHS "0,8,12,25"

struct measure_options {
    const char *messages, *prompts, *prompt, *system, *style, *strengths;
    int prompt_index, limit, samples, batch;
    bool json, require;
    struct common_options common;
    struct sampling_options sampling;
};

#define AT(field) offsetof(struct measure_options, field)

static const struct option_spec measure_specs[] = {
    {0, "messages", OPTION_TEXT, AT(messages), 0, 0, "FILE",
     "what users say: a JSON array of texts, or one message a line (" TEXTS_MESSAGES ")"},
    {0, "prompts", OPTION_TEXT, AT(prompts), 0, 0, "FILE",
     "system prompts: JSON object of arrays of texts (" TEXTS_PROMPTS ")"},
    {0, "prompt", OPTION_TEXT, AT(prompt), 0, 0, "NAME",
     "which of them the vector works against (" PROMPT ")"},
    {0, "prompt-index", OPTION_INT, AT(prompt_index), 0, 1000, "N",
     "which text of that name, from 0 (0)"},
    {0, "system", OPTION_TEXT, AT(system), 0, 0, "TEXT", "system prompt in place of --prompts"},
    {0, "style", OPTION_TEXT, AT(style), 0, 0, "FILE",
     "what the style looks like: markers, polite endings, expected characters (" TEXTS_STYLE ")"},
    {0, "strengths", OPTION_TEXT, AT(strengths), 0, 0, "X,Y,...",
     "one row of the table each, -10..30 (" STRENGTHS "; without a vector 0)"},
    {0, "limit", OPTION_INT, AT(limit), 1, 1000000, "N", "only the first N messages (all)"},
    {0, "batch", OPTION_INT, AT(batch), 1, 64, "N",
     "answers generated together; does not change them (16)"},
    {0, "samples", OPTION_INT, AT(samples), 0, 1000000, "K",
     "answers to print for each strength (3)"},
    {0, "require", OPTION_FLAG, AT(require), 0, 0, NULL,
     "exit 1, naming what is missed, unless: at 0 the signature marker in at most 2% and polite "
     "endings in at least 95%; at 12 a marker in at least 80%, at most 5% garbled; at 25 at least "
     "50% garbled"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL, "one JSON document with every answer"},
    OPTION_END};

/* What the files say. */
struct material {
    struct butler_texts butler;
    float *strengths;
    size_t n_strengths;
};

static void material_release(struct material *m)
{
    butler_texts_release(&m->butler);
    free(m->strengths);
}

static int read_material(const struct measure_options *o, bool steered, struct material *out,
                         struct gyaru_error *err)
{
    const char *strengths = o->strengths ? o->strengths : steered ? STRENGTHS : "0";
    if (numbers_parse("strengths", strengths, GYARU_STRENGTH_MIN, GYARU_STRENGTH_MAX,
                      &out->strengths, &out->n_strengths, err))
        return -1;
    const struct butler_files files = {.messages = o->messages,
                                       .style = o->style,
                                       .prompts = o->prompts,
                                       .prompt = o->prompt ? o->prompt : PROMPT,
                                       .prompt_index = o->prompt_index,
                                       .system = o->system};
    return butler_texts_read(&files, &out->butler, err);
}

/* ---- the table --------------------------------------------------------------------------------
 */

static double figure(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void print_share(double value)
{
    printf(" %7.0f%%", 100 * value);
}

static void print_number(double value, int digits)
{
    if (isfinite(value))
        printf(" %8.*f", digits, value);
    else
        printf(" %8s", "-");
}

static void print_row(const json_t *row)
{
    static const char *const shares[] = {"signature", "marker", "polite",
                                         "garbled",   "no_end", "invalid_utf8",
                                         "script",    "loop",   "repetition_4"};
    printf("%8g", figure(row, "strength"));
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        print_share(figure(row, shares[i]));
    print_number(figure(row, "distinct_2"), 2);
    print_number(figure(row, "cosine"), 3);
    print_number(figure(row, "gauge"), 2);
    print_number(figure(row, "tokens"), 1);
    print_number(figure(row, "tokens_per_second"), 1);
    putchar('\n');
}

static void print_samples(const json_t *row, int samples)
{
    const json_t *answers = json_object_get(row, "answers"), *answer;
    size_t i;
    printf("\nstrength %g\n", figure(row, "strength"));
    json_array_foreach(answers, i, answer)
    {
        if ((int)i >= samples)
            break;
        const char *fault = json_text_at(answer, "fault");
        printf("  %s -> %s", json_text_at(answer, "message"), json_text_at(answer, "text"));
        printf(*fault ? "  [%s]\n" : "\n", fault);
    }
}

static void print_table(const json_t *report, int samples)
{
    const json_t *rows = json_object_get(report, "rows"), *row;
    const json_t *model = json_object_get(report, "model");
    size_t i;
    printf("%s, %s; %g messages; %s\n", json_text_at(model, "name"), json_text_at(model, "device"),
           figure(report, "messages"), json_text_at(report, "system"));
    static const char *const columns[] = {"sign.",  "marker", "polite", "garbled", "no end",
                                          "utf-8",  "script", "loop",   "repeat4", "distinct",
                                          "cosine", "gauge",  "tokens", "tok/s"};
    printf("%8s", "strength");
    for (i = 0; i < sizeof columns / sizeof *columns; i++)
        printf(" %8s", columns[i]);
    putchar('\n');
    json_array_foreach(rows, i, row) print_row(row);
    if (*json_text_at(report, "signature"))
        printf("(sign.: %s)\n", json_text_at(report, "signature"));
    if (samples > 0)
        json_array_foreach(rows, i, row) print_samples(row, samples);
}

/* ---- the run ----------------------------------------------------------------------------------
 */

static int show(const struct measure_options *o, const char *text, struct gyaru_error *err)
{
    if (o->json) {
        puts(text);
    } else {
        json_t *report = json_parse_text(text, strlen(text), "the report", err);
        if (!report)
            return -1;
        print_table(report, o->samples);
        json_decref(report);
    }
    return o->require ? gyaru_measure_require(text, err) : 0;
}

static int measure_loaded(const struct measure_options *o, const struct sampling_options *sampling,
                          const struct material *m, const struct loaded_model *loaded,
                          struct gyaru_error *err)
{
    struct progress progress = PROGRESS_INIT;
    struct gyaru_measure_options options;
    gyaru_measure_options_init(loaded->model, &options);
    float temperature = options.sampling.temperature;
    struct sampling_options seeded = *sampling;
    if (!seeded.seed)
        seeded.seed = options.sampling.seed;
    sampling_options_apply(&seeded, loaded->model, &options.sampling);
    if (isnan(sampling->temperature))
        options.sampling.temperature = temperature;
    if (sampling->max_tokens > 0)
        options.max_tokens = sampling->max_tokens;
    options.style = m->butler.style;
    options.system = m->butler.system;
    options.messages = (const char *const *)m->butler.messages.items;
    options.n_messages = butler_texts_count(&m->butler, o->limit);
    options.strengths = m->strengths;
    options.n_strengths = m->n_strengths;
    options.vector = loaded->vector;
    options.batch = o->batch;
    options.progress = progress_show;
    options.progress_user = &progress;
    char *report;
    int rc = gyaru_measure(loaded->model, &options, &report, err);
    progress_end(&progress);
    if (!rc) {
        rc = show(o, report, err);
        free(report);
    }
    return rc;
}

static int measure(void *user, struct gyaru_error *err)
{
    struct measure_options *o = user;
    struct common_options *common = &o->common;
    struct progress progress = PROGRESS_INIT;
    struct load_options load = {.sessions = o->batch > 0 ? o->batch : SESSIONS,
                                .find_vector = true,
                                .progress = progress_show,
                                .progress_user = &progress};
    struct loaded_model loaded;
    struct material material = {0};
    if (common->context == OPTION_UNSET)
        common->context = CONTEXT;
    if (common_options_finish(common, err) || common_load(common, &load, &loaded, err))
        return -1;
    progress_end(&progress);
    if (loaded.warning)
        fprintf(stderr, "gyaru measure: warning: %s\n", loaded.warning);
    int rc = read_material(o, loaded.vector >= 0, &material, err);
    if (!rc)
        rc = measure_loaded(o, &o->sampling, &material, &loaded, err);
    material_release(&material);
    loaded_model_release(&loaded);
    return rc;
}

static int main_measure(int argc, char **argv)
{
    struct measure_options options = {.samples = 3};
    common_options_init(&options.common);
    sampling_options_init(&options.sampling);
    const struct option_group groups[] = {{measure_specs, &options},
                                          {common_model_options, &options.common},
                                          {common_steering_options, &options.common},
                                          {sampling_options, &options.sampling},
                                          {NULL, NULL}};
    const struct option_help help = {
        "measure", "[options]",
        "The butler test: answers messages under a system prompt at several strengths and prints\n"
        "how many answers show the style, stay polite, or break. Defaults here: --temp 0.7, -n "
        "96,\n"
        "--seed 1, --context 512; -s has no meaning.",
        groups};
    interrupt_catch();
    int code = options_run(&help, argc, argv, measure, &options);
    common_options_release(&options.common);
    return code;
}

const struct command cmd_measure = {
    "measure", "the butler test: style, politeness and damage by strength", main_measure};
