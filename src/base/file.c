/* file.c - see file.h. */
#include "base/file.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a regular file for reading; a directory, a fifo or a device is refused. */
static int open_regular(const char *path, size_t *size, struct gyaru_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_errno(err, path, "cannot open");
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, GYARU_FAILED, "%s: not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return fd;
}

int file_map_open(const char *path, struct file_map *out, struct gyaru_error *err)
{
    size_t size;
    int fd = open_regular(path, &size, err);
    if (fd < 0)
        return -1;
    void *data = NULL;
    if (size) {
        data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            error_errno(err, path, "cannot map");
            close(fd);
            return -1;
        }
    }
    close(fd);
    *out = (struct file_map){data, size};
    return 0;
}

void file_map_close(struct file_map *map)
{
    if (map->data)
        munmap((void *)map->data, map->size);
    *map = (struct file_map){NULL, 0};
}

int file_read(const char *path, size_t limit, char **data, size_t *len, struct gyaru_error *err)
{
    size_t size;
    int fd = open_regular(path, &size, err);
    if (fd < 0)
        return -1;
    if (size > limit) {
        close(fd);
        return error_set(err, GYARU_FAILED, "%s: %zu bytes, more than the limit of %zu", path, size,
                         limit);
    }
    char *buffer = malloc(size + 1);
    if (!buffer) {
        close(fd);
        return error_memory(err, size + 1, path);
    }
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, buffer + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    close(fd);
    if (done < size) {
        free(buffer);
        return error_set(err, GYARU_FAILED, "%s: read only %zu of %zu bytes", path, done, size);
    }
    buffer[size] = '\0';
    *data = buffer;
    *len = size;
    return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int sync_directory_of(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -1;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close(fd);
    return rc;
}

int file_writer_open(struct file_writer *writer, const char *path, struct gyaru_error *err)
{
    struct str temp = STR_INIT;
    str_printf(&temp, "%s.XXXXXX", path);
    struct file_writer w = {-1, strdup(path), str_take(&temp)};
    if (!w.path || !w.temp) {
        free(w.path);
        free(w.temp);
        return error_memory(err, strlen(path) + 8, "a file name");
    }
    w.fd = mkostemp(w.temp, O_CLOEXEC);
    if (w.fd < 0) {
        error_errno(err, path, "cannot create a temporary file beside it");
        free(w.path);
        free(w.temp);
        return -1;
    }
    *writer = w;
    return 0;
}

int file_writer_write(struct file_writer *writer, const void *data, size_t len,
                      struct gyaru_error *err)
{
    if (write_all(writer->fd, data, len))
        return error_errno(err, writer->path, "cannot write");
    return 0;
}

/* Frees everything; closes the descriptor if it is still open. */
static void file_writer_release(struct file_writer *writer)
{
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer->path);
    free(writer->temp);
    *writer = (struct file_writer){-1, NULL, NULL};
}

int file_writer_commit(struct file_writer *writer, struct gyaru_error *err)
{
    /* mkostemp makes 0600; a file that is replaced keeps its mode, a new one follows the umask. */
    mode_t mask = umask(0);
    umask(mask);
    struct stat st;
    mode_t mode = stat(writer->path, &st) ? 0666 & ~mask : st.st_mode & 0777;
    int rc = 0;
    if (fchmod(writer->fd, mode) || fsync(writer->fd))
        rc = error_errno(err, writer->path, "cannot write");
    if (close(writer->fd) && !rc)
        rc = error_errno(err, writer->path, "cannot write");
    writer->fd = -1;
    if (!rc && rename(writer->temp, writer->path))
        rc = error_errno(err, writer->path, "cannot replace");
    if (rc)
        unlink(writer->temp);
    else if (sync_directory_of(writer->path))
        rc = error_errno(err, writer->path, "cannot sync its directory");
    file_writer_release(writer);
    return rc;
}

void file_writer_abort(struct file_writer *writer)
{
    unlink(writer->temp);
    file_writer_release(writer);
}

int file_write_atomic(const char *path, const void *data, size_t len, struct gyaru_error *err)
{
    struct file_writer writer;
    if (file_writer_open(&writer, path, err))
        return -1;
    if (file_writer_write(&writer, data, len, err)) {
        file_writer_abort(&writer);
        return -1;
    }
    return file_writer_commit(&writer, err);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *file_join(const char *dir, const char *name)
{
    struct str s = STR_INIT;
    size_t len = strlen(dir);
    str_printf(&s, "%s%s%s", dir, len && dir[len - 1] == '/' ? "" : "/", name);
    return str_take(&s);
}

int file_make_dirs(const char *path, struct gyaru_error *err)
{
    char *copy = strdup(path);
    if (!copy)
        return error_memory(err, strlen(path), "a path");
    int rc = 0;
    for (char *p = copy + 1; !rc; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(copy, 0777) && errno != EEXIST)
            rc = error_errno(err, copy, "cannot create the directory");
        *p = end;
        if (!end)
            break;
    }
    free(copy);
    return rc;
}

int file_make_parent(const char *path, struct gyaru_error *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return 0;
    char *folder = strndup(path, (size_t)(slash - path));
    int rc = folder ? file_make_dirs(folder, err) : error_memory(err, strlen(path), "a path");
    free(folder);
    return rc;
}
