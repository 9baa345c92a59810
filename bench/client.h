/*
 * client.h - clients of a running server for load and timing: HTTP answers, event streams and
 * WebSockets over blocking sockets, one thread each.
 *
 * Nothing here ends the program: what a server does wrong comes back as a fault, to be counted. A
 * fault is what no client could accept: a broken frame, text that is no UTF-8, an event that is
 * missing.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "base/str.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* ---- the server ---- */

struct host {
    pid_t pid;
    int port;
    char log[64]; /* path of its output, in a temporary file */
};

/* Starts build/gyaru ($BUILD/gyaru) serve on a free port with these options (NULL ends them; at
 * most 32) and waits for /health. Prints what is wrong; -1 on failure. */
int host_start(struct host *host, const char *const *options);

/* SIGTERM; the exit code, -1 if it had to be killed. */
int host_stop(struct host *host);
double host_memory(const struct host *host); /* resident, bytes */

/* ---- sockets ---- */

struct wire {
    int fd;
    struct str in; /* read and not used yet: from `at` */
    size_t at;
};

/* receive_buffer 0: the system's default. False: no connection. */
bool wire_open(struct wire *wire, int port, int receive_buffer);
void wire_close(struct wire *wire);
void wire_reset(struct wire *wire); /* closes with RST */
bool wire_send(struct wire *wire, const void *data, size_t len);

/* True if one more byte could be read; false at the end or after `seconds`. */
bool wire_more(struct wire *wire, double seconds);

/* ---- one answer ---- */

enum answer_fault {
    ANSWER_FINE,
    ANSWER_CLOSED,  /* the connection ended before the answer did */
    ANSWER_INVALID, /* broken framing, JSON or UTF-8 */
    ANSWER_LOST     /* counts or texts do not fit together: an event is missing */
};

struct answer {
    int status; /* of HTTP; 0: none came */
    enum answer_fault fault;
    double first, whole; /* seconds from the request on */
    size_t n_tokens, n_prompt, n_cached;
    struct str text;
    atomic_size_t *seen; /* NULL: none; see client_chat_seen() */
};

void answer_release(struct answer *answer);

/* Status of a GET; *body (may be NULL) gets the body, caller frees. 0: no answer. */
int client_get(int port, const char *path, char **body);

/* Sends the bytes as they are and gives the status; 0: closed without an answer. */
int client_raw(int port, const char *request, size_t len);

/* POST /v1/chat/completions with this document (taken over), which says whether it streams; the
 * meter is asked for, so that tokens can be counted. */
void client_chat(int port, json_t *body, struct answer *answer);

/* The same; every token of a stream is also counted in *seen as it comes. */
void client_chat_seen(int port, json_t *body, atomic_size_t *seen, struct answer *answer);

/* Sends the same and returns after `n_bytes` of the answer; the caller leaves as it likes. */
bool client_begin(struct wire *wire, int port, json_t *body, size_t n_bytes);

/* ---- WebSocket ---- */

struct socket {
    struct wire wire;
    double version; /* of the newest strength that the server told */
    double strength;
};

bool socket_open(struct socket *ws, int port, int receive_buffer); /* hello included */
bool socket_say(struct socket *ws, json_t *message);               /* taken over */

/* The next message; NULL when the connection ended or *fault is set. */
json_t *socket_next(struct socket *ws, enum answer_fault *fault);

/* Asks and reads to the end of the answer. */
void socket_chat(struct socket *ws, const char *question, struct answer *answer);

#endif
