/* error.c - see error.h. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

/* Names come from files, and long ones are cut: neither a newline nor half a character in one may
 * break the rule that a message is one line of UTF-8. */
static void make_one_line(char *text)
{
    utf8proc_int32_t c;
    while (*text) {
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &c);
        if (n < 1) {
            *text++ = '?';
            continue;
        }
        if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029)
            memset(text, ' ', (size_t)n);
        text += n;
    }
}

static int set(struct gyaru_error *err, enum gyaru_status status, const char *reason,
               const char *format, va_list args)
{
    vsnprintf(err->text, sizeof err->text, format, args);
    make_one_line(err->text);
    err->status = status;
    err->reason = reason;
    return -1;
}

int error_set(struct gyaru_error *err, enum gyaru_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(err, status, reason_name(REASON_NONE), format, args);
    va_end(args);
    return -1;
}

int error_reason(struct gyaru_error *err, enum gyaru_status status, enum reason reason,
                 const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(err, status, reason_name(reason), format, args);
    va_end(args);
    return -1;
}

int error_memory(struct gyaru_error *err, size_t bytes, const char *what)
{
    return error_reason(err, GYARU_NO_MEMORY, REASON_MEMORY, "out of memory: %zu bytes for %s",
                        bytes, what);
}

int error_errno(struct gyaru_error *err, const char *path, const char *doing)
{
    return error_set(err, GYARU_FAILED, "%s: %s: %s", path, doing, strerror(errno));
}

int error_prefix(struct gyaru_error *err, const char *prefix)
{
    char text[sizeof err->text];
    const char *reason = err->reason;
    memcpy(text, err->text, sizeof text);
    error_set(err, err->status, "%s: %s", prefix, text);
    err->reason = reason;
    return -1;
}
