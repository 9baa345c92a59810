/* ids.c - see ids.h. */
#include "cli/ids.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int ids_parse(const char *text, int32_t **ids, size_t *n, struct gyaru_error *err)
{
    size_t count = 1, done = 0;
    for (const char *p = text; *p; p++)
        count += *p == ',';
    int32_t *list = malloc(count * sizeof *list);
    if (!list)
        return error_memory(err, count * sizeof *list, "the ids");
    for (const char *p = text; done < count;) {
        char *end;
        errno = 0;
        long value = strtol(p, &end, 10);
        if (end == p || (*end != ',' && *end != '\0') || errno || value < 0 || value > INT32_MAX) {
            free(list);
            return error_set(err, GYARU_USAGE,
                             "--ids: entry %zu: expected non-negative integers as in 1,2,3",
                             done + 1);
        }
        list[done++] = (int32_t)value;
        p = *end ? end + 1 : end;
    }
    *ids = list;
    *n = done;
    return 0;
}
