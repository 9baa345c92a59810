/*
 * route.h - the table of HTTP paths. One file per family of endpoints adds its entries in route.c.
 */
#ifndef SERVER_ROUTE_H
#define SERVER_ROUTE_H

#include "server/conn.h"

#include <jansson.h>

enum route_body {
    BODY_NONE,
    BODY_JSON, /* is read first, into conn->exchange.request */
    BODY_MAYBE /* the same, if there is one */
};

struct route {
    const char *method, *path;
    bool is_public; /* needs no key */
    enum route_body body;
    int (*answer)(struct server *server, struct conn *conn, struct lws *wsi);
};

/* *known_path: some method of this path exists. */
const struct route *route_find(const char *method, const char *path, bool *known_path);

/* Answers with a document (taken over; NULL closes the connection). */
int http_json(struct conn *conn, struct lws *wsi, unsigned status, json_t *json);

#endif
