/*
 * ws_json.h - the larger messages of the WebSocket as documents; docs/websocket.md describes them.
 *
 * Each of the server's returns a new document, NULL when out of memory.
 */
#ifndef SERVER_WS_JSON_H
#define SERVER_WS_JSON_H

#include "server/conn.h"

#include <jansson.h>

/* *version: of the live steering that the message tells. `system` may be NULL. */
json_t *ws_hello_json(struct server *server, const char *system, uint64_t *version);
json_t *ws_strength_json(struct server *server, uint64_t *version);

/* Of a token that has a meter. */
json_t *ws_gauge_json(const struct job_event *event);

/* `dropped`: messages; t NULL: not known yet. */
json_t *ws_done_json(const struct str *answer, const char *reason, size_t dropped,
                     const struct gyaru_timings *t);

/* A client's history is a list of turns: all of it is checked before any of it is taken. */
bool ws_history_valid(const json_t *history);

/* Replaces the conversation's turns; -1 when out of memory. */
int ws_history_take(struct conversation *conversation, const json_t *history);

#endif
