/*
 * sentence_impl.h - between sentence.c and sentence_text.c.
 */
#ifndef TALK_SENTENCE_IMPL_H
#define TALK_SENTENCE_IMPL_H

#include "talk/sentence.h"

#include <stdint.h>
#include <strings.h>

#define SENTENCE_TAG_MAX 40 /* bytes of a tag's name */

/* The first character of a valid text that is not empty; *size: its bytes. */
uint32_t sentence_char(const char *text, size_t len, size_t *size);

/* Emoji and dingbats, with what joins them. */
bool sentence_is_picture(uint32_t c);

/* Bytes of what begins here, 0 if it does not; *open: more text decides. */
size_t sentence_tag(const char *text, size_t len, bool *open);  /* [happy], [motion:wave] */
size_t sentence_url(const char *text, size_t len, bool *open);  /* http://..., www.... */
size_t sentence_code(const char *text, size_t len, bool *open); /* `code` */

/* Appends a raw sentence as it is shown and (unless NULL) as it is spoken. */
void sentence_texts(const char *raw, size_t len, struct str *shown, struct str *spoken);

#endif
