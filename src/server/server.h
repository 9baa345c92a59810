/*
 * server.h - the web server: page, WebSocket chat, health; one event loop and one engine thread.
 *
 *   event loop (libwebsockets)            engine thread
 *     guard   who may talk to us            owns the model and all sessions
 *     http    routes, assets                takes jobs from a bounded queue
 *     ws      protocol of the page          steps all running sessions together
 *     conversation  a connection's history        pushes events into each job's bounded ring
 *
 * Between the two: the job queue, the rings, and the live steering (steering.h). Nothing else is
 * shared. The server opens no model itself: its owner passes a function that does, because the
 * engine thread has to be the one that calls it.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "server/log.h"
#include "server/shelf.h"
#include "server/voice.h"

/* What load() hands over; the strings live until unload(). No vector is attached yet. */
struct server_model {
    struct gyaru_model *model;
    struct shelf_sources vectors;
    float strength; /* to begin with */
    struct gyaru_sampling sampling;
};

struct server_options {
    const char *host;         /* address to bind; numeric or "localhost" */
    int port;                 /* 0: a free one */
    const char *port_file;    /* the port is written here once bound; NULL: nowhere */
    const char *api_key;      /* NULL: none asked */
    const char *allow_origin; /* pages that may use the API, "http://a:1,http://b"; NULL: none */
    const char *system;       /* first system prompt of a conversation; NULL: the model's own */
    const char *reports;      /* folder of the reports on vectors; NULL: none */
    const char *personas;     /* file of system prompts by name; NULL: none */
    int max_tokens;           /* of an answer; 0: what the context leaves */
    int sessions;             /* answers at a time */
    struct log_options log;
    struct voice_options voice;

    /* Limits; each has a default from server_options_init(). */
    int waiting;          /* requests that may wait for a session */
    int connections;      /* sockets at a time */
    size_t message_bytes; /* of one WebSocket message */
    size_t body_bytes;    /* of one request body */
    size_t history_bytes; /* of one conversation; older turns are dropped */
    int ring_events;      /* undelivered events of one answer */
    int idle_seconds;     /* a silent HTTP connection is closed */
    int send_seconds;     /* a reader that takes nothing is closed */
    int drain_seconds;    /* for running answers after server_stop() */
    int ping_seconds;     /* of silence in a streamed answer before a comment is sent; twice as long
                             before a WebSocket is pinged */
    int per_address;      /* HTTP answers that run or wait for one client address */

    /* Called once each, in the engine thread. */
    int (*load)(void *user, gyaru_progress *progress, void *progress_user, struct server_model *out,
                struct gyaru_error *err);
    void (*unload)(void *user);
    void *user;
};

struct server;

void server_options_init(struct server_options *options);

/* Binds, listens and begins to load the model. The options are copied, their strings are not. */
int server_new(const struct server_options *options, struct server **out, struct gyaru_error *err);

/* Serves until server_stop(); -1 if the model cannot be opened. */
int server_run(struct server *server, struct gyaru_error *err);

/* Asks the loop to read the vectors' folder again. From any thread. */
void server_reload(struct server *server);

/* Asks the loop to end: no new work, running answers get drain_seconds. From any thread. */
void server_stop(struct server *server);
void server_free(struct server *server);

int server_port(const struct server *server);

/* Is the address reachable from this machine only? */
bool server_host_is_loopback(const char *host);

#endif
