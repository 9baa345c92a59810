/* progress.c - see progress.h. */
#include "cli/progress.h"

#include "base/clock.h"
#include "cli/interrupt.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR 24 /* characters */

/* Seconds between two drawings: often on a terminal, seldom in a log. */
static double period(void)
{
    return isatty(STDERR_FILENO) ? 0.1 : 5.0;
}

static void draw(const struct progress *p, uint64_t done, uint64_t total, double seconds)
{
    double part = total ? (double)done / (double)total : 0;
    double rate = (double)(done - p->first) / seconds; /* per second */
    double left = rate > 0 && total > done ? (double)(total - done) / rate : 0;
    if (!isatty(STDERR_FILENO)) {
        fprintf(stderr, "%s: %.0f%%, %.0f s left\n", p->what, 100 * part, left);
        return;
    }
    char bar[BAR + 1];
    for (int i = 0; i < BAR; i++)
        bar[i] = i < (int)(part * BAR) ? '#' : '.';
    bar[BAR] = '\0';
    const char *unit = rate < 1e3 ? "" : rate < 1e6 ? "k" : rate < 1e9 ? "M" : "G";
    double shown = rate < 1e3   ? rate
                   : rate < 1e6 ? rate / 1e3
                   : rate < 1e9 ? rate / 1e6
                                : rate / 1e9;
    fprintf(stderr, "\r%s [%s] %3.0f%%  %.*f%s/s, %.0f s left \033[K", p->what, bar, 100 * part,
            shown < 10 ? 1 : 0, shown, unit, left);
}

int progress_show(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct progress *p = user;
    double now = clock_seconds();
    if (p->started <= 0 || strncmp(p->what, what, sizeof p->what - 1) || done < p->first) {
        snprintf(p->what, sizeof p->what, "%s", what);
        p->started = p->shown = now;
        p->first = done;
    }
    if (now - p->started > 0.5 && now - p->shown >= period()) {
        draw(p, done, total, now - p->started);
        p->shown = now;
        p->visible = true;
    }
    return interrupt_seen();
}

void progress_clear(struct progress *p)
{
    if (p->visible && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    p->visible = false;
}

void progress_end(struct progress *p)
{
    progress_clear(p);
    *p = (struct progress)PROGRESS_INIT;
}
