/*
 * folder.c - see folder.h.
 *
 * Owner of the temporary directory from the lock on: nobody else writes there, so its files may be
 * removed. The lock belongs to the directory itself, not to a file in it: it goes along when the
 * directory takes its name, and after a crash nothing needs to be cleared by hand.
 */
#include "base/folder.h"

#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE ((size_t)8 << 20) /* bytes between two reports of progress */

/* ---- opening -------------------------------------------------------------------------------- */

/* PATH without trailing slashes, and the hidden name beside it. */
static int name_both(struct folder_writer *w, const char *path, struct gyaru_error *err)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    w->path = strndup(path, len);
    const char *slash = w->path ? strrchr(w->path, '/') : NULL;
    const char *name = slash ? slash + 1 : w->path;
    struct str temp = STR_INIT;
    if (w->path)
        str_printf(&temp, "%.*s.%s.partial", (int)(name - w->path), w->path, name);
    w->temp = str_take(&temp);
    if (!w->path || !w->temp)
        return error_memory(err, len, "a path");
    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        return error_set(err, GYARU_FAILED, "%s: no name for a new directory", path);
    return 0;
}

/* The directory that holds w->path (caller frees). */
static char *parent_of(const struct folder_writer *w)
{
    const char *slash = strrchr(w->path, '/');
    if (!slash)
        return strdup(".");
    return strndup(w->path, slash == w->path ? 1 : (size_t)(slash - w->path));
}

static int check_space(const struct folder_writer *w, uint64_t need, struct gyaru_error *err)
{
    struct statvfs fs;
    char *parent = parent_of(w);
    if (!parent)
        return error_memory(err, strlen(w->path), "a path");
    int rc = 0;
    if (statvfs(parent, &fs))
        rc = error_errno(err, parent, "cannot tell its free space");
    uint64_t unit = rc ? 0 : (uint64_t)(fs.f_frsize ? fs.f_frsize : fs.f_bsize);
    if (!rc && need / unit >= (uint64_t)fs.f_bavail)
        rc = error_set(err, GYARU_FAILED,
                       "%s: not enough disk space: %.1f MB needed, %.1f MB free: choose another "
                       "place or make room",
                       w->path, (double)need / 1e6, (double)fs.f_bavail * (double)unit / 1e6);
    free(parent);
    return rc;
}

/* Removes the files in the directory, which must be flat. */
static int empty(int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        if (copy >= 0)
            close(copy);
        return -1;
    }
    int rc = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            rc |= unlinkat(fd, entry->d_name, 0);
    closedir(dir);
    return rc;
}

/* Between open and lock another writer may have given the directory its final name. */
static bool still_there(const struct folder_writer *w)
{
    struct stat ours, named;
    return !fstat(w->fd, &ours) && !lstat(w->temp, &named) && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
}

static int open_temp(struct folder_writer *w, struct gyaru_error *err)
{
    if (mkdir(w->temp, 0777) && errno != EEXIST)
        return error_errno(err, w->temp, "cannot create the directory");
    w->fd = open(w->temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (w->fd < 0)
        return error_errno(err, w->temp, "cannot open the directory");
    if (flock(w->fd, LOCK_EX | LOCK_NB) || !still_there(w)) {
        close(w->fd);
        w->fd = -1;
        return error_set(err, GYARU_FAILED, "%s: another run is writing it: wait for it", w->path);
    }
    if (empty(w->fd))
        return error_errno(err, w->temp, "cannot remove what an earlier run left there");
    return 0;
}

static void release(struct folder_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    free(w->path);
    free(w->temp);
    *w = (struct folder_writer){.fd = -1};
}

int folder_writer_open(struct folder_writer *writer, const char *path, uint64_t need,
                       struct gyaru_error *err)
{
    struct folder_writer w = {.fd = -1};
    struct stat st;
    int rc = name_both(&w, path, err);
    if (!rc && !lstat(w.path, &st))
        rc = error_set(err, GYARU_FAILED,
                       "%s: exists already: name another place, or move it away first", w.path);
    if (!rc)
        rc = check_space(&w, need, err);
    if (!rc)
        rc = open_temp(&w, err);
    if (rc)
        release(&w);
    else
        *writer = w;
    return rc;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* One piece by read and write; bytes copied, 0 at the end, -1 on failure. */
static ssize_t copy_by_hand(int in, int out, char *buffer, size_t len)
{
    ssize_t n;
    do
        n = read(in, buffer, len);
    while (n < 0 && errno == EINTR);
    for (ssize_t done = 0; done < n;) {
        ssize_t written = write(out, buffer + done, (size_t)(n - done));
        if (written < 0 && errno != EINTR)
            return -1;
        done += written > 0 ? written : 0;
    }
    return n;
}

/* One piece inside the kernel, which may share blocks instead of copying them; by hand where the
 * file systems cannot. */
static ssize_t copy_piece(int in, int out, char *buffer, bool *by_hand)
{
    ssize_t n = -1;
    if (!*by_hand)
        n = copy_file_range(in, NULL, out, NULL, PIECE, 0);
    if (n < 0 && !*by_hand &&
        (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
        *by_hand = true;
    return *by_hand ? copy_by_hand(in, out, buffer, PIECE) : n;
}

static int copy_open(struct folder_writer *w, int in, int out, const char *from,
                     struct gyaru_error *err)
{
    struct stat st;
    if (fstat(in, &st) || !S_ISREG(st.st_mode))
        return error_set(err, GYARU_FAILED, "%s: not a regular file", from);
    char *buffer = malloc(PIECE);
    if (!buffer)
        return error_memory(err, PIECE, "a copy");
    int rc = 0;
    bool by_hand = false;
    uint64_t copied = 0, size = (uint64_t)st.st_size;
    while (!rc) {
        ssize_t n = copy_piece(in, out, buffer, &by_hand);
        if (n < 0 && errno != EINTR)
            rc = error_errno(err, w->path, "cannot write");
        if (!n && (by_hand || copied >= size))
            break;
        by_hand = by_hand || !n; /* some file systems report an early end */
        copied += n > 0 ? (uint64_t)n : 0;
        w->done += n > 0 ? (uint64_t)n : 0;
        if (!rc && w->progress && w->progress(w->progress_user, w->what, w->done, w->total))
            rc = error_set(err, GYARU_FAILED, "%s: stopped: nothing was written", w->path);
    }
    free(buffer);
    if (!rc && copied != size)
        rc = error_set(err, GYARU_FAILED, "%s: changed while it was copied", from);
    if (!rc && fsync(out))
        rc = error_errno(err, w->path, "cannot write");
    return rc;
}

int folder_writer_copy(struct folder_writer *w, const char *from, const char *name,
                       struct gyaru_error *err)
{
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (in < 0)
        return error_errno(err, from, "cannot open");
    int out = openat(w->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    int rc = out < 0 ? error_errno(err, w->temp, "cannot create a file") : 0;
    if (!rc)
        rc = copy_open(w, in, out, from, err);
    if (out >= 0 && close(out) && !rc)
        rc = error_errno(err, w->path, "cannot write");
    close(in);
    return rc;
}

/* ---- the end -------------------------------------------------------------------------------- */

/* Takes the name unless somebody else has taken it. */
static int take_name(const struct folder_writer *w)
{
    if (!renameat2(AT_FDCWD, w->temp, AT_FDCWD, w->path, RENAME_NOREPLACE))
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    struct stat st; /* the file system does not know the flag */
    if (!lstat(w->path, &st)) {
        errno = EEXIST;
        return -1;
    }
    return rename(w->temp, w->path);
}

static int sync_parent(const struct folder_writer *w)
{
    char *parent = parent_of(w);
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(parent);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close(fd);
    return rc;
}

int folder_writer_commit(struct folder_writer *w, struct gyaru_error *err)
{
    if (fsync(w->fd) || take_name(w)) {
        error_errno(err, w->path, "cannot take this name");
        folder_writer_abort(w);
        return -1;
    }
    int rc = sync_parent(w) ? error_errno(err, w->path, "cannot sync its directory") : 0;
    release(w);
    return rc;
}

void folder_writer_abort(struct folder_writer *w)
{
    empty(w->fd);
    rmdir(w->temp);
    release(w);
}
