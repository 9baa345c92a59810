/* sampler.c - see sampler.h. */
#include "model/sampler.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float logit; /* later: probability, not normalised */
    int32_t id;
};

struct sampler {
    struct candidate *candidates; /* [vocab] scratch */
    /* Of sampler_offer() */
    struct candidate offered[BACKEND_CANDIDATES]; /* sorted */
    int n_offered, n_refused, n_tokens;
    float top;   /* logit that mass is relative to */
    double mass; /* of all ids that are not refused */
    double slack;
};

int sampler_new(int vocab, struct sampler **out, struct gyaru_error *err)
{
    struct sampler *s = calloc(1, sizeof *s);
    if (s)
        s->candidates = malloc((size_t)vocab * sizeof *s->candidates);
    if (!s || !s->candidates) {
        free(s);
        return error_memory(err, (size_t)vocab * sizeof *s->candidates, "the sampler");
    }
    *out = s;
    return 0;
}

void sampler_free(struct sampler *sampler)
{
    if (sampler)
        free(sampler->candidates);
    free(sampler);
}

int32_t sampler_argmax(const float *values, int n)
{
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if (isfinite(values[i]) && (best < 0 || values[i] > values[best]))
            best = i;
    return best;
}

/* CTRL's penalty (arXiv 1909.05858) as Hugging Face applies it. */
void sampler_penalise(float *logits, int n, const uint8_t *seen, float penalty)
{
    if (penalty == 1)
        return;
    for (int i = 0; i < n; i++)
        if (seen[i])
            logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
}

/* 0 .. 1, the latter excluded. */
static double next_random(uint64_t *state)
{
    return (double)(random_next(state) >> 11) * 0x1p-53;
}

static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Moves the first k in the order of by_logit to the front, in any order; 0 < k < n. */
static void select_first(struct candidate *c, int n, int k)
{
    int low = 0, high = n - 1;
    while (low < high) {
        struct candidate pivot = c[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (by_logit(&c[i], &pivot) < 0)
                i++;
            while (by_logit(&c[j], &pivot) > 0)
                j--;
            if (i <= j) {
                struct candidate swap = c[i];
                c[i++] = c[j];
                c[j--] = swap;
            }
        }
        if (k - 1 > j && k - 1 < i)
            return;
        if (k - 1 <= j)
            high = j;
        else
            low = i;
    }
}

/* Candidates within `span` of the largest logit, unsorted. */
static int gather(struct candidate *out, const float *logits, int n, float max, float span)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        if (logits[i] >= max - span) /* false for NaN */
            out[count++] = (struct candidate){logits[i], i};
    return count;
}

/* The whole vocabulary rarely matters: sort only a growing neighbourhood of the maximum until it
 * holds what top-k or top-p will keep. Exact, because what is left out is known to be smaller. */
static int gather_sorted(struct sampler *s, const float *logits, int n,
                         const struct gyaru_sampling *p, float max, double *total_mass)
{
    double total = 0, inverse = 1.0 / (double)p->temperature;
    bool by_mass = p->top_k <= 0 || p->top_k >= n;
    if (by_mass)
        for (int i = 0; i < n; i++)
            if (isfinite(logits[i]))
                total += exp(((double)logits[i] - (double)max) * inverse);
    for (float span = 8 * p->temperature;; span *= 4) {
        bool all = span > 1e4f * p->temperature || !isfinite(span);
        int count = gather(s->candidates, logits, n, max, all ? INFINITY : span);
        double mass = 0;
        for (int i = 0; by_mass && i < count; i++)
            mass += exp(((double)s->candidates[i].logit - (double)max) * inverse);
        if (all || (by_mass ? mass >= (double)p->top_p * total : count >= p->top_k)) {
            if (!by_mass && count > p->top_k) {
                select_first(s->candidates, count, p->top_k);
                count = p->top_k;
            }
            qsort(s->candidates, (size_t)count, sizeof *s->candidates, by_logit);
            *total_mass = total;
            return count;
        }
    }
}

/* Sorted candidates and what is known of the ids that are not among them. */
struct choice {
    struct candidate *c; /* [count], turned into probabilities */
    int count;
    bool whole;   /* nothing that could be picked is missing */
    double total; /* mass of all ids relative to the largest; 0: nobody asked */
    double slack; /* how far total may be off */
};

/* Turns sorted logits into probabilities and cuts by top-k, top-p and min-p: how many are left.
 * *sum: their mass. SAMPLER_UNSURE where ids that are missing could tell. */
static int cut(struct choice *s, const struct gyaru_sampling *p, double *sum)
{
    struct candidate *c = s->c;
    bool top_k = p->top_k > 0 && s->count >= p->top_k;
    int count = top_k ? p->top_k : s->count;
    float max = c[0].logit;
    double kept = 0, mass = 0;
    for (int i = 0; i < count; i++) {
        c[i].logit = expf((c[i].logit - max) / p->temperature);
        kept += (double)c[i].logit;
    }
    if (s->total <= 0 && !s->whole && !top_k)
        return SAMPLER_UNSURE;
    double all = s->total > 0 ? s->total : kept, slack = s->total > 0 ? s->slack : 0;
    int i = 0;
    for (; i < count; i++) {
        bool improbable = p->min_p > 0 && c[i].logit < p->min_p;
        if (i && improbable)
            break;
        if (i && p->top_p < 1 && mass >= (double)p->top_p * (all - slack)) {
            if (mass >= (double)p->top_p * (all + slack))
                break;
            return SAMPLER_UNSURE;
        }
        mass += (double)c[i].logit;
    }
    *sum = mass;
    if (i < count || s->whole || top_k)
        return i;
    if (p->top_p < 1 || p->min_p > 0)
        return SAMPLER_UNSURE;
    *sum = all; /* nothing cuts: the missing ones may be picked, too */
    return i;
}

/* One of the candidates by chance, or SAMPLER_UNSURE. */
static int32_t pick(struct choice *s, const struct gyaru_sampling *p, uint64_t *random)
{
    double sum;
    int count = cut(s, p, &sum);
    if (count < 0)
        return SAMPLER_UNSURE;
    double share = next_random(random), at = share * sum;
    double unsure = count == s->count && !s->whole ? share * s->slack : 0;
    for (int i = 0; i < count; i++) {
        if (unsure > 0 && fabs(at) <= unsure)
            return SAMPLER_UNSURE;
        at -= (double)s->c[i].logit;
        if (at < 0 && at >= -unsure)
            return SAMPLER_UNSURE;
        if (at < 0)
            return s->c[i].id;
    }
    return s->whole ? s->c[count - 1].id : SAMPLER_UNSURE;
}

int32_t sampler_pick(struct sampler *s, float *logits, int n_tokens, const struct gyaru_sampling *p,
                     const uint8_t *seen, uint64_t *random)
{
    sampler_penalise(logits, n_tokens, seen, p->repeat_penalty);
    int32_t best = sampler_argmax(logits, n_tokens);
    if (best < 0 || p->temperature <= 0)
        return best;
    struct choice choice = {.c = s->candidates, .whole = true};
    choice.count = gather_sorted(s, logits, n_tokens, p, logits[best], &choice.total);
    return pick(&choice, p, random);
}

/* ---- from candidates ---------------------------------------------------------------------------
 */

void sampler_offer(struct sampler *s, const struct backend_candidates *from, int n_tokens)
{
    s->n_offered = from->n < 0 ? 0 : from->n;
    s->n_refused = 0;
    s->n_tokens = n_tokens;
    s->top = from->max;
    s->mass = (double)from->mass;
    s->slack = s->mass * BACKEND_MASS_ERROR;
    for (int i = 0; i < s->n_offered; i++)
        s->offered[i] = (struct candidate){from->best[i].logit, from->best[i].id};
    qsort(s->offered, (size_t)s->n_offered, sizeof *s->offered, by_logit);
}

void sampler_refuse(struct sampler *s, int32_t id, const struct gyaru_sampling *p)
{
    int i = 0;
    while (i < s->n_offered && s->offered[i].id != id)
        i++;
    if (i == s->n_offered)
        return;
    if (p->temperature > 0)
        s->mass -= exp(((double)s->offered[i].logit - (double)s->top) / (double)p->temperature);
    s->n_offered--;
    s->n_refused++;
    memmove(s->offered + i, s->offered + i + 1, (size_t)(s->n_offered - i) * sizeof *s->offered);
}

int32_t sampler_pick_offered(struct sampler *s, const struct gyaru_sampling *p, uint64_t *random)
{
    if (!s->n_offered)
        return SAMPLER_UNSURE;
    if (p->temperature <= 0)
        return s->offered[0].id;
    memcpy(s->candidates, s->offered, (size_t)s->n_offered * sizeof *s->offered);
    struct choice choice = {.c = s->candidates,
                            .count = s->n_offered,
                            .whole = s->n_offered + s->n_refused == s->n_tokens};
    if (p->top_k <= 0 || p->top_k >= s->n_tokens) {
        double scale = exp(((double)s->top - (double)s->offered[0].logit) / (double)p->temperature);
        choice.total = s->mass * scale;
        choice.slack = s->slack * scale;
    }
    return pick(&choice, p, random);
}
