/* reply.c - see reply.h. */
#include "model/reply.h"

#include <stdlib.h>
#include <string.h>

static void free_stops(struct reply *r)
{
    for (size_t i = 0; i < r->n_stop; i++)
        free(r->stop[i]);
    free(r->stop);
    r->stop = NULL;
    r->n_stop = 0;
}

int reply_begin(struct reply *r, const char *const *stop, size_t n_stop)
{
    free_stops(r);
    r->utf8 = (struct utf8_stream){0};
    str_clear(&r->held);
    str_clear(&r->out);
    if (!n_stop)
        return 0;
    r->stop = calloc(n_stop, sizeof *r->stop);
    if (!r->stop)
        return -1;
    for (size_t i = 0; i < n_stop; i++) {
        if (!stop[i][0])
            continue;
        r->stop[r->n_stop] = strdup(stop[i]);
        if (!r->stop[r->n_stop])
            return -1;
        r->n_stop++;
    }
    return 0;
}

void reply_release(struct reply *r)
{
    free_stops(r);
    str_release(&r->held);
    str_release(&r->out);
}

/* Bytes at the end of the held text that could begin a stop string. */
static size_t held_back(const struct reply *r)
{
    size_t most = 0;
    for (size_t i = 0; i < r->n_stop; i++) {
        size_t len = strlen(r->stop[i]) - 1;
        if (len > r->held.len)
            len = r->held.len;
        while (len > most && memcmp(r->held.data + r->held.len - len, r->stop[i], len))
            len--;
        if (len > most)
            most = len;
    }
    return most;
}

/* Moves the first n held bytes to the certain text. */
static void release(struct reply *r, size_t n)
{
    if (!n)
        return;
    str_append(&r->out, r->held.data, n);
    memmove(r->held.data, r->held.data + n, r->held.len - n + 1);
    r->held.len -= n;
}

bool reply_push(struct reply *r, const uint8_t *bytes, size_t n)
{
    utf8_stream_push(&r->utf8, bytes, n, &r->held);
    const char *first = NULL;
    for (size_t i = 0; i < r->n_stop && r->held.len; i++) {
        const char *at = strstr(r->held.data, r->stop[i]);
        if (at && (!first || at < first))
            first = at;
    }
    if (first) {
        release(r, (size_t)(first - r->held.data));
        str_clear(&r->held);
        r->utf8 = (struct utf8_stream){0};
        return true;
    }
    release(r, r->held.len - held_back(r));
    return false;
}

void reply_finish(struct reply *r)
{
    utf8_stream_finish(&r->utf8, &r->held);
    release(r, r->held.len);
}
