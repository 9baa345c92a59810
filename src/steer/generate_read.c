/*
 * generate_read.c - see generate.h.
 *
 * Instead of guessing how an answer is wrapped, every '{' is tried: if its object can be read and
 * has one of the wanted keys it counts, else the search goes on behind the brace, so that wrappers
 * such as {"pairs": [...]} open up by themselves.
 */
#include "steer/generate.h"

#include <stdlib.h>
#include <string.h>

/* Both bound the work on unbalanced text. */
#define OBJECT_LIMIT ((size_t)16 << 10) /* bytes */
#define FAILURES_MAX 4096               /* braces that begin nothing */

/* Length of the object that begins at text[0] == '{', braces in strings aside; 0 if it does not end
 * within the limit. */
static size_t object_length(const char *text, size_t len)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len && i < OBJECT_LIMIT; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{') {
            depth++;
        } else if (c == '}' && !--depth) {
            return i + 1;
        }
    }
    return 0;
}

/* Is text[i] == ',' followed by a closing bracket? */
static bool is_stray_comma(const char *text, size_t i, size_t len)
{
    for (i++; i < len && strchr(" \t\r\n", text[i]); i++)
        ;
    return i < len && (text[i] == '}' || text[i] == ']');
}

/* The object with small slips mended. */
static void mend(const char *text, size_t len, struct str *out)
{
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (in_string && c == '\\' && i + 1 < len) {
            str_append(out, text + i++, 2);
        } else if (in_string && c < 0x20) {
            str_printf(out, "\\u%04x", c);
        } else {
            if (c == '"')
                in_string = !in_string;
            if (in_string || c != ',' || !is_stray_comma(text, i, len))
                str_putc(out, (char)c);
        }
    }
}

static json_t *read_object(const char *text, size_t len)
{
    json_t *object = json_loadb(text, len, 0, NULL);
    if (object)
        return object;
    struct str mended = STR_INIT;
    mend(text, len, &mended);
    if (!str_failed(&mended) && mended.len)
        object = json_loadb(mended.data, mended.len, 0, NULL);
    str_release(&mended);
    return object;
}

static bool has_key(const json_t *object, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (json_object_get(object, keys[i]))
            return true;
    return false;
}

json_t *generate_read(const char *text, const char *const *keys, size_t n, bool *cut)
{
    json_t *found = json_array();
    *cut = false;
    for (const char *thought; (thought = strstr(text, "</think>"));)
        text = thought + strlen("</think>");
    const char *end = text + strlen(text);
    int failures = 0;
    for (const char *at = text; found && failures < FAILURES_MAX && (at = strchr(at, '{'));) {
        size_t len = object_length(at, (size_t)(end - at));
        json_t *object = len ? read_object(at, len) : NULL;
        if (object && has_key(object, keys, n)) {
            *cut = false; /* the wrapper around it did not end, but this did */
            if (json_array_append(found, object)) {
                json_decref(found);
                found = NULL;
            }
            at += len;
        } else {
            *cut = *cut || !len;
            failures++;
            at++;
        }
        json_decref(object);
    }
    return found;
}
