/*
 * progress.h - long work on stderr: a bar with rate and ETA on a terminal, plain lines elsewhere.
 *
 * progress_show() is a gyaru_progress; nothing appears for work that ends within half a second.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    double started, shown; /* clock_seconds; 0: not yet */
    uint64_t first;        /* what was done already when this work started */
    char what[32];         /* other work starts the clock anew */
    bool visible;
};

#define PROGRESS_INIT                                                                              \
    {                                                                                              \
        0, 0, 0, "", false                                                                         \
    }

/* Non-zero (stop) after Ctrl-C. */
int progress_show(void *progress, const char *what, uint64_t done, uint64_t total);
/* Makes room for a line of text; the bar comes back by itself. */
void progress_clear(struct progress *progress);
void progress_end(struct progress *progress);

#endif
