/*
 * measure_report.c - gyaru_measure(): the butler test as one JSON document, and the bounds that the
 * bundled models must keep.
 */
#include "steer/measure_report.h"

#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 96

void gyaru_measure_options_init(const struct gyaru_model *model,
                                struct gyaru_measure_options *options)
{
    *options = (struct gyaru_measure_options){.vector = -1, .max_tokens = MAX_TOKENS};
    gyaru_sampling_init(model, &options->sampling);
    options->sampling.temperature = 0.7f;
    options->sampling.seed = 1;
}

/* ---- as JSON ----------------------------------------------------------------------------------
 */

json_t *measure_figures_json(const struct measure_figures *f)
{
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"signature", f->signature},
        {"marker", f->marker},
        {"polite", f->polite},
        {"garbled", f->garbled},
        {"no_end", f->faults[TEXT_NO_END]},
        {"invalid_utf8", f->invalid_utf8},
        {"empty", f->faults[TEXT_EMPTY]},
        {"script", f->script},
        {"loop", f->faults[TEXT_LOOP]},
        {"repetition_4", f->repetition},
        {"distinct_1", f->distinct[0]},
        {"distinct_2", f->distinct[1]},
        {"cosine", f->cosine},
        {"gauge", f->gauge},
        {"tokens", f->length},
        {"tokens_per_second", f->tokens_per_second},
    };
    json_t *out = json_object();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(out, numbers[i].key, json_finite(numbers[i].value));
    return out;
}

json_t *measure_answers_json(const struct measure_set *set, const char *const *messages, size_t n)
{
    json_t *out = json_array();
    for (size_t i = 0; i < n && i < set->n; i++) {
        const struct measure_answer *a = &set->answers[i];
        json_t *answer =
            json_pack("{s:s, s:s%, s:s, s:b, s:b, s:o}", "message", messages[i], "text", a->text,
                      a->len, "fault", text_fault_name(a->judged.fault), "marker", a->judged.marker,
                      "polite", a->judged.polite, "cosine", json_finite(a->cosine));
        json_array_append_new(out, answer);
    }
    return out;
}

static json_t *row_json(const struct measure_plan *plan, const struct measure_set *set,
                        const struct measure_figures *f)
{
    json_t *row = measure_figures_json(f);
    json_object_set_new(row, "strength", json_real((double)plan->strength));
    json_object_set_new(row, "answers",
                        measure_answers_json(set, plan->messages, plan->n_messages));
    return row;
}

static json_t *head_json(const struct gyaru_model *model, const struct gyaru_measure_options *o,
                         const struct text_style *style, json_t *rows)
{
    const struct gyaru_model_info *info = gyaru_model_info(model);
    json_t *settings = json_pack(
        "{s:f, s:f, s:i, s:f, s:f, s:i, s:I}", "temperature", (double)o->sampling.temperature,
        "top_p", (double)o->sampling.top_p, "top_k", o->sampling.top_k, "min_p",
        (double)o->sampling.min_p, "repeat_penalty", (double)o->sampling.repeat_penalty,
        "max_tokens", o->max_tokens, "seed", (json_int_t)o->sampling.seed);
    const char *signature = text_style_signature(style);
    return json_pack("{s:s, s:i, s:{s:s, s:s, s:s}, s:s?, s:s, s:s?, s:I, s:o, s:o}", "report",
                     "measure", "version", 1, "model", "name", info->name, "fingerprint",
                     info->fingerprint, "device", info->device, "system", o->system, "style",
                     text_style_name(style), "signature", signature, "messages",
                     (json_int_t)o->n_messages, "sampling", settings, "rows", rows);
}

/* ---- the run ----------------------------------------------------------------------------------
 */

static int measure_rows(struct gyaru_model *model, const struct gyaru_measure_options *o,
                        const struct text_style *style, json_t *rows, struct gyaru_error *err)
{
    struct measure_plan plan = {.model = model,
                                .style = style,
                                .system = o->system,
                                .messages = o->messages,
                                .n_messages = o->n_messages,
                                .vector = o->vector,
                                .sampling = o->sampling,
                                .max_tokens = o->max_tokens,
                                .batch = o->batch,
                                .progress = o->progress,
                                .progress_user = o->progress_user,
                                .what = "answering",
                                .all_work = o->n_messages * o->n_strengths};
    for (size_t i = 0; i < o->n_strengths; i++) {
        struct measure_set set;
        struct measure_figures figures;
        plan.strength = o->strengths[i];
        plan.done_before = o->n_messages * i;
        if (measure_run(&plan, &set, err))
            return -1;
        int rc = measure_figures(&set, &figures, err);
        if (!rc)
            json_array_append_new(rows, row_json(&plan, &set, &figures));
        measure_set_release(&set);
        if (rc)
            return -1;
    }
    return 0;
}

int gyaru_measure(struct gyaru_model *model, const struct gyaru_measure_options *options,
                  char **report, struct gyaru_error *err)
{
    struct text_style *style;
    if (!options->n_messages || !options->n_strengths)
        return error_set(err, GYARU_USAGE, "measure: no messages or no strengths");
    if (text_style_open(options->style, &style, err))
        return -1;
    json_t *rows = json_array();
    int rc = measure_rows(model, options, style, rows, err);
    if (!rc) {
        json_t *root = head_json(model, options, style, json_incref(rows));
        *report = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(7)) : NULL;
        json_decref(root);
        rc = *report ? 0 : error_memory(err, options->n_messages * 400, "the report");
    }
    json_decref(rows);
    text_style_close(style);
    return rc;
}

/* ---- what the bundled models must keep
 * -----------------------------------------------------------
 */

static const struct bound {
    double strength;
    const char *figure;
    double least, most; /* shares of the answers */
} bounds[] = {
    {0, "signature", 0, 0.02}, {0, "polite", 0.95, 1},   {12, "marker", 0.80, 1},
    {12, "garbled", 0, 0.05},  {25, "garbled", 0.50, 1}, /* visible collapse */
};

static const json_t *find_row(const json_t *rows, double strength)
{
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row) if (fabs(json_number_value(json_object_get(row, "strength")) -
                                              strength) < 1e-6) return row;
    return NULL;
}

static void check_bound(const json_t *rows, const struct bound *b, struct str *missed)
{
    const json_t *row = find_row(rows, b->strength);
    const json_t *value = json_object_get(row, b->figure);
    double share = json_number_value(value);
    /* Shares are sums of 1/n: a bound that is met exactly may miss by the rounding. */
    if (value && share >= b->least - 1e-9 && share <= b->most + 1e-9)
        return;
    str_printf(missed, "%sstrength %g: %s ", missed->len ? "; " : "", b->strength, b->figure);
    if (value)
        str_printf(missed, "%.0f%%", 100 * share);
    else
        str_puts(missed, "not measured");
    bool floor = b->least > 0;
    str_printf(missed, " (at %s %.0f%%)", floor ? "least" : "most",
               100 * (floor ? b->least : b->most));
}

int gyaru_measure_require(const char *report, struct gyaru_error *err)
{
    json_t *root = json_parse_text(report, strlen(report), "the report", err);
    if (!root)
        return -1;
    struct str missed = STR_INIT;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        check_bound(json_object_get(root, "rows"), &bounds[i], &missed);
    json_decref(root);
    int rc = str_failed(&missed) ? error_memory(err, 200, "a message") : 0;
    if (!rc && missed.len)
        rc = error_set(err, GYARU_FAILED, "missed: %s", missed.data);
    str_release(&missed);
    return rc;
}
