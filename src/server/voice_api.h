/*
 * voice_api.h - HTTP answers that wait for the voice engine. Belongs to the event loop.
 */
#ifndef SERVER_VOICE_API_H
#define SERVER_VOICE_API_H

#include "server/conn.h"
#include "server/voice.h"

/* There may be answers. */
void voice_notify_all(struct server *server);

int voice_writeable(struct conn *conn);
void voice_close(struct conn *conn); /* cancels the request */

/* How many wait; `now` cancels them. */
size_t voice_go_away(struct server *server, bool now);

#endif
