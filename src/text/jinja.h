/*
 * jinja.h - just enough of Jinja to find out what a chat template does.
 *
 * Statements: if/elif/else, for over messages, set, generation. Expressions: literals, names,
 * members, indices, slices of messages, + ~ - comparisons, in, and/or/not, inline if, the tests
 * defined, none, string, mapping, the filters length and string. Everything else is an error when
 * it is reached, not when it merely stands there (the tools branch of a template never runs here).
 * What a message's content is may not decide anything but whether it is empty: comparing contents
 * is an error, so that what holds for a few conversations holds for all.
 *
 * Whitespace is treated as the reference does: trim_blocks and lstrip_blocks on, one newline at the
 * end of the template dropped.
 */
#ifndef TEXT_JINJA_H
#define TEXT_JINJA_H

#include "base/error.h"
#include "base/str.h"

/* A string variable of the template besides messages and add_generation_prompt. */
struct jinja_string {
    const char *name, *value;
};

struct jinja_input {
    const struct gyaru_message *messages;
    size_t n_messages;
    bool add_generation_prompt;
    const struct jinja_string *strings; /* e.g. eos_token */
    size_t n_strings;
};

/* Appends the rendered text to `out`. Work and output are bounded, whatever the template says. */
int jinja_render(const char *template, size_t len, const struct jinja_input *input, struct str *out,
                 struct gyaru_error *err);

#endif
