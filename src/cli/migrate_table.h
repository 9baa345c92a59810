/*
 * migrate_table.h - the plan of `gyaru migrate` for a terminal.
 */
#ifndef CLI_MIGRATE_TABLE_H
#define CLI_MIGRATE_TABLE_H

#include <jansson.h>
#include <stdio.h>

void migrate_plan_print(FILE *out, const json_t *plan);

#endif
