/*
 * reports.c - what lies beside the vectors, read-only: the pages that extract, tune and migrate
 * wrote, and the system prompts to choose from.
 *
 * A report is KIND.html in the reports' folder ("KIND") or in a folder in it ("FOLDER/KIND"). Its
 * page is sent with a policy of its own: no script, nothing from elsewhere, no origin.
 */
#include "server/api.h"

#include "base/file.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPORT_BYTES  (16 << 20)
#define PERSONA_BYTES (1 << 20)
#define REPORTS_MAX   256

static const char *const kinds[] = {"extract", "tune", "migrate"};
#define N_KINDS (sizeof kinds / sizeof kinds[0])

static const char policy[] =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/* One name within a folder: no way out of it, nothing hidden. */
static bool component_valid(const char *name, size_t len)
{
    if (!len || len > SHELF_NAME_MAX || name[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < ' ' || strchr("/\\%", name[i]))
            return false;
    }
    return true;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Opens KIND.EXTENSION in the folder, or in its folder SUB (NULL: none). No link is followed below
 * the folder itself. -1: there is none. */
static int open_report(const char *folder, const char *sub, const char *kind, const char *extension)
{
    char file[64];
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0 && sub) {
        int inner = openat(dir, sub, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(dir);
        dir = inner;
    }
    if (dir < 0)
        return -1;
    snprintf(file, sizeof file, "%s.%s", kind, extension);
    int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    close(dir);
    struct stat stat_;
    if (fd >= 0 && (fstat(fd, &stat_) || !S_ISREG(stat_.st_mode) || stat_.st_size > REPORT_BYTES)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Closes fd. NULL on failure. */
static char *read_all(int fd, size_t *len)
{
    struct str out = STR_INIT;
    char buffer[16384];
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0 && out.len <= REPORT_BYTES)
        str_append(&out, buffer, (size_t)n);
    close(fd);
    *len = out.len;
    if (n)
        str_release(&out);
    return n ? NULL : str_take(&out);
}

/* ---- the list ------------------------------------------------------------------------------- */

/* Name of the vector that a report is about: that of the file it names. */
static json_t *vector_of(const json_t *report)
{
    static const char *const fields[] = {"out", "vector"};
    for (size_t i = 0; i < 2; i++) {
        const char *path = json_string_value(json_object_get(report, fields[i]));
        const char *slash = path ? strrchr(path, '/') : NULL, *name = slash ? slash + 1 : path;
        const char *dot = name ? strrchr(name, '.') : NULL;
        if (name && *name)
            return json_stringn(name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
    }
    return json_null();
}

static void add_report(json_t *list, const char *folder, const char *sub, const char *kind)
{
    struct gyaru_error ignored;
    struct stat stat_;
    size_t len;
    int page = open_report(folder, sub, kind, "html");
    if (page < 0 || json_array_size(list) >= REPORTS_MAX) {
        if (page >= 0)
            close(page);
        return;
    }
    double when = fstat(page, &stat_) ? 0 : (double)stat_.st_mtime;
    close(page);
    int data = open_report(folder, sub, kind, "json");
    char *text = data >= 0 ? read_all(data, &len) : NULL;
    json_t *report = text ? json_parse_text(text, len, "a report", &ignored) : NULL;
    free(text);
    json_array_append_new(list,
                          json_pack("{s:o,s:s,s:s,s:o,s:I}", "id",
                                    sub ? json_sprintf("%s/%s", sub, kind) : json_string(kind),
                                    "object", "report", "kind", kind, "vector", vector_of(report),
                                    "created", (json_int_t)when));
    json_decref(report);
}

static void add_reports(json_t *list, const char *folder, const char *sub)
{
    for (size_t k = 0; k < N_KINDS; k++)
        add_report(list, folder, sub, kinds[k]);
}

int api_reports(struct server *server, struct conn *conn, struct lws *wsi)
{
    const char *folder = server->options.reports;
    json_t *list = json_array();
    struct dirent **entries;
    int n = folder ? scandir(folder, &entries, NULL, alphasort) : -1;
    if (n >= 0) {
        add_reports(list, folder, NULL);
        for (int i = 0; i < n; i++) {
            const char *name = entries[i]->d_name;
            if (component_valid(name, strlen(name)) &&
                (entries[i]->d_type == DT_DIR || entries[i]->d_type == DT_UNKNOWN))
                add_reports(list, folder, name);
            free(entries[i]);
        }
        free(entries);
    }
    return http_json(conn, wsi, 200, json_pack("{s:s,s:o}", "object", "list", "data", list));
}

/* ---- one page ------------------------------------------------------------------------------- */

/* "KIND" or "FOLDER/KIND" -> its parts; false if it is neither. */
static bool parse_id(const char *id, char sub[SHELF_NAME_MAX + 1], const char **kind)
{
    const char *slash = strchr(id, '/'), *last = slash ? slash + 1 : id;
    size_t len = slash ? (size_t)(slash - id) : 0;
    *kind = NULL;
    for (size_t k = 0; k < N_KINDS; k++) {
        if (!strcmp(last, kinds[k]))
            *kind = kinds[k];
    }
    if (!*kind || (slash && !component_valid(id, len)))
        return false;
    memcpy(sub, id, len);
    sub[len] = '\0';
    return true;
}

int api_report(struct server *server, struct conn *conn, struct lws *wsi)
{
    char sub[SHELF_NAME_MAX + 1];
    const char *kind, *id = conn->exchange.path + strlen("/v1/reports/");
    size_t len;
    if (!parse_id(id, sub, &kind))
        return http_error(conn, wsi, 400, "invalid_request_error",
                          "a report is KIND or FOLDER/KIND; GET /v1/reports lists them");
    const char *folder = server->options.reports;
    int fd = folder ? open_report(folder, *sub ? sub : NULL, kind, "html") : -1;
    if (fd < 0)
        return http_error(conn, wsi, 404, "not_found_error",
                          "there is no such report; GET /v1/reports lists them");
    char *text = read_all(fd, &len);
    if (!text)
        return http_error(conn, wsi, 500, "server_error", "the report cannot be read");
    return http_answer(conn, wsi,
                       (struct http_answer){.status = 200,
                                            .type = "text/html; charset=utf-8",
                                            .policy = policy,
                                            .body = (const unsigned char *)text,
                                            .len = len,
                                            .owned = text});
}

/* ---- personas ------------------------------------------------------------------------------- */

/* {NAME: [PROMPT, ...]} -> one entry per name with its first prompt. Read at each request: a change
 * of the file shows at once. */
int api_personas(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct gyaru_error ignored;
    const char *path = server->options.personas, *name;
    json_t *file = path ? json_parse_file(path, PERSONA_BYTES, &ignored) : NULL;
    json_t *list = json_array(), *prompts;
    json_object_foreach(file, name, prompts)
    {
        const json_t *prompt = json_is_array(prompts) ? json_array_get(prompts, 0) : prompts;
        if (json_is_string(prompt))
            json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "id", name, "object", "persona",
                                                  "system", json_string_value(prompt)));
    }
    json_decref(file);
    return http_json(conn, wsi, 200,
                     json_pack("{s:s,s:o,s:s?}", "object", "list", "data", list, "system",
                               server->options.system));
}
