/*
 * sampling.c - what the host spends on choosing one token: from all logits, from those that it
 * chooses among them first, and from those that a device has chosen.
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

enum way { SORTED, CHOSEN, OFFERED, N_WAYS };

struct bench {
    struct sampler *sampler;
    const float *logits; /* [VOCAB] */
    float *copy;
    uint8_t *seen;
    struct backend_candidates device;
};

static int32_t pick(struct bench *b, enum way way, const struct gyaru_sampling *p)
{
    uint64_t state = 9;
    if (way == SORTED)
        return sampler_pick(b->sampler, b->copy, VOCAB, p, b->seen, &state);
    struct backend_candidates own = b->device; /* as out of pinned memory */
    if (way == CHOSEN) {
        sampler_penalise(b->copy, VOCAB, b->seen, p->repeat_penalty);
        sampler_choose(b->copy, VOCAB, p, &own);
    }
    sampler_offer(b->sampler, &own, VOCAB);
    return sampler_pick_offered(b->sampler, p, &state);
}

int main(void)
{
    static const char *const ways[N_WAYS] = {"all logits", "host chooses", "device chooses"};
    float *logits = malloc(VOCAB * sizeof *logits);
    struct bench b = {.logits = logits, .copy = malloc(VOCAB * sizeof *b.copy)};
    struct gyaru_error err;
    uint64_t random = 1;
    b.seen = calloc(1, VOCAB);
    if (!logits || !b.copy || !b.seen || sampler_new(VOCAB, &b.sampler, &err))
        return 1;
    for (int i = 0; i < VOCAB; i++) { /* an exponential tail */
        double u = ((double)(random_next(&random) >> 11) + 1) * 0x1p-53;
        logits[i] = (float)(-2.0 * log(u));
    }
    printf("%-44s", "us per token");
    for (int way = 0; way < N_WAYS; way++)
        printf(" %15s", ways[way]);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int32_t ids[N_WAYS];
        printf("\n%-44s", cases[c].name);
        sampler_choose(logits, VOCAB, &cases[c].p, &b.device);
        for (int way = 0; way < N_WAYS; way++) {
            double best = 1;
            for (int t = 0; t < TURNS; t++) {
                memcpy(b.copy, logits, VOCAB * sizeof *b.copy);
                double start = clock_seconds();
                ids[way] = pick(&b, way, &cases[c].p);
                double seconds = clock_seconds() - start;
                best = seconds < best ? seconds : best;
            }
            printf(" %14.1f%c", best * 1e6,
                   ids[way] == ids[0]           ? ' '
                   : ids[way] == SAMPLER_UNSURE ? '-'
                                                : '!');
        }
    }
    printf("\n-: only all logits can tell\n");
    sampler_free(b.sampler);
    free(logits);
    free(b.copy);
    free(b.seen);
    return 0;
}
