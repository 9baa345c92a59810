/*
 * sampling.c - what the host spends on choosing one token, from all logits and from a device's
 * candidates.
 *
 *     make build/bench/sampling && build/bench/sampling
 *
 * Logits as a language model gives them: most far below a few. Microseconds, the best of TURNS.
 */
#include "model/sampler.h"

#include "base/clock.h"
#include "base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB 152064
#define TURNS 20

static const struct {
    const char *name;
    struct gyaru_sampling p;
} cases[] = {
    {"greedy", {.temperature = 0, .top_p = 1, .repeat_penalty = 1}},
    {"greedy, penalty 1.05", {.temperature = 0, .top_p = 1, .repeat_penalty = 1.05f}},
    {"temp 0.7, top-p 0.8, top-k 20, penalty 1.05",
     {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repeat_penalty = 1.05f}},
    {"temp 0.7, top-p 0.9", {.temperature = 0.7f, .top_p = 0.9f, .repeat_penalty = 1}},
    {"temp 1", {.temperature = 1, .top_p = 1, .repeat_penalty = 1}},
};

static int by_logit(const void *a, const void *b)
{
    const struct backend_candidate *x = a, *y = b;
    return (x->logit < y->logit) - (x->logit > y->logit);
}

/* What the device would leave: the best, and the mass of all. */
static void choose(const float *logits, float temperature, struct backend_candidates *out)
{
    struct backend_candidate *all = malloc(VOCAB * sizeof *all);
    double mass = 0;
    if (!all)
        exit(1);
    for (int i = 0; i < VOCAB; i++)
        all[i] = (struct backend_candidate){logits[i], i};
    qsort(all, VOCAB, sizeof *all, by_logit);
    for (int i = 0; i < VOCAB && temperature > 0; i++)
        mass += exp(((double)logits[i] - (double)all[0].logit) / (double)temperature);
    out->n = 150;
    out->max = all[0].logit;
    out->mass = (float)mass;
    memcpy(out->best, all, 150 * sizeof *all);
    free(all);
}

int main(void)
{
    float *logits = malloc(VOCAB * sizeof *logits), *copy = malloc(VOCAB * sizeof *copy);
    uint8_t *seen = calloc(1, VOCAB);
    struct backend_candidates offered, mapped;
    struct sampler *sampler;
    struct gyaru_error err;
    uint64_t random = 1, state = 1;
    if (!logits || !copy || !seen || sampler_new(VOCAB, &sampler, &err))
        return 1;
    for (int i = 0; i < VOCAB; i++) { /* tails of a double exponential */
        double u = ((double)(random_next(&random) >> 11) + 1) * 0x1p-53;
        logits[i] = (float)(-2.0 * log(u));
    }
    printf("%-46s %12s %12s\n", "us per token", "all logits", "candidates");
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double best[2] = {1, 1};
        int32_t ids[2] = {-1, -1};
        choose(logits, cases[c].p.temperature, &mapped);
        for (int t = 0; t < TURNS; t++) {
            memcpy(copy, logits, VOCAB * sizeof *copy);
            double start = clock_seconds();
            state = 9;
            ids[0] = sampler_pick(sampler, copy, VOCAB, &cases[c].p, seen, &state);
            double middle = clock_seconds();
            state = 9;
            offered = mapped; /* out of pinned memory */
            sampler_offer(sampler, &offered, VOCAB);
            ids[1] = sampler_pick_offered(sampler, &cases[c].p, &state);
            double end = clock_seconds();
            best[0] = middle - start < best[0] ? middle - start : best[0];
            best[1] = end - middle < best[1] ? end - middle : best[1];
        }
        printf("%-46s %12.1f %12.1f%s\n", cases[c].name, best[0] * 1e6, best[1] * 1e6,
               ids[0] == ids[1]           ? ""
               : ids[1] == SAMPLER_UNSURE ? "  (not from candidates)"
                                          : "  DIFFERENT");
    }
    sampler_free(sampler);
    free(logits);
    free(copy);
    free(seen);
    return 0;
}
