/*
 * sentence.h - finds sentences in a text that is still being written, for voice and captions.
 *
 * A sentence leaves as soon as what follows cannot belong to it any more, and in two forms: as it
 * is shown (without emotion tags such as [happy] and without Markdown's marks) and as it is spoken
 * (besides: no URLs, no pictures, no code). Where sentences end does not depend on the pieces in
 * which the text came.
 */
#ifndef TALK_SENTENCE_H
#define TALK_SENTENCE_H

#include "base/str.h"

/* Widths: a character of ASCII counts 1, any other 2, which is about the time it takes to say. */
#define SENTENCE_WIDTH_MAX 160 /* a longer one is cut, where possible after a comma or a space */
#define SENTENCE_WIDTH_MIN 8   /* a shorter one waits for the next, unless a line ends */

struct sentences {
    struct str raw; /* what has come and is not yet part of a sentence */
    bool fenced;    /* inside of ``` */
};

/* One sentence; `spoken` is empty if there is nothing to say (a row of stars, a smile). */
struct sentence {
    struct str shown, spoken;
};

void sentences_init(struct sentences *s);
void sentences_clear(struct sentences *s);
void sentences_release(struct sentences *s);

/* UTF-8, whole characters. */
void sentences_feed(struct sentences *s, const char *text, size_t len);

/* Takes the next sentence; with `end`, what is left is one too. False if there is none; *out then
 * holds nothing. */
bool sentences_next(struct sentences *s, bool end, struct sentence *out);

/* What of the running sentence can be shown already; replaces *shown. */
void sentences_partial(const struct sentences *s, struct str *shown);

void sentence_release(struct sentence *sentence);

#endif
