/* report_plot.c - see report_plot.h. Lengths are in the units of the SVG's viewBox. */
#include "steer/report_plot.h"

#include "steer/report_page.h"

#include <math.h>
#include <stdio.h>

#define WIDTH  560.0
#define HEIGHT 250.0
#define LEFT   52.0
#define RIGHT  14.0
#define TOP    18.0
#define BOTTOM 38.0
#define TICKS  5    /* about as many on y */
#define LABELS 12   /* at most on x */
#define GAP    24.0 /* between two on x at least */

struct frame {
    const struct plot *plot;
    double low, high;          /* y axis, logarithms if the plot is logarithmic */
    double step;               /* between ticks */
    double first, last, pitch; /* x axis; pitch: of neighbouring points */
};

static double value_of(const struct plot *p, double y)
{
    if (!p->logarithmic)
        return y;
    return y > 0 ? log10(y) : NAN;
}

static double at_x(const struct frame *f, double x)
{
    double span = f->last - f->first;
    return LEFT + (WIDTH - LEFT - RIGHT) * (span > 0 ? (x - f->first) / span : 0.5);
}

static double at_y(const struct frame *f, double value)
{
    return TOP + (HEIGHT - TOP - BOTTOM) * (f->high - value) / (f->high - f->low);
}

/* 1, 2 or 5 times a power of ten. */
static double round_step(double step)
{
    double power = pow(10, floor(log10(step))), part = step / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

static void find_range(struct frame *f)
{
    const struct plot *p = f->plot;
    double low = INFINITY, high = -INFINITY;
    for (size_t s = 0; s < p->n_series; s++)
        for (size_t i = 0; i < p->n; i++) {
            double value = value_of(p, p->series[s].y[i]);
            if (isfinite(value)) {
                low = fmin(low, value);
                high = fmax(high, value);
            }
        }
    if (isfinite(p->limit) && isfinite(value_of(p, p->limit))) {
        low = fmin(low, value_of(p, p->limit));
        high = fmax(high, value_of(p, p->limit));
    }
    if (isfinite(p->y_min))
        low = isfinite(low) && low < value_of(p, p->y_min) ? low : value_of(p, p->y_min);
    if (isfinite(p->y_max))
        high = isfinite(high) && high > value_of(p, p->y_max) ? high : value_of(p, p->y_max);
    if (!(low < high)) { /* nothing, or one value */
        low = isfinite(low) ? low - 0.5 : 0;
        high = low + 1;
    }
    f->step =
        p->logarithmic ? fmax(1, ceil((high - low) / TICKS)) : round_step((high - low) / TICKS);
    f->low = floor(low / f->step + 1e-9) * f->step;
    f->high = ceil(high / f->step - 1e-9) * f->step;
}

static void find_frame(struct frame *f)
{
    const struct plot *p = f->plot;
    f->pitch = 1;
    for (size_t i = 1; i < p->n; i++)
        f->pitch = i == 1 ? p->x[1] - p->x[0] : fmin(f->pitch, p->x[i] - p->x[i - 1]);
    f->first = (p->n ? p->x[0] : 0) - f->pitch / 2;
    f->last = (p->n ? p->x[p->n - 1] : 0) + f->pitch / 2;
    find_range(f);
}

static void write_tick(struct str *out, const struct frame *f, double value)
{
    double y = at_y(f, value);
    char label[32];
    if (f->plot->logarithmic)
        snprintf(label, sizeof label, "%g", pow(10, value));
    else
        snprintf(label, sizeof label, "%.*f", f->step < 0.1 ? 2 : f->step < 1 ? 1 : 0, value);
    str_printf(out,
               "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
               "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
               LEFT, WIDTH - RIGHT, y, y, LEFT - 7, y + 4, label);
}

static void write_axes(struct str *out, const struct frame *f)
{
    const struct plot *p = f->plot;
    double half = (at_x(f, f->first + f->pitch) - LEFT) / 2;
    for (size_t i = 0; i < p->n_marked; i++)
        str_printf(out,
                   "<rect class=\"band\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                   at_x(f, p->marked[i]) - half, TOP, 2 * half + 0.3, HEIGHT - TOP - BOTTOM);
    for (double v = f->low; v < f->high + f->step / 2; v += f->step)
        write_tick(out, f, fabs(v) < f->step * 1e-6 ? 0 : v);
    size_t every = (p->n + LABELS - 1) / LABELS;
    double last = -INFINITY; /* values need not be evenly spaced */
    for (size_t i = 0; i < p->n; i += every ? every : 1) {
        double x = at_x(f, p->x[i]);
        if (x - last < GAP)
            continue;
        last = x;
        str_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.3g</text>\n", x,
                   HEIGHT - BOTTOM + 16, p->x[i]);
    }
    str_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
               (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4);
    html_text(out, p->x_label);
    str_puts(out, "</text>\n");
}

static void write_lines(struct str *out, const struct frame *f)
{
    const struct plot *p = f->plot;
    if (isfinite(p->highlight)) {
        double x = at_x(f, p->highlight);
        bool left = x > (WIDTH + LEFT) / 2;
        str_printf(out,
                   "<line class=\"best\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                   "<text class=\"besttext\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
                   x, x, TOP - 6, HEIGHT - BOTTOM, x + (left ? -5 : 5), TOP - 6,
                   left ? "end" : "start");
        html_text(out, p->highlight_label);
        str_puts(out, "</text>\n");
    }
    if (isfinite(p->limit)) {
        double y = at_y(f, value_of(p, p->limit));
        str_printf(out,
                   "<line class=\"limit\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                   "<text class=\"limittext\" x=\"%.1f\" y=\"%.1f\">",
                   LEFT, WIDTH - RIGHT, y, y, LEFT + 4, y + 14);
        html_text(out, p->limit_label);
        str_puts(out, "</text>\n");
    }
}

static void write_series(struct str *out, const struct frame *f, const struct plot_series *s)
{
    const struct plot *p = f->plot;
    bool drawing = false;
    str_printf(out,
               "<path fill=\"none\" stroke=\"var(--s%d)\" stroke-width=\"2\" "
               "stroke-linejoin=\"round\"%s d=\"",
               s->colour, s->dashed ? " stroke-dasharray=\"5 4\"" : "");
    for (size_t i = 0; i < p->n; i++) {
        double value = value_of(p, s->y[i]);
        if (isfinite(value))
            str_printf(out, "%c%.1f %.1f", drawing ? 'L' : 'M', at_x(f, p->x[i]), at_y(f, value));
        drawing = isfinite(value) || (drawing && p->joined);
    }
    str_puts(out, "\"/>\n");
    for (size_t i = 0; i < p->n; i++) {
        double value = value_of(p, s->y[i]);
        if (!isfinite(value))
            continue;
        str_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"var(--s%d)\"><title>",
                   at_x(f, p->x[i]), at_y(f, value), s->dashed ? "2.5" : "3", s->colour);
        html_text(out, s->label);
        str_printf(out, ": %.4g (", s->y[i]);
        html_text(out, p->x_label);
        str_printf(out, " %g)</title></circle>\n", p->x[i]);
    }
}

static void write_key(struct str *out, const struct plot *p)
{
    if (p->n_series < 2)
        return;
    str_puts(out, "<ul class=\"key\">");
    for (size_t i = 0; i < p->n_series; i++) {
        const struct plot_series *s = &p->series[i];
        str_printf(out,
                   "<li><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><line x1=\"1\" x2=\"25\" "
                   "y1=\"5\" y2=\"5\" stroke=\"var(--s%d)\" stroke-width=\"2.5\"%s/></svg>",
                   s->colour, s->dashed ? " stroke-dasharray=\"5 4\"" : "");
        html_text(out, s->label);
        str_puts(out, "</li>");
    }
    str_puts(out, "</ul>\n");
}

static void begin_figure(struct str *out, const char *title, const char *note, double height)
{
    str_puts(out, "<figure><figcaption>");
    html_text(out, title);
    str_puts(out, "<small>");
    html_text(out, note ? note : "");
    str_printf(out, "</small></figcaption>\n<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"",
               WIDTH, height);
    html_text(out, title);
    str_puts(out, "\">\n");
}

void plot_write(struct str *out, const struct plot *p)
{
    struct frame f = {.plot = p};
    find_frame(&f);
    begin_figure(out, p->title, p->note, HEIGHT);
    write_axes(out, &f);
    write_lines(out, &f);
    for (size_t i = p->n_series; i > 0; i--) /* the first one on top */
        write_series(out, &f, &p->series[i - 1]);
    str_puts(out, "</svg>\n");
    write_key(out, p);
    str_puts(out, "</figure>\n");
}

/* ---- bars -------------------------------------------------------------------------------------
 */

#define BAR_PITCH 34.0
#define BAR_HIGH  16.0
#define BAR_SPACE 110.0 /* for the value behind the longest bar */

void bars_write(struct str *out, const struct bars *b)
{
    double most = 0;
    for (size_t i = 0; i < b->n; i++)
        most = isfinite(b->values[i]) ? fmax(most, b->values[i]) : most;
    begin_figure(out, b->title, b->note, BAR_PITCH * (double)b->n + 4);
    for (size_t i = 0; i < b->n; i++) {
        double value = b->values[i], y = BAR_PITCH * (double)i;
        double width = isfinite(value) && most > 0 ? (WIDTH - BAR_SPACE) * value / most : 0;
        str_printf(out, "<text x=\"0\" y=\"%.1f\">", y + 12);
        html_text(out, b->labels[i]);
        str_printf(out,
                   "</text><rect x=\"0\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"3\" "
                   "fill=\"var(--s%d)\"/><text x=\"%.1f\" y=\"%.1f\">",
                   y + 16, width, BAR_HIGH, b->colours[i], width + 6, y + 28);
        if (isfinite(value))
            str_printf(out, "%.*f ", b->digits, value);
        html_text(out, isfinite(value) ? b->unit : "-");
        str_puts(out, "</text>\n");
    }
    str_puts(out, "</svg>\n</figure>\n");
}
