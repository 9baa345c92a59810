/*
 * config_change.c - see config_change.h.
 *
 * The journal is a stack of changes. Its top may be one that never came about (killed before the
 * file was replaced) or that is taken back already (killed before the journal was written): then
 * the file still, or again, has the digest from before, and the entry is dropped.
 */
#include "cli/config_change.h"

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define CONFIG_LIMIT  ((size_t)1 << 20) /* bytes */
#define JOURNAL_LIMIT ((size_t)1 << 20)
#define BACKUPS_MAX   100000

struct change {
    char *path, *journal_path; /* owned; path without links, so that a link stays one */
    int lock;                  /* of the directory; -1: none */
    char *text;                /* owned; NULL: there is no file */
    size_t len;
    char digest[SHA256_HEX]; /* "" without a file */
    json_t *journal;         /* array, oldest first; owned */
    struct gyaru_error *err;
};

static void change_close(struct change *c)
{
    if (c->lock >= 0)
        close(c->lock);
    free(c->path);
    free(c->journal_path);
    free(c->text);
    json_decref(c->journal);
}

static char *with_suffix(const char *path, const char *suffix)
{
    struct str s = STR_INIT;
    str_printf(&s, "%s%s", path, suffix);
    return str_take(&s);
}

/* Two commands at a time would each change what the other read. */
static int lock_folder(struct change *c)
{
    char *copy = strdup(c->path);
    if (!copy)
        return error_memory(c->err, strlen(c->path), "a path");
    const char *folder = dirname(copy);
    int rc = file_make_dirs(folder, c->err);
    if (!rc) {
        c->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (c->lock < 0 || flock(c->lock, LOCK_EX | LOCK_NB))
            rc = c->lock >= 0 && errno == EWOULDBLOCK
                     ? error_set(c->err, GYARU_FAILED,
                                 "%s: another command changes it right now; try again", c->path)
                     : error_errno(c->err, folder, "cannot lock");
    }
    free(copy);
    return rc;
}

static int read_all(struct change *c)
{
    if (file_exists(c->path)) {
        if (file_read(c->path, CONFIG_LIMIT, &c->text, &c->len, c->err))
            return -1;
        sha256_hex_of(c->text, c->len, c->digest);
    }
    if (!file_exists(c->journal_path)) {
        c->journal = json_array();
        return c->journal ? 0 : error_memory(c->err, 100, "the journal");
    }
    c->journal = json_parse_file(c->journal_path, JOURNAL_LIMIT, c->err);
    if (c->journal && !json_is_array(c->journal))
        return error_set(c->err, GYARU_FAILED, "%s: not a journal of changes; move it away",
                         c->journal_path);
    return c->journal ? 0 : -1;
}

static int change_open(struct change *c, const char *path, struct gyaru_error *err)
{
    *c = (struct change){.lock = -1, .err = err};
    c->path = realpath(path, NULL);
    if (!c->path)
        c->path = strdup(path);
    c->journal_path = c->path ? with_suffix(c->path, ".changes") : NULL;
    int rc = c->journal_path ? lock_folder(c) : error_memory(err, strlen(path), "a path");
    if (!rc)
        rc = read_all(c);
    if (rc)
        change_close(c);
    return rc;
}

static const char *field(const json_t *entry, const char *key)
{
    const char *text = json_string_value(json_object_get(entry, key));
    return text ? text : "";
}

static const json_t *newest(const struct change *c)
{
    size_t n = json_array_size(c->journal);
    return n ? json_array_get(c->journal, n - 1) : NULL;
}

static int write_journal(struct change *c)
{
    if (!json_array_size(c->journal)) {
        if (unlink(c->journal_path) && errno != ENOENT)
            return error_errno(c->err, c->journal_path, "cannot remove");
        return 0;
    }
    char *text = json_dumps(c->journal, JSON_INDENT(1));
    if (!text)
        return error_memory(c->err, 1000, "the journal");
    int rc = file_write_atomic(c->journal_path, text, strlen(text), c->err);
    free(text);
    return rc;
}

/* A change that did not come about. One that set nothing new is never recorded, so equal digests
 * before and after cannot be. */
static bool is_stale(const struct change *c, const json_t *entry)
{
    return !strcmp(field(entry, "before"), c->digest);
}

/* ---- changing ---------------------------------------------------------------------------------
 */

/* The bytes under the first free number; a number is never used twice while its file is there. */
static int write_backup(struct change *c, char **out)
{
    for (int n = 1; n < BACKUPS_MAX; n++) {
        char suffix[24];
        snprintf(suffix, sizeof suffix, ".bak-%d", n);
        char *path = with_suffix(c->path, suffix);
        if (!path)
            return error_memory(c->err, strlen(c->path), "a path");
        if (file_exists(path)) {
            free(path);
            continue;
        }
        if (file_write_atomic(path, c->text, c->len, c->err)) {
            free(path);
            return -1;
        }
        *out = path;
        return 0;
    }
    return error_set(c->err, GYARU_FAILED, "%s: too many backups beside it; remove old ones",
                     c->path);
}

static int record(struct change *c, const char *backup, const char *text, size_t len)
{
    char digest[SHA256_HEX];
    sha256_hex_of(text, len, digest);
    while (newest(c) && is_stale(c, newest(c)))
        json_array_remove(c->journal, json_array_size(c->journal) - 1);
    const char *slash = backup ? strrchr(backup, '/') : NULL;
    json_t *entry = json_pack("{s:s?, s:s, s:s}", "backup", slash ? slash + 1 : backup, "before",
                              c->digest, "after", digest);
    if (!entry || json_array_append_new(c->journal, entry))
        return error_memory(c->err, 200, "the journal");
    return write_journal(c);
}

int config_change(const char *path, const struct config_value *values, size_t n, char **backup,
                  bool *changed, struct gyaru_error *err)
{
    struct change c;
    char *text = NULL, *copy = NULL;
    size_t len = 0;
    if (change_open(&c, path, err))
        return -1;
    int rc = config_edit_text(path, c.text ? c.text : "", c.len, values, n, &text, &len, err);
    bool same = !rc && c.text && len == c.len && !memcmp(text, c.text, len);
    if (!rc && !same && c.text)
        rc = write_backup(&c, &copy);
    if (!rc && !same)
        rc = record(&c, copy, text, len);
    if (!rc && !same)
        rc = file_write_atomic(c.path, text, len, err);
    free(text);
    change_close(&c);
    if (rc) {
        free(copy);
        return -1;
    }
    *backup = copy;
    *changed = !same;
    return 0;
}

/* ---- taking back ------------------------------------------------------------------------------
 */

static char *backup_path(const struct change *c, const json_t *entry)
{
    char *copy = strdup(c->path);
    char *path = copy ? file_join(dirname(copy), field(entry, "backup")) : NULL;
    free(copy);
    return path;
}

static int restore_file(struct change *c, const char *backup, const char *digest)
{
    char *text, found[SHA256_HEX];
    size_t len;
    if (file_read(backup, CONFIG_LIMIT, &text, &len, c->err))
        return -1;
    sha256_hex_of(text, len, found);
    int rc =
        strcmp(found, digest)
            ? error_set(c->err, GYARU_FAILED,
                        "%s: not the copy that was made of the config; nothing was changed", backup)
            : file_write_atomic(c->path, text, len, c->err);
    free(text);
    return rc;
}

static int restore(struct change *c, const json_t *entry, char **what)
{
    struct str line = STR_INIT;
    char *backup = backup_path(c, entry);
    if (!backup)
        return error_memory(c->err, strlen(c->path), "a path");
    bool existed = *field(entry, "before");
    int rc = 0;
    if (strchr(field(entry, "backup"), '/'))
        rc = error_set(c->err, GYARU_FAILED, "%s: not a journal of changes", c->journal_path);
    else if (strcmp(field(entry, "after"), c->digest))
        rc =
            error_set(c->err, GYARU_FAILED, "%s: edited since the migration: not taken back; %s %s",
                      c->path, existed ? "what was there before is in" : "there was nothing before",
                      existed ? backup : "it");
    else if (existed)
        rc = restore_file(c, backup, field(entry, "before"));
    else if (unlink(c->path))
        rc = error_errno(c->err, c->path, "cannot remove");
    if (!rc && existed)
        str_printf(&line, "%s: as it was (from %s)", c->path, backup);
    else if (!rc)
        str_printf(&line, "%s: removed, as it was not there before", c->path);
    free(backup);
    if (!rc) {
        *what = str_take(&line);
        rc = *what ? 0 : error_memory(c->err, 100, "a message");
    }
    str_release(&line);
    return rc;
}

/* Path (caller frees) of the entry's copy if it is what was copied, else NULL. */
static char *intact_backup(const struct change *c, const json_t *entry)
{
    struct gyaru_error ignored;
    char *backup = backup_path(c, entry), *text, digest[SHA256_HEX] = "";
    size_t len;
    if (backup && *field(entry, "backup") && !strchr(field(entry, "backup"), '/') &&
        !file_read(backup, CONFIG_LIMIT, &text, &len, &ignored)) {
        sha256_hex_of(text, len, digest);
        free(text);
    }
    if (*digest && !strcmp(digest, field(entry, "before")))
        return backup;
    free(backup);
    return NULL;
}

/* The copy of what the file holds again is of no more use. */
static void remove_backup(const struct change *c, const json_t *entry)
{
    char *backup = intact_backup(c, entry);
    if (backup)
        unlink(backup);
    free(backup);
}

static int take_back(struct change *c, char **line)
{
    json_t *entry = json_incref((json_t *)newest(c));
    int rc = 0;
    if (is_stale(c, entry)) {
        *line = with_suffix(c->path, ": is as it was");
        rc = *line ? 0 : error_memory(c->err, 100, "a message");
    } else {
        rc = restore(c, entry, line);
    }
    if (!rc) {
        json_array_remove(c->journal, json_array_size(c->journal) - 1);
        rc = write_journal(c);
    }
    if (!rc)
        remove_backup(c, entry);
    json_decref(entry);
    return rc;
}

int config_rollback(const char *path, char **what, struct gyaru_error *err)
{
    struct change c;
    char *line = NULL;
    if (change_open(&c, path, err))
        return -1;
    int rc = newest(&c)
                 ? take_back(&c, &line)
                 : error_set(err, GYARU_FAILED, "%s: no change that could be taken back", path);
    change_close(&c);
    if (rc) {
        free(line);
        return -1;
    }
    *what = line;
    return 0;
}

char *config_before(const char *path)
{
    struct gyaru_error ignored;
    struct change c;
    char *backup = NULL;
    if (change_open(&c, path, &ignored))
        return NULL;
    size_t n = json_array_size(c.journal);
    while (n && is_stale(&c, json_array_get(c.journal, n - 1)))
        n--;
    if (n)
        backup = intact_backup(&c, json_array_get(c.journal, n - 1));
    change_close(&c);
    return backup;
}
