/*
 * tune_measure.c - what a vector does at one strength, and the journal that keeps it; see tune.h.
 *
 * The search is a function of what is measured, so a resumed run asks for the same measurements in
 * the same order: the journal's records are taken one by one until they end.
 */
#include "steer/tune.h"

#include "base/str.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS 4096 /* more than any search takes */
#define HEAD    3    /* floats before the figures: who, kind, strength */
#define SHOWN   6    /* answers kept for the report */

enum kind { KIND_READ, KIND_ANSWERED };

const char *const tune_figure_names[FIGURES] = {
    [FIGURE_KL_MEAN] = "kl_mean",
    [FIGURE_KL_P95] = "kl_p95",
    [FIGURE_GAIN] = "gain",
    [FIGURE_WRONG] = "wrong_way",
    [FIGURE_READ_COSINE] = "projection",
    [FIGURE_MARKER] = "marker",
    [FIGURE_SIGNATURE] = "signature",
    [FIGURE_POLITE] = "polite",
    [FIGURE_GARBLED] = "garbled",
    [FIGURE_NO_END] = "no_end",
    [FIGURE_INVALID] = "invalid_utf8",
    [FIGURE_SCRIPT] = "script",
    [FIGURE_LOOP] = "loop",
    [FIGURE_REPETITION] = "repetition_4",
    [FIGURE_DISTINCT_1] = "distinct_1",
    [FIGURE_DISTINCT_2] = "distinct_2",
    [FIGURE_NLL] = "nll",
    [FIGURE_COSINE] = "cosine",
    [FIGURE_GAUGE] = "gauge",
    [FIGURE_TOKENS] = "tokens",
};

/* ---- journal ----------------------------------------------------------------------------------
 */

static void hash_text(struct sha256 *hash, const char *text)
{
    sha256_update(hash, text ? text : "\xff", strlen(text ? text : "\xff") + 1);
}

/* The model's own, but for the temperature of the butler test. */
static void make_sampling(const struct tuning *t, struct gyaru_sampling *out)
{
    gyaru_sampling_init(t->model, out);
    out->temperature = 0.7f;
    out->seed = t->options->seed;
}

/* Names everything that the figures depend on. */
static void make_key(const struct tuning *t, uint8_t key[SHA256_BYTES])
{
    const struct gyaru_tune_options *o = t->options;
    const struct gyaru_vector *v = t->vector;
    const char *const texts[] = {"tune 3",
                                 t->model->info.fingerprint,
                                 t->model->backend->name,
                                 gyaru_kv_name(t->model->shape.kv),
                                 tokenizer_template_sha256(t->model->tokenizer),
                                 t->dataset.sha256,
                                 o->topic_key,
                                 o->positive_key,
                                 o->negative_key,
                                 text_style_sha256(t->style),
                                 o->system,
                                 o->style_system,
                                 o->prompt};
    struct gyaru_sampling sampling;
    make_sampling(t, &sampling);
    const double numbers[] = {
        o->kl_budget,           o->own_layers,           o->max_pairs,
        o->max_tokens,          t->model->shape.context, (double)sampling.temperature,
        (double)sampling.top_p, (double)sampling.min_p,  (double)sampling.repeat_penalty,
        sampling.top_k};
    struct sha256 hash;
    sha256_init(&hash);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        hash_text(&hash, texts[i]);
    for (size_t i = 0; i < o->n_messages; i++)
        hash_text(&hash, o->messages[i]);
    sha256_update(&hash, numbers, sizeof numbers);
    sha256_update(&hash, &o->seed, sizeof o->seed);
    sha256_update(&hash, o->ladder, o->n_ladder * sizeof *o->ladder);
    sha256_update(&hash, &v->hook, sizeof v->hook);
    for (size_t i = 0; i < t->dataset.n; i++)
        sha256_update(&hash, &t->parts[i], sizeof t->parts[i]);
    for (int i = 0; i < v->info.n_directions; i++) {
        sha256_update(&hash, &v->layers[i].layer, sizeof v->layers[i].layer);
        sha256_update(&hash, v->layers[i].direction,
                      (size_t)v->info.hidden_size * sizeof *v->layers[i].direction);
    }
    sha256_final(&hash, key);
}

int tune_journal_open(struct tuning *t, struct gyaru_error *err)
{
    uint8_t key[SHA256_BYTES];
    struct str path = STR_INIT;
    str_printf(&path, "%s.tune-journal", t->out);
    if (str_failed(&path))
        return error_memory(err, strlen(t->out), "a path");
    make_key(t, key);
    int rc = journal_open(path.data, key, HEAD + FIGURES, RECORDS, &t->journal, err);
    str_release(&path);
    if (!rc)
        rc = journal_map(&t->journal, err);
    t->n_resumed = rc ? 0 : t->journal.n_done;
    return rc;
}

static void figures_of(enum kind kind, int *first, int *end)
{
    *first = kind == KIND_READ ? 0 : FIGURES_READ;
    *end = kind == KIND_READ ? FIGURES_READ : FIGURES;
}

/* Takes the next record of an earlier run: 1, 0 if there is none left. */
static int replay(struct tuning *t, int who, enum kind kind, struct tune_point *point,
                  struct gyaru_error *err)
{
    if (t->n_used >= t->n_resumed)
        return 0;
    const float *record = journal_record(&t->journal, t->n_used);
    const float head[HEAD] = {(float)who, (float)kind, point->strength};
    if (memcmp(record, head, sizeof head))
        return error_set(err, GYARU_FAILED,
                         "%s: it belongs to another version of the program: remove it",
                         t->journal.path);
    int first, end;
    figures_of(kind, &first, &end);
    for (int f = first; f < end; f++)
        point->figures[f] = record[HEAD + f];
    t->n_used++;
    return 1;
}

static int keep(struct tuning *t, int who, enum kind kind, const struct tune_point *point,
                struct gyaru_error *err)
{
    float record[HEAD + FIGURES] = {(float)who, (float)kind, point->strength};
    int first, end;
    figures_of(kind, &first, &end);
    for (int f = first; f < end; f++)
        record[HEAD + f] = point->figures[f];
    if (t->journal.n_done >= RECORDS)
        return error_set(err, GYARU_FAILED, "%s: full", t->journal.path);
    t->n_used++;
    return journal_append(&t->journal, record, 1, err);
}

/* ---- progress ---------------------------------------------------------------------------------
 */

/* Parts of one measurement, as hundredths of it. What an earlier run had measured counts as
 * nothing: it took no time. */
static int show(void *user, const char *what, uint64_t done, uint64_t all)
{
    const struct tuning *t = user;
    const struct gyaru_tune_options *o = t->options;
    uint64_t skipped = t->n_used < t->n_resumed ? t->n_used : t->n_resumed;
    uint64_t now = t->done - skipped;
    uint64_t total = t->total > t->done ? t->total - skipped : now + 1;
    return o->progress ? o->progress(o->progress_user, "tuning",
                                     100 * now + (all ? 100 * done / all : 0), 100 * total)
                       : 0;
}

static int interrupted(const struct tuning *t, struct gyaru_error *err)
{
    return error_set(err, GYARU_FAILED,
                     "interrupted: %zu measurements are kept in %s; the same command goes on from "
                     "there",
                     t->journal.n_done, t->journal.path);
}

/* ---- reading pairs ----------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Nearest rank: the smallest value that 95% do not exceed. */
static float percentile_95(float *values, size_t n)
{
    if (!n)
        return 0;
    qsort(values, n, sizeof *values, by_value);
    return values[(95 * n + 99) / 100 - 1];
}

static size_t count_tokens(const struct tune_material *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_pairs; i++)
        for (int side = 0; side < 2; side++)
            n += m->pairs[i][side].n - m->pairs[i][side].first;
    return n;
}

struct sums {
    double gain, cosine;
    size_t wrong;
};

/* One pair: how much more the styled text gained on the plain one. */
static void take_pair(const struct passage_reading *plus, const struct passage_reading *minus,
                      float strength, struct sums *s)
{
    double gain = (plus->base_nll - plus->steered_nll) - (minus->base_nll - minus->steered_nll);
    s->gain += gain;
    s->cosine += (plus->cosine + minus->cosine) / 2;
    /* What is not finite went no way at all. */
    s->wrong += strength > 0 || strength < 0 ? !(gain * (double)strength > 0) : 0;
}

static int read_all(struct tuning *t, const struct tune_material *m, int vector,
                    struct tune_point *point, float *kl, struct gyaru_error *err)
{
    struct passage_reader reader;
    struct sums sums = {0};
    size_t n = 0;
    double kl_sum = 0, pairs = (double)m->n_pairs;
    if (passage_reader_init(&reader, t->model, vector, point->strength, err))
        return -1;
    for (size_t i = 0; i < m->n_pairs; i++) {
        struct passage_reading readings[2];
        for (int side = 0; side < 2; side++) {
            const struct passage *p = &m->pairs[i][side];
            if (passage_read(&reader, p, kl + n, &readings[side], err))
                return -1;
            n += p->n - p->first;
        }
        take_pair(&readings[0], &readings[1], point->strength, &sums);
        if (show(t, "reading", i, m->n_pairs))
            return interrupted(t, err);
    }
    for (size_t i = 0; i < n; i++)
        kl_sum += (double)kl[i];
    point->figures[FIGURE_KL_MEAN] = n ? (float)(kl_sum / (double)n) : 0;
    point->figures[FIGURE_KL_P95] = percentile_95(kl, n);
    point->figures[FIGURE_GAIN] = (float)(sums.gain / pairs);
    point->figures[FIGURE_WRONG] = (float)((double)sums.wrong / pairs);
    point->figures[FIGURE_READ_COSINE] = (float)(sums.cosine / pairs);
    return 0;
}

int tune_read_pairs(struct tuning *t, const struct tune_material *m, int who, int vector,
                    struct tune_point *point, struct gyaru_error *err)
{
    int rc = replay(t, who, KIND_READ, point, err);
    if (rc < 0)
        return -1;
    if (!rc) {
        size_t n = count_tokens(m);
        float *kl = malloc((n + 1) * sizeof *kl);
        if (!kl)
            return error_memory(err, n * sizeof *kl, "the divergences");
        rc = read_all(t, m, vector, point, kl, err);
        free(kl);
        if (rc || keep(t, who, KIND_READ, point, err))
            return -1;
    }
    point->read = true;
    t->done++;
    return 0;
}

/* ---- answers ----------------------------------------------------------------------------------
 */

/* NLL of the answer under a system prompt, without steering; nats, all tokens together. */
static int answer_nll(struct tuning *t, const char *system, const char *message,
                      const struct measure_answer *answer, double *out, struct gyaru_error *err)
{
    struct passage p;
    if (passage_of_ids(t->model, system, message, answer->ids, answer->n_tokens, "an answer", &p,
                       err))
        return -1;
    int rc = passage_nll(t->model, &p, out, err);
    *out *= (double)(p.n - p.first);
    passage_release(&p);
    return rc;
}

/* How foreign the answers are to the unsteered model. Each is read under the prompt that the vector
 * works against and under the one that asks for the style, and the one that expects it more counts:
 * neither the style nor its absence is damage. Nats per token over all answers. */
static int measure_nll(struct tuning *t, const struct tune_material *m,
                       const struct measure_set *set, float *out, struct gyaru_error *err)
{
    const struct gyaru_tune_options *o = t->options;
    double sum = 0, tokens = 0;
    for (size_t i = 0; i < set->n; i++) {
        const struct measure_answer *answer = &set->answers[i];
        double nll, styled = INFINITY;
        if (answer_nll(t, o->system, m->messages[i], answer, &nll, err) ||
            (o->style_system &&
             answer_nll(t, o->style_system, m->messages[i], answer, &styled, err)))
            return -1;
        sum += styled < nll ? styled : nll;
        tokens += (double)answer->n_tokens;
    }
    *out = tokens > 0 ? (float)(sum / tokens) : 0;
    return 0;
}

static void take_figures(const struct measure_figures *f, float *out)
{
    out[FIGURE_MARKER] = (float)f->marker;
    out[FIGURE_SIGNATURE] = (float)f->signature;
    out[FIGURE_POLITE] = (float)f->polite;
    out[FIGURE_GARBLED] = (float)f->garbled;
    out[FIGURE_NO_END] = (float)f->faults[TEXT_NO_END];
    out[FIGURE_INVALID] = (float)f->invalid_utf8;
    out[FIGURE_SCRIPT] = (float)f->script;
    out[FIGURE_LOOP] = (float)f->faults[TEXT_LOOP];
    out[FIGURE_REPETITION] = (float)f->repetition;
    out[FIGURE_DISTINCT_1] = (float)f->distinct[0];
    out[FIGURE_DISTINCT_2] = (float)f->distinct[1];
    out[FIGURE_COSINE] = (float)f->cosine;
    out[FIGURE_GAUGE] = (float)f->gauge;
    out[FIGURE_TOKENS] = (float)f->length;
}

static int answer_all(struct tuning *t, const struct measure_plan *plan,
                      const struct tune_material *m, struct tune_point *point, json_t **answers,
                      struct gyaru_error *err)
{
    struct measure_set set;
    struct measure_figures figures;
    if (measure_run(plan, &set, err))
        return -1;
    int rc = measure_figures(&set, &figures, err);
    if (!rc)
        take_figures(&figures, point->figures);
    if (!rc)
        rc = measure_nll(t, m, &set, &point->figures[FIGURE_NLL], err);
    if (!rc && answers)
        *answers = measure_answers_json(&set, plan->messages, SHOWN);
    measure_set_release(&set);
    return rc;
}

int tune_answer(struct tuning *t, const struct tune_material *m, int who, const char *system,
                int vector, struct tune_point *point, json_t **answers, struct gyaru_error *err)
{
    /* Texts are not kept in the journal: who wants to see some measures anew. */
    int rc = answers ? 0 : replay(t, who, KIND_ANSWERED, point, err);
    if (rc < 0)
        return -1;
    if (!rc) {
        struct measure_plan plan = {.model = t->model,
                                    .style = t->style,
                                    .system = system,
                                    .messages = m->messages,
                                    .n_messages = m->n_messages,
                                    .vector = vector,
                                    .strength = point->strength,
                                    .max_tokens = t->options->max_tokens,
                                    .progress = show,
                                    .progress_user = t};
        make_sampling(t, &plan.sampling);
        struct gyaru_error why;
        if (answer_all(t, &plan, m, point, answers, &why)) {
            *err = why;
            return strcmp(why.text, "interrupted") ? -1 : interrupted(t, err);
        }
        if (!answers && keep(t, who, KIND_ANSWERED, point, err))
            return -1;
    }
    point->answered = true;
    t->done++;
    return 0;
}
