/*
 * stream.h - an HTTP answer that is still being made: a job's events, sent as they come or at once.
 *
 * Belongs to the event loop and to one connection. Events leave the job's ring only as fast as the
 * reader takes them. The head of the answer waits for the first text, so that whatever goes wrong
 * before it still has a status of its own; a ping that is due first ends that wait.
 */
#ifndef SERVER_STREAM_H
#define SERVER_STREAM_H

#include "server/ask.h"
#include "server/conn.h"
#include "server/frame.h"

/* Queues the job and holds the answer open, or answers with the reason why not. Empties `ask`. The
 * result is that of the callback. */
int stream_begin(struct server *server, struct conn *conn, struct lws *wsi, struct ask *ask,
                 enum frame_style style);

#endif
