/*
 * error.h - how failures travel: every function that can fail returns -1 and fills the struct.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/reason.h"

#include <gyaru.h>

/* Formats one line into err and returns -1, so that `return error_set(...)` reads naturally. */
__attribute__((format(printf, 3, 4))) int
error_set(struct gyaru_error *err, enum gyaru_status status, const char *format, ...);

/* The same with a name that stays when the words change. */
__attribute__((format(printf, 4, 5))) int error_reason(struct gyaru_error *err,
                                                       enum gyaru_status status, enum reason reason,
                                                       const char *format, ...);

/* "out of memory: SIZE bytes for WHAT". */
int error_memory(struct gyaru_error *err, size_t bytes, const char *what);

/* "PATH: ...: strerror(errno)". */
int error_errno(struct gyaru_error *err, const char *path, const char *doing);

/* Puts "PREFIX: " before a message that a lower layer wrote. Returns -1. */
int error_prefix(struct gyaru_error *err, const char *prefix);

#endif
