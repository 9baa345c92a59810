/*
 * ask_impl.h - between ask.c and ask_messages.c.
 */
#ifndef SERVER_ASK_IMPL_H
#define SERVER_ASK_IMPL_H

#include "server/ask.h"
#include "talk/conversation.h"

/* "FIELD: expected EXPECTED"; returns -1. */
int ask_refuse(struct gyaru_error *err, const char *field, const char *expected);

/* stream, sampling, stop, steering, gauge. */
int ask_common(struct ask *ask, const struct ask_rules *rules, const json_t *body,
               struct gyaru_error *err);

/* The first of the fields (NULL ends them) that the request has. */
int ask_max_tokens(struct ask *ask, const char *const *fields, const json_t *body,
                   struct gyaru_error *err);

#endif
