/*
 * folder.h - a flat directory that appears whole or not at all.
 *
 * Files are written into ".NAME.partial" beside the path, which takes its name at the commit. A
 * lock on it keeps a second writer away; what a killed one left there is removed by the next.
 */
#ifndef BASE_FOLDER_H
#define BASE_FOLDER_H

#include "base/error.h"

struct folder_writer {
    int fd;            /* of the temporary directory; locked */
    char *path, *temp; /* owned */
    const char *what;  /* for the progress */
    gyaru_progress *progress;
    void *progress_user;
    uint64_t done, total; /* bytes copied, and to copy */
};

/* Fails if `path` exists, or if its file system has less than `need` bytes free: before anything
 * is written. The parent directory must exist. */
int folder_writer_open(struct folder_writer *writer, const char *path, uint64_t need,
                       struct gyaru_error *err);

/* Copies the file `from` to NAME in pieces, with progress; done/total count its bytes. */
int folder_writer_copy(struct folder_writer *writer, const char *from, const char *name,
                       struct gyaru_error *err);

/* Commit ends the writer whether it succeeds or not; abort leaves nothing behind. */
int folder_writer_commit(struct folder_writer *writer, struct gyaru_error *err);
void folder_writer_abort(struct folder_writer *writer);

#endif
