/*
 * log.h - the server's log on stderr: one line per event, for people or for machines.
 *
 *   text  2026-01-09T12:00:00.123Z info ready model=rinne-base device=cpu
 *   json
 * {"time":"2026-01-09T12:00:00.123Z","level":"info","event":"ready","model":"rinne-base",...}
 *
 * What people wrote and what the model said is logged only if `content` is set.
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <jansson.h>
#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct log_options {
    enum log_level level; /* this and what is worse */
    bool json, content;
};

/* The level of this name; -1 if there is none. */
int log_level_of(const char *name);

/* `fields` is an object (taken over; NULL: none). Safe from any thread. */
void log_event(const struct log_options *log, enum log_level level, const char *event,
               json_t *fields);

#endif
