/*
 * utf8.h - bytes of tokens -> text that is valid UTF-8 at every moment.
 */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H

#include "base/str.h"

#include <stdint.h>

/* Holds back the bytes of a character that is not whole yet. Zero-initialised is empty. */
struct utf8_stream {
    uint8_t pending[4];
    size_t n_pending;
};

/* Appends to `out` every character that `bytes` completes; bytes that can be part of no character
 * become U+FFFD (one per maximal invalid prefix, as Unicode recommends). */
void utf8_stream_push(struct utf8_stream *stream, const uint8_t *bytes, size_t n, struct str *out);

/* Would pushing these bytes complete and begin characters only, with nothing to replace? */
bool utf8_stream_accepts(const struct utf8_stream *stream, const uint8_t *bytes, size_t n);

/* What is still pending becomes one U+FFFD. */
void utf8_stream_finish(struct utf8_stream *stream, struct str *out);

/* Is the text valid UTF-8 (no surrogates, no overlong forms)? */
bool utf8_valid(const char *text, size_t len);

/* Bytes at the start of the text that are valid UTF-8: `len`, or where the first error is. */
size_t utf8_valid_prefix(const char *text, size_t len);

#endif
