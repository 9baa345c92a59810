/*
 * sampler.h - logits to the next token.
 *
 * In the order of Hugging Face's processors: repetition penalty, temperature, top-k, top-p, min-p.
 * Ids past the tokenizer (the padding of the head) are never candidates.
 */
#ifndef MODEL_SAMPLER_H
#define MODEL_SAMPLER_H

#include "backend/backend.h"

#define SAMPLER_UNSURE (-2)

struct sampler; /* scratch for one vocabulary */

int sampler_new(int vocab, struct sampler **out, struct gyaru_error *err);
void sampler_free(struct sampler *sampler);

/* Picks from logits [vocab] (modified) among ids 0..n_tokens-1. `seen` [vocab] marks the ids that
 * the penalty applies to. *random is the generator's state, advanced. Returns -1 if no logit is
 * finite: steering has driven the numbers out of range. */
int32_t sampler_pick(struct sampler *sampler, float *logits, int n_tokens,
                     const struct gyaru_sampling *sampling, const uint8_t *seen, uint64_t *random);

/* What a device's candidates() would leave, of logits that have their penalty. */
void sampler_choose(const float *logits, int n_ids, const struct gyaru_sampling *sampling,
                    struct backend_candidates *out);

/* CTRL's penalty on the ids that `seen` [n] marks. */
void sampler_penalise(float *logits, int n, const uint8_t *seen, float penalty);

/* The same picks from a device's candidates, whose logits have their penalty. n_tokens: the ids
 * that they were chosen from. */
void sampler_offer(struct sampler *sampler, const struct backend_candidates *from, int n_tokens);

/* What sampler_pick() would pick from all logits, with the same draw; SAMPLER_UNSURE where only all
 * of them can tell: *random is then anywhere. */
int32_t sampler_pick_offered(struct sampler *sampler, const struct gyaru_sampling *sampling,
                             uint64_t *random);

/* `id` is not to be picked again, as if its logit were -INFINITY. */
void sampler_refuse(struct sampler *sampler, int32_t id, const struct gyaru_sampling *sampling);

/* Index of the largest of n values; the first among equals; -1 if none is finite. */
int32_t sampler_argmax(const float *values, int n);

#endif
