/*
 * cmd_tune.c - `gyaru tune`: finds the strength at which a vector has most effect without damage,
 * and writes it into the vector's file.
 */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/report_files.h"
#include "cli/texts.h"
#include "cli/tune_table.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS 16
#define CONTEXT  512 /* tokens of prompt and answer, unless --context says more */
#define AGAINST  "butler"
#define CONTROL  "gyaru"

struct tune_options {
    const char *vector, *dataset, *output;
    const char *messages, *prompts, *prompt, *control, *style, *ladder;
    const char *topic_key, *positive_key, *negative_key;
    const char *report, *language;
    float kl_budget, rescale;
    int limit, pairs, max_tokens;
    uint64_t seed;
    bool own_layers, force, json;
    struct common_options common;
};

#define AT(field) offsetof(struct tune_options, field)

static const struct option_spec tune_specs[] = {
    {'v', "vector", OPTION_TEXT, AT(vector), 0, 0, "FILE", "the control vector to tune"},
    {'d', "dataset", OPTION_TEXT, AT(dataset), 0, 0, "PAIRS",
     "the pairs, as for extract; those that extract held out are used"},
    {'o', "output", OPTION_TEXT, AT(output), 0, 0, "FILE",
     "where the tuned vector goes, .safetensors (the vector's own file)"},
    {0, "messages", OPTION_TEXT, AT(messages), 0, 0, "FILE",
     "what users say: half for the search, half to confirm (" TEXTS_MESSAGES ")"},
    {0, "limit", OPTION_INT, AT(limit), 4, 1000000, "N", "only the first N messages (all)"},
    {0, "pairs", OPTION_INT, AT(pairs), 2, 1000000, "N",
     "pairs read for each measurement at most (16)"},
    {0, "prompts", OPTION_TEXT, AT(prompts), 0, 0, "FILE",
     "system prompts: JSON object of arrays of texts (" TEXTS_PROMPTS ")"},
    {0, "prompt", OPTION_TEXT, AT(prompt), 0, 0, "NAME",
     "which of them the vector works against (" AGAINST ")"},
    {0, "control", OPTION_TEXT, AT(control), 0, 0, "NAME",
     "which of them asks for the style in words, to compare with; none: no such control (" CONTROL
     ")"},
    {0, "style", OPTION_TEXT, AT(style), 0, 0, "FILE",
     "what the style looks like: markers, polite endings, expected characters (" TEXTS_STYLE ")"},
    {0, "ladder", OPTION_TEXT, AT(ladder), 0, 0, "X,Y,...",
     "ascending strengths of the scan, -10..30 (-10,-5,-2,0,2,5,8,10,12,15,20,25,30)"},
    {0, "own-layers", OPTION_FLAG, AT(own_layers), 0, 0, NULL,
     "keep all of the vector's layers; without it narrower sets are tried, and if one wins, the "
     "other directions are left out of the file"},
    {0, "kl-budget", OPTION_NUMBER, AT(kl_budget), 0.001, 100, "NATS",
     "95th percentile of the per-token divergence that is bisected to (1)"},
    {0, "rescale", OPTION_NUMBER, AT(rescale), 0, (double)GYARU_STRENGTH_MAX, "X",
     "scale the stored directions so that the chosen strength becomes X: 12 makes the presets mean "
     "what they say; 0: leave them (0)"},
    {'n', "max-tokens", OPTION_INT, AT(max_tokens), 1, 1 << 20, "N",
     "tokens of one answer at most (96)"},
    {0, "seed", OPTION_SEED, AT(seed), 0, 0, "N", "of the answers and the random vector (1)"},
    {0, "topic-key", OPTION_TEXT, AT(topic_key), 0, 0, "KEY", "(topic)"},
    {0, "positive-key", OPTION_TEXT, AT(positive_key), 0, 0, "KEY",
     "the text in the style (gyaru)"},
    {0, "negative-key", OPTION_TEXT, AT(negative_key), 0, 0, "KEY", "the plain text (standard)"},
    {0, "report", OPTION_TEXT, AT(report), 0, 0, "DIR",
     "write tune.html and tune.json there (nothing)"},
    {0, "lang", OPTION_TEXT, AT(language), 0, 0, "ja|en", "language of table and page (by LANG)"},
    {0, "force", OPTION_FLAG, AT(force), 0, 0, NULL,
     "take a vector of another model of the same hidden size"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL, "print the report as JSON"},
    OPTION_END};

/* What the files say. */
struct material {
    struct butler_texts butler;
    char *control;
    float *ladder;
    size_t n_ladder;
};

static void material_release(struct material *m)
{
    butler_texts_release(&m->butler);
    free(m->control);
    free(m->ladder);
}

static int read_material(const struct tune_options *o, struct material *m, struct gyaru_error *err)
{
    const char *control = o->control ? o->control : CONTROL;
    if (o->ladder && numbers_parse("ladder", o->ladder, GYARU_STRENGTH_MIN, GYARU_STRENGTH_MAX,
                                   &m->ladder, &m->n_ladder, err))
        return -1;
    const struct butler_files files = {.messages = o->messages,
                                       .style = o->style,
                                       .prompts = o->prompts,
                                       .prompt = o->prompt ? o->prompt : AGAINST};
    if (butler_texts_read(&files, &m->butler, err))
        return -1;
    return strcmp(control, "none") ? texts_prompt(o->prompts, control, 0, &m->control, err) : 0;
}

static void make_options(const struct tune_options *o, const struct material *m,
                         struct gyaru_tune_options *out)
{
    gyaru_tune_options_init(out);
    const struct {
        const char *given, **field;
    } texts[] = {{o->topic_key, &out->topic_key},
                 {o->positive_key, &out->positive_key},
                 {o->negative_key, &out->negative_key}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].given)
            *texts[i].field = texts[i].given;
    out->dataset = o->dataset;
    out->style = m->butler.style;
    out->system = m->butler.system;
    out->style_system = m->control;
    out->messages = (const char *const *)m->butler.messages.items;
    out->n_messages = butler_texts_count(&m->butler, o->limit);
    if (m->ladder) {
        out->ladder = m->ladder;
        out->n_ladder = m->n_ladder;
    }
    out->own_layers = o->own_layers;
    out->force = o->force;
    out->rescale = (double)o->rescale;
    if (!isnan(o->kl_budget))
        out->kl_budget = (double)o->kl_budget;
    if (o->pairs > 0)
        out->max_pairs = o->pairs;
    if (o->max_tokens > 0)
        out->max_tokens = o->max_tokens;
    if (o->seed)
        out->seed = o->seed;
}

/* ---- results ----------------------------------------------------------------------------------
 */

static int show(const struct tune_options *o, const char *text, struct gyaru_error *err)
{
    json_t *report = json_parse_text(text, strlen(text), "the report", err);
    if (!report)
        return -1;
    const char *warning = json_string_value(json_object_get(report, "warning"));
    if (warning)
        fprintf(stderr, "gyaru tune: warning: %s\n", warning);
    int rc = o->report
                 ? report_files_write("tune", o->report, text, gyaru_tune_html, o->language, err)
                 : 0;
    if (o->json)
        puts(text);
    else
        tune_table_print(stdout, report, options_japanese(o->language));
    json_decref(report);
    return rc;
}

static int tune_loaded(const struct tune_options *o, struct gyaru_model *model,
                       const struct material *m, struct gyaru_error *err)
{
    struct progress progress = PROGRESS_INIT;
    struct gyaru_tune_options options;
    char *report;
    make_options(o, m, &options);
    options.progress = progress_show;
    options.progress_user = &progress;
    int rc =
        gyaru_tune(model, o->vector, o->output ? o->output : o->vector, &options, &report, err);
    progress_end(&progress);
    struct gyaru_error why;
    if (report && show(o, report, &why) && !rc) {
        *err = why;
        rc = -1;
    }
    free(report);
    return rc;
}

static int tune(void *user, struct gyaru_error *err)
{
    struct tune_options *o = user;
    struct common_options *common = &o->common;
    struct progress progress = PROGRESS_INIT;
    struct load_options load = {
        .sessions = SESSIONS, .progress = progress_show, .progress_user = &progress};
    struct loaded_model loaded = {0};
    struct material material = {0};
    if (!o->vector || !o->dataset)
        return error_set(err, GYARU_USAGE, "give the vector and the pairs: -v FILE -d PAIRS");
    if (options_check_language(o->language, err))
        return -1;
    common->vector = "none"; /* gyaru_tune attaches what it makes of the file */
    if (common->context == OPTION_UNSET)
        common->context = CONTEXT;
    int rc = read_material(o, &material, err);
    if (!rc)
        rc = common_options_finish(common, err);
    if (!rc)
        rc = common_load(common, &load, &loaded, err);
    if (!rc) {
        progress_end(&progress);
        rc = tune_loaded(o, loaded.model, &material, err);
        loaded_model_release(&loaded);
    }
    material_release(&material);
    return rc;
}

static int main_tune(int argc, char **argv)
{
    struct tune_options options = {.kl_budget = NAN};
    common_options_init(&options.common);
    const struct option_group groups[] = {
        {tune_specs, &options}, {common_model_options, &options.common}, {NULL, NULL}};
    const struct option_help help = {
        "tune", "-v FILE -d PAIRS [options]",
        "Measures what a vector does at every strength, chooses the one of most effect that does "
        "no\n"
        "damage, confirms it on unseen messages and writes it into the file. When it is\n"
        "interrupted, the same command goes on from FILE.tune-journal. --context is 512 here.",
        groups};
    interrupt_catch();
    int code = options_run(&help, argc, argv, tune, &options);
    common_options_release(&options.common);
    return code;
}

const struct command cmd_tune = {"tune", "find the strength of most effect without damage",
                                 main_tune};
