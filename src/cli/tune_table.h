/* tune_table.h - the report of `tune` on a terminal. */
#ifndef CLI_TUNE_TABLE_H
#define CLI_TUNE_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

void tune_table_print(FILE *out, const json_t *report, bool japanese);

#endif
