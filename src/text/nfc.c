/*
 * nfc.c - see nfc.h.
 *
 * The tables and the composition are utf8proc's. The canonical ordering is ours: the library
 * exchanges neighbours, which takes hours on a megabyte of combining marks in the wrong order.
 */
#include "text/nfc.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define FORM ((utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE))

/* Runs up to this long are sorted by insertion, which needs no memory. */
#define SHORT_RUN 16

static int combining_class(utf8proc_int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

static void sort_short(utf8proc_int32_t *run, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        utf8proc_int32_t c = run[i];
        size_t k = i;
        for (; k > 0 && combining_class(run[k - 1]) > combining_class(c); k--)
            run[k] = run[k - 1];
        run[k] = c;
    }
}

/* Stable counting sort by combining class (1..255). */
static int sort_long(utf8proc_int32_t *run, size_t n, struct gyaru_error *err)
{
    size_t at[257] = {0};
    utf8proc_int32_t *sorted = malloc(n * sizeof *sorted);
    if (!sorted)
        return error_memory(err, n * sizeof *sorted, "text normalisation");
    for (size_t i = 0; i < n; i++)
        at[combining_class(run[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        at[c + 1] += at[c];
    for (size_t i = 0; i < n; i++)
        sorted[at[combining_class(run[i])]++] = run[i];
    memcpy(run, sorted, n * sizeof *run);
    free(sorted);
    return 0;
}

static int order_marks(utf8proc_int32_t *chars, size_t n, struct gyaru_error *err)
{
    size_t i = 0;
    while (i < n) {
        size_t end = i;
        while (end < n && combining_class(chars[end]) != 0)
            end++;
        if (end - i > SHORT_RUN) {
            if (sort_long(chars + i, end - i, err))
                return -1;
        } else {
            sort_short(chars + i, end - i);
        }
        i = end + 1;
    }
    return 0;
}

/* Canonical decomposition of one text into chars[cap]; the count, or what it would need. */
static size_t decompose(const char *text, size_t len, utf8proc_int32_t *chars, size_t cap)
{
    size_t n = 0, at = 0;
    while (at < len) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used =
            utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &c);
        if (used <= 0)
            break; /* cannot be: the caller vouches for the encoding */
        at += (size_t)used;
        if (c < 0xc0) { /* nothing below decomposes */
            if (n < cap)
                chars[n] = c;
            n++;
            continue;
        }
        int boundary = 0;
        size_t room = n < cap ? cap - n : 0;
        utf8proc_ssize_t made = utf8proc_decompose_char(c, room ? chars + n : NULL,
                                                        (utf8proc_ssize_t)room, FORM, &boundary);
        if (made < 0)
            break;
        n += (size_t)made;
    }
    return n;
}

static int encode(const utf8proc_int32_t *chars, size_t n, char **out, size_t *out_len,
                  struct gyaru_error *err)
{
    size_t cap;
    if (!size_mul(n, 4, &cap) || !size_add(cap, 1, &cap))
        return error_memory(err, n, "text normalisation");
    char *bytes = malloc(cap);
    if (!bytes)
        return error_memory(err, cap, "text normalisation");
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        at += (size_t)utf8proc_encode_char(chars[i], (utf8proc_uint8_t *)bytes + at);
    bytes[at] = '\0';
    *out = bytes;
    *out_len = at;
    return 0;
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] >= 0x80)
            return false;
    return true;
}

int nfc(const char *text, size_t len, char **out, size_t *out_len, struct gyaru_error *err)
{
    if (is_ascii(text, len)) {
        *out = NULL;
        *out_len = len;
        return 0;
    }
    size_t cap = decompose(text, len, NULL, 0), bytes;
    if (!size_mul(cap + 1, sizeof(utf8proc_int32_t), &bytes))
        return error_memory(err, cap, "text normalisation");
    utf8proc_int32_t *chars = malloc(bytes);
    if (!chars)
        return error_memory(err, bytes, "text normalisation");
    size_t n = decompose(text, len, chars, cap);
    int rc = order_marks(chars, n, err);
    if (!rc) {
        utf8proc_ssize_t composed = utf8proc_normalize_utf32(chars, (utf8proc_ssize_t)n, FORM);
        rc = composed < 0
                 ? error_set(err, GYARU_FAILED, "text normalisation: %s", utf8proc_errmsg(composed))
                 : encode(chars, (size_t)composed, out, out_len, err);
    }
    free(chars);
    return rc;
}
