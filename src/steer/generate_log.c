/* generate_log.c - see generate.h. */
#include "steer/generate.h"

#include "base/file.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT     "gyaru-pairs-1"
#define FILE_LIMIT ((size_t)256 << 20) /* bytes */

static int open_locked(struct generate_log *log, struct gyaru_error *err)
{
    struct stat st;
    log->fd =
        open(log->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (log->fd < 0)
        return error_errno(err, log->path, "cannot open");
    if (fstat(log->fd, &st) || !S_ISREG(st.st_mode))
        return error_set(err, GYARU_FAILED, "%s: not a regular file", log->path);
    if (!flock(log->fd, LOCK_EX | LOCK_NB))
        return 0;
    if (errno == EWOULDBLOCK)
        return error_set(err, GYARU_FAILED, "%s: another run is at work here: wait for it",
                         log->path);
    return error_errno(err, log->path, "cannot lock");
}

static int begin(struct generate_log *log, const struct persona *persona, struct gyaru_error *err)
{
    struct str line = STR_INIT;
    str_printf(&line, "{\"format\": \"" FORMAT "\", \"persona\": \"%s\"}\n", persona->sha256);
    int rc = str_failed(&line) ? error_memory(err, 128, "the log") : 0;
    if (!rc && ftruncate(log->fd, 0))
        rc = error_errno(err, log->path, "cannot empty");
    if (!rc)
        rc = generate_log_add(log, line.data, line.len, err);
    str_release(&line);
    return rc;
}

static int check_head(const struct generate_log *log, const json_t *head,
                      const struct persona *persona, struct gyaru_error *err)
{
    const char *format = json_string_value(json_object_get(head, "format"));
    const char *digest = json_string_value(json_object_get(head, "persona"));
    if (!format || strcmp(format, FORMAT) || !digest)
        return error_set(err, GYARU_FAILED,
                         "%s: stands where the unfinished pairs belong and holds none: move it "
                         "away",
                         log->path);
    if (strcmp(digest, persona->sha256))
        return error_set(err, GYARU_FAILED,
                         "%s: unfinished pairs of another persona: finish them with that persona, "
                         "move the file away, or write elsewhere",
                         log->path);
    return 0;
}

/* Reads whole lines; *used is the number of bytes that they take. */
static int read_lines(const struct generate_log *log, const char *text, size_t len,
                      const struct persona *persona, json_t *pairs, size_t *used,
                      struct gyaru_error *err)
{
    *used = 0;
    for (const char *stop; (stop = memchr(text + *used, '\n', len - *used));) {
        struct gyaru_error ignored;
        json_t *object =
            json_parse(text + *used, (size_t)(stop - text) - *used, log->path, &ignored);
        if (!json_is_object(object)) {
            json_decref(object);
            break; /* a crash of the machine may leave rubbish at the end */
        }
        int rc = *used ? json_array_append(pairs, object) : check_head(log, object, persona, err);
        json_decref(object);
        if (rc)
            return *used ? error_memory(err, len, "the pairs") : -1;
        *used = (size_t)(stop - text) + 1;
    }
    return 0;
}

/* Is this the beginning of a first line that a crash cut short? */
static bool is_cut_head(const char *text, size_t len)
{
    static const char start[] = "{\"format\": \"" FORMAT;
    size_t n = len < sizeof start - 1 ? len : sizeof start - 1;
    return !memcmp(text, start, n) && !memchr(text, '\n', len);
}

static int resume(struct generate_log *log, const struct persona *persona, json_t *pairs,
                  struct gyaru_error *err)
{
    char *text;
    size_t len, used;
    if (file_read(log->path, FILE_LIMIT, &text, &len, err))
        return -1;
    int rc = 0;
    if (is_cut_head(text, len)) {
        rc = begin(log, persona, err);
    } else {
        rc = read_lines(log, text, len, persona, pairs, &used, err);
        if (!rc && !used)
            rc = check_head(log, NULL, persona, err);
        if (!rc && ftruncate(log->fd, (off_t)used))
            rc = error_errno(err, log->path, "cannot cut");
    }
    free(text);
    return rc;
}

int generate_log_open(const char *path, const struct persona *persona, struct generate_log *log,
                      json_t *pairs, struct gyaru_error *err)
{
    struct generate_log l = {strdup(path), -1};
    if (!l.path)
        return error_memory(err, strlen(path), "a path");
    if (open_locked(&l, err) || resume(&l, persona, pairs, err)) {
        generate_log_close(&l, false);
        return -1;
    }
    *log = l;
    return 0;
}

int generate_log_add(struct generate_log *log, const char *text, size_t len,
                     struct gyaru_error *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(log->fd, text + done, len - done);
        if (n < 0 && errno != EINTR)
            return error_errno(err, log->path, "cannot write");
        done += n > 0 ? (size_t)n : 0;
    }
    return fdatasync(log->fd) ? error_errno(err, log->path, "cannot sync") : 0;
}

void generate_log_close(struct generate_log *log, bool done)
{
    if (done)
        unlink(log->path);
    if (log->fd >= 0)
        close(log->fd);
    free(log->path);
    *log = (struct generate_log){NULL, -1};
}
