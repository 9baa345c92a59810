/*
 * conn.h - what the event loop's files share: the server's state and the two kinds of connection.
 *
 * libwebsockets allocates one `struct conn` per socket. While the socket speaks HTTP it holds an
 * exchange; after an upgrade it holds a ws. Everything here belongs to the event loop.
 */
#ifndef SERVER_CONN_H
#define SERVER_CONN_H

#include "base/str.h"
#include "talk/conversation.h"
#include "server/engine.h"

#include <libwebsockets.h>

struct server {
    struct server_options options;
    struct steering steering;
    struct shelf shelf;     /* the engine's while it loads, then the event loop's */
    uint64_t shelf_version; /* grows when an entry is another one */
    struct engine *engine;
    struct overlay *overlay;
    struct voice *voice;
    struct lws_context *context;
    struct lws_vhost *vhost;
    lws_retry_bo_t idle_policy;     /* of WebSockets */
    struct lws *listener;           /* NULL once the server stops accepting */
    int port;                       /* as bound */
    int n_connections;              /* sockets accepted and not yet closed */
    struct ws *ws_list;             /* all WebSockets */
    uint64_t next_id;               /* of a WebSocket; from 1 */
    struct stream *streams;         /* all HTTP answers being made */
    uint64_t next_answer;           /* of an HTTP answer; from 1 */
    struct voice_wait *voice_waits; /* all HTTP answers that wait for the voice engine */
    size_t body_bytes;              /* of all request bodies held */
    lws_sorted_usec_list_t tick;
    atomic_bool stop, reload; /* set from other threads */
    bool stopping;
    double deadline; /* seconds, clock; while stopping */
};

/* ---- HTTP ---- */

struct route;

/* One request and its answer. */
struct exchange {
    const struct route *route; /* whose body is being collected; NULL: none */
    const char *path;          /* while the route answers; NULL: it was read before the body */
    struct str request;        /* its body so far */
    char *origin;              /* owned: another page's, which may read the answer; NULL: none */
    const unsigned char *body; /* of the answer */
    size_t len, sent;          /* bytes */
    char *owned;               /* freed with the exchange; NULL if body is static */
    bool answering;            /* the head is sent */
    bool close;                /* the connection ends with this answer */
};

struct stream;
struct viewer;
struct voice_wait;

struct conn {
    struct exchange exchange;
    struct stream *stream;    /* an answer that is still being made; NULL: none */
    struct voice_wait *voice; /* an answer that waits for the voice engine; NULL: none */
    struct ws *ws;            /* NULL: HTTP, or an overlay */
    struct viewer *viewer;    /* of the overlay; NULL: none */
};

/* The callbacks of libwebsockets for a connection that speaks HTTP; -1 closes it. */
int http_request(struct server *server, struct conn *conn, struct lws *wsi, const char *path);
int http_body(struct server *server, struct conn *conn, struct lws *wsi, const void *data,
              size_t len);
int http_body_end(struct server *server, struct conn *conn, struct lws *wsi);
int http_writeable(struct conn *conn, struct lws *wsi);
void http_release(struct server *server, struct conn *conn);

/* May this request become a WebSocket? 0, or -1 after an answer that says why not. */
int http_upgrade(struct server *server, struct lws *wsi);

#define PATH_WS      "/ws"
#define PATH_OVERLAY "/overlay/ws"

/* Is this the path of the request? */
bool http_is_path(struct lws *wsi, const char *path);

/* Begins an answer. `extra` is NULL or one more header, "name:" and value. */
struct http_answer {
    unsigned status;
    const char *type;          /* content type; NULL: no body */
    const unsigned char *body; /* static, or the same as owned */
    size_t len;
    char *owned; /* taken over */
    const char *extra_name, *extra_value;
    const char *policy;    /* Content-Security-Policy; NULL: the page's */
    bool preflight;        /* says what other pages may send */
    bool endless, chunked; /* for http_head(): a body of unknown length, in chunks or to the end */
};
int http_answer(struct conn *conn, struct lws *wsi, struct http_answer answer);

/* For an answer whose body somebody else writes: its head, and what ends it. */
int http_head(struct conn *conn, struct lws *wsi, const struct http_answer *answer);
int http_finish(struct conn *conn, struct lws *wsi);

/* The request is understood: its body is not needed any more. */
void http_forget_body(struct server *server, struct conn *conn);

/* {"error":{"code","message","type"}} */
int http_error(struct conn *conn, struct lws *wsi, unsigned status, const char *type,
               const char *message);

/* The same with "reason", see base/reason.h; "": none. */
int http_refuse(struct conn *conn, struct lws *wsi, unsigned status, const char *type,
                const char *reason, const char *message);

/* An asset of the page: 200 or 304; false if there is none of that name. */
bool asset_answer(struct conn *conn, struct lws *wsi, const char *path, int *rc);

/* ---- answers that are still being made (stream.h) ---- */

int stream_writeable(struct conn *conn);
void stream_close(struct conn *conn); /* cancels the job */
void stream_notify_all(struct server *server);

/* Once a second: pings, and closes readers that take nothing. */
void stream_tick_all(struct server *server);

/* How many there are; `now` cancels them. */
size_t stream_go_away(struct server *server, bool now);

/* ---- vectors ---- */

/* Reads the folder again; whoever uses a vector keeps it. */
int vectors_reload(struct server *server, struct gyaru_error *err);

/* ---- WebSocket ---- */

struct ws *ws_open(struct server *server, struct lws *wsi); /* NULL when out of memory */
void ws_close(struct ws *ws);                               /* cancels the running answer */
int ws_receive(struct ws *ws, const void *data, size_t len);
int ws_writeable(struct ws *ws);

/* Does the connection with this number speak its answers? */
bool ws_speaks(struct server *server, uint64_t id);

/* There may be news for any WebSocket: answers, another strength. */
void ws_notify_all(struct server *server);

/* Once a second: closes readers that take nothing. */
void ws_tick_all(struct server *server);

/* Asks every WebSocket without a running answer to close; returns how many are left. */
size_t ws_go_away(struct server *server, bool now);

#endif
