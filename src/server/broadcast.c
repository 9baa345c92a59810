/* broadcast.c - see broadcast.h. */
#include "server/broadcast.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Bytes that the kernel may hold for a viewer, so that a slow one sees the present, not a minute
 * ago. */
#define SEND_BUFFER 8192

struct message {
    size_t refs, len;
    unsigned char data[]; /* LWS_PRE bytes of room, then the text */
};

struct viewer {
    struct broadcast *broadcast;
    struct lws *wsi;
    struct viewer *next;
    size_t head, count;
    struct message *ring[BROADCAST_RING];
    bool leaving; /* close with 1001 */
};

/* Without a reference yet; NULL when out of memory. */
static struct message *message_new(const char *text, size_t len)
{
    struct message *message = malloc(sizeof *message + LWS_PRE + len);
    if (!message)
        return NULL;
    message->refs = 0;
    message->len = len;
    memcpy(message->data + LWS_PRE, text, len);
    return message;
}

static void message_unref(struct message *message)
{
    if (!--message->refs)
        free(message);
}

static void push(struct viewer *viewer, struct message *message)
{
    if (viewer->count == BROADCAST_RING) {
        message_unref(viewer->ring[viewer->head]);
        viewer->head = (viewer->head + 1) % BROADCAST_RING;
        viewer->count--;
        viewer->broadcast->dropped++;
    }
    message->refs++;
    viewer->ring[(viewer->head + viewer->count++) % BROADCAST_RING] = message;
    lws_callback_on_writable(viewer->wsi);
}

void broadcast_say(struct broadcast *broadcast, const char *text, size_t len)
{
    struct message *message = broadcast->viewers ? message_new(text, len) : NULL;
    if (!message) /* the next one says everything again */
        return;
    for (struct viewer *viewer = broadcast->viewers; viewer; viewer = viewer->next)
        push(viewer, message);
}

struct viewer *viewer_open(struct broadcast *broadcast, struct lws *wsi, const char *text,
                           size_t len)
{
    struct viewer *viewer = calloc(1, sizeof *viewer);
    struct message *message = viewer ? message_new(text, len) : NULL;
    if (!message) {
        free(viewer);
        return NULL;
    }
    int size = SEND_BUFFER;
    setsockopt(lws_get_socket_fd(wsi), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    viewer->broadcast = broadcast;
    viewer->wsi = wsi;
    viewer->next = broadcast->viewers;
    broadcast->viewers = viewer;
    broadcast->n_viewers++;
    push(viewer, message);
    return viewer;
}

void viewer_close(struct viewer *viewer)
{
    struct viewer **link = &viewer->broadcast->viewers;
    while (*link != viewer)
        link = &(*link)->next;
    *link = viewer->next;
    viewer->broadcast->n_viewers--;
    for (; viewer->count; viewer->count--) {
        message_unref(viewer->ring[viewer->head]);
        viewer->head = (viewer->head + 1) % BROADCAST_RING;
    }
    free(viewer);
}

int viewer_writeable(struct viewer *viewer)
{
    bool wrote = false;
    while (viewer->count && !lws_send_pipe_choked(viewer->wsi)) {
        struct message *message = viewer->ring[viewer->head];
        viewer->head = (viewer->head + 1) % BROADCAST_RING;
        viewer->count--;
        int n = lws_write(viewer->wsi, message->data + LWS_PRE, message->len, LWS_WRITE_TEXT);
        message_unref(message);
        if (n < 0)
            return -1;
        viewer->broadcast->sent++;
        wrote = true;
    }
    if (viewer->count || (viewer->leaving && wrote)) {
        lws_callback_on_writable(viewer->wsi);
    } else if (viewer->leaving) {
        lws_close_reason(viewer->wsi, LWS_CLOSE_STATUS_GOINGAWAY, NULL, 0);
        return -1;
    }
    return 0;
}

size_t broadcast_go_away(struct broadcast *broadcast)
{
    for (struct viewer *viewer = broadcast->viewers; viewer; viewer = viewer->next) {
        viewer->leaving = true;
        lws_callback_on_writable(viewer->wsi);
    }
    return broadcast->n_viewers;
}
