/*
 * speech.h - the sentences of one WebSocket's answers, for a page that speaks them.
 *
 * Off until the page asks for them ({"type":"voice","on":true}). The texts of the newest answer
 * are kept: the page says by number which one it plays, and that text is the overlay's caption.
 */
#ifndef SERVER_SPEECH_H
#define SERVER_SPEECH_H

#include "talk/sentence.h"

#include <jansson.h>

struct speech {
    bool on;
    struct sentences sentences;
    json_t *shown; /* [sentences of this answer so far] texts as shown; NULL: none */
};

void speech_init(struct speech *speech);
void speech_release(struct speech *speech);

/* A new answer begins: the sentences of the last one are forgotten. */
void speech_begin(struct speech *speech);

/* More text of the answer. */
void speech_feed(struct speech *speech, const char *text, size_t len);

/* The next {"type":"sentence"} message, NULL if there is none; `end`: no more text comes. */
json_t *speech_next(struct speech *speech, bool end);

/* The text of a sentence that was sent, NULL if there is none of this number. */
const json_t *speech_shown(const struct speech *speech, const json_t *index);

#endif
