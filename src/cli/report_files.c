/* report_files.c - see report_files.h. */
#include "cli/report_files.h"

#include "base/file.h"
#include "base/str.h"
#include "cli/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *name_in(const char *dir, const char *command, const char *extension)
{
    struct str path = STR_INIT;
    str_printf(&path, "%s/%s.%s", dir, command, extension);
    return str_take(&path);
}

int report_files_write(const char *command, const char *dir, const char *json, report_page *page,
                       const char *language, struct gyaru_error *err)
{
    char *html = NULL;
    char *paths[2] = {name_in(dir, command, "html"), name_in(dir, command, "json")};
    int rc =
        paths[0] && paths[1] ? file_make_dirs(dir, err) : error_memory(err, strlen(dir), "a path");
    if (!rc)
        rc = page(json, options_japanese(language) ? "ja" : "en", &html, err);
    if (!rc)
        rc = file_write_atomic(paths[0], html, strlen(html), err);
    if (!rc)
        rc = file_write_atomic(paths[1], json, strlen(json), err);
    if (!rc)
        fprintf(stderr, "gyaru %s: report: %s\n", command, paths[0]);
    free(html);
    free(paths[0]);
    free(paths[1]);
    return rc;
}
