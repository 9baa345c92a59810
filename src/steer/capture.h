/*
 * capture.h - what a model's layers say while it reads the texts of a dataset.
 *
 * Each text is read as the assistant's answer to a user message about its topic, under the
 * model's own chat template and without steering. One pass leaves, for the OUTPUT of every layer,
 *
 *     last     the hidden state of the very last token of the rendered conversation (under ChatML
 *              the newline after <|im_end|>: the original's choice)
 *     content  the mean over the tokens of the answer itself, the template's excluded
 *
 * and the median length of the hidden states of the answer's tokens. Both texts of as many pairs
 * as the model has free sessions are read together; a text's numbers do not depend on what is read
 * beside it. Finished pairs go to a journal, which is also where they are kept: a run that was
 * killed goes on from there and ends with the same bytes.
 */
#ifndef STEER_CAPTURE_H
#define STEER_CAPTURE_H

#include "model/model.h"
#include "steer/dataset.h"
#include "steer/journal.h"

enum capture_side { SIDE_NEGATIVE, SIDE_POSITIVE, CAPTURE_SIDES };
enum capture_position { POSITION_LAST, POSITION_CONTENT, CAPTURE_POSITIONS };

struct capture {
    size_t n_pairs;
    size_t n_layers, hidden;
    size_t n_resumed;       /* pairs that an earlier run had finished */
    struct journal journal; /* owner of the numbers */
};

struct capture_options {
    const char *prompt;  /* the user's message; each "{topic}" stands for the pair's topic */
    const char *journal; /* path */
    gyaru_progress *progress;
    void *progress_user;
};

int capture_run(struct gyaru_model *model, const struct dataset *dataset,
                const struct dataset_keys *keys, const struct capture_options *options,
                struct capture *out, struct gyaru_error *err);

/* `done`: the journal's file goes. */
void capture_release(struct capture *capture, bool done);

/* [hidden] at the output of `layer`. */
const float *capture_features(const struct capture *capture, size_t pair, enum capture_side side,
                              enum capture_position position, size_t layer);

/* [n_layers] median length of the answer's hidden states. */
const float *capture_norms(const struct capture *capture, size_t pair, enum capture_side side);

/* ---- texts ------------------------------------------------------------------------------------
 */

struct capture_text {
    int32_t *ids; /* [n] the rendered conversation; owned */
    size_t n;
    size_t first, end; /* the answer's own tokens: first .. end-1 */
};

/* `what` names the text in messages. */
int capture_encode(const struct gyaru_tokenizer *tokenizer, const char *prompt, const char *topic,
                   const char *answer, const char *what, struct capture_text *out,
                   struct gyaru_error *err);

#endif
