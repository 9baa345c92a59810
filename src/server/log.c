/* log.c - see log.h. */
#include "server/log.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const level_names[] = {[LOG_LEVEL_ERROR] = "error",
                                          [LOG_LEVEL_WARN] = "warn",
                                          [LOG_LEVEL_INFO] = "info",
                                          [LOG_LEVEL_DEBUG] = "debug"};

int log_level_of(const char *name)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (!strcmp(name, level_names[i]))
            return (int)i;
    }
    return -1;
}

/* UTC, so that logs of several machines can be put side by side. */
static void stamp(char text[32])
{
    struct timespec now;
    struct tm when;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &when);
    size_t n = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &when);
    snprintf(text + n, 32 - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

/* " name=value"; quoted, as JSON quotes it, where a reader could not see its end. */
static void add_field(struct str *line, const char *name, const json_t *value)
{
    const char *text = json_string_value(value);
    str_printf(line, " %s=", name);
    if (text && *text && !text[strcspn(text, " \t\r\n\"=\\\x7f")]) {
        str_puts(line, text);
        return;
    }
    char *quoted = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
    str_puts(line, quoted ? quoted : "?");
    free(quoted);
}

static void make_line(struct str *line, const struct log_options *log, const char *level,
                      const char *event, json_t *fields)
{
    char time_text[32];
    const char *name;
    json_t *value;
    stamp(time_text);
    if (log->json) {
        json_t *all = json_pack("{s:s,s:s,s:s}", "time", time_text, "level", level, "event", event);
        json_object_update(all, fields);
        char *text = json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(6));
        str_puts(line, text ? text : "{}");
        free(text);
        json_decref(all);
    } else {
        str_printf(line, "%s %s %s", time_text, level, event);
        json_object_foreach(fields, name, value) add_field(line, name, value);
    }
    str_putc(line, '\n');
}

void log_event(const struct log_options *log, enum log_level level, const char *event,
               json_t *fields)
{
    if (level <= log->level) {
        struct str line = STR_INIT;
        make_line(&line, log, level_names[level], event, fields);
        /* One call, so that lines of two threads do not mix. */
        if (!str_failed(&line))
            fwrite(line.data, 1, line.len, stderr);
        str_release(&line);
    }
    json_decref(fields);
}
