/*
 * extract_table.h - the report of `extract` for a terminal.
 */
#ifndef CLI_EXTRACT_TABLE_H
#define CLI_EXTRACT_TABLE_H

#include "base/json.h"

#include <stdio.h>

/* One line per layer and what the columns mean; Japanese or English. */
void extract_table_print(FILE *out, const json_t *report, bool japanese);

#endif
