/*
 * overlay.h - what the overlay shows: meter, strength and the sentence being said, as one message
 * (docs/overlay.md) to all viewers whenever something changed, at most 30 times a second.
 *
 * The answer that began last is the one on show, whoever asked. Its caption is the sentence being
 * decoded, or, where a page speaks it, the one that the page reports as playing. Belongs to the
 * event loop.
 */
#ifndef SERVER_OVERLAY_H
#define SERVER_OVERLAY_H

#include "server/broadcast.h"
#include "server/conn.h"
#include "server/tap.h"

struct overlay;

/* Its tap is what the engine writes to. NULL when out of memory. */
struct overlay *overlay_new(struct server *server);
void overlay_stop(struct overlay *overlay); /* before the context goes */
void overlay_free(struct overlay *overlay);
struct tap *overlay_tap(struct overlay *overlay);
struct broadcast *overlay_broadcast(struct overlay *overlay);

/* There may be news: from the tap, of the strength, of the server. */
void overlay_update(struct overlay *overlay);

/* Once a second: a word now and then keeps connections known as living. */
void overlay_tick(struct overlay *overlay);

struct viewer *overlay_open(struct overlay *overlay, struct lws *wsi);

/* Does the connection `owner` speak its answers itself? */
void overlay_spoken(struct overlay *overlay, uint64_t owner, bool spoken);

/* It plays this sentence now; NULL: none any more. */
void overlay_playing(struct overlay *overlay, uint64_t owner, const char *text, size_t len);

#endif
