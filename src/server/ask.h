/*
 * ask.h - what a client asks for: a request body read into messages, sampling and steering.
 *
 * The fields are those of OpenAI's chat completions and of llama.cpp's native completion, with the
 * extensions of docs/clients.md. A field that would change the answer and cannot be had is refused
 * by name; those that merely tune it otherwise (presence_penalty and its like) are let pass.
 */
#ifndef SERVER_ASK_H
#define SERVER_ASK_H

#include "server/engine.h"

#include <jansson.h>

struct ask {
    struct gyaru_message *messages; /* [n_messages] owned; NULL for a raw prompt */
    size_t n_messages;
    size_t dropped; /* oldest messages left out because the history is too long */
    struct job_options options;
    int max_tokens; /* 0: what the context leaves */
    bool stream;
    bool usage; /* of a stream: one more chunk with the counts */
    bool gauge; /* the meter with every chunk */
};

/* What a request is read against. */
struct ask_rules {
    const struct engine_info *info;
    struct steering *live;
    const struct shelf *shelf;
    const char *system;   /* for a conversation without a system prompt; NULL: none */
    int max_tokens;       /* unless the request says so itself */
    size_t history_bytes; /* of all messages */
    bool stream;          /* unless the request says so itself */
};

/* Messages of a chat. -1 with a message for the client; the ask is then empty. */
int ask_chat(struct ask *ask, const struct ask_rules *rules, const json_t *body,
             struct gyaru_error *err);

/* A raw prompt, as POST /completion takes it. */
int ask_completion(struct ask *ask, const struct ask_rules *rules, const json_t *body,
                   struct gyaru_error *err);

/* Only what a message of the page may say besides its text: an object of sampling options (NULL:
 * none) and the body's steering. */
int ask_options(struct ask *ask, const struct ask_rules *rules, const json_t *sampling,
                const json_t *body, struct gyaru_error *err);
void ask_release(struct ask *ask);

#endif
