/*
 * api_client.h - HTTP answers as API clients read them: by Content-Length or in chunks, whole
 * documents or server-sent events.
 *
 * Functions fail the running test on what no client could read: a broken frame, bytes that are no
 * UTF-8, an event that is no JSON.
 */
#ifndef TESTS_API_CLIENT_H
#define TESTS_API_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct api_answer {
    int status;     /* 0: closed without an answer */
    char *head;     /* status line and headers */
    char *body;     /* out of its chunks */
    json_t *json;   /* of a whole document; NULL: none */
    json_t *events; /* array of the documents of "data:" lines, without [DONE] */
    int comments;   /* lines that begin with ':' */
    bool done;      /* "data: [DONE]" was the last event */
    bool closed;    /* the connection ended with the answer */
};

/* Reads one answer from the socket. */
void api_read(int fd, struct api_answer *answer);

/* One request on a connection of its own. `headers`: NULL or "Name: value\r\n" lines; body NULL:
 * none. Host and, with a body, Content-Type and Content-Length are put in. */
void api_call(int port, const char *method, const char *path, const char *headers, const char *body,
              struct api_answer *answer);
void api_release(struct api_answer *answer);

/* POSTs on an open connection; api_ask() on one of its own, which it gives. Neither waits for the
 * answer. */
void api_send(int fd, const char *path, const char *body);
int api_ask(int port, const char *path, const char *body);

/* POST, from which this status must come; gives error.message of what is no success (valid until
 * the next call), else "". */
const char *api_expect(int port, const char *path, const char *body, int status);

/* The text of a chat that was not streamed (the answer's); checks the constants around it. */
const char *api_whole_text(const struct api_answer *answer);

/* What a client shows: the contents of all deltas of a chat, joined (caller frees). Checks the
 * order and the constants of the chunks on the way; *finish is the finish_reason. */
char *api_chat_text(const struct api_answer *answer, const char **finish);

#endif
