/*
 * text_stats.h - what can be told about an answer from its text alone: is it in the style, is it
 * polite, is it broken, does it repeat itself.
 *
 * What a style looks like is data, a JSON object:
 *
 *     {"name": "gyaru",
 *      "signature": "あーし",             the marker that is counted by itself; may be absent
 *      "markers": ["あーし", ...],        or the name of a file with that array, beside this one
 *      "polite": "(です|ます)[。！]*$",   PCRE2; searched in the answer without outer white space
 *      "expected": "[ -~ぁ-んァ-ヶ]*"}    PCRE2; must match the whole of an answer that is not
 * broken
 *
 * "polite" and "expected" may be absent: then nothing is polite, and every script is expected.
 */
#ifndef STEER_TEXT_STATS_H
#define STEER_TEXT_STATS_H

#include "base/error.h"
#include "base/sha256.h"

struct text_style;

int text_style_open(const char *path, struct text_style **out, struct gyaru_error *err);
void text_style_close(struct text_style *style);
const char *text_style_name(const struct text_style *style);
const char *text_style_signature(const struct text_style *style); /* NULL: none */
size_t text_style_markers(const struct text_style *style);        /* how many there are */
/* SHA-256 of all of its data: names what a judgement depends on. */
const char *text_style_sha256(const struct text_style *style);

/* Why an answer is broken: the first that applies, in this order. */
enum text_fault {
    TEXT_FINE,
    TEXT_NO_END, /* not over within the tokens that it had */
    TEXT_INVALID_UTF8,
    TEXT_EMPTY,
    TEXT_SCRIPT, /* characters that "expected" does not know */
    TEXT_LOOP,   /* something said three times in a row, a character six times, or fewer than 60%
                    of its 4-grams are distinct */
    TEXT_FAULTS
};

/* "no_end", "invalid_utf8", ...; "" for TEXT_FINE */
const char *text_fault_name(enum text_fault fault);

struct text_judgement {
    bool signature, marker, polite;
    bool invalid_utf8, script, loop; /* whatever the first fault is */
    enum text_fault fault;
    double repetition; /* text_repetition(4) */
};

/* `text` may hold invalid UTF-8, or U+FFFD where it did. `ended`: the model closed the answer. */
int text_judge(const struct text_style *style, const char *text, size_t len, bool ended,
               struct text_judgement *out, struct gyaru_error *err);

/* n-grams are of characters (code points), n 1..4. Both are 0 when the text is shorter than n. */

/* Share of the n-grams that occurred before in the same text, 0..1. */
int text_repetition(const char *text, size_t len, int n, double *out, struct gyaru_error *err);

/* distinct-n (Li et al. 2016): different n-grams over all n-grams of all texts together, 0..1. */
int text_distinct(const char *const *texts, const size_t *lens, size_t n_texts, int n, double *out,
                  struct gyaru_error *err);

#endif
