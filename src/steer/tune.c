/*
 * tune.c - gyaru_tune(): the search for the strength, its confirmation, and the file; see tune.h.
 *
 *     scan      every candidate climbs the ladder until the divergence exceeds its budget, then
 *               bisects to it; those that gain most at equal divergence are finalists
 *     answer    finalists answer messages along the whole ladder, at the budget's strength, and
 *               where the largest safe strength lies
 *     choose    the safe strength of the largest effect; ties take the lowest divergence
 *     confirm   on pairs and messages that no step before has seen, against three controls; a
 *               strength that does damage there gives way to the next lower safe one
 */
#include "steer/tune.h"

#include "base/clock.h"
#include "steer/tune_choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMPT    "トピック: {topic}\nこれについて話して。"
#define BISECT    5 /* steps to the budget: a thirty-second of a rung */
#define BOUND     3 /* steps to the largest safe strength: an eighth of a rung */
#define FINALISTS 1 /* besides the vector's own layers */
/* Share of broken answers beyond those that the model gives by itself; after two such rungs the
 * rest of the ladder says nothing. */
#define COLLAPSED 0.5f

static const float ladder[] = {-10, -5, -2, 0, 2, 5, 8, 10, 12, 15, 20, 25, 30};

void gyaru_tune_options_init(struct gyaru_tune_options *options)
{
    *options = (struct gyaru_tune_options){.topic_key = "topic",
                                           .positive_key = "gyaru",
                                           .negative_key = "standard",
                                           .prompt = PROMPT,
                                           .ladder = ladder,
                                           .n_ladder = sizeof ladder / sizeof *ladder,
                                           .kl_budget = 1,
                                           .max_pairs = 16,
                                           .max_tokens = 96,
                                           .seed = 1};
}

/* ---- points -----------------------------------------------------------------------------------
 */

static void point_init(struct tune_point *p, float strength)
{
    *p = (struct tune_point){.strength = strength};
    for (int f = 0; f < FIGURES; f++)
        p->figures[f] = NAN;
}

/* The candidate's point at this strength, made if it is new. */
static struct tune_point *point_at(struct tune_candidate *c, float strength,
                                   struct gyaru_error *err)
{
    size_t at = 0;
    while (at < c->n_points && c->points[at].strength < strength)
        at++;
    if (at < c->n_points && !(c->points[at].strength > strength))
        return &c->points[at];
    struct tune_point *points = realloc(c->points, (c->n_points + 1) * sizeof *points);
    if (!points) {
        error_memory(err, (c->n_points + 1) * sizeof *points, "the figures");
        return NULL;
    }
    c->points = points;
    memmove(points + at + 1, points + at, (c->n_points - at) * sizeof *points);
    c->n_points++;
    point_init(&points[at], strength);
    return &points[at];
}

static int who(const struct tuning *t, const struct tune_candidate *c)
{
    return (int)(c - t->candidates);
}

static struct tune_point *read_at(struct tuning *t, struct tune_candidate *c, int vector,
                                  float strength, struct gyaru_error *err)
{
    struct tune_point *p = point_at(c, strength, err);
    if (p && !p->read && tune_read_pairs(t, &t->search, who(t, c), vector, p, err))
        return NULL;
    return p;
}

/* Read and answered, and judged. */
static struct tune_point *measure_at(struct tuning *t, struct tune_candidate *c, int vector,
                                     float strength, struct gyaru_error *err)
{
    struct tune_point *p = read_at(t, c, vector, strength, err);
    if (p && !p->answered &&
        tune_answer(t, &t->search, who(t, c), t->options->system, vector, p, NULL, err))
        return NULL;
    if (p)
        tune_judge(&t->base, p);
    return p;
}

/* ---- vectors in the model -----------------------------------------------------------------------
 */

static int attach(struct tuning *t, const struct tune_candidate *c, const uint64_t *seed,
                  int *index, struct gyaru_error *err)
{
    struct gyaru_vector *v;
    struct gyaru_attach_options options;
    char *warning;
    if (tune_make_vector(t, c->first, c->last, c->factor, seed, &v, err))
        return -1;
    gyaru_attach_options_init(&options);
    options.force = t->options->force;
    int rc = gyaru_model_attach(t->model, v, &options, index, &warning, err);
    gyaru_vector_close(v);
    if (!rc)
        free(warning); /* said already about the whole vector */
    return rc;
}

/* ---- scan -------------------------------------------------------------------------------------
 */

/* A range that holds the largest strength whose divergence keeps the budget. */
struct bracket {
    float low, high; /* keeps it, does not; 0: none found yet */
};

static int narrow(struct tuning *t, struct tune_candidate *c, int vector, float strength,
                  struct bracket *b, struct gyaru_error *err)
{
    const struct tune_point *p = read_at(t, c, vector, strength, err);
    if (!p)
        return -1;
    if ((double)p->figures[FIGURE_KL_P95] <= t->options->kl_budget)
        b->low = p->strength;
    else
        b->high = p->strength;
    return 0;
}

/* Up the ladder, then bisection. */
static int find_budget(struct tuning *t, struct tune_candidate *c, int vector,
                       struct gyaru_error *err)
{
    const struct gyaru_tune_options *o = t->options;
    struct bracket b = {0};
    for (size_t i = 0; i < o->n_ladder && !(b.high > 0); i++)
        if (o->ladder[i] > 0 && narrow(t, c, vector, o->ladder[i], &b, err))
            return -1;
    for (int i = 0; i < BISECT && b.high > 0; i++)
        if (narrow(t, c, vector, (b.low + b.high) / 2, &b, err))
            return -1;
    if (b.low > 0) {
        c->budget_strength = b.low;
        c->budget_gain = point_at(c, b.low, err)->figures[FIGURE_GAIN];
    }
    return 0;
}

static int scan(struct tuning *t, struct gyaru_error *err)
{
    for (size_t i = 0; i < t->n_candidates; i++) {
        int vector;
        if (attach(t, &t->candidates[i], NULL, &vector, err))
            return -1;
        int rc = find_budget(t, &t->candidates[i], vector, err);
        gyaru_model_detach(t->model, vector);
        if (rc)
            return -1;
    }
    t->candidates[0].finalist = true; /* the vector as it is */
    for (int n = 0; n < FINALISTS; n++) {
        struct tune_candidate *best = NULL;
        for (size_t i = 0; i < t->n_candidates; i++) {
            struct tune_candidate *c = &t->candidates[i];
            if (!c->finalist && isfinite(c->budget_gain) &&
                (!best || c->budget_gain > best->budget_gain))
                best = c;
        }
        if (best)
            best->finalist = true;
    }
    return 0;
}

/* ---- answers ----------------------------------------------------------------------------------
 */

/* What answers look like without steering, and when the style is asked for in words. */
static int measure_bases(struct tuning *t, struct gyaru_error *err)
{
    const struct gyaru_tune_options *o = t->options;
    point_init(&t->base, 0);
    point_init(&t->prompt, 0);
    if (tune_answer(t, &t->search, WHO_BASE, o->system, -1, &t->base, NULL, err))
        return -1;
    return o->style_system
               ? tune_answer(t, &t->search, WHO_PROMPT, o->style_system, -1, &t->prompt, NULL, err)
               : 0;
}

/* The largest safe strength lies between two rungs: bisects towards it. */
static int refine(struct tuning *t, struct tune_candidate *c, int vector, struct gyaru_error *err)
{
    float low = 0, high = 0;
    for (size_t i = 0; i < c->n_points; i++) {
        const struct tune_point *p = &c->points[i];
        if (!p->answered || !(p->strength > 0))
            continue;
        if (!*p->fault) {
            low = p->strength;
            high = 0;
        } else if (!(high > 0)) {
            high = p->strength;
        }
    }
    for (int i = 0; i < BOUND && low > 0 && high > 0; i++) {
        const struct tune_point *p = measure_at(t, c, vector, (low + high) / 2, err);
        if (!p)
            return -1;
        if (*p->fault)
            high = p->strength;
        else
            low = p->strength;
    }
    return 0;
}

static int climb(struct tuning *t, struct tune_candidate *c, int vector, struct gyaru_error *err)
{
    const struct gyaru_tune_options *o = t->options;
    int collapsed = 0;
    for (size_t i = 0; i < o->n_ladder; i++) {
        bool answer = o->ladder[i] > 0 && collapsed < 2;
        const struct tune_point *p = answer ? measure_at(t, c, vector, o->ladder[i], err)
                                            : read_at(t, c, vector, o->ladder[i], err);
        if (!p)
            return -1;
        if (answer)
            collapsed = p->figures[FIGURE_GARBLED] > t->base.figures[FIGURE_GARBLED] + COLLAPSED
                            ? collapsed + 1
                            : 0;
    }
    if (isfinite(c->budget_strength) && !measure_at(t, c, vector, c->budget_strength, err))
        return -1;
    return refine(t, c, vector, err);
}

static int answer_finalists(struct tuning *t, struct gyaru_error *err)
{
    if (measure_bases(t, err))
        return -1;
    for (size_t i = 0; i < t->n_candidates; i++) {
        int vector;
        if (!t->candidates[i].finalist)
            continue;
        if (attach(t, &t->candidates[i], NULL, &vector, err))
            return -1;
        int rc = climb(t, &t->candidates[i], vector, err);
        gyaru_model_detach(t->model, vector);
        if (rc)
            return -1;
    }
    return 0;
}

/* ---- choice -----------------------------------------------------------------------------------
 */

/* From the chosen strength up while all that was measured is safe. */
static void find_max(struct tuning *t)
{
    const struct tune_candidate *c = &t->candidates[t->best];
    for (size_t i = t->best_point; i < c->n_points && !*c->points[i].fault; i++)
        if (c->points[i].answered)
            t->max_strength = c->points[i].strength;
}

/* ---- confirmation -------------------------------------------------------------------------------
 */

static int control(struct tuning *t, enum tune_control which, const char *system, int vector,
                   float strength, json_t *samples, struct gyaru_error *err)
{
    static const char *const names[TUNE_CONTROLS] = {[CONTROL_NONE] = "none",
                                                     [CONTROL_PROMPT] = "prompt",
                                                     [CONTROL_RANDOM] = "random",
                                                     [CONTROL_STEERED] = "steered"};
    struct tune_point *p = &t->controls[which];
    json_t *answers = NULL;
    int id = WHO_CONTROL + (int)which;
    point_init(p, strength);
    if (vector >= 0 && tune_read_pairs(t, &t->confirm, id, vector, p, err))
        return -1;
    if (tune_answer(t, &t->confirm, id, system, vector, p, &answers, err))
        return -1;
    json_object_set_new(samples, names[which], answers);
    return 0;
}

/* The vector and a random one of the same lengths, at the same strength. */
static int control_steered(struct tuning *t, bool random, json_t *samples, struct gyaru_error *err)
{
    const struct tune_candidate *c = &t->candidates[t->best];
    float strength = c->points[t->best_point].strength;
    int vector;
    if (attach(t, c, random ? &t->options->seed : NULL, &vector, err))
        return -1;
    int rc = control(t, random ? CONTROL_RANDOM : CONTROL_STEERED, t->options->system, vector,
                     strength, samples, err);
    gyaru_model_detach(t->model, vector);
    return rc;
}

/* Down to a strength without damage. */
static int confirm_steered(struct tuning *t, struct gyaru_error *err)
{
    for (;;) {
        if (control_steered(t, false, t->answers, err))
            return -1;
        tune_judge(&t->controls[CONTROL_NONE], &t->controls[CONTROL_STEERED]);
        if (!*t->controls[CONTROL_STEERED].fault)
            return 0;
        if (tune_step_down(t, err))
            return -1;
        t->total += 2;
    }
}

static int confirm(struct tuning *t, struct gyaru_error *err)
{
    const struct gyaru_tune_options *o = t->options;
    t->answers = json_object();
    if (!t->answers)
        return error_memory(err, 100, "the answers");
    if (control(t, CONTROL_NONE, o->system, -1, 0, t->answers, err) || confirm_steered(t, err) ||
        control_steered(t, true, t->answers, err))
        return -1;
    point_init(&t->controls[CONTROL_PROMPT], 0);
    if (o->style_system && control(t, CONTROL_PROMPT, o->style_system, -1, 0, t->answers, err))
        return -1;
    tune_judge(&t->controls[CONTROL_NONE], &t->controls[CONTROL_RANDOM]);
    t->confirmed = tune_beats(t, CONTROL_STEERED, CONTROL_NONE) &&
                   tune_beats(t, CONTROL_STEERED, CONTROL_RANDOM);
    return 0;
}

/* ---- all --------------------------------------------------------------------------------------
 */

static int search(struct tuning *t, struct gyaru_error *err)
{
    size_t rungs = t->options->n_ladder;
    size_t finalists = t->n_candidates < FINALISTS + 1 ? t->n_candidates : FINALISTS + 1;
    t->total = t->n_candidates * (rungs / 2 + BISECT) + finalists * (2 * rungs + BOUND) + 8;
    if (scan(t, err) || answer_finalists(t, err))
        return -1;
    t->total = t->done + 6;
    if (tune_choose(t, err) || confirm(t, err))
        return -1;
    find_max(t);
    if (t->confirmed)
        return tune_write(t, err);
    return error_set(
        err, GYARU_FAILED,
        "no safe strength: on unseen messages strength %g of '%s' shows the style in "
        "%.0f%% of the answers, a random vector in %.0f%%, none in %.0f%%: extract a better vector",
        (double)t->controls[CONTROL_STEERED].strength, t->vector->info.name,
        100 * (double)t->controls[CONTROL_STEERED].figures[FIGURE_MARKER],
        100 * (double)t->controls[CONTROL_RANDOM].figures[FIGURE_MARKER],
        100 * (double)t->controls[CONTROL_NONE].figures[FIGURE_MARKER]);
}

static int make_report(const struct tuning *t, char **report, struct gyaru_error *err)
{
    json_t *json = tune_report(t);
    *report = json ? json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(7)) : NULL;
    json_decref(json);
    return *report ? 0 : error_memory(err, 1 << 16, "the report");
}

int gyaru_tune(struct gyaru_model *model, const char *path, const char *out,
               const struct gyaru_tune_options *options, char **report, struct gyaru_error *err)
{
    struct tuning t = {.model = model,
                       .options = options,
                       .path = path,
                       .out = out,
                       .journal = {.fd = -1},
                       .best = -1,
                       .max_strength = NAN,
                       .scaled = 1};
    double started = clock_seconds();
    *report = NULL;
    int rc = tune_setup(&t, err);
    if (!rc)
        rc = tune_journal_open(&t, err);
    if (!rc) {
        rc = search(&t, err);
        t.seconds = clock_seconds() - started;
        struct gyaru_error why;
        if (t.base.answered && make_report(&t, report, &why) && !rc) {
            *err = why;
            rc = -1;
        }
    }
    tune_release(&t);
    return rc;
}
