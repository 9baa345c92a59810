/* sampler.c - see sampler.h. */
#include "model/sampler.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
    float logit; /* later: probability, not normalised */
    int32_t id;
};

struct sampler {
    struct candidate *candidates; /* [vocab] */
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
static void penalise(float *logits, int n, const uint8_t *seen, float penalty)
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
            qsort(s->candidates, (size_t)count, sizeof *s->candidates, by_logit);
            *total_mass = total;
            return count;
        }
    }
}

/* Turns sorted logits into probabilities and cuts by top-k, top-p and min-p. `total` is the mass of
 * all ids relative to the largest; 0: that of the top k. */
static int cut(struct candidate *c, int count, const struct gyaru_sampling *p, double total)
{
    if (p->top_k > 0 && count > p->top_k)
        count = p->top_k;
    float max = c[0].logit;
    double kept = 0;
    for (int i = 0; i < count; i++) {
        c[i].logit = expf((c[i].logit - max) / p->temperature);
        kept += (double)c[i].logit;
    }
    double mass = 0, sum = total > 0 ? total : kept;
    for (int i = 0; i < count; i++) {
        bool improbable = p->min_p > 0 && c[i].logit < p->min_p;
        if (i && (improbable || (p->top_p < 1 && mass >= (double)p->top_p * sum)))
            return i;
        mass += (double)c[i].logit;
    }
    return count;
}

int32_t sampler_pick(struct sampler *s, float *logits, int n_tokens, const struct gyaru_sampling *p,
                     const uint8_t *seen, uint64_t *random)
{
    penalise(logits, n_tokens, seen, p->repeat_penalty);
    int32_t best = sampler_argmax(logits, n_tokens);
    if (best < 0 || p->temperature <= 0)
        return best;
    double total;
    int count = gather_sorted(s, logits, n_tokens, p, logits[best], &total);
    count = cut(s->candidates, count, p, total);
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += (double)s->candidates[i].logit;
    double at = next_random(random) * sum;
    for (int i = 0; i < count; i++) {
        at -= (double)s->candidates[i].logit;
        if (at < 0)
            return s->candidates[i].id;
    }
    return s->candidates[count - 1].id;
}
