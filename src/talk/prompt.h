/*
 * prompt.h - from a conversation to the token ids that fit the context.
 */
#ifndef TALK_PROMPT_H
#define TALK_PROMPT_H

#include "base/error.h"

/*
 * Renders and encodes the messages (ids: caller frees). If they leave fewer than a quarter of the
 * context (or `max_tokens`, if that is less and not 0) for the answer, the oldest turns are left
 * out, a quarter of the room at a time so that the prompt's beginning stays the same for a while; a
 * leading system message and the last message always stay. *dropped counts them. Fails if even that
 * does not fit.
 */
int prompt_encode(const struct gyaru_model *model, const struct gyaru_message *messages, size_t n,
                  int max_tokens, int32_t **ids, size_t *n_ids, size_t *dropped,
                  struct gyaru_error *err);

#endif
