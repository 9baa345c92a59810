/*
 * texts.h - files of messages and of system prompts, and lists of numbers on the command line, for
 * `measure` and `tune`.
 */
#ifndef CLI_TEXTS_H
#define CLI_TEXTS_H

#include <gyaru.h>

struct text_list {
    char **items; /* [n] owned */
    size_t n;
};

/* A JSON array of texts, or a text file with one message a line (empty lines do not count). */
int text_list_read(const char *path, struct text_list *out, struct gyaru_error *err);
void text_list_release(struct text_list *list);

/* The text `index` (0-based) of list `name` in a JSON object {"butler": ["...", ...], ...} (caller
 * frees). */
int prompt_read(const char *path, const char *name, int index, char **out, struct gyaru_error *err);

/* "0,8,12" (caller frees); each from least to most. `option` stands in the message. */
int numbers_parse(const char *option, const char *text, float least, float most, float **out,
                  size_t *n, struct gyaru_error *err);

#endif
