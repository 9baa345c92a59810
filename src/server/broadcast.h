/*
 * broadcast.h - one text for any number of WebSockets.
 *
 * Every message is made once and shared; a viewer holds references to the newest few. One that
 * does not keep up loses the oldest of them, never its connection, and costs the others nothing.
 * Each message therefore has to say everything. Belongs to the event loop.
 */
#ifndef SERVER_BROADCAST_H
#define SERVER_BROADCAST_H

#include <libwebsockets.h>
#include <stdbool.h>
#include <stdint.h>

#define BROADCAST_RING 16 /* messages that may wait for one viewer */

struct viewer;

struct broadcast {
    struct viewer *viewers; /* all of them */
    size_t n_viewers;
    uint64_t sent, dropped; /* messages, summed over viewers */
};

/* Queues the text for everybody who watches. */
void broadcast_say(struct broadcast *broadcast, const char *text, size_t len);

/* A new viewer, who begins with `text`; NULL when out of memory. */
struct viewer *viewer_open(struct broadcast *broadcast, struct lws *wsi, const char *text,
                           size_t len);
void viewer_close(struct viewer *viewer);

/* The callback of libwebsockets; -1 closes the connection. */
int viewer_writeable(struct viewer *viewer);

/* Asks every viewer to close; returns how many are left. */
size_t broadcast_go_away(struct broadcast *broadcast);

#endif
