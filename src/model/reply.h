/*
 * reply.h - the text of an answer while it grows: whole characters only, never past a stop string.
 */
#ifndef MODEL_REPLY_H
#define MODEL_REPLY_H

#include "base/str.h"
#include "text/utf8.h"

struct reply {
    struct utf8_stream utf8;
    struct str held; /* decoded text that may still turn out to begin a stop string */
    struct str out;  /* text that is certain, of this step */
    char **stop;     /* [n_stop] owned, none empty */
    size_t n_stop;
};

/* Forgets an earlier answer and copies the stop strings. -1 when out of memory. */
int reply_begin(struct reply *reply, const char *const *stop, size_t n_stop);
void reply_release(struct reply *reply);

/* Takes a token's bytes. True if a stop string is complete: the text ends before it. */
bool reply_push(struct reply *reply, const uint8_t *bytes, size_t n);

/* The answer ended otherwise: what was held back is text after all. */
void reply_finish(struct reply *reply);

#endif
