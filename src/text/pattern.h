/*
 * pattern.h - the tokenizer's own split pattern, through PCRE2.
 *
 * tokenizer.json's patterns are written for Oniguruma. What both engines read alike is passed on,
 * \s and \S are replaced by the Unicode property that they mean there, and anything that the two
 * would read differently is refused by name.
 */
#ifndef TEXT_PATTERN_H
#define TEXT_PATTERN_H

#include "base/error.h"

struct pattern;

/* `regex` in Oniguruma syntax as tokenizer.json has it; one that can match the empty string is
 * refused. */
int pattern_new(const char *regex, size_t len, struct pattern **out, struct gyaru_error *err);
void pattern_free(struct pattern *pattern);

/* Called for each piece, in order; returns -1 to stop. */
typedef int pattern_piece(void *user, const char *piece, size_t len, struct gyaru_error *err);

/* Cuts valid UTF-8 into the matches and what lies between them ("Isolated"); the pieces joined
 * are the text. A match that exceeds PCRE2's limits is an error. Reentrant. */
int pattern_split(const struct pattern *pattern, const char *text, size_t len, pattern_piece *piece,
                  void *user, struct gyaru_error *err);

#endif
