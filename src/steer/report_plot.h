/*
 * report_plot.h - line plots and bars as inline SVG for the reports' pages.
 *
 * Colours come from the page's style sheet (report_page.c): series i is drawn in var(--s<i>), so
 * that plots follow the reader's light or dark mode. Values that are not finite leave a gap.
 */
#ifndef STEER_REPORT_PLOT_H
#define STEER_REPORT_PLOT_H

#include "base/str.h"

struct plot_series {
    const char *label;
    const double *y; /* [plot.n] */
    bool dashed;
    int colour; /* 0..5 */
};

struct plot {
    const char *title;
    const char *note;    /* below the title; NULL: none */
    const char *x_label; /* "layer" */
    const double *x;     /* [n] ascending */
    size_t n;
    const struct plot_series *series;
    size_t n_series;
    double y_min, y_max; /* the axis; NaN: from the values */
    bool logarithmic;    /* y axis; values at or below 0 leave a gap */
    bool joined;         /* lines go on across gaps: the series have values at different x */
    double limit;        /* a horizontal line, NaN: none */
    const char *limit_label;
    const double *marked; /* [n_marked] x values on a shaded band: "used" */
    size_t n_marked;
    double highlight; /* x of a vertical line, NaN: none */
    const char *highlight_label;
};

/* A <figure> with its legend. */
void plot_write(struct str *out, const struct plot *plot);

/* A few values as bars from 0. */
struct bars {
    const char *title, *note;  /* note NULL: none */
    const char *const *labels; /* [n] */
    const double *values;      /* [n] at least 0; not finite: no bar */
    const int *colours;        /* [n] 0..5 */
    size_t n;
    const char *unit; /* after each value */
    int digits;       /* after the decimal point */
};

void bars_write(struct str *out, const struct bars *bars);

#endif
