/*
 * file.h - files: mapped read-only, read whole, written atomically.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/error.h"

/* A read-only mapping. The file must not be truncated by others while mapped. */
struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;         /* bytes */
};

int file_map_open(const char *path, struct file_map *out, struct gyaru_error *err);
void file_map_close(struct file_map *map);

/* The whole file (caller frees; NUL-terminated besides *len); larger than `limit` is an error. */
int file_read(const char *path, size_t limit, char **data, size_t *len, struct gyaru_error *err);

/* Replaces `path` as a whole or not at all: temporary file in the same directory, fsync, rename,
 * fsync of the directory. */
int file_write_atomic(const char *path, const void *data, size_t len, struct gyaru_error *err);

/* The same in pieces, for files too large to hold in memory: open, write ..., commit or abort.
 * Commit ends the writer whether it succeeds or not; abort leaves `path` as it was. */
struct file_writer {
    int fd;
    char *path, *temp; /* owned */
};

int file_writer_open(struct file_writer *writer, const char *path, struct gyaru_error *err);
int file_writer_write(struct file_writer *writer, const void *data, size_t len,
                      struct gyaru_error *err);
int file_writer_commit(struct file_writer *writer, struct gyaru_error *err);
void file_writer_abort(struct file_writer *writer);

bool file_exists(const char *path);

/* "DIR/NAME" (caller frees), NULL when out of memory. */
char *file_join(const char *dir, const char *name);

/* mkdir -p of the directory that `path` lies in. */
int file_make_parent(const char *path, struct gyaru_error *err);

/* mkdir -p. */
int file_make_dirs(const char *path, struct gyaru_error *err);

#endif
