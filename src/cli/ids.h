/*
 * ids.h - token ids on the command line: "1,2,3".
 */
#ifndef CLI_IDS_H
#define CLI_IDS_H

#include "base/error.h"

/* Parses a comma-separated list (caller frees). */
int ids_parse(const char *text, int32_t **ids, size_t *n, struct gyaru_error *err);

#endif
