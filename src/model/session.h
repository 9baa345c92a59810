/*
 * session.h - one conversation: its KV slot, what the slot holds, and the answer in progress.
 */
#ifndef MODEL_SESSION_H
#define MODEL_SESSION_H

#include "model/model.h"
#include "model/reply.h"

struct gyaru_session {
    struct gyaru_model *model;
    int slot;
    int32_t *tokens; /* [context] the prompt and the answer so far */
    uint64_t *keys;  /* [context] steering state under which a position's KV was computed */
    uint8_t *seen;   /* [vocab] ids that the repetition penalty applies to */
    size_t n_tokens; /* known ids; the last one's KV is computed by the next step */
    size_t n_cached; /* positions whose KV is in the slot */

    bool busy, cancelled;
    size_t n_prompt, n_reused, n_limit; /* n_limit: tokens at which the answer is cut */
    struct gyaru_sampling sampling;
    uint64_t random;
    float strengths[GYARU_MAX_VECTORS];
    int gauge;
    bool ignore_eos, any_id;
    struct reply reply;
    double started, first_token, ended; /* clock_seconds */
    int n_rows;                         /* rows in the step being built */
    int first_row;
};

/* A KV slot that nobody holds, -1 if all are taken. */
int session_free_slot(const struct gyaru_model *model);

#endif
