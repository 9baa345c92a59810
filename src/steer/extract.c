/*
 * extract.c - gyaru_extract(): pairs -> what the layers say -> directions, validated -> a file.
 *
 * Owner of everything a run holds (struct extraction). Directions come from the training part,
 * their validation from the validation part; the test part is left for `tune`, which makes the same
 * split from the seed in the file.
 */
#include "steer/extract.h"

#include "base/clock.h"
#include "base/str.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMPT    "トピック: {topic}\nこれについて話して。"
#define SPLIT_MIN 10 /* pairs: with fewer, a part would have next to none */

static const char *const position_names[CAPTURE_POSITIONS] = {
    [POSITION_LAST] = "last",
    [POSITION_CONTENT] = "content",
};

static const char *const scale_names[EXTRACT_SCALES] = {
    [SCALE_RAW] = "raw",
    [SCALE_UNIT] = "unit",
    [SCALE_RESIDUAL] = "residual",
};

const char *extract_position_name(enum capture_position position)
{
    return position_names[position];
}

const char *extract_scale_name(enum extract_scale scale)
{
    return scale_names[scale];
}

void gyaru_extract_options_init(struct gyaru_extract_options *options)
{
    *options = (struct gyaru_extract_options){.topic_key = "topic",
                                              .positive_key = "gyaru",
                                              .negative_key = "standard",
                                              .prompt = PROMPT,
                                              .method = "mean",
                                              .layer_first = -1,
                                              .layer_last = -1,
                                              .step = EXTRACT_STEP,
                                              .split = {60, 20, 20},
                                              .seed = 1};
}

/* ---- options ----------------------------------------------------------------------------------
 */

static int find_name(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

static int read_choices(struct extraction *x, struct gyaru_error *err)
{
    const struct gyaru_extract_options *o = x->options;
    int method = direction_method_find(o->method);
    if (method < 0)
        return error_set(err, GYARU_USAGE, "method '%.40s': expected mean, pca, pca_last or probe",
                         o->method);
    x->method = (enum direction_method)method;
    bool original = x->method == METHOD_PCA_LAST;
    int position = original ? POSITION_LAST : POSITION_CONTENT;
    if (o->position)
        position = find_name(position_names, CAPTURE_POSITIONS, o->position);
    if (position < 0)
        return error_set(err, GYARU_USAGE, "position '%.40s': expected content or last",
                         o->position);
    if (original && position != POSITION_LAST)
        return error_set(err, GYARU_USAGE,
                         "pca_last reads the last token: leave the position out, or use pca");
    x->position = (enum capture_position)position;
    int scale = original ? SCALE_UNIT : x->split ? SCALE_RESIDUAL : SCALE_RAW;
    if (o->scale)
        scale = find_name(scale_names, EXTRACT_SCALES, o->scale);
    if (scale < 0)
        return error_set(err, GYARU_USAGE, "scale '%.40s': expected raw, unit or residual",
                         o->scale);
    if (!(o->step > 0 && o->step <= 100))
        return error_set(err, GYARU_USAGE, "step: expected more than 0 and at most 100 percent");
    x->scale = (enum extract_scale)scale;
    x->hook = original ? HOOK_RESID_PRE : HOOK_RESID_POST;
    return 0;
}

/* The layers to measure. */
static int read_layers(struct extraction *x, struct gyaru_error *err)
{
    const struct gyaru_model_info *info = gyaru_model_info(x->model);
    int first = x->options->layer_first, last = x->options->layer_last;
    if (first < 0) {
        x->automatic = x->split;
        first = x->split ? 0 : info->layer_first;
        last = x->split ? info->n_layers - 1 : info->layer_last;
    }
    if (last < first || last >= info->n_layers)
        return error_set(err, GYARU_USAGE, "layers %d-%d: the model has 0-%d", first, last,
                         info->n_layers - 1);
    x->n_layers = (size_t)(last - first + 1);
    x->layers = calloc(x->n_layers, sizeof *x->layers);
    if (!x->layers)
        return error_memory(err, x->n_layers * sizeof *x->layers, "the layers");
    for (size_t i = 0; i < x->n_layers; i++) {
        x->layers[i].layer = first + (int)i;
        x->layers[i].direction = calloc((size_t)info->hidden_size, sizeof(double));
        if (!x->layers[i].direction)
            return error_memory(err, (size_t)info->hidden_size * sizeof(double), "a direction");
    }
    return 0;
}

/* Better to say it now than after an hour. */
static int check_path(const char *path, struct gyaru_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash : path, '.');
    if (dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".pt") || !strcmp(dot, ".gguf")))
        return 0;
    return error_set(err, GYARU_USAGE, "%s: the name must end in .safetensors, .pt or .gguf", path);
}

static int read_pairs(struct extraction *x, struct gyaru_error *err)
{
    const struct gyaru_extract_options *o = x->options;
    struct dataset_keys keys = {o->topic_key, o->positive_key, o->negative_key};
    if (dataset_open(o->dataset, &keys, &x->dataset, err))
        return -1;
    x->parts = calloc(x->dataset.n, sizeof *x->parts);
    if (!x->parts)
        return error_memory(err, x->dataset.n * sizeof *x->parts, "the split");
    if (x->split && x->dataset.n < SPLIT_MIN)
        return error_set(err, GYARU_FAILED,
                         "%s: %zu pairs cannot be split, %d is the least: add pairs, or do without "
                         "validation (--split none)",
                         o->dataset, x->dataset.n, SPLIT_MIN);
    if (x->split && dataset_split(&x->dataset, o->split, o->seed, x->parts, err))
        return -1;
    for (size_t i = 0; i < x->dataset.n; i++)
        x->counts[x->parts[i]]++;
    if (x->split && (x->counts[PART_TRAIN] < 4 || x->counts[PART_VALIDATION] < 2))
        return error_set(err, GYARU_USAGE,
                         "split %d/%d/%d of %zu pairs: at least 4 for training and 2 for "
                         "validation are needed",
                         o->split[0], o->split[1], o->split[2], x->dataset.n);
    return 0;
}

/* ---- one layer --------------------------------------------------------------------------------
 */

static void add_features(const float *f, size_t hidden, double factor, double *out)
{
    for (size_t h = 0; h < hidden; h++)
        out[h] += factor * (double)f[h];
}

double *extract_gather(const struct extraction *x, int layer, enum capture_position position,
                       struct layer_data *out)
{
    size_t hidden = x->capture.hidden, n = x->counts[PART_TRAIN];
    size_t m = x->split ? x->counts[PART_VALIDATION] : 0;
    double *block = calloc((n + 2 * m) * hidden, sizeof *block);
    if (!block)
        return NULL;
    double *train = block, *negative = train + n * hidden, *positive = negative + m * hidden;
    *out = (struct layer_data){train, positive, negative, n, m, hidden};
    for (size_t i = 0; i < x->dataset.n; i++) {
        const struct capture *c = &x->capture;
        const float *minus = capture_features(c, i, SIDE_NEGATIVE, position, (size_t)layer);
        const float *plus = capture_features(c, i, SIDE_POSITIVE, position, (size_t)layer);
        if (x->parts[i] == PART_TRAIN) {
            add_features(plus, hidden, 1, train);
            add_features(minus, hidden, -1, train);
            train += hidden;
        } else if (x->parts[i] == PART_VALIDATION && m) {
            add_features(minus, hidden, 1, negative);
            add_features(plus, hidden, 1, positive);
            negative += hidden;
            positive += hidden;
        }
    }
    return block;
}

static double length_of(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i] * v[i];
    return sqrt(sum);
}

static void scale_by(double *v, size_t n, double factor)
{
    for (size_t i = 0; i < n; i++)
        v[i] *= factor;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Over the training texts of both classes. */
static int measure_residual(const struct extraction *x, struct extract_layer *at,
                            struct gyaru_error *err)
{
    size_t n = 0, count = 2 * x->counts[PART_TRAIN];
    double *lengths = malloc(count * sizeof *lengths);
    if (!lengths)
        return error_memory(err, count * sizeof *lengths, "the lengths");
    for (size_t i = 0; i < x->dataset.n; i++)
        for (int side = 0; side < CAPTURE_SIDES && x->parts[i] == PART_TRAIN; side++)
            lengths[n++] =
                (double)capture_norms(&x->capture, i, (enum capture_side)side)[at->layer];
    qsort(lengths, n, sizeof *lengths, by_value);
    at->residual_norm = (lengths[(n - 1) / 2] + lengths[n / 2]) / 2;
    free(lengths);
    return 0;
}

/* Projections of the class means on the raw direction: always of the answers' own tokens, because
 * that is what the meter reads while the model speaks. */
static void measure_means(const struct extraction *x, struct extract_layer *at)
{
    for (int side = 0; side < CAPTURE_SIDES; side++) {
        double sum = 0;
        for (size_t i = 0; i < x->dataset.n; i++) {
            if (x->parts[i] != PART_TRAIN)
                continue;
            const float *f = capture_features(&x->capture, i, (enum capture_side)side,
                                              POSITION_CONTENT, (size_t)at->layer);
            for (size_t h = 0; h < x->capture.hidden; h++)
                sum += at->direction[h] * (double)f[h];
        }
        at->means[side] = sum / (double)x->counts[PART_TRAIN];
    }
}

static int measure_layer(struct extraction *x, struct extract_layer *at, struct gyaru_error *err)
{
    struct validate_options options;
    struct layer_data data;
    validate_options_init(&options);
    options.method = x->method;
    options.seed = x->options->seed;
    double *block = extract_gather(x, at->layer, x->position, &data);
    double *weights = malloc(x->counts[PART_TRAIN] * sizeof *weights);
    int rc = block && weights ? validate_layer(&data, &options, &at->stats, weights, err)
                              : error_memory(err, x->dataset.n * data.hidden * sizeof *block,
                                             "a layer's differences");
    for (size_t i = 0; !rc && i < data.n_train; i++)
        for (size_t h = 0; h < data.hidden; h++)
            at->direction[h] += weights[i] * data.train[i * data.hidden + h];
    free(block);
    free(weights);
    if (rc || measure_residual(x, at, err))
        return -1;
    double length = length_of(at->direction, data.hidden);
    if (x->method == METHOD_PCA || x->method == METHOD_PROBE)
        scale_by(at->direction, data.hidden, at->stats.norm / length);
    measure_means(x, at);
    at->measured = true;
    return 0;
}

int extract_interrupted(const struct extraction *x, struct gyaru_error *err)
{
    return error_set(err, GYARU_FAILED,
                     "interrupted: what the layers say is kept in %s; the same command goes on "
                     "from there",
                     x->capture.journal.path);
}

static int measure_all(struct extraction *x, struct gyaru_error *err)
{
    const struct gyaru_extract_options *o = x->options;
    x->best = -1;
    for (size_t i = 0; i < x->n_layers; i++) {
        struct extract_layer *at = &x->layers[i];
        if (o->progress && o->progress(o->progress_user, "measuring layers", i, x->n_layers))
            return extract_interrupted(x, err);
        if (measure_layer(x, at, err)) {
            char which[32];
            snprintf(which, sizeof which, "layer %d", at->layer);
            if (!x->automatic || err->status != GYARU_FAILED)
                return error_prefix(err, which);
            snprintf(at->fault, sizeof at->fault, "%.100s", err->text);
            continue;
        }
        const char *fault = x->split ? validate_fault(&at->stats) : NULL;
        snprintf(at->fault, sizeof at->fault, "%s", fault ? fault : "");
        if (x->split && (x->best < 0 || validate_better(&at->stats, &x->layers[x->best].stats)))
            x->best = (int)i;
    }
    return 0;
}

static int select_layers(struct extraction *x, struct gyaru_error *err)
{
    for (size_t i = 0; i < x->n_layers; i++) {
        struct extract_layer *at = &x->layers[i];
        at->selected = at->measured && (!x->automatic || !*at->fault);
        x->n_selected += at->selected;
    }
    if (x->n_selected)
        return 0;
    if (x->best < 0)
        return error_set(err, GYARU_FAILED,
                         "no layer has a direction: the pairs' texts do not differ in the model");
    const struct extract_layer *best = &x->layers[x->best];
    return error_set(err, GYARU_FAILED,
                     "no layer passes validation, no vector is written; the best, %d: AUROC %.2f "
                     "(%.2f is needed; shuffled labels reach %.2f), split-half %.2f (%.2f): use "
                     "more or clearer pairs, or name layers with --layers A-B, which is quick: "
                     "what the layers say is kept in %.120s",
                     best->layer, best->stats.auroc, VALIDATE_AUROC, best->stats.shuffled_auroc,
                     best->stats.split_half, VALIDATE_SPLIT_HALF, x->capture.journal.path);
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static double stored_length(const struct extraction *x, const struct extract_layer *at)
{
    if (x->scale == SCALE_UNIT)
        return 1;
    if (x->scale == SCALE_RESIDUAL)
        return x->options->step / 100 * at->residual_norm / (double)x->n_selected;
    return length_of(at->direction, x->capture.hidden);
}

static int store_layer(const struct extraction *x, struct extract_layer *at, struct gyaru_vector *v,
                       struct gyaru_error *err)
{
    size_t hidden = x->capture.hidden;
    at->stored_norm = stored_length(x, at);
    double factor = at->stored_norm / length_of(at->direction, hidden);
    float *direction = malloc(hidden * sizeof *direction);
    if (!direction)
        return error_memory(err, hidden * sizeof *direction, "a direction");
    for (size_t h = 0; h < hidden; h++)
        direction[h] = (float)(factor * at->direction[h]);
    struct vector_meter meter = {(float)(factor * at->means[SIDE_POSITIVE]),
                                 (float)(factor * at->means[SIDE_NEGATIVE]),
                                 (float)at->residual_norm};
    int rc = vector_set_direction(v, at->layer, direction, err);
    free(direction);
    return rc ? rc : vector_set_meter(v, at->layer, &meter, err);
}

/* Figures on the stored layers as JSON text: {"LAYER": {...}, ...}. */
static int set_statistics(const struct extraction *x, struct gyaru_vector *v,
                          struct gyaru_error *err)
{
    json_t *all = json_object();
    for (size_t i = 0; i < x->n_layers; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", x->layers[i].layer);
        if (x->layers[i].selected)
            json_object_set_new(all, key, extract_layer_json(&x->layers[i]));
    }
    char *text = json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(7));
    json_decref(all);
    if (!text)
        return error_memory(err, x->n_layers * 400, "the statistics");
    int rc = vector_set_metadata(v, "statistics", text, err);
    free(text);
    return rc;
}

static int set_metadata(const struct extraction *x, struct gyaru_vector *v, struct gyaru_error *err)
{
    const struct gyaru_model_info *info = gyaru_model_info(x->model);
    char numbers[5][64];
    snprintf(numbers[0], sizeof numbers[0], "%d", info->n_layers);
    snprintf(numbers[1], sizeof numbers[1], "%zu", x->dataset.n);
    snprintf(numbers[2], sizeof numbers[2], "%d/%d/%d", x->options->split[0], x->options->split[1],
             x->options->split[2]);
    snprintf(numbers[3], sizeof numbers[3], "%llu", (unsigned long long)x->options->seed);
    snprintf(numbers[4], sizeof numbers[4], "%d", x->best < 0 ? -1 : x->layers[x->best].layer);
    const char *const pairs[][2] = {
        {"model_fingerprint", info->fingerprint},
        {"model_name", info->name},
        {"n_layers", numbers[0]},
        {"method", direction_method_name(x->method)},
        {"position", extract_position_name(x->position)},
        {"scale", extract_scale_name(x->scale)},
        {"dataset_sha256", x->dataset.sha256},
        {"template_sha256", tokenizer_template_sha256(gyaru_model_tokenizer(x->model))},
        {"prompt", x->options->prompt},
        {"pairs", numbers[1]},
        {"split", x->split ? numbers[2] : "none"},
        {"seed", numbers[3]},
        {"best_layer", x->best < 0 ? NULL : numbers[4]},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i][1] && vector_set_metadata(v, pairs[i][0], pairs[i][1], err))
            return -1;
    return set_statistics(x, v, err);
}

static int write_vector(struct extraction *x, struct gyaru_error *err)
{
    struct gyaru_vector *v;
    char *warning = NULL;
    if (vector_new((int)x->capture.hidden, x->hook, &v, err))
        return -1;
    int rc = 0;
    for (size_t i = 0; !rc && i < x->n_layers; i++)
        if (x->layers[i].selected)
            rc = store_layer(x, &x->layers[i], v, err);
    if (!rc)
        rc = set_metadata(x, v, err);
    if (!rc)
        rc = vector_save(v, x->path, &warning, err);
    x->written = !rc;
    free(warning);
    gyaru_vector_close(v);
    return rc;
}

/* ---- all --------------------------------------------------------------------------------------
 */

static int capture_all(struct extraction *x, struct gyaru_error *err)
{
    const struct gyaru_extract_options *o = x->options;
    struct dataset_keys keys = {o->topic_key, o->positive_key, o->negative_key};
    struct str journal = STR_INIT;
    str_printf(&journal, "%s.journal", x->path);
    if (str_failed(&journal))
        return error_memory(err, strlen(x->path), "a path");
    struct capture_options options = {o->prompt, journal.data, o->progress, o->progress_user};
    int rc = capture_run(x->model, &x->dataset, &keys, &options, &x->capture, err);
    str_release(&journal);
    return rc;
}

static int make_report(const struct extraction *x, char **report, struct gyaru_error *err)
{
    json_t *json = extract_report(x);
    *report = json ? json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(7)) : NULL;
    json_decref(json);
    return *report ? 0 : error_memory(err, x->n_layers * 1000, "the report");
}

static int run(struct extraction *x, char **report, struct gyaru_error *err)
{
    double started = clock_seconds();
    if (check_path(x->path, err) || read_choices(x, err) || read_layers(x, err) ||
        read_pairs(x, err) || capture_all(x, err) || measure_all(x, err) ||
        (x->split && methods_measure(x, err)))
        return -1;
    int rc = select_layers(x, err);
    if (!rc && x->split && x->options->effect)
        rc = methods_effect(x, err);
    if (!rc)
        rc = write_vector(x, err);
    x->seconds = clock_seconds() - started;
    struct gyaru_error why;
    if (make_report(x, report, &why) && !rc)
        *err = why;
    return *report ? rc : -1;
}

int gyaru_extract(struct gyaru_model *model, const struct gyaru_extract_options *options,
                  const char *path, char **report, struct gyaru_error *err)
{
    struct extraction x = {.model = model,
                           .options = options,
                           .path = path,
                           .best = -1,
                           .capture = {.journal = {.fd = -1}}};
    x.split = options->split[0] || options->split[1] || options->split[2];
    *report = NULL;
    int rc = run(&x, report, err);
    capture_release(&x.capture, x.written);
    for (size_t i = 0; x.layers && i < x.n_layers; i++)
        free(x.layers[i].direction);
    free(x.layers);
    free(x.parts);
    methods_release(&x);
    dataset_release(&x.dataset);
    return rc;
}
