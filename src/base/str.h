/*
 * str.h - a growing byte string.
 *
 * Appending never fails on the spot: running out of memory sets a flag that str_take() and
 * str_failed() report, so that a writer checks once, at the end.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct str {
    char *data; /* NUL-terminated when not NULL */
    size_t len; /* bytes without the NUL */
    size_t cap;
    bool failed;
};

#define STR_INIT                                                                                   \
    {                                                                                              \
        NULL, 0, 0, false                                                                          \
    }

void str_append(struct str *s, const void *data, size_t len);
void str_puts(struct str *s, const char *text);
void str_putc(struct str *s, char c);
__attribute__((format(printf, 2, 3))) void str_printf(struct str *s, const char *format, ...);
void str_vprintf(struct str *s, const char *format, va_list args);
/* Percent-encoded, for a part of an address: only letters, digits and -._~ stay. */
void str_url(struct str *s, const char *text, size_t len);
void str_clear(struct str *s); /* length 0, memory kept */
void str_release(struct str *s);
bool str_failed(const struct str *s);

/* Hands the bytes over (caller frees) and empties s; NULL if memory ran out. Never NULL else. */
char *str_take(struct str *s);

#endif
