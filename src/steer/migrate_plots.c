/*
 * migrate_plots.c - the old model and the new one in pictures: memory and speed as bars, the butler
 * test over the strengths as curves.
 */
#include "steer/migrate_report.h"

#include <math.h>
#include <stdlib.h>

#define ROWS_MOST 256 /* strengths of both models */
#define OLD       2   /* colours */
#define NEW       0

static const char *name_of(const struct migrate_text *t, int side)
{
    return report_text(t->root, side ? "plan.to.path" : "plan.from.path");
}

/* ---- bars -------------------------------------------------------------------------------------
 */

static void draw_bars(struct migrate_text *t, const char *title, const char *note,
                      const char *const paths[2], double factor, const char *unit, int digits)
{
    const char *const labels[2] = {name_of(t, 0), name_of(t, 1)};
    static const int colours[2] = {OLD, NEW};
    double values[2];
    for (int side = 0; side < 2; side++)
        values[side] = factor * report_number(t->root, paths[side]);
    doc_bars(&t->doc, &(struct bars){title, note, labels, values, colours, 2, unit, digits});
}

void migrate_memory_plots(struct migrate_text *t)
{
    static const char *const total[2] = {"plan.memory.from.total_bytes",
                                         "plan.memory.to.total_bytes"};
    static const char *const token[2] = {"plan.memory.from.weight_bytes_per_token",
                                         "plan.memory.to.weight_bytes_per_token"};
    doc_plots(&t->doc);
    draw_bars(t, SAY(t, "メモリ (重み + KV + 作業領域)", "Memory: weights, KV cache, workspace"),
              NULL, total, 1e-6, "MB", 1);
    draw_bars(t, SAY(t, "1トークンに読む重み", "Weights read for one token"), NULL, token, 1e-6,
              "MB", 1);
    doc_plots_end(&t->doc);
}

void migrate_speed_plots(struct migrate_text *t)
{
    static const char *const answer[2] = {"speed_old.answer_seconds", "speed_new.answer_seconds"};
    static const char *const decode[2] = {"speed_old.decode_tokens_per_second",
                                          "speed_new.decode_tokens_per_second"};
    static const char *const first[2] = {"speed_old.first_token_seconds",
                                         "speed_new.first_token_seconds"};
    static const char *const load[2] = {"speed_old.load_seconds", "speed_new.load_seconds"};
    const char *less = SAY(t, "短いほどよい", "less is better");
    doc_plots(&t->doc);
    draw_bars(t, SAY(t, "推論時間 (50 入力 / 100 出力)", "An answer: 50 tokens in, 100 out"), less,
              answer, 1e3, "ms", 1);
    draw_bars(t, SAY(t, "生成速度", "Generation"), SAY(t, "長いほどよい", "more is better"), decode,
              1, SAY(t, "トークン/秒", "tokens/s"), 0);
    draw_bars(t, SAY(t, "最初のトークン", "First token"), less, first, 1e3, "ms", 2);
    draw_bars(t, SAY(t, "モデルロード", "Loading the model"), less, load, 1e3, "ms", 1);
    doc_plots_end(&t->doc);
}

/* ---- curves over the strengths ----------------------------------------------------------------
 */

enum curve { MARKER, POLITE, GARBLED, REPEATED, METER, METER_LOW, METER_HIGH, CURVES };

static const char *const keys[] = {[MARKER] = "marker",
                                   [POLITE] = "polite",
                                   [GARBLED] = "garbled",
                                   [REPEATED] = "repetition_4",
                                   [METER] = "cosine"};

/* Rows of both butler tests on one axis of strengths. */
struct curves {
    size_t n;
    double x[ROWS_MOST];
    double y[CURVES][2][ROWS_MOST]; /* NaN: not measured there */
};

struct row_at {
    double strength;
    int side;
    const json_t *row;
};

static int by_strength(const void *a, const void *b)
{
    const struct row_at *x = a, *y = b;
    return (x->strength > y->strength) - (x->strength < y->strength);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Raw meter over the answers of a row: its first and its last tenth lie outside. */
static void meter_range(const json_t *row, double *low, double *high)
{
    const json_t *answers = json_object_get(row, "answers"), *one;
    double *values = calloc(json_array_size(answers) + 1, sizeof *values);
    size_t i, n = 0;
    *low = *high = NAN;
    json_array_foreach(answers, i, one)
    {
        double cosine = json_number_at(one, "cosine");
        if (values && isfinite(cosine))
            values[n++] = cosine;
    }
    if (n) {
        qsort(values, n, sizeof *values, by_value);
        *low = values[n / 10];
        *high = values[n - 1 - n / 10];
    }
    free(values);
}

static void take_row(struct curves *c, const struct row_at *at)
{
    size_t i = c->n - 1;
    for (int k = 0; k <= METER; k++)
        c->y[k][at->side][i] = (k < METER ? 100 : 1) * json_number_at(at->row, keys[k]);
    meter_range(at->row, &c->y[METER_LOW][at->side][i], &c->y[METER_HIGH][at->side][i]);
}

static void read_curves(const struct migrate_text *t, struct curves *c)
{
    static const char *const lists[2] = {"quality_old.report.rows", "quality_new.report.rows"};
    struct row_at list[ROWS_MOST];
    size_t n = 0, i;
    const json_t *row;
    for (int side = 0; side < 2; side++)
        json_array_foreach(report_at(t->root, lists[side]), i, row)
        {
            if (n < ROWS_MOST)
                list[n++] = (struct row_at){json_number_at(row, "strength"), side, row};
        }
    qsort(list, n, sizeof *list, by_strength);
    c->n = 0;
    for (i = 0; i < n; i++) {
        if (!i || list[i].strength > list[i - 1].strength) {
            c->x[c->n++] = list[i].strength;
            for (int k = 0; k < CURVES; k++)
                c->y[k][0][c->n - 1] = c->y[k][1][c->n - 1] = NAN;
        }
        take_row(c, &list[i]);
    }
}

static void draw(struct migrate_text *t, const struct curves *c, struct plot plot,
                 const struct plot_series *series, size_t n_series)
{
    double chosen = report_number(t->root, "choice.strength");
    plot.x_label = SAY(t, "強度", "strength");
    plot.x = c->x;
    plot.n = c->n;
    plot.series = series;
    plot.n_series = n_series;
    plot.joined = true;
    plot.limit = NAN;
    plot.highlight = chosen;
    plot.highlight_label = SAY(t, "推奨", "chosen");
    doc_plot(&t->doc, &plot);
}

static void draw_share(struct migrate_text *t, const struct curves *c, enum curve curve,
                       const char *title)
{
    const struct plot_series series[] = {{name_of(t, 1), c->y[curve][1], false, NEW},
                                         {name_of(t, 0), c->y[curve][0], true, OLD}};
    draw(t, c, (struct plot){.title = title, .y_min = 0, .y_max = 100}, series, 2);
}

static void draw_meter(struct migrate_text *t, const struct curves *c)
{
    const char *bound = SAY(t, "10 % 点・90 % 点", "10th and 90th percentile");
    const struct plot_series series[] = {
        {name_of(t, 1), c->y[METER][1], false, NEW}, {bound, c->y[METER_LOW][1], true, NEW},
        {bound, c->y[METER_HIGH][1], true, NEW},     {name_of(t, 0), c->y[METER][0], false, OLD},
        {bound, c->y[METER_LOW][0], true, OLD},      {bound, c->y[METER_HIGH][0], true, OLD}};
    draw(t, c,
         (struct plot){
             .title = SAY(t, "ギャル度メーターの範囲 (コサイン)", "Range of the meter (cosine)"),
             .note = SAY(t, "回答ごとの平均値", "Means of the answers"),
             .y_min = NAN,
             .y_max = NAN},
         series, 6);
}

void migrate_ladder_plots(struct migrate_text *t)
{
    struct curves *c = t->doc.html ? malloc(sizeof *c) : NULL;
    if (!c) {
        t->doc.out.failed |= t->doc.html;
        return;
    }
    read_curves(t, c);
    doc_plots(&t->doc);
    draw_share(t, c, MARKER, SAY(t, "ギャル語のある回答 (%)", "Answers with a marker, %"));
    draw_share(t, c, GARBLED, SAY(t, "崩壊した回答 (%)", "Garbled answers, %"));
    draw_share(t, c, POLITE, SAY(t, "丁寧な文末 (%)", "Polite endings, %"));
    draw_share(t, c, REPEATED, SAY(t, "4-gram の重複 (%)", "Repeated 4-grams, %"));
    draw_meter(t, c);
    doc_plots_end(&t->doc);
    free(c);
}
