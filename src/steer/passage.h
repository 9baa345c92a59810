/*
 * passage.h - reads given answers with and without steering, side by side, and compares what the
 * model expected at each of their tokens.
 *
 * Both readings go through the same forward passes, in two slots; only 16 positions' logits exist
 * at a time. Steering acts on the whole context, as it does while an answer is generated. At
 * strength 0 both readings are the same bits, so their divergence is exactly 0.
 */
#ifndef STEER_PASSAGE_H
#define STEER_PASSAGE_H

#include "model/model.h"

struct passage {
    int32_t *ids; /* [n] the prompt, then the answer's own tokens; owned */
    size_t n;
    size_t first; /* where the answer begins, >= 1 */
};

/* The answer after the model's prompt for system (NULL: the template's own) and user message.
 * `what` names it in messages. */
int passage_encode(const struct gyaru_model *model, const char *system, const char *message,
                   const char *answer, const char *what, struct passage *out,
                   struct gyaru_error *err);
int passage_of_ids(const struct gyaru_model *model, const char *system, const char *message,
                   const int32_t *answer, size_t n, const char *what, struct passage *out,
                   struct gyaru_error *err);
void passage_release(struct passage *passage);

/* What the model says about one passage's answer; nats per token, means over the answer's tokens.
 * Not finite where steering drove the numbers out of range. */
struct passage_reading {
    double base_nll, steered_nll;
    double cosine; /* raw meter under steering; NaN without one */
};

struct passage_reader {
    struct gyaru_model *model;
    int vector; /* index of the attached vector */
    float strength;
    int slots[2];        /* KV slots: base, steered */
    const int32_t *held; /* [n_held] what they hold; not owned, must outlive the next read */
    size_t n_held;
};

/* Takes two free slots; no session may be opened before the last read. */
int passage_reader_init(struct passage_reader *reader, struct gyaru_model *model, int vector,
                        float strength, struct gyaru_error *err);

/* kl: [n - first] KL(steered || base) in nats at each token of the answer. */
int passage_read(struct passage_reader *reader, const struct passage *passage, float *kl,
                 struct passage_reading *out, struct gyaru_error *err);

/* Mean unsteered NLL of the answer's tokens, nats; 0 for an empty answer. */
int passage_nll(struct gyaru_model *model, const struct passage *passage, double *out,
                struct gyaru_error *err);

#endif
