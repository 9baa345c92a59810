/*
 * cmd_extract.c - `gyaru extract`: contrastive pairs -> a control vector and a report on it.
 */
#include "cli/cli.h"
#include "cli/extract_table.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/report_files.h"
#include "cli/texts.h"

#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS 8 /* pairs read together */
#define DOSES    "2,5,8,12,20"
#define AGAINST  "butler"
#define MESSAGES 40
#define CONTEXT  512 /* tokens of the longest text with its question, unless --context says more */

struct extract_options {
    const char *dataset, *output;
    const char *method, *position, *scale, *layers, *split;
    float step; /* 0: not given */
    const char *topic_key, *positive_key, *negative_key, *prompt;
    const char *report, *language;
    const char *messages, *prompts, *against, *style, *doses;
    int limit, max_tokens;
    uint64_t seed;
    bool compare, json;
    struct common_options common;
};

#define AT(field) offsetof(struct extract_options, field)

static const struct option_spec extract_specs[] = {
    {'d', "dataset", OPTION_TEXT, AT(dataset), 0, 0, "PAIRS",
     "the pairs: a JSON array of {\"topic\",\"standard\",\"gyaru\"}, JSONL or CSV with these "
     "names"},
    {'o', "output", OPTION_TEXT, AT(output), 0, 0, "FILE",
     "the vector: .safetensors, .pt or .gguf"},
    {0, "method", OPTION_TEXT, AT(method), 0, 0, "NAME",
     "mean: difference of the class means; pca: first component, not centred; pca_last: centred, "
     "at the last token, stored for the layers' inputs, as the original did; probe: logistic "
     "regression (mean)"},
    {0, "position", OPTION_TEXT, AT(position), 0, 0, "NAME",
     "content: mean over the answer's tokens; last: the very last token (content; pca_last: last)"},
    {0, "layers", OPTION_TEXT, AT(layers), 0, 0, "A-B|auto",
     "auto: those that pass validation (auto; without a split 30 to 80% of the depth)"},
    {0, "split", OPTION_TEXT, AT(split), 0, 0, "T/V/S|none",
     "percent of the pairs for training, validation and `tune`; none: all pairs, no validation "
     "(60/20/20)"},
    {0, "scale", OPTION_TEXT, AT(scale), 0, 0, "NAME",
     "length of the stored directions. raw: of the mean difference; unit: 1; residual: strength 1 "
     "moves the stream by --step percent of its median length over all layers together (residual; "
     "without a split raw; pca_last: unit)"},
    {0, "step", OPTION_NUMBER, AT(step), 0.01, 100, "PERCENT", "see --scale residual (5)"},
    {0, "seed", OPTION_SEED, AT(seed), 0, 0, "N", "of the split and the controls (1)"},
    {0, "topic-key", OPTION_TEXT, AT(topic_key), 0, 0, "KEY", "(topic)"},
    {0, "positive-key", OPTION_TEXT, AT(positive_key), 0, 0, "KEY",
     "the text in the style (gyaru)"},
    {0, "negative-key", OPTION_TEXT, AT(negative_key), 0, 0, "KEY", "the plain text (standard)"},
    {0, "prompt", OPTION_TEXT, AT(prompt), 0, 0, "TEXT",
     "what the user says before each text; {topic} stands for the topic (トピック: {topic} and a "
     "line asking to talk about it)"},
    {0, "compare", OPTION_FLAG, AT(compare), 0, 0, NULL,
     "let every method's direction speak at the same dose, too: the butler test"},
    {0, "doses", OPTION_TEXT, AT(doses), 0, 0, "X,Y,...",
     "with --compare: strengths, each moving the stream by so many times --step percent "
     "(" DOSES ")"},
    {0, "messages", OPTION_TEXT, AT(messages), 0, 0, "FILE",
     "with --compare: what users say (" TEXTS_MESSAGES ")"},
    {0, "limit", OPTION_INT, AT(limit), 1, 1000000, "N",
     "with --compare: only the first N messages (40)"},
    {0, "prompts", OPTION_TEXT, AT(prompts), 0, 0, "FILE",
     "with --compare: system prompts, as for tune (" TEXTS_PROMPTS ")"},
    {0, "against", OPTION_TEXT, AT(against), 0, 0, "NAME",
     "with --compare: which of them the vectors work against (" AGAINST ")"},
    {0, "style", OPTION_TEXT, AT(style), 0, 0, "FILE",
     "with --compare: what the style looks like (" TEXTS_STYLE ")"},
    {'n', "max-tokens", OPTION_INT, AT(max_tokens), 1, 1 << 20, "N",
     "with --compare: tokens of one answer at most (96)"},
    {0, "report", OPTION_TEXT, AT(report), 0, 0, "DIR",
     "write extract.html and extract.json there (nothing)"},
    {0, "lang", OPTION_TEXT, AT(language), 0, 0, "ja|en", "language of table and page (by LANG)"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL, "print the report as JSON"},
    OPTION_END};

/* ---- options ----------------------------------------------------------------------------------
 */

static int parse_split(const char *text, int split[3], struct gyaru_error *err)
{
    char rest;
    if (!strcmp(text, "none")) {
        split[0] = split[1] = split[2] = 0;
        return 0;
    }
    if (sscanf(text, "%d/%d/%d%c", &split[0], &split[1], &split[2], &rest) != 3 || split[0] < 1 ||
        split[1] < 1 || split[2] < 0 || split[0] > 100 || split[1] > 100 || split[2] > 100 ||
        split[0] + split[1] + split[2] != 100)
        return error_set(err, GYARU_USAGE,
                         "--split %.40s: expected none, or three percentages that sum to 100 such "
                         "as 60/20/20",
                         text);
    return 0;
}

static int parse_layers(const struct extract_options *o, struct gyaru_extract_options *out,
                        struct gyaru_error *err)
{
    struct layer_range range;
    if (!o->layers)
        return 0;
    if (!strcmp(o->layers, "auto")) {
        if (out->split[0])
            return 0;
        return error_set(err, GYARU_USAGE,
                         "--layers auto needs validation: leave --split none out, or name layers");
    }
    if (options_parse_layers("layers", o->layers, &range, err))
        return -1;
    out->layer_first = range.first;
    out->layer_last = range.last;
    return 0;
}

static int make_options(const struct extract_options *o, struct gyaru_extract_options *out,
                        struct gyaru_error *err)
{
    gyaru_extract_options_init(out);
    if (!o->dataset || !o->output)
        return error_set(err, GYARU_USAGE,
                         "give the pairs and the file to write: -d PAIRS -o FILE");
    out->dataset = o->dataset;
    const struct {
        const char *given, **field;
    } texts[] = {{o->method, &out->method},
                 {o->position, &out->position},
                 {o->scale, &out->scale},
                 {o->topic_key, &out->topic_key},
                 {o->positive_key, &out->positive_key},
                 {o->negative_key, &out->negative_key},
                 {o->prompt, &out->prompt}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].given)
            *texts[i].field = texts[i].given;
    if (o->seed)
        out->seed = o->seed;
    if (o->step > 0)
        out->step = (double)o->step;
    if (o->split && parse_split(o->split, out->split, err))
        return -1;
    if (options_check_language(o->language, err))
        return -1;
    return parse_layers(o, out, err);
}

/* ---- comparing methods ------------------------------------------------------------------------
 */

/* What the butler test of the methods needs. */
struct material {
    struct gyaru_measure_options options;
    struct butler_texts butler;
    float *doses;
};

static void material_release(struct material *m)
{
    butler_texts_release(&m->butler);
    free(m->doses);
}

static int read_material(const struct extract_options *o, struct material *m,
                         struct gyaru_error *err)
{
    struct gyaru_measure_options *out = &m->options;
    const struct butler_files files = {.messages = o->messages,
                                       .style = o->style,
                                       .prompts = o->prompts,
                                       .prompt = o->against ? o->against : AGAINST};
    if (butler_texts_read(&files, &m->butler, err) ||
        numbers_parse("doses", o->doses ? o->doses : DOSES, 0, GYARU_STRENGTH_MAX, &m->doses,
                      &out->n_strengths, err))
        return -1;
    out->style = m->butler.style;
    out->system = m->butler.system;
    out->strengths = m->doses;
    out->messages = (const char *const *)m->butler.messages.items;
    out->n_messages = butler_texts_count(&m->butler, o->limit > 0 ? o->limit : MESSAGES);
    if (o->max_tokens > 0)
        out->max_tokens = o->max_tokens;
    if (o->seed)
        out->sampling.seed = o->seed;
    return 0;
}

/* ---- results ----------------------------------------------------------------------------------
 */

static int show(const struct extract_options *o, const char *text, struct gyaru_error *err)
{
    json_t *report = json_parse(text, strlen(text), "the report", err);
    if (!report)
        return -1;
    size_t i;
    const json_t *warning;
    json_array_foreach(json_object_get(report, "warnings"), i, warning)
        fprintf(stderr, "gyaru extract: warning: %s\n",
                json_string_value(json_object_get(warning, "text")));
    int rc = o->report ? report_files_write("extract", o->report, text, gyaru_extract_html,
                                            o->language, err)
                       : 0;
    const char *vector = json_string_value(json_object_get(report, "vector"));
    if (o->json) {
        puts(text);
    } else {
        extract_table_print(stdout, report, options_japanese(o->language));
        if (vector)
            printf("%s\n", vector);
    }
    json_decref(report);
    return rc;
}

static int extract_loaded(const struct extract_options *o, struct gyaru_model *model,
                          const struct gyaru_extract_options *chosen, struct gyaru_error *err)
{
    struct gyaru_extract_options options = *chosen;
    struct progress progress = PROGRESS_INIT;
    struct material material = {0};
    char *report = NULL;
    options.progress = progress_show;
    options.progress_user = &progress;
    gyaru_measure_options_init(model, &material.options);
    material.options.progress = progress_show;
    material.options.progress_user = &progress;
    int rc = o->compare ? read_material(o, &material, err) : 0;
    if (!rc && o->compare)
        options.effect = &material.options;
    if (!rc)
        rc = file_make_parent(o->output, err);
    if (!rc)
        rc = gyaru_extract(model, &options, o->output, &report, err);
    progress_end(&progress);
    struct gyaru_error why;
    if (report && show(o, report, &why) && !rc) {
        *err = why;
        rc = -1;
    }
    free(report);
    material_release(&material);
    return rc;
}

static int extract(void *user, struct gyaru_error *err)
{
    struct extract_options *o = user;
    struct common_options *common = &o->common;
    struct gyaru_extract_options options;
    if (make_options(o, &options, err))
        return -1;
    if (o->compare && !options.split[0])
        return error_set(err, GYARU_USAGE,
                         "--compare needs held-out pairs: leave --split none out");
    common->vector = "none"; /* the pairs are read without steering */
    if (common->context == OPTION_UNSET)
        common->context = CONTEXT;
    if (common_options_finish(common, err))
        return -1;
    struct progress progress = PROGRESS_INIT;
    struct load_options load = {
        .sessions = SESSIONS, .progress = progress_show, .progress_user = &progress};
    struct loaded_model loaded = {0};
    if (common_load(common, &load, &loaded, err))
        return -1;
    progress_end(&progress);
    int rc = extract_loaded(o, loaded.model, &options, err);
    loaded_model_release(&loaded);
    return rc;
}

static int main_extract(int argc, char **argv)
{
    struct extract_options options = {0};
    common_options_init(&options.common);
    const struct option_group groups[] = {
        {extract_specs, &options}, {common_model_options, &options.common}, {NULL, NULL}};
    const struct option_help help = {
        "extract", "-d PAIRS -o FILE [options]",
        "Makes a control vector from contrastive pairs and reports on every layer. When it is\n"
        "interrupted, the same command goes on from FILE.journal. --context is 512 here.",
        groups};
    interrupt_catch();
    int code = options_run(&help, argc, argv, extract, &options);
    common_options_release(&options.common);
    return code;
}

const struct command cmd_extract = {"extract", "make a control vector from contrastive pairs",
                                    main_extract};
