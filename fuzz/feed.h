/*
 * feed.h - gives a parser that reads files the bytes of the fuzzer: a memory file, rewritten for
 * every input.
 */
#ifndef FUZZ_FEED_H
#define FUZZ_FEED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Path of a file that holds the bytes until the next call. */
static inline const char *feed_file(const uint8_t *data, size_t size)
{
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    return path;
}

/* Every refusal is one line with a status. */
#define FEED_CHECK_ERROR(err)                                                                      \
    do {                                                                                           \
        if (!(err).status || !*(err).text || strchr((err).text, '\n'))                             \
            abort();                                                                               \
    } while (0)

#endif
