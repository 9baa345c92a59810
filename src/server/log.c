/* log.c - see log.h. */
#include "server/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

void log_line(const char *format, ...)
{
    char text[600], stamp[32];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    time_t now = time(NULL);
    struct tm when;
    localtime_r(&now, &when);
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &when);
    /* One call, so that lines of two threads do not mix. */
    fprintf(stderr, "%s %s\n", stamp, text);
}
