/*
 * report_files.h - a report's JSON and its page, side by side in a directory.
 */
#ifndef CLI_REPORT_FILES_H
#define CLI_REPORT_FILES_H

#include "base/error.h"

/* gyaru_extract_html() or gyaru_tune_html(). */
typedef int report_page(const char *report, const char *language, char **html,
                        struct gyaru_error *err);

/* Writes DIR/COMMAND.html and DIR/COMMAND.json and says where; language NULL: by LANG. */
int report_files_write(const char *command, const char *dir, const char *json, report_page *page,
                       const char *language, struct gyaru_error *err);

#endif
