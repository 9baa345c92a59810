/* meter.c - see meter.h. */
#include "cli/meter.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CELLS 24

static const struct {
    float below;
    const char *colour;
} levels[] = {{0.30f, "\033[36m"}, {0.50f, "\033[95m"}, {INFINITY, "\033[91m"}};

static bool coloured(void)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return !(no_color && *no_color) && !(term && !strcmp(term, "dumb"));
}

static const char *colour_of(float cosine)
{
    size_t i = 0;
    while (cosine > levels[i].below)
        i++;
    return levels[i].colour;
}

void meter_print(FILE *out, float cosine, float gauge, float strength)
{
    if (isnan(cosine))
        return;
    bool colour = coloured();
    int full = (int)lrintf(CELLS * fminf(fmaxf(cosine, 0), 1));
    fprintf(out, "%s  ", colour ? colour_of(cosine) : "");
    for (int i = 0; i < CELLS; i++)
        fputs(i < full ? "\xe2\x96\x88" : "\xe2\x96\x91", out); /* full and light block */
    fprintf(out, " %.2f%s", (double)cosine, colour ? "\033[0m" : "");
    if (!isnan(gauge))
        fprintf(out, "   gauge %.2f", (double)gauge);
    fprintf(out, "   strength %g\n", (double)strength);
}
