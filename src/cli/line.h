/*
 * line.h - lines from a person or a pipe: editing and a history file on a terminal, plain lines
 * elsewhere.
 */
#ifndef CLI_LINE_H
#define CLI_LINE_H

#include "base/error.h"

struct line_reader;

/* interactive: with prompt, editing and history. */
int line_open(bool interactive, struct line_reader **out, struct gyaru_error *err);
void line_close(struct line_reader *reader);

/* The next line without its end; valid until the next call; NULL at the end of the input. */
const char *line_read(struct line_reader *reader);

#endif
