/*
 * conversation.h - one conversation: a system prompt and the turns since the last reset.
 *
 * Belongs to the event loop. Its size is bounded: past the limit the oldest turns go, and
 * `dropped` counts them, so that whoever shows the conversation can say so.
 */
#ifndef TALK_CONVERSATION_H
#define TALK_CONVERSATION_H

#include "base/error.h"

struct conversation {
    char *system;                /* NULL: the model's own */
    struct gyaru_message *turns; /* roles are literals, contents are owned */
    size_t n, cap;
    size_t bytes, limit; /* of all contents of turns */
    size_t dropped;      /* turns since the last clear */
};

void conversation_init(struct conversation *conversation, size_t limit);
void conversation_release(struct conversation *conversation);
void conversation_clear(
    struct conversation *conversation); /* forgets the turns, keeps the system prompt */

/* NULL or "": the model's own. Returns -1 when out of memory. */
int conversation_set_system(struct conversation *conversation, const char *text);

/* Adds a turn of the user or the assistant; -1 when out of memory. */
int conversation_add(struct conversation *conversation, bool assistant, const char *text,
                     size_t len);

/* Takes back the newest turn. */
void conversation_pop(struct conversation *conversation);

/* A deep copy, system prompt first, for the engine; -1 when out of memory. */
int conversation_copy(const struct conversation *conversation, struct gyaru_message **messages,
                      size_t *n);
void messages_free(struct gyaru_message *messages, size_t n);

#endif
