/*
 * log.h - the server's log: one line per event on stderr, never with what people wrote.
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

/* "2026-01-09 12:00:00 TEXT"; safe from any thread. */
__attribute__((format(printf, 1, 2))) void log_line(const char *format, ...);

#endif
