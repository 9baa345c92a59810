/* extract_methods.c - see extract_methods.h. */
#include "steer/extract_methods.h"

#include "steer/extract.h"
#include "steer/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TIE     0.005 /* AUROCs that are no further apart are alike */
#define GARBLED 0.05  /* more broken answers than without steering make a dose too large */

static enum capture_position position_of(const struct extraction *x, enum direction_method method)
{
    if (method == METHOD_PCA_LAST)
        return POSITION_LAST;
    return x->method == METHOD_PCA_LAST ? POSITION_CONTENT : x->position;
}

static enum vector_hook hook_of(enum direction_method method)
{
    return method == METHOD_PCA_LAST ? HOOK_RESID_PRE : HOOK_RESID_POST;
}

static struct method_layer *method_at(const struct extraction *x, size_t layer, int method)
{
    return &x->methods.at[layer * DIRECTION_METHODS + (size_t)method];
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* ---- separation -------------------------------------------------------------------------------
 */

/* direction = sum of weights[i] * difference i, of length 1. */
static void make_direction(const struct layer_data *data, const double *weights, double *direction)
{
    for (size_t i = 0; i < data->n_train; i++)
        for (size_t h = 0; h < data->hidden; h++)
            direction[h] += weights[i] * data->train[i * data->hidden + h];
    double length = sqrt(dot(direction, direction, data->hidden));
    for (size_t h = 0; h < data->hidden; h++)
        direction[h] /= length;
}

/* For the first centred component this is the explained variance ratio. */
static int share_of_variance(const struct layer_data *data, const double *direction, double *out,
                             struct gyaru_error *err)
{
    double *mean = calloc(data->hidden, sizeof *mean), along = 0, all = 0;
    if (!mean)
        return error_memory(err, data->hidden * sizeof *mean, "a mean");
    for (size_t i = 0; i < data->n_train; i++)
        for (size_t h = 0; h < data->hidden; h++)
            mean[h] += data->train[i * data->hidden + h] / (double)data->n_train;
    double middle = dot(mean, direction, data->hidden);
    for (size_t i = 0; i < data->n_train; i++) {
        const double *row = data->train + i * data->hidden;
        double from = dot(row, direction, data->hidden) - middle;
        along += from * from;
        for (size_t h = 0; h < data->hidden; h++)
            all += (row[h] - mean[h]) * (row[h] - mean[h]);
    }
    *out = all > 0 ? along / all : 0;
    free(mean);
    return 0;
}

static int content_auroc(const struct layer_data *content, const double *direction, double *out,
                         struct gyaru_error *err)
{
    size_t n = content->n_held;
    double *scores = malloc(2 * n * sizeof *scores);
    if (!scores)
        return error_memory(err, 2 * n * sizeof *scores, "the scores");
    for (size_t i = 0; i < n; i++) {
        scores[i] = dot(content->positive + i * content->hidden, direction, content->hidden);
        scores[n + i] = dot(content->negative + i * content->hidden, direction, content->hidden);
    }
    *out = validate_auroc(scores, scores + n, n);
    free(scores);
    return 0;
}

static int measure_method(const struct extraction *x, enum direction_method method,
                          const struct layer_data *data, const struct layer_data *content,
                          double *weights, struct method_layer *at, struct gyaru_error *err)
{
    struct validate_options options;
    struct layer_stats stats;
    struct gyaru_error why;
    validate_options_init(&options);
    options.method = method;
    options.seed = x->options->seed;
    options.n_controls = 0;
    at->auroc = at->cohens_d = at->split_half = at->content_auroc = at->explained_variance = NAN;
    if (validate_layer(data, &options, &stats, weights, &why)) {
        *err = why;
        return why.status == GYARU_FAILED ? 0 : -1; /* no direction is a finding */
    }
    at->direction = calloc(data->hidden, sizeof *at->direction);
    if (!at->direction)
        return error_memory(err, data->hidden * sizeof *at->direction, "a direction");
    make_direction(data, weights, at->direction);
    at->found = true;
    at->auroc = stats.auroc;
    at->cohens_d = stats.cohens_d;
    at->split_half = stats.split_half;
    return share_of_variance(data, at->direction, &at->explained_variance, err) ||
                   content_auroc(content, at->direction, &at->content_auroc, err)
               ? -1
               : 0;
}

static int measure_layer(struct extraction *x, size_t layer, struct gyaru_error *err)
{
    struct layer_data data[CAPTURE_POSITIONS];
    double *blocks[CAPTURE_POSITIONS];
    double *weights = malloc(x->counts[PART_TRAIN] * sizeof *weights);
    int rc = weights ? 0 : error_memory(err, x->counts[PART_TRAIN] * sizeof *weights, "weights");
    for (int p = 0; p < CAPTURE_POSITIONS; p++) {
        blocks[p] = extract_gather(x, x->layers[layer].layer, (enum capture_position)p, &data[p]);
        if (!rc && !blocks[p])
            rc = error_memory(err, x->dataset.n * x->capture.hidden * sizeof **blocks,
                              "a layer's differences");
    }
    for (int m = 0; !rc && m < DIRECTION_METHODS; m++)
        rc = measure_method(x, (enum direction_method)m,
                            &data[position_of(x, (enum direction_method)m)],
                            &data[POSITION_CONTENT], weights, method_at(x, layer, m), err);
    for (int p = 0; p < CAPTURE_POSITIONS; p++)
        free(blocks[p]);
    free(weights);
    return rc;
}

int methods_measure(struct extraction *x, struct gyaru_error *err)
{
    const struct gyaru_extract_options *o = x->options;
    size_t n = x->n_layers * DIRECTION_METHODS;
    x->methods.at = calloc(n, sizeof *x->methods.at);
    if (!x->methods.at)
        return error_memory(err, n * sizeof *x->methods.at, "the methods");
    for (size_t i = 0; i < x->n_layers; i++) {
        if (o->progress && o->progress(o->progress_user, "comparing methods", i, x->n_layers))
            return extract_interrupted(x, err);
        if (measure_layer(x, i, err))
            return -1;
    }
    return 0;
}

/* ---- effect -----------------------------------------------------------------------------------
 */

static int make_vector(const struct extraction *x, enum direction_method method,
                       struct gyaru_vector **out, struct gyaru_error *err)
{
    size_t hidden = x->capture.hidden, n = 0;
    float *direction = malloc(hidden * sizeof *direction);
    struct gyaru_vector *v;
    if (!direction)
        return error_memory(err, hidden * sizeof *direction, "a direction");
    if (vector_new((int)hidden, hook_of(method), &v, err)) {
        free(direction);
        return -1;
    }
    const char *fingerprint = gyaru_model_info(x->model)->fingerprint;
    int rc = vector_set_metadata(v, "model_fingerprint", fingerprint, err);
    for (size_t i = 0; i < x->n_layers; i++)
        n += x->layers[i].selected && method_at(x, i, (int)method)->found;
    for (size_t i = 0; !rc && i < x->n_layers; i++) {
        const struct method_layer *at = method_at(x, i, (int)method);
        if (!x->layers[i].selected || !at->found)
            continue;
        double length = x->options->step / 100 * x->layers[i].residual_norm / (double)n;
        for (size_t h = 0; h < hidden; h++)
            direction[h] = (float)(length * at->direction[h]);
        rc = vector_set_direction(v, x->layers[i].layer, direction, err);
    }
    free(direction);
    if (rc)
        gyaru_vector_close(v);
    else
        *out = v;
    return rc;
}

/* Rows of the butler test without their answers; NULL on failure. */
static json_t *measure_rows(const struct extraction *x, int vector, const float *strengths,
                            size_t n, struct gyaru_error *err)
{
    struct gyaru_measure_options options = *x->options->effect;
    char *text;
    options.vector = vector;
    options.strengths = strengths;
    options.n_strengths = n;
    if (gyaru_measure(x->model, &options, &text, err))
        return NULL;
    json_t *report = json_parse_text(text, strlen(text), "the answers' report", err), *row;
    json_t *rows = json_incref(json_object_get(report, "rows"));
    size_t i;
    json_array_foreach(rows, i, row) json_object_del(row, "answers");
    json_decref(report);
    free(text);
    return rows;
}

static json_t *measure_effect(const struct extraction *x, enum direction_method method,
                              struct gyaru_error *err)
{
    const struct gyaru_measure_options *o = x->options->effect;
    struct gyaru_attach_options options;
    struct gyaru_vector *v = NULL;
    char *warning;
    int index;
    if (make_vector(x, method, &v, err))
        return NULL;
    gyaru_attach_options_init(&options);
    int rc = gyaru_model_attach(x->model, v, &options, &index, &warning, err);
    gyaru_vector_close(v);
    if (rc)
        return NULL;
    free(warning); /* there is no meter: nothing else to say */
    json_t *rows = measure_rows(x, index, o->strengths, o->n_strengths, err);
    gyaru_model_detach(x->model, index);
    return rows ? json_pack("{s:s, s:o}", "method", direction_method_name(method), "rows", rows)
                : NULL;
}

/* The row of most effect among those that break no more answers than they may; NULL: none. */
static const json_t *best_row(const json_t *rows, const json_t *base)
{
    const json_t *row, *best = NULL;
    double most = json_number_at(base, "garbled") + GARBLED;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        if (json_number_at(row, "garbled") <= most + 1e-9 &&
            (!best || json_number_at(row, "marker") > json_number_at(best, "marker")))
            best = row;
    }
    return best;
}

/* Which method reaches most; equal ones: at the smaller dose. */
static const char *choose_effect(json_t *methods, const json_t *base)
{
    json_t *method;
    const json_t *best = NULL;
    const char *wins = NULL;
    size_t i;
    json_array_foreach(methods, i, method)
    {
        const json_t *row = best_row(json_object_get(method, "rows"), base);
        json_object_set_new(method, "best_dose",
                            json_finite(row ? json_number_at(row, "strength") : NAN));
        double more =
            row && best ? json_number_at(row, "marker") - json_number_at(best, "marker") : 0;
        if (!row || (best && (more < 0 || (!(more > 0) && json_number_at(row, "strength") >=
                                                              json_number_at(best, "strength")))))
            continue;
        best = row;
        wins = json_text_at(method, "method");
    }
    return wins;
}

/* Methods whose best rate chance alone could have put below the winner's: two standard errors. */
static json_t *alike_in_effect(const json_t *methods, const json_t *base, const char *wins,
                               size_t answers)
{
    const json_t *method, *best = NULL;
    json_t *alike = json_array();
    size_t i;
    json_array_foreach(methods, i, method)
    {
        if (wins && !strcmp(json_text_at(method, "method"), wins))
            best = best_row(json_object_get(method, "rows"), base);
    }
    json_array_foreach(methods, i, method)
    {
        const json_t *row = best_row(json_object_get(method, "rows"), base);
        if (!best || !row || !strcmp(json_text_at(method, "method"), wins))
            continue;
        double a = json_number_at(best, "marker"), b = json_number_at(row, "marker");
        if (a - b <= 2 * hypot(measure_share_error(a, answers), measure_share_error(b, answers)))
            json_array_append_new(alike, json_string(json_text_at(method, "method")));
    }
    return alike;
}

static bool method_found(const struct extraction *x, int method)
{
    for (size_t i = 0; i < x->n_layers; i++)
        if (x->layers[i].selected && method_at(x, i, method)->found)
            return true;
    return false;
}

int methods_effect(struct extraction *x, struct gyaru_error *err)
{
    const struct gyaru_measure_options *o = x->options->effect;
    const float none = 0;
    json_t *base = measure_rows(x, -1, &none, 1, err), *methods = json_array();
    int rc = base && methods ? 0 : -1;
    for (int m = 0; !rc && m < DIRECTION_METHODS; m++) {
        if (!method_found(x, m))
            continue;
        json_t *method = measure_effect(x, (enum direction_method)m, err);
        rc = method ? json_array_append_new(methods, method) : -1;
    }
    if (!rc) {
        const char *wins = choose_effect(methods, json_array_get(base, 0));
        json_t *alike = alike_in_effect(methods, json_array_get(base, 0), wins, o->n_messages);
        x->methods.effect =
            json_pack("{s:s?, s:o, s:s?, s:I, s:i, s:O, s:O}", "wins", wins, "alike", alike,
                      "system", o->system, "messages", (json_int_t)o->n_messages, "max_tokens",
                      o->max_tokens, "base", json_array_get(base, 0), "methods", methods);
        rc = x->methods.effect ? 0 : error_memory(err, 1 << 16, "the methods' report");
    }
    json_decref(base);
    json_decref(methods);
    return rc;
}

/* ---- report -----------------------------------------------------------------------------------
 */

static json_t *figures_json(const struct method_layer *at)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "auroc", json_finite(at->auroc), "content_auroc",
                     json_finite(at->content_auroc), "cohens_d", json_finite(at->cohens_d),
                     "split_half_cosine", json_finite(at->split_half), "explained_variance_ratio",
                     json_finite(at->explained_variance));
}

/* NaN where one of them is not there. */
static double cosine(const struct extraction *x, size_t layer, int a, int b)
{
    const struct method_layer *one = method_at(x, layer, a), *other = method_at(x, layer, b);
    return one->found && other->found ? dot(one->direction, other->direction, x->capture.hidden)
                                      : NAN;
}

static json_t *layer_json(const struct extraction *x, size_t layer)
{
    json_t *out = json_pack("{s:i}", "layer", x->layers[layer].layer);
    for (int m = 0; m < DIRECTION_METHODS; m++) {
        json_t *figures = figures_json(method_at(x, layer, m)), *cosines = json_object();
        for (int other = 0; other < DIRECTION_METHODS; other++)
            json_object_set_new(cosines, direction_method_name((enum direction_method)other),
                                json_finite(cosine(x, layer, m, other)));
        json_object_set_new(figures, "cosine", cosines);
        json_object_set_new(out, direction_method_name((enum direction_method)m), figures);
    }
    return out;
}

/* Means over the layers of the file, or over all if none is in it. */
static struct method_layer summary_of(const struct extraction *x, int method, double *cosine_mean)
{
    struct method_layer sum = {.found = true};
    double n = 0;
    *cosine_mean = 0;
    for (size_t i = 0; i < x->n_layers; i++) {
        const struct method_layer *at = method_at(x, i, method);
        if ((x->n_selected && !x->layers[i].selected) || !at->found)
            continue;
        sum.auroc += at->auroc;
        sum.content_auroc += at->content_auroc;
        sum.cohens_d += at->cohens_d;
        sum.split_half += at->split_half;
        sum.explained_variance += at->explained_variance;
        *cosine_mean += cosine(x, i, method, METHOD_MEAN);
        n++;
    }
    sum.auroc /= n;
    sum.content_auroc /= n;
    sum.cohens_d /= n;
    sum.split_half /= n;
    sum.explained_variance /= n;
    *cosine_mean /= n;
    return sum;
}

/* Separates the answers' own tokens best; those that do it alike: the larger effect size. */
static int best_reader(const struct method_layer *sums)
{
    int best = -1;
    double most = -INFINITY;
    for (int m = 0; m < DIRECTION_METHODS; m++)
        if (sums[m].content_auroc > most)
            most = sums[m].content_auroc;
    for (int m = 0; m < DIRECTION_METHODS; m++)
        if (sums[m].content_auroc >= most - TIE &&
            (best < 0 || sums[m].cohens_d > sums[best].cohens_d))
            best = m;
    return best;
}

json_t *methods_json(const struct extraction *x)
{
    struct method_layer sums[DIRECTION_METHODS];
    if (!x->methods.at)
        return json_null();
    json_t *summary = json_array(), *layers = json_array(), *alike = json_array();
    for (int m = 0; m < DIRECTION_METHODS; m++) {
        enum direction_method method = (enum direction_method)m;
        double cosine_mean;
        sums[m] = summary_of(x, m, &cosine_mean);
        json_t *figures = figures_json(&sums[m]);
        json_object_set_new(figures, "cosine_mean", json_finite(cosine_mean));
        json_object_set_new(figures, "method", json_string(direction_method_name(method)));
        json_object_set_new(figures, "position",
                            json_string(extract_position_name(position_of(x, method))));
        json_array_append_new(summary, figures);
    }
    for (size_t i = 0; i < x->n_layers; i++)
        json_array_append_new(layers, layer_json(x, i));
    int best = best_reader(sums);
    for (int m = 0; best >= 0 && m < DIRECTION_METHODS; m++)
        if (m != best && sums[m].content_auroc >= sums[best].content_auroc - TIE)
            json_array_append_new(alike,
                                  json_string(direction_method_name((enum direction_method)m)));
    return json_pack("{s:s?, s:o, s:o, s:o, s:O?}", "separates_best",
                     best < 0 ? NULL : direction_method_name((enum direction_method)best), "alike",
                     alike, "summary", summary, "layers", layers, "effect", x->methods.effect);
}

void methods_release(struct extraction *x)
{
    for (size_t i = 0; x->methods.at && i < x->n_layers * DIRECTION_METHODS; i++)
        free(x->methods.at[i].direction);
    free(x->methods.at);
    json_decref(x->methods.effect);
}
