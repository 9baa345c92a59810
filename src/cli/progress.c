/* progress.c - see progress.h. */
#include "cli/progress.h"

#include "base/clock.h"
#include "cli/interrupt.h"

#include <stdio.h>
#include <unistd.h>

#define BAR 24 /* characters */

/* Seconds between two drawings: often on a terminal, seldom in a log. */
static double period(void)
{
    return isatty(STDERR_FILENO) ? 0.1 : 5.0;
}

static void draw(const char *what, uint64_t done, uint64_t total, double seconds)
{
    double part = total ? (double)done / (double)total : 0;
    double eta = part > 0 ? seconds * (1 - part) / part : 0;
    if (!isatty(STDERR_FILENO)) {
        fprintf(stderr, "%s: %.0f%%, %.0f s left\n", what, 100 * part, eta);
        return;
    }
    char bar[BAR + 1];
    for (int i = 0; i < BAR; i++)
        bar[i] = i < (int)(part * BAR) ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f%%  %.0f s left \033[K", what, bar, 100 * part, eta);
}

int progress_show(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct progress *p = user;
    double now = clock_seconds();
    if (p->started <= 0)
        p->started = p->shown = now;
    if (now - p->started > 0.5 && now - p->shown >= period()) {
        draw(what, done, total, now - p->started);
        p->shown = now;
        p->visible = true;
    }
    return interrupt_seen();
}

void progress_end(struct progress *p)
{
    if (p->visible && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    *p = (struct progress)PROGRESS_INIT;
}
