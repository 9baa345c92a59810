/*
 * extract_report.c - what `extract` found, as one JSON document: the terminal's table and the HTML
 * page are made from it. Numbers that do not exist (no split, no difference) are null.
 */
#include "steer/extract.h"

#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAMED 5 /* lines that a warning lists */

json_t *extract_layer_json(const struct extract_layer *at)
{
    const struct layer_stats *s = &at->stats;
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"explained_variance_ratio", s->explained_variance},
        {"auroc", s->auroc},
        {"cohens_d", s->cohens_d},
        {"split_half_cosine", s->split_half},
        {"cosine_mean_pca", s->cosine_mean_pca},
        {"pairwise_cosine", s->pairwise_cosine},
        {"misordered_pairs", s->misordered},
        {"shuffled_auroc_p95", s->shuffled_auroc},
        {"random_auroc_p95", s->random_auroc},
        {"norm", s->norm},
        {"relative_norm", s->norm / at->residual_norm},
        {"residual_norm", at->residual_norm},
        {"stored_norm", at->selected ? at->stored_norm : NAN},
    };
    json_t *out = json_object();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(out, numbers[i].key,
                            at->measured ? json_finite(numbers[i].value) : json_null());
    return out;
}

/* The original's statistics of the direction's elements. */
static void add_elements(const struct extraction *x, const struct extract_layer *at, json_t *out)
{
    double sum = 0, squares = 0, n = (double)x->capture.hidden, raw = 0;
    for (size_t h = 0; h < x->capture.hidden; h++)
        raw += at->direction[h] * at->direction[h];
    double factor = at->stored_norm / sqrt(raw);
    for (size_t h = 0; h < x->capture.hidden; h++)
        sum += factor * at->direction[h];
    for (size_t h = 0; h < x->capture.hidden; h++)
        squares += pow(factor * at->direction[h] - sum / n, 2);
    json_object_set_new(out, "element_mean", json_finite(at->selected ? sum / n : NAN));
    json_object_set_new(out, "element_std", json_finite(at->selected ? sqrt(squares / n) : NAN));
}

static json_t *layers_json(const struct extraction *x)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < x->n_layers; i++) {
        const struct extract_layer *at = &x->layers[i];
        json_t *figures = extract_layer_json(at);
        json_t *layer = json_pack("{s:i, s:b, s:s}", "layer", at->layer, "selected", at->selected,
                                  "fault", at->fault);
        add_elements(x, at, figures);
        json_object_update(layer, figures);
        json_decref(figures);
        json_array_append_new(layers, layer);
    }
    return layers;
}

/* ---- warnings: in both languages --------------------------------------------------------------
 */

static void warn(json_t *warnings, struct str *english, struct str *japanese)
{
    json_array_append_new(warnings,
                          json_pack("{s:s, s:s}", "text", english->data ? english->data : "",
                                    "text_ja", japanese->data ? japanese->data : ""));
    str_release(english);
    str_release(japanese);
}

static void warn_of_few(const struct extraction *x, json_t *warnings)
{
    struct str en = STR_INIT, ja = STR_INIT;
    str_printf(&en, "%zu pairs: with fewer than %d the direction is noisy", x->dataset.n,
               DATASET_FEW);
    str_printf(&ja, "ペアが %zu 組: %d 組未満では方向に雑音が多い", x->dataset.n, DATASET_FEW);
    warn(warnings, &en, &ja);
}

static void warn_of_duplicates(const struct extraction *x, json_t *warnings)
{
    struct str lines = STR_INIT, en = STR_INIT, ja = STR_INIT;
    size_t n = 0;
    for (size_t i = 0; i < x->dataset.n; i++) {
        const struct dataset_pair *p = &x->dataset.pairs[i];
        if (p->same_as != i && n++ < NAMED)
            str_printf(&lines, "%s%zu = %zu", n > 1 ? ", " : "", p->line,
                       x->dataset.pairs[p->same_as].line);
    }
    if (n > NAMED)
        str_puts(&lines, ", ...");
    const char *list = lines.data ? lines.data : "";
    str_printf(&en, "%zu pairs are copies of others and count again (lines %s)", n, list);
    str_printf(&ja, "%zu 組は他の組の写しで、重ねて数えられる (行 %s)", n, list);
    warn(warnings, &en, &ja);
    str_release(&lines);
}

static void warn_of_layers(const struct extraction *x, json_t *warnings)
{
    struct str layers = STR_INIT, en = STR_INIT, ja = STR_INIT;
    for (size_t i = 0; i < x->n_layers; i++)
        if (x->layers[i].selected && *x->layers[i].fault)
            str_printf(&layers, "%s%d", layers.len ? ", " : "", x->layers[i].layer);
    if (layers.len) {
        str_printf(&en, "layers that `auto` would leave out: %s", layers.data);
        str_printf(&ja, "`auto` なら除かれる層: %s", layers.data);
        warn(warnings, &en, &ja);
    }
    str_release(&layers);
}

static json_t *warnings_json(const struct extraction *x)
{
    json_t *warnings = json_array();
    if (x->dataset.n < DATASET_FEW)
        warn_of_few(x, warnings);
    if (x->dataset.n_duplicates)
        warn_of_duplicates(x, warnings);
    if (x->split)
        warn_of_layers(x, warnings);
    if (x->capture.journal.discarded) {
        struct str en = STR_INIT, ja = STR_INIT;
        str_puts(&en, "an interrupted run with another model, dataset or prompt was given up");
        str_puts(&ja, "別のモデル・データ・プロンプトによる中断された抽出を破棄した");
        warn(warnings, &en, &ja);
    }
    return warnings;
}

/* ---- all --------------------------------------------------------------------------------------
 */

json_t *extract_report(const struct extraction *x)
{
    const struct gyaru_model_info *info = gyaru_model_info(x->model);
    json_t *model =
        json_pack("{s:s, s:s, s:i, s:i}", "name", info->name, "fingerprint", info->fingerprint,
                  "n_layers", info->n_layers, "hidden_size", info->hidden_size);
    json_t *dataset = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "path", x->dataset.path, "sha256", x->dataset.sha256,
        "pairs", (json_int_t)x->dataset.n, "duplicates", (json_int_t)x->dataset.n_duplicates,
        "training", (json_int_t)x->counts[PART_TRAIN], "validation",
        (json_int_t)x->counts[PART_VALIDATION], "test", (json_int_t)x->counts[PART_TEST]);
    json_t *options = json_pack(
        "{s:s, s:s, s:s, s:s, s:b, s:b, s:I}", "method", direction_method_name(x->method),
        "position", extract_position_name(x->position), "scale", extract_scale_name(x->scale),
        "hook", x->hook == HOOK_RESID_PRE ? "resid_pre" : "resid_post", "auto", x->automatic,
        "split", x->split, "seed", (json_int_t)x->options->seed);
    return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:I}", "report",
                     "extract", "version", 1, "model", model, "dataset", dataset, "options",
                     options, "vector", x->written ? json_string(x->path) : json_null(),
                     "best_layer",
                     x->best < 0 ? json_null() : json_integer(x->layers[x->best].layer), "layers",
                     layers_json(x), "methods", methods_json(x), "warnings", warnings_json(x),
                     "seconds", x->seconds, "resumed_pairs", (json_int_t)x->capture.n_resumed);
}
