/*
 * chat.h - one conversation: a system prompt and the turns since the last reset.
 *
 * Belongs to the event loop. Its size is bounded: past the limit the oldest turns go, and
 * `dropped` counts them, so that whoever shows the conversation can say so.
 */
#ifndef SERVER_CHAT_H
#define SERVER_CHAT_H

#include "base/error.h"

struct chat {
    char *system; /* NULL: the model's own */
    struct gyaru_message *turns; /* roles are literals, contents are owned */
    size_t n, cap;
    size_t bytes, limit; /* of all contents of turns */
    size_t dropped;      /* turns since the last clear */
};

void chat_init(struct chat *chat, size_t limit);
void chat_release(struct chat *chat);
void chat_clear(struct chat *chat); /* forgets the turns, keeps the system prompt */

/* NULL or "": the model's own. Returns -1 when out of memory. */
int chat_set_system(struct chat *chat, const char *text);

/* Adds a turn of the user or the assistant; -1 when out of memory. */
int chat_add(struct chat *chat, bool assistant, const char *text, size_t len);

/* Takes back the newest turn. */
void chat_pop(struct chat *chat);

/* A deep copy, system prompt first, for the engine; -1 when out of memory. */
int chat_copy(const struct chat *chat, struct gyaru_message **messages, size_t *n);
void messages_free(struct gyaru_message *messages, size_t n);

#endif
