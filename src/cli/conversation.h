/*
 * conversation.h - who said what, oldest first; made to fit the context by forgetting whole turns.
 */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "base/error.h"

struct conversation {
    char *system;  /* NULL: the template's own */
    char **turns;  /* user, assistant, user, ...; owned */
    size_t n;      /* odd while an answer is due */
    size_t n_room; /* of turns */
};

void conversation_release(struct conversation *c);
int conversation_set_system(struct conversation *c, const char *text, struct gyaru_error *err);
int conversation_add(struct conversation *c, const char *text, struct gyaru_error *err);
void conversation_drop_last(struct conversation *c);
void conversation_clear(struct conversation *c); /* the system prompt stays */

/* The prompt for the next answer (caller frees ids): at most `room` ids. *n_dropped: turns, a
 * question and its answer each, that had to be forgotten for it. */
int conversation_prompt(struct conversation *c, const struct gyaru_tokenizer *tokenizer,
                        size_t room, int32_t **ids, size_t *n_ids, size_t *n_dropped,
                        struct gyaru_error *err);

#endif
