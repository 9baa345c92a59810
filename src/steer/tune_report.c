/*
 * tune_report.c - what `tune` found, as one JSON document: the terminal's table and the HTML page
 * are made from it. Figures that were not measured are null.
 */
#include "steer/tune.h"

#include <math.h>
#include <string.h>

static json_t *point_json(const struct tune_point *p)
{
    json_t *out = json_object();
    json_object_set_new(out, "strength", json_real((double)p->strength));
    for (int f = 0; f < FIGURES; f++)
        json_object_set_new(out, tune_figure_names[f], json_finite((double)p->figures[f]));
    double slope = (double)p->figures[FIGURE_GAIN] / (double)p->strength;
    json_object_set_new(out, "slope", json_finite(slope));
    json_object_set_new(out, "safe", p->answered ? json_boolean(!*p->fault) : json_null());
    json_object_set_new(out, "fault", json_string(p->fault));
    return out;
}

static json_t *candidate_json(const struct tune_candidate *c)
{
    json_t *points = json_array();
    for (size_t i = 0; i < c->n_points; i++)
        json_array_append_new(points, point_json(&c->points[i]));
    return json_pack("{s:s, s:i, s:i, s:i, s:f, s:b, s:o, s:o, s:o}", "name", c->name,
                     "layer_first", c->first, "layer_last", c->last, "layers", c->n_layers,
                     "factor", c->factor, "finalist", c->finalist, "budget_strength",
                     json_finite((double)c->budget_strength), "budget_gain",
                     json_finite((double)c->budget_gain), "points", points);
}

static json_t *controls_json(const struct tuning *t)
{
    static const char *const names[TUNE_CONTROLS] = {"none", "prompt", "random", "steered"};
    json_t *out = json_object();
    for (int i = 0; i < TUNE_CONTROLS; i++)
        json_object_set_new(out, names[i],
                            t->controls[i].answered ? point_json(&t->controls[i]) : json_null());
    return out;
}

static json_t *rejected_json(const struct tuning *t)
{
    json_t *out = json_array();
    for (int i = 0; i < t->n_rejected; i++)
        json_array_append_new(out, point_json(&t->rejected[i]));
    return out;
}

/* Strengths in the units of the file that is written. */
static json_t *choice_json(const struct tuning *t)
{
    if (t->best < 0)
        return json_null();
    const struct tune_candidate *c = &t->candidates[t->best];
    double chosen = (double)c->points[t->best_point].strength;
    bool in_budget =
        (double)c->points[t->best_point].figures[FIGURE_KL_P95] <= t->options->kl_budget;
    return json_pack(
        "{s:s, s:f, s:o, s:o, s:f, s:f, s:b, s:b}", "candidate", c->name, "measured_strength",
        chosen, "recommended_strength", json_finite(chosen / t->scaled), "max_strength",
        json_finite((double)t->max_strength / t->scaled), "rescaled_by", t->scaled, "factor",
        c->factor * t->scaled, "within_kl_budget", in_budget, "confirmed", t->confirmed);
}

static json_t *settings_json(const struct tuning *t)
{
    const struct gyaru_tune_options *o = t->options;
    return json_pack("{s:s?, s:s?, s:s, s:s?, s:f, s:f, s:i, s:I}", "system", o->system,
                     "style_system", o->style_system, "style", text_style_name(t->style),
                     "signature", text_style_signature(t->style), "kl_budget", o->kl_budget,
                     "rescale", o->rescale, "max_tokens", o->max_tokens, "seed",
                     (json_int_t)o->seed);
}

static json_t *limits_json(void)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "nll_more", (double)TUNE_NLL,
                     "repetition_times", (double)TUNE_REPETITION, "repetition_floor",
                     (double)TUNE_REPEATED, "script_more", (double)TUNE_SCRIPT, "garbled_more",
                     (double)TUNE_GARBLED, "wrong_way", (double)TUNE_WRONG);
}

json_t *tune_report(const struct tuning *t)
{
    const struct gyaru_model_info *info = gyaru_model_info(t->model);
    json_t *model = json_pack("{s:s, s:s, s:s}", "name", info->name, "fingerprint",
                              info->fingerprint, "device", info->device);
    json_t *data = json_pack(
        "{s:s, s:s, s:I, s:I, s:b, s:I, s:I}", "path", t->dataset.path, "sha256", t->dataset.sha256,
        "search_pairs", (json_int_t)t->search.n_pairs, "confirm_pairs",
        (json_int_t)t->confirm.n_pairs, "unseen", t->same_split, "search_messages",
        (json_int_t)t->search.n_messages, "confirm_messages", (json_int_t)t->confirm.n_messages);
    json_t *candidates = json_array();
    for (size_t i = 0; i < t->n_candidates; i++)
        json_array_append_new(candidates, candidate_json(&t->candidates[i]));
    return json_pack("{s:s, s:i, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:O?, "
                     "s:o, s:s?, s:f, s:I}",
                     "report", "tune", "version", 1, "model", model, "vector", t->path, "output",
                     t->out, "written", json_boolean(t->written), "dataset", data, "settings",
                     settings_json(t), "limits", limits_json(), "candidates", candidates, "choice",
                     choice_json(t), "base", point_json(&t->base), "prompt",
                     t->prompt.answered ? point_json(&t->prompt) : json_null(), "controls",
                     controls_json(t), "answers", t->answers, "rejected", rejected_json(t),
                     "warning", t->warning, "seconds", t->seconds, "resumed_measurements",
                     (json_int_t)t->n_resumed);
}
