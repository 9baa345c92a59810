/* tune_choice.c - see tune_choice.h. */
#include "steer/tune_choice.h"

#include <math.h>
#include <stdio.h>

/* ---- safety -----------------------------------------------------------------------------------
 */

/* NaN and infinity exceed every limit. */
static bool exceeds(float value, float limit)
{
    return !(value <= limit + 1e-6f);
}

void tune_judge(const struct tune_point *none, struct tune_point *p)
{
    const float *f = p->figures, *base = none->figures;
    float repetition = fmaxf(TUNE_REPETITION * base[FIGURE_REPETITION], TUNE_REPEATED);
    /* A model that breaks characters by itself does so by chance, now more, now less. */
    float invalid = base[FIGURE_INVALID] > 0 ? base[FIGURE_INVALID] + TUNE_SCRIPT : 0;
    const struct {
        const char *what;
        float value, limit;
        float unit; /* 100: per cent */
    } rules[] = {
        {"wrong way", f[FIGURE_WRONG], TUNE_WRONG, 100},
        {"invalid UTF-8", f[FIGURE_INVALID], invalid, 100},
        {"unexpected script", f[FIGURE_SCRIPT], base[FIGURE_SCRIPT] + TUNE_SCRIPT, 100},
        {"garbled", f[FIGURE_GARBLED], base[FIGURE_GARBLED] + TUNE_GARBLED, 100},
        {"repetition", f[FIGURE_REPETITION], repetition, 100},
        {"NLL", f[FIGURE_NLL], base[FIGURE_NLL] + TUNE_NLL, 1},
    };
    p->fault[0] = '\0';
    for (size_t i = 0; i < sizeof rules / sizeof *rules && !p->fault[0]; i++)
        if (exceeds(rules[i].value, rules[i].limit))
            snprintf(p->fault, sizeof p->fault, "%s %.3g%s (%.3g at most)", rules[i].what,
                     (double)(rules[i].unit * rules[i].value), rules[i].unit > 1 ? "%" : "",
                     (double)(rules[i].unit * rules[i].limit));
}

/* ---- choice -----------------------------------------------------------------------------------
 */

static bool eligible(const struct tune_point *p)
{
    return p->answered && p->read && p->strength > 0 && !p->fault[0];
}

/* The largest effect of all safe strengths; -1: there is none. */
static double largest_effect(const struct tuning *t)
{
    double most = -1;
    for (size_t i = 0; i < t->n_candidates; i++)
        for (size_t k = 0; k < t->candidates[i].n_points; k++) {
            const struct tune_point *p = &t->candidates[i].points[k];
            if (eligible(p) && (double)p->figures[FIGURE_MARKER] > most)
                most = (double)p->figures[FIGURE_MARKER];
        }
    return most;
}

/* What to say when nothing is safe: why the lowest strength with an effect is not. */
static int nothing_safe(const struct tuning *t, double most, struct gyaru_error *err)
{
    double base = (double)t->base.figures[FIGURE_MARKER];
    if (most >= 0)
        return error_set(err, GYARU_FAILED,
                         "no safe strength: '%s' shows the style in %.0f%% of the answers at most "
                         "before it does damage, and in %.0f%% without steering: extract a better "
                         "vector",
                         t->vector->info.name, 100 * most, 100 * base);
    const struct tune_candidate *c = &t->candidates[0];
    for (size_t i = 0; i < c->n_points; i++)
        if (c->points[i].answered && c->points[i].strength > 0)
            return error_set(err, GYARU_FAILED,
                             "no safe strength: '%s' does damage at %g already: %s: extract a "
                             "better vector",
                             t->vector->info.name, (double)c->points[i].strength,
                             c->points[i].fault);
    return error_set(err, GYARU_FAILED, "no safe strength: the ladder has none above 0");
}

int tune_choose(struct tuning *t, struct gyaru_error *err)
{
    double most = largest_effect(t), base = (double)t->base.figures[FIGURE_MARKER];
    double error = measure_share_error(most, t->search.n_messages);
    if (most <= base + 2 * error)
        return nothing_safe(t, most, err);
    double lowest = INFINITY, answer = 1.001 / (double)t->search.n_messages;
    for (size_t i = 0; i < t->n_candidates; i++)
        for (size_t k = 0; k < t->candidates[i].n_points; k++) {
            const struct tune_point *p = &t->candidates[i].points[k];
            double kl = (double)p->figures[FIGURE_KL_P95];
            /* One answer more or less is a tie: the same messages drew the same random numbers. */
            if (!eligible(p) || (double)p->figures[FIGURE_MARKER] < most - answer ||
                (t->best >= 0 && kl >= lowest))
                continue;
            lowest = kl;
            t->best = (int)i;
            t->best_point = k;
        }
    return 0;
}

int tune_step_down(struct tuning *t, struct gyaru_error *err)
{
    struct tune_candidate *c = &t->candidates[t->best];
    struct tune_point *point = &c->points[t->best_point];
    const struct tune_point *steered = &t->controls[CONTROL_STEERED];
    t->rejected[t->n_rejected++] = *steered;
    snprintf(point->fault, sizeof point->fault, "unseen messages: %.120s", steered->fault);
    size_t at = t->best_point;
    while (at > 0 && !eligible(&c->points[at - 1]))
        at--;
    if (!at || t->n_rejected == TUNE_TRIES)
        return error_set(err, GYARU_FAILED,
                         "no safe strength: on unseen messages strength %g of '%s' does damage: "
                         "%s: extract a better vector",
                         (double)steered->strength, t->vector->info.name, steered->fault);
    t->best_point = at - 1;
    return 0;
}

bool tune_beats(const struct tuning *t, enum tune_control a, enum tune_control b)
{
    size_t n = t->confirm.n_messages;
    double x = (double)t->controls[a].figures[FIGURE_MARKER];
    double y = (double)t->controls[b].figures[FIGURE_MARKER];
    double error = hypot(measure_share_error(x, n), measure_share_error(y, n));
    return x - y > 2 * error;
}
