/* tune_setup.c - what a run needs before it measures, and the vectors that it makes; see tune.h. */
#include "steer/tune.h"

#include "base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED_DEFAULT 1
#define FEW_MESSAGES 4

/* ---- vectors ----------------------------------------------------------------------------------
 */

static int copy_metadata(const struct tuning *t, struct gyaru_vector *to, struct gyaru_error *err)
{
    static const char *const derived[] = {"format", "version", "hook", "hidden_size", "meter"};
    for (size_t i = 0; i < t->vector->n_metadata; i++) {
        const struct vector_pair *pair = &t->vector->metadata[i];
        bool skip = false;
        for (size_t d = 0; d < sizeof derived / sizeof *derived; d++)
            skip = skip || !strcmp(pair->key, derived[d]);
        if (!skip && vector_set_metadata(to, pair->key, pair->value, err))
            return -1;
    }
    return 0;
}

/* A direction's floats, scaled, or random ones of the same length. */
static void fill(const struct vector_layer *layer, size_t hidden, double factor, uint64_t *random,
                 double length, float *out)
{
    double square = 0;
    if (!random) {
        for (size_t h = 0; h < hidden; h++)
            out[h] = (float)(factor * (double)layer->direction[h]);
        return;
    }
    for (size_t h = 0; h < hidden; h++) {
        out[h] = (float)random_normal(random);
        square += (double)out[h] * (double)out[h];
    }
    for (size_t h = 0; h < hidden; h++)
        out[h] = (float)((double)out[h] * factor * length / sqrt(square));
}

static int copy_layer(const struct tuning *t, const struct vector_layer *layer, double factor,
                      uint64_t *random, struct gyaru_vector *to, struct gyaru_error *err)
{
    size_t hidden = (size_t)t->vector->info.hidden_size;
    float *direction = malloc(hidden * sizeof *direction);
    if (!direction)
        return error_memory(err, hidden * sizeof *direction, "a direction");
    fill(layer, hidden, factor, random, vector_norm(t->vector, layer->layer), direction);
    int rc = vector_set_direction(to, layer->layer, direction, err);
    free(direction);
    if (rc || random || !layer->has_meter)
        return rc;
    /* v.h grows with v; the stream does not. */
    struct vector_meter meter = {(float)(factor * (double)layer->meter.m_plus),
                                 (float)(factor * (double)layer->meter.m_minus),
                                 layer->meter.residual_norm};
    return vector_set_meter(to, layer->layer, &meter, err);
}

int tune_make_vector(const struct tuning *t, int first, int last, double factor,
                     const uint64_t *seed, struct gyaru_vector **out, struct gyaru_error *err)
{
    struct gyaru_vector *v;
    uint64_t random = seed ? *seed : 0;
    if (vector_new(t->vector->info.hidden_size, t->vector->hook, &v, err))
        return -1;
    int rc = copy_metadata(t, v, err);
    for (int i = 0; !rc && i < t->vector->info.n_directions; i++) {
        const struct vector_layer *layer = &t->vector->layers[i];
        if (layer->layer >= first && layer->layer <= last)
            rc = copy_layer(t, layer, factor, seed ? &random : NULL, v, err);
    }
    if (rc)
        gyaru_vector_close(v);
    else
        *out = v;
    return rc;
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static int set_number(struct gyaru_vector *v, const char *key, double value,
                      struct gyaru_error *err)
{
    char text[40];
    snprintf(text, sizeof text, "%.6g", value);
    return vector_set_metadata(v, key, text, err);
}

int tune_write(struct tuning *t, struct gyaru_error *err)
{
    const struct tune_candidate *c = &t->candidates[t->best];
    double chosen = (double)c->points[t->best_point].strength;
    t->scaled = t->options->rescale > 0 ? chosen / t->options->rescale : 1;
    struct gyaru_vector *v;
    char *warning = NULL;
    if (tune_make_vector(t, c->first, c->last, c->factor * t->scaled, NULL, &v, err))
        return -1;
    int rc = set_number(v, "recommended_strength", chosen / t->scaled, err);
    if (!rc)
        rc = set_number(v, "max_strength", (double)t->max_strength / t->scaled, err);
    if (!rc && fabs(c->factor * t->scaled - 1) > 1e-12)
        rc = vector_set_metadata(v, "scale", "tuned", err);
    if (!rc)
        rc = vector_set_metadata(v, "tuned_layers", c->name, err);
    if (!rc)
        rc = set_number(v, "tuned_factor", c->factor * t->scaled, err);
    if (!rc)
        rc = vector_save(v, t->out, &warning, err);
    t->written = !rc;
    free(warning);
    gyaru_vector_close(v);
    return rc;
}

/* ---- candidates -------------------------------------------------------------------------------
 */

/* What one unit of strength moves at a layer, as a fraction of the stream where that is known. */
static double shift_of(const struct gyaru_vector *v, int layer)
{
    const struct vector_meter *meter = vector_meter(v, layer);
    double norm = vector_norm(v, layer);
    return meter ? norm / (double)meter->residual_norm : norm;
}

static double shift_between(const struct gyaru_vector *v, int first, int last, int *n)
{
    double sum = 0;
    *n = 0;
    for (int i = 0; i < v->info.n_directions; i++) {
        int layer = v->layers[i].layer;
        if (layer < first || layer > last)
            continue;
        sum += shift_of(v, layer);
        ++*n;
    }
    return sum;
}

static void add_candidate(struct tuning *t, const char *name, int first, int last)
{
    const struct gyaru_vector *v = t->vector;
    int n, all;
    double shift = shift_between(v, first, last, &n);
    double whole = shift_between(v, v->info.layer_min, v->info.layer_max, &all);
    for (size_t i = 0; i < t->n_candidates; i++) {
        int same;
        shift_between(v, first > t->candidates[i].first ? first : t->candidates[i].first,
                      last < t->candidates[i].last ? last : t->candidates[i].last, &same);
        if (same == n && n == t->candidates[i].n_layers)
            return; /* the same layers under another name */
    }
    if (!n)
        return;
    struct tune_candidate *c = &t->candidates[t->n_candidates++];
    *c = (struct tune_candidate){.first = first,
                                 .last = last,
                                 .n_layers = n,
                                 .factor = n == all ? 1 : whole / shift,
                                 .budget_strength = NAN,
                                 .budget_gain = NAN};
    snprintf(c->name, sizeof c->name, "%s", name);
}

/* The layer that validation liked best, else the one whose classes lie furthest apart for its
 * length and stream, else the middle one. Index into the vector's layers. */
static int best_layer(const struct gyaru_vector *v)
{
    const char *text = vector_metadata(v, "best_layer");
    int best = v->info.n_directions / 2;
    double most = -INFINITY;
    for (int i = 0; i < v->info.n_directions; i++) {
        const struct vector_layer *layer = &v->layers[i];
        if (text && atoi(text) == layer->layer)
            return i;
        if (!layer->has_meter)
            continue;
        double apart = (double)(layer->meter.m_plus - layer->meter.m_minus) /
                       (vector_norm(v, layer->layer) * (double)layer->meter.residual_norm);
        if (apart > most) {
            most = apart;
            best = i;
        }
    }
    return best;
}

static int make_candidates(struct tuning *t, struct gyaru_error *err)
{
    static const int windows[] = {1, 3, 5, 9};
    const struct gyaru_vector *v = t->vector;
    const struct gyaru_model_info *info = gyaru_model_info(t->model);
    size_t most = 2 + sizeof windows / sizeof *windows;
    t->candidates = calloc(most, sizeof *t->candidates);
    if (!t->candidates)
        return error_memory(err, most * sizeof *t->candidates, "the candidates");
    add_candidate(t, "all", v->info.layer_min, v->info.layer_max);
    if (t->options->own_layers)
        return 0;
    add_candidate(t, "range", info->layer_first, info->layer_last);
    int best = best_layer(v), n = v->info.n_directions;
    for (size_t i = 0; i < sizeof windows / sizeof *windows && windows[i] < n; i++) {
        /* A window at the edge keeps its width. */
        int first = best - windows[i] / 2;
        first = first < 0 ? 0 : first + windows[i] > n ? n - windows[i] : first;
        char name[32];
        snprintf(name, sizeof name, "window %d", windows[i]);
        add_candidate(t, name, v->layers[first].layer, v->layers[first + windows[i] - 1].layer);
    }
    return 0;
}

/* ---- pairs and messages -----------------------------------------------------------------------
 */

/* The split that the vector was made with, if these are its pairs: their test part was never seen.
 */
static int split_pairs(struct tuning *t, struct gyaru_error *err)
{
    const char *sha = vector_metadata(t->vector, "dataset_sha256");
    const char *split = vector_metadata(t->vector, "split");
    const char *seed = vector_metadata(t->vector, "seed");
    int shares[DATASET_PARTS] = {60, 20, 20}, own[DATASET_PARTS];
    uint64_t number = SEED_DEFAULT;
    bool same = sha && !strcmp(sha, t->dataset.sha256);
    t->same_split = !same; /* other pairs than the vector's were not seen either */
    if (same && split && seed &&
        sscanf(split, "%d/%d/%d", &own[0], &own[1], &own[2]) == DATASET_PARTS && own[1] > 0 &&
        own[2] > 0) {
        memcpy(shares, own, sizeof shares);
        number = strtoull(seed, NULL, 10);
        t->same_split = true;
    }
    t->parts = calloc(t->dataset.n, sizeof *t->parts);
    if (!t->parts)
        return error_memory(err, t->dataset.n * sizeof *t->parts, "the split");
    return dataset_split(&t->dataset, shares, number, t->parts, err);
}

static int encode_pair(struct tuning *t, const struct dataset_pair *pair, struct passage out[2],
                       struct gyaru_error *err)
{
    char what[200];
    char *message = dataset_message(t->options->prompt, pair->topic);
    if (!message)
        return error_memory(err, strlen(pair->topic), "a message");
    snprintf(what, sizeof what, "%.120s:%zu", t->dataset.path, pair->line);
    int rc =
        passage_encode(t->model, t->options->system, message, pair->positive, what, &out[0], err);
    if (!rc)
        rc = passage_encode(t->model, t->options->system, message, pair->negative, what, &out[1],
                            err);
    free(message);
    return rc;
}

/* The pairs of a part, evenly thinned to max_pairs. */
static int encode_part(struct tuning *t, enum dataset_part part, struct tune_material *m,
                       struct gyaru_error *err)
{
    size_t n = 0, most = (size_t)t->options->max_pairs, at = 0;
    for (size_t i = 0; i < t->dataset.n; i++)
        n += t->parts[i] == part;
    size_t kept = n < most ? n : most;
    if (kept < 2)
        return error_set(err, GYARU_FAILED,
                         "%s: %zu held-out pairs are too few to measure: add pairs",
                         t->dataset.path, n);
    m->pairs = calloc(kept, sizeof *m->pairs);
    if (!m->pairs)
        return error_memory(err, kept * sizeof *m->pairs, "the pairs");
    for (size_t i = 0; i < t->dataset.n; i++) {
        if (t->parts[i] != part)
            continue;
        bool keep = at * kept / n != (at + 1) * kept / n;
        at++;
        if (keep && encode_pair(t, &t->dataset.pairs[i], m->pairs[m->n_pairs++], err))
            return -1;
    }
    return 0;
}

/* Without messages: the user asks about each topic of the pairs. */
static int make_topics(struct tuning *t, struct gyaru_error *err)
{
    t->topics = calloc(t->dataset.n, sizeof *t->topics);
    if (!t->topics)
        return error_memory(err, t->dataset.n * sizeof *t->topics, "the messages");
    for (size_t i = 0; i < t->dataset.n; i++) {
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++)
            seen = !strcmp(t->dataset.pairs[k].topic, t->dataset.pairs[i].topic);
        if (seen)
            continue;
        t->topics[t->n_topics] = dataset_message(t->options->prompt, t->dataset.pairs[i].topic);
        if (!t->topics[t->n_topics])
            return error_memory(err, 100, "a message");
        t->n_topics++;
    }
    return 0;
}

/* Every other message is for confirmation. */
static int share_messages(struct tuning *t, struct gyaru_error *err)
{
    const char *const *messages = t->options->messages;
    size_t n = t->options->n_messages;
    if (!n) {
        if (make_topics(t, err))
            return -1;
        messages = (const char *const *)t->topics;
        n = t->n_topics;
    }
    if (n < FEW_MESSAGES)
        return error_set(err, GYARU_FAILED, "%zu messages are too few to measure: %d is the least",
                         n, FEW_MESSAGES);
    t->search.messages = calloc(n, sizeof *messages);
    t->confirm.messages = calloc(n, sizeof *messages);
    if (!t->search.messages || !t->confirm.messages)
        return error_memory(err, n * sizeof *messages, "the messages");
    for (size_t i = 0; i < n; i++) {
        struct tune_material *m = i % 2 ? &t->confirm : &t->search;
        m->messages[m->n_messages++] = messages[i];
    }
    return 0;
}

/* ---- all --------------------------------------------------------------------------------------
 */

static int check_options(const struct tuning *t, struct gyaru_error *err)
{
    const struct gyaru_tune_options *o = t->options;
    if (!gyaru_model_tokenizer(t->model))
        return error_set(err, GYARU_USAGE, "tune: a random model has no words");
    if (!o->n_ladder || o->max_pairs < 2 || o->max_tokens < 1 || !(o->kl_budget > 0) ||
        !(o->rescale >= 0) || !(o->rescale <= (double)GYARU_STRENGTH_MAX))
        return error_set(err, GYARU_USAGE,
                         "tune: expected a ladder, at least 2 pairs, 1 token, a KL budget above 0 "
                         "and a rescale of 0..%g",
                         (double)GYARU_STRENGTH_MAX);
    for (size_t i = 1; i < o->n_ladder; i++)
        if (!(o->ladder[i] > o->ladder[i - 1]))
            return error_set(err, GYARU_USAGE, "tune: the ladder must ascend");
    const char *dot = strrchr(t->out, '.');
    if (!dot || strcmp(dot, ".safetensors"))
        return error_set(err, GYARU_USAGE,
                         "%s: only .safetensors holds the strengths: name the file with -o, or "
                         "convert it first",
                         t->out);
    return 0;
}

static int check_vector(struct tuning *t, struct gyaru_error *err)
{
    const struct gyaru_model_info *info = gyaru_model_info(t->model);
    struct vector_model model = {info->dir, info->fingerprint, info->hidden_size, info->n_layers};
    return vector_admit(&model, t->vector, t->options->force, &t->warning, err);
}

int tune_setup(struct tuning *t, struct gyaru_error *err)
{
    const struct gyaru_tune_options *o = t->options;
    struct dataset_keys keys = {o->topic_key, o->positive_key, o->negative_key};
    if (check_options(t, err) || gyaru_vector_open(t->path, &t->vector, err) ||
        check_vector(t, err) || text_style_open(o->style, &t->style, err) ||
        dataset_open(o->dataset, &keys, &t->dataset, err) || split_pairs(t, err) ||
        encode_part(t, PART_VALIDATION, &t->search, err) ||
        encode_part(t, PART_TEST, &t->confirm, err) || share_messages(t, err))
        return -1;
    return make_candidates(t, err);
}

static void release_material(struct tune_material *m)
{
    for (size_t i = 0; i < m->n_pairs; i++) {
        passage_release(&m->pairs[i][0]);
        passage_release(&m->pairs[i][1]);
    }
    free(m->pairs);
    free(m->messages);
}

void tune_release(struct tuning *t)
{
    for (size_t i = 0; i < t->n_candidates; i++)
        free(t->candidates[i].points);
    for (size_t i = 0; i < t->n_topics; i++)
        free(t->topics[i]);
    free(t->topics);
    free(t->candidates);
    free(t->parts);
    free(t->warning);
    release_material(&t->search);
    release_material(&t->confirm);
    json_decref(t->answers);
    dataset_release(&t->dataset);
    text_style_close(t->style);
    if (t->vector)
        gyaru_vector_close(t->vector);
    journal_close(&t->journal, t->written);
}
