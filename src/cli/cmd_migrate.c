/*
 * cmd_migrate.c - `gyaru migrate`: a persona moves to another model, and back.
 */
#include "cli/cli.h"
#include "cli/config_change.h"
#include "cli/interrupt.h"
#include "cli/migrate_table.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/texts.h"

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR_FOLDER "outputs/vectors"
#define REPORT_FOLDER "outputs/reports"
#define MESSAGES      20 /* of the butler test, unless --limit says more */
#define AGAINST       "butler"
#define CONTROL       "gyaru"

struct migrate_options {
    const char *from, *to, *config, *device, *old_vector;
    const char *dataset, *output, *report, *language;
    const char *messages, *prompts, *prompt, *style, *method;
    struct layer_range layers;
    float strength;
    int threads, limit, max_tokens;
    uint64_t seed;
    bool plan, apply, rollback, json;
};

#define AT(field) offsetof(struct migrate_options, field)

static const struct option_spec migrate_specs[] = {
    {0, "from", OPTION_TEXT, AT(from), 0, 0, "OLD",
     "the model until now (config: model.path, else the bundled one)"},
    {0, "to", OPTION_TEXT, AT(to), 0, 0, "NEW", "the model to move to"},
    {'d', "dataset", OPTION_TEXT, AT(dataset), 0, 0, "PAIRS", "the pairs, as for extract and tune"},
    {'o', "output", OPTION_TEXT, AT(output), 0, 0, "FILE",
     "the new vector (" VECTOR_FOLDER "/NEW-gyaru.safetensors)"},
    {0, "report", OPTION_TEXT, AT(report), 0, 0, "DIR",
     "migrate.md, .html and .json go there, and what an interrupted run goes on from "
     "(" REPORT_FOLDER "/migrate-NEW)"},
    {0, "apply", OPTION_FLAG, AT(apply), 0, 0, NULL,
     "set model.path, steering.vector, .strength and .visualise_layer in the config; everything "
     "else in it stays as it is"},
    {0, "lang", OPTION_TEXT, AT(language), 0, 0, "ja|en", "language of the report (by LANG)"},
    {'s', "strength", OPTION_NUMBER, AT(strength), GYARU_STRENGTH_MIN, GYARU_STRENGTH_MAX, "X",
     "of the new vector, -10..30 (what tuning finds)"},
    {0, "method", OPTION_TEXT, AT(method), 0, 0, "NAME", "of the extraction (mean)"},
    {0, "layers", OPTION_LAYERS, AT(layers), 0, 0, "A-B",
     "of the new vector (those that pass validation)"},
    {0, "messages", OPTION_TEXT, AT(messages), 0, 0, "FILE", "what users say (" TEXTS_MESSAGES ")"},
    {0, "limit", OPTION_INT, AT(limit), 4, 1000000, "N", "only the first N messages (20)"},
    {'n', "max-tokens", OPTION_INT, AT(max_tokens), 1, 1 << 20, "N",
     "tokens of one answer at most (96)"},
    {0, "prompts", OPTION_TEXT, AT(prompts), 0, 0, "FILE",
     "system prompts: JSON object of arrays of texts (" TEXTS_PROMPTS ")"},
    {0, "prompt", OPTION_TEXT, AT(prompt), 0, 0, "NAME",
     "which of them the vector works against (" AGAINST ")"},
    {0, "style", OPTION_TEXT, AT(style), 0, 0, "FILE",
     "what the style looks like (" TEXTS_STYLE ")"},
    {0, "seed", OPTION_SEED, AT(seed), 0, 0, "N", "of split, answers and controls (1)"},
    {0, "plan", OPTION_FLAG, AT(plan), 0, 0, NULL,
     "only say what it would mean: both models, memory, layers, the old vector"},
    {0, "rollback", OPTION_FLAG, AT(rollback), 0, 0, NULL,
     "take the newest --apply back: the config becomes what it was, byte for byte"},
    {0, "old-vector", OPTION_TEXT, AT(old_vector), 0, 0, "FILE",
     "the old model's vector; none: it has none (config: steering.vector, else the one in "
     "outputs/vectors whose fingerprint matches, else the model's own gyaru.safetensors)"},
    {'c', "config", OPTION_TEXT, AT(config), 0, 0, "FILE", "settings (" CONFIG_DEFAULT_PATH ")"},
    {0, "device", OPTION_TEXT, AT(device), 0, 0, "NAME",
     "auto, cpu, cuda, cuda:N or cuda:N,M (config: model.device, else auto)"},
    {'t', "threads", OPTION_INT, AT(threads), 0, 1024, "N", "CPU threads; 0: all cores (0)"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL, "one JSON document"},
    OPTION_END};

static const char *config_path(const struct migrate_options *o)
{
    return o->config ? o->config : CONFIG_DEFAULT_PATH;
}

static int rollback(const struct migrate_options *o, struct gyaru_error *err)
{
    char *what;
    if (config_rollback(config_path(o), &what, err))
        return -1;
    puts(what);
    free(what);
    return 0;
}

/* ---- the run ----------------------------------------------------------------------------------
 */

/* Everything with its place found; strings owned. */
struct migration {
    struct common_options common; /* its config */
    struct gyaru_migrate_options options;
    char *from, *to, *vector, *report;
    struct butler_texts butler;
    char *style_system;
};

static void migration_release(struct migration *m)
{
    free(m->from);
    free(m->to);
    free(m->vector);
    free(m->report);
    butler_texts_release(&m->butler);
    free(m->style_system);
    common_options_release(&m->common);
}

/* A relative name is found as `-m` would. */
static int find_model(const struct common_options *common, const char *name, char **out,
                      struct gyaru_error *err)
{
    struct common_options one = *common;
    one.model = name;
    return common_model_dir(&one, out, err);
}

static void swap(char **a, char **b)
{
    char *was = *a;
    *a = *b;
    *b = was;
}

/* A config that names the new model already was changed by --apply. Repeating the command goes on
 * from what the config said before, so that what was measured still holds. */
static int read_config_before(const struct migrate_options *o, struct common_options *common,
                              struct gyaru_error *err)
{
    struct config *config = &common->config;
    if (!config->model_path || strcmp(config->model_path, o->to))
        return 0;
    char *backup = config_before(config_path(o));
    if (!backup)
        return 0;
    struct config before;
    config_init(&before);
    int rc = config_read(backup, &before, err);
    if (!rc) {
        fprintf(stderr,
                "gyaru migrate: %s names %s already: the old model's settings are those of %s\n",
                config_path(o), o->to, backup);
        swap(&config->model_path, &before.model_path);
        swap(&config->vector, &before.vector);
        config->strength = before.strength;
        config->visualise_layer = before.visualise_layer;
        common->vector = config->vector;
        common->strength = config->strength;
    }
    config_release(&before);
    free(backup);
    return rc;
}

static int prepare(const struct migrate_options *o, struct migration *m, struct gyaru_error *err)
{
    if (!o->to)
        return error_set(err, GYARU_USAGE, "name the model to move to: --to NEW");
    m->common.config_path = o->config;
    m->common.device = o->device;
    if (common_options_finish(&m->common, err) || read_config_before(o, &m->common, err) ||
        find_model(&m->common, o->from, &m->from, err) ||
        find_model(&m->common, o->to, &m->to, err))
        return -1;
    const struct config *config = &m->common.config;
    gyaru_migrate_options_init(&m->options);
    m->options.from = m->from;
    m->options.to = m->to;
    m->options.folder = VECTOR_FOLDER;
    m->options.device = m->common.device;
    m->options.threads = o->threads;
    m->options.from_vector = o->old_vector;
    /* The config's vector and strength are those of the config's model. */
    bool configured = !o->from || (config->model_path && !strcmp(config->model_path, o->from));
    if (!o->old_vector && configured)
        m->options.from_vector = config->vector;
    if (configured)
        m->options.from_strength = config->strength;
    return 0;
}

static int show_plan(const struct migrate_options *o, const struct migration *m,
                     struct gyaru_error *err)
{
    char *text;
    if (gyaru_migrate_plan(&m->options, &text, err))
        return -1;
    if (o->json) {
        puts(text);
    } else {
        json_t *plan = json_parse(text, strlen(text), "the plan", err);
        if (plan)
            migrate_plan_print(stdout, plan);
        json_decref(plan);
    }
    free(text);
    return 0;
}

/* "FOLDER/PREFIXnameSUFFIX" with the last component of the new model's directory. */
static char *named(const struct migrate_options *o, const char *format)
{
    struct str s = STR_INIT;
    size_t len = strlen(o->to);
    while (len > 1 && o->to[len - 1] == '/')
        len--;
    size_t start = len;
    while (start && o->to[start - 1] != '/')
        start--;
    const char *mark = strchr(format, '*');
    str_append(&s, format, (size_t)(mark - format));
    str_append(&s, o->to + start, len - start);
    str_puts(&s, mark + 1);
    return str_take(&s);
}

static int read_material(const struct migrate_options *o, struct migration *m,
                         struct gyaru_error *err)
{
    struct gyaru_migrate_options *to = &m->options;
    m->vector = o->output ? strdup(o->output) : named(o, VECTOR_FOLDER "/*-gyaru.safetensors");
    m->report = o->report ? strdup(o->report) : named(o, REPORT_FOLDER "/migrate-*");
    if (!m->vector || !m->report)
        return error_memory(err, strlen(o->to), "a path");
    const struct butler_files files = {.messages = o->messages,
                                       .style = o->style,
                                       .prompts = o->prompts,
                                       .prompt = o->prompt ? o->prompt : AGAINST};
    if (butler_texts_read(&files, &m->butler, err))
        return -1;
    struct gyaru_error ignored; /* a persona of one's own may have no such prompt */
    if (texts_prompt(o->prompts, CONTROL, 0, &m->style_system, &ignored))
        m->style_system = NULL;
    to->dataset = o->dataset;
    to->vector = m->vector;
    to->report_dir = m->report;
    to->method = o->method;
    to->layer_first = o->layers.first;
    to->layer_last = o->layers.last;
    to->strength = o->strength;
    to->style = m->butler.style;
    to->system = m->butler.system;
    to->style_system = m->style_system;
    to->messages = (const char *const *)m->butler.messages.items;
    to->n_messages = butler_texts_count(&m->butler, o->limit > 0 ? o->limit : MESSAGES);
    if (o->max_tokens > 0)
        to->max_tokens = o->max_tokens;
    if (o->seed)
        to->seed = o->seed;
    return 0;
}

/* ---- results ----------------------------------------------------------------------------------
 */

static int write_file(const char *dir, const char *name, const char *text, struct gyaru_error *err)
{
    char *path = file_join(dir, name);
    int rc = path ? file_write_atomic(path, text, strlen(text), err)
                  : error_memory(err, strlen(dir), "a path");
    free(path);
    return rc;
}

static int write_reports(const struct migrate_options *o, const struct migration *m,
                         const json_t *report, struct gyaru_error *err)
{
    const char *language = options_japanese(o->language) ? "ja" : "en";
    char *text = json_dumps(report, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    int rc = text ? write_file(m->report, "migrate.json", text, err)
                  : error_memory(err, 1 << 20, "the report");
    for (int html = 0; !rc && html < 2; html++) {
        char *page;
        rc = gyaru_migrate_page(text, language, html, &page, err);
        if (rc)
            break;
        rc = write_file(m->report, html ? "migrate.html" : "migrate.md", page, err);
        if (!rc && !html && !o->json &&
            (!o->apply || !json_is_null(json_object_get(report, "applied"))))
            fputs(page, stdout);
        free(page);
    }
    free(text);
    return rc;
}

static int apply(const struct migrate_options *o, json_t *report, struct gyaru_error *err)
{
    const json_t *choice = json_object_get(report, "choice");
    const json_t *strength = json_object_get(choice, "strength");
    if (!json_is_number(strength))
        return error_set(err, GYARU_FAILED,
                         "no safe strength was found: nothing was applied; the "
                         "report says why");
    char number[32], layer[32], *backup;
    bool changed;
    snprintf(number, sizeof number, "%g", json_number_value(strength));
    snprintf(layer, sizeof layer, "%d",
             (int)json_integer_value(json_object_get(choice, "visualise_layer")));
    const char *vector = json_string_value(json_object_get(choice, "vector"));
    const struct config_value values[] = {
        {"model", "path", o->to, false},
        {"steering", "vector", vector ? vector : "", false},
        {"steering", "strength", number, true},
        {"steering", "visualise_layer", layer, true},
    };
    if (config_change(config_path(o), values, sizeof values / sizeof *values, &backup, &changed,
                      err))
        return -1;
    fprintf(stderr, "gyaru migrate: %s: %s%s\n", config_path(o),
            changed ? "set; what was there: " : "already so",
            !changed ? ""
            : backup ? backup
                     : "nothing");
    json_object_set_new(report, "applied",
                        json_pack("{s:s, s:b, s:s?}", "config", config_path(o), "changed",
                                  (int)changed, "backup", backup));
    free(backup);
    return 0;
}

static int finish(const struct migrate_options *o, const struct migration *m, const char *text,
                  struct gyaru_error *err)
{
    json_t *report = json_parse_text(text, strlen(text), "the report", err);
    if (!report)
        return -1;
    int rc = write_reports(o, m, report, err);
    if (!rc && o->apply) {
        rc = apply(o, report, err);
        if (!rc)
            rc = write_reports(o, m, report, err);
    }
    if (!rc && o->json) {
        json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        putchar('\n');
    }
    fprintf(stderr, "gyaru migrate: report: %s/migrate.html\n", m->report);
    json_decref(report);
    return rc;
}

static int run(const struct migrate_options *o, struct migration *m, struct gyaru_error *err)
{
    struct progress progress = PROGRESS_INIT;
    char *text;
    if (!o->dataset)
        return error_set(err, GYARU_USAGE, "give the pairs: -d PAIRS (or --plan)");
    if (read_material(o, m, err))
        return -1;
    m->options.progress = progress_show;
    m->options.progress_user = &progress;
    int rc = gyaru_migrate(&m->options, &text, err);
    progress_end(&progress);
    if (rc)
        return -1;
    rc = finish(o, m, text, err);
    free(text);
    return rc;
}

static int migrate(void *user, struct gyaru_error *err)
{
    const struct migrate_options *o = user;
    struct migration m = {0};
    if (options_check_language(o->language, err))
        return -1;
    if (o->rollback)
        return rollback(o, err);
    common_options_init(&m.common);
    int rc = prepare(o, &m, err);
    if (!rc)
        rc = o->plan ? show_plan(o, &m, err) : run(o, &m, err);
    migration_release(&m);
    return rc;
}

static int main_migrate(int argc, char **argv)
{
    struct migrate_options options = {.strength = NAN, .layers = {-1, -1}};
    const struct option_group groups[] = {{migrate_specs, &options}, {NULL, NULL}};
    const struct option_help help = {
        "migrate", "--from OLD --to NEW -d PAIRS [options] | --rollback",
        "Moves a persona to another model: extracts and tunes a vector for it, measures both "
        "models\n"
        "and reports. Nothing but the report and the new vector is written, unless --apply is "
        "given.\n"
        "When it is interrupted, the same command goes on where it was.",
        groups};
    interrupt_catch();
    return options_run(&help, argc, argv, migrate, &options);
}

const struct command cmd_migrate = {"migrate", "move a persona to another model, and back",
                                    main_migrate};
