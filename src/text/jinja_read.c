/*
 * jinja_read.c - the words of a template's tags, and errors about them.
 */
#include "text/jinja_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int jinja_fail(struct gyaru_error *err, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return error_set(err, GYARU_FAILED, "chat template: %s", text);
}

static bool is_name_char(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!first && c >= '0' && c <= '9');
}

static void skip_space(struct jinja_source *s)
{
    while (s->at < s->end && strchr(" \t\r\n", *s->at) && *s->at)
        s->at++;
}

bool jinja_at_end(struct jinja_source *s)
{
    skip_space(s);
    return s->at == s->end;
}

bool jinja_take_name(struct jinja_source *s, const char **name, size_t *len)
{
    skip_space(s);
    const char *p = s->at;
    while (p < s->end && is_name_char(*p, p == s->at))
        p++;
    if (p == s->at)
        return false;
    *name = s->at;
    *len = (size_t)(p - s->at);
    s->at = p;
    return true;
}

bool jinja_same(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

bool jinja_take(struct jinja_source *s, const char *word)
{
    skip_space(s);
    size_t n = strlen(word);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
        return false;
    if (is_name_char(word[0], true) && s->at + n < s->end && is_name_char(s->at[n], false))
        return false;
    s->at += n;
    return true;
}
