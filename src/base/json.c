/* json.c - see json.h. */
#include "base/json.h"

#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text, size_t len, size_t flags, const char *name,
                     struct gyaru_error *err)
{
    json_error_t why;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | flags, &why);
    if (!json)
        error_set(err, GYARU_FAILED, "%s: invalid JSON at line %d, column %d: %s", name, why.line,
                  why.column, why.text);
    return json;
}

json_t *json_parse(const char *text, size_t len, const char *name, struct gyaru_error *err)
{
    return parse(text, len, 0, name, err);
}

json_t *json_parse_text(const char *text, size_t len, const char *name, struct gyaru_error *err)
{
    return parse(text, len, JSON_ALLOW_NUL, name, err);
}

json_t *json_parse_file(const char *path, size_t limit, struct gyaru_error *err)
{
    char *text;
    size_t len;
    if (file_read(path, limit, &text, &len, err))
        return NULL;
    json_t *json = json_parse(text, len, path, err);
    free(text);
    return json;
}

json_t *json_parse_file_in(const char *folder, const char *name, size_t limit,
                           struct gyaru_error *err)
{
    char *path = file_join(folder, name);
    if (!path) {
        error_memory(err, strlen(folder), "a path");
        return NULL;
    }
    json_t *json = json_parse_file(path, limit, err);
    free(path);
    return json;
}

const char *json_text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

double json_number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

bool json_flag_at(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

json_t *json_finite(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}
