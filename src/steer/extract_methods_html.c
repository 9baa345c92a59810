/* extract_methods_html.c - see extract_methods_html.h. */
#include "steer/extract_methods_html.h"

#include "steer/direction.h"
#include "steer/report_plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POINTS_MOST 4096 /* layers, doses */

/* One value of every method at n places on the x axis. */
struct curves {
    size_t n;
    double *x;                    /* [n] */
    double *y[DIRECTION_METHODS]; /* [n] each, in the block of x */
};

static int curves_new(struct curves *c, size_t n, struct gyaru_error *err)
{
    *c = (struct curves){.n = n};
    if (n > POINTS_MOST)
        return error_set(err, GYARU_FAILED, "the report has too many points");
    c->x = malloc((1 + DIRECTION_METHODS) * (n + 1) * sizeof *c->x);
    if (!c->x)
        return error_memory(err, (1 + DIRECTION_METHODS) * n * sizeof *c->x, "the curves");
    for (size_t i = 0; i < (1 + DIRECTION_METHODS) * n; i++)
        c->x[i] = NAN;
    for (size_t m = 0; m < DIRECTION_METHODS; m++)
        c->y[m] = c->x + (1 + m) * n;
    return 0;
}

static const char *name_of(size_t method)
{
    return direction_method_name((enum direction_method)method);
}

/* Axis from 0 to most. */
static void draw(struct page *page, const struct curves *c, const char *title, const char *note,
                 const char *x_label, double most)
{
    struct plot_series series[DIRECTION_METHODS];
    for (size_t m = 0; m < DIRECTION_METHODS; m++)
        series[m] = (struct plot_series){name_of(m), c->y[m], m == METHOD_PCA_LAST, (int)m};
    struct plot plot = {.title = title,
                        .note = note,
                        .x_label = x_label,
                        .x = c->x,
                        .n = c->n,
                        .series = series,
                        .n_series = DIRECTION_METHODS,
                        .y_min = 0,
                        .y_max = most,
                        .limit = NAN,
                        .highlight = NAN};
    plot_write(&page->out, &plot);
}

/* ---- by layer ---------------------------------------------------------------------------------
 */

static int draw_layers(struct page *page, const json_t *compared, struct gyaru_error *err)
{
    const json_t *layers = json_object_get(compared, "layers"), *layer;
    struct curves auroc, cosine;
    size_t i, n = json_array_size(layers);
    const char *axis = page_say(page, "layer", "層");
    if (curves_new(&auroc, n, err))
        return -1;
    if (curves_new(&cosine, n, err)) {
        free(auroc.x);
        return -1;
    }
    json_array_foreach(layers, i, layer)
    {
        auroc.x[i] = cosine.x[i] = json_number_at(layer, "layer");
        for (size_t m = 0; m < DIRECTION_METHODS; m++) {
            const json_t *figures = json_object_get(layer, name_of(m));
            auroc.y[m][i] = json_number_at(figures, "content_auroc");
            cosine.y[m][i] =
                json_number_at(json_object_get(figures, "cosine"), name_of(METHOD_MEAN));
        }
    }
    draw(page, &auroc, page_say(page, "AUROC by method", "手法ごとの AUROC"),
         page_say(page, "Held-out texts along each direction, over the answers' tokens",
                  "取り分けた文の、回答トークンでの分離"),
         axis, 1);
    draw(page, &cosine, page_say(page, "Cosine with the mean difference", "平均差とのコサイン"),
         page_say(page, "Do the methods find the same direction?",
                  "手法どうしは同じ方向を見つけるか"),
         axis, 1);
    free(auroc.x);
    free(cosine.x);
    return 0;
}

/* ---- by dose ----------------------------------------------------------------------------------
 */

static size_t method_of(const char *name)
{
    int method = direction_method_find(name);
    return method < 0 ? 0 : (size_t)method;
}

static int draw_effect(struct page *page, const json_t *effect, const char *key, const char *title,
                       const char *note, struct gyaru_error *err)
{
    const json_t *methods = json_object_get(effect, "methods"), *method, *row;
    const json_t *first = json_object_get(json_array_get(methods, 0), "rows");
    struct curves curves;
    size_t i, k;
    if (curves_new(&curves, json_array_size(first), err))
        return -1;
    json_array_foreach(methods, i, method)
    {
        size_t m = method_of(json_text_at(method, "method"));
        json_array_foreach(json_object_get(method, "rows"), k, row)
        {
            if (k >= curves.n)
                break;
            curves.x[k] = json_number_at(row, "strength");
            curves.y[m][k] = 100 * json_number_at(row, key);
        }
    }
    if (curves.n)
        draw(page, &curves, title, note, page_say(page, "dose (strength)", "量 (強度)"), 100);
    free(curves.x);
    return 0;
}

static int draw_effects(struct page *page, const json_t *effect, struct gyaru_error *err)
{
    struct str note = STR_INIT;
    str_printf(&note, page_say(page, "Without steering %.0f%%", "操作なしでは %.0f %%"),
               100 * json_number_at(json_object_get(effect, "base"), "marker"));
    int rc = draw_effect(page, effect, "marker",
                         page_say(page, "Answers with a marker at the same dose, %",
                                  "同じ量でのマーカーのある回答 (%)"),
                         note.data ? note.data : "", err);
    str_release(&note);
    return rc ? rc
              : draw_effect(page, effect, "garbled",
                            page_say(page, "Garbled answers at the same dose, %",
                                     "同じ量での崩れた回答 (%)"),
                            NULL, err);
}

/* ---- words and numbers -------------------------------------------------------------------------
 */

static void write_alike(struct page *page, const json_t *object)
{
    const json_t *name;
    size_t i;
    json_array_foreach(json_object_get(object, "alike"), i, name)
    {
        html_text(&page->out, i ? ", " : page_say(page, "; alike: ", " / 同程度: "));
        html_text(&page->out, json_string_value(name));
    }
}

static void write_verdict(struct page *page, const json_t *compared)
{
    const json_t *effect = json_object_get(compared, "effect");
    str_puts(&page->out, "<div class=\"verdict good\">");
    html_text(&page->out, page_say(page, "Separates best: ", "分離が最もよい手法: "));
    html_text(&page->out, json_text_at(compared, "separates_best"));
    write_alike(page, compared);
    if (json_is_object(effect)) {
        const char *wins = json_text_at(effect, "wins");
        str_puts(&page->out, "<br>");
        html_text(&page->out, page_say(page, "Most effect at the same dose: ",
                                       "同じ量で効果が最も大きい手法: "));
        html_text(&page->out, *wins ? wins
                                    : page_say(page, "none that leaves the answers whole",
                                               "回答を崩さないものはない"));
        write_alike(page, effect);
    }
    str_puts(&page->out, "</div>\n");
}

static void write_cell(struct page *page, double value, int digits)
{
    if (isfinite(value))
        str_printf(&page->out, "<td>%.*f</td>", digits, value);
    else
        str_puts(&page->out, "<td>–</td>");
}

static void write_table(struct page *page, const json_t *compared)
{
    static const struct {
        const char *key, *english, *japanese;
        int digits;
    } columns[] = {
        {"content_auroc", "AUROC over the answers' tokens", "回答トークンでの AUROC", 3},
        {"auroc", "AUROC where it reads", "読み取り位置での AUROC", 3},
        {"cohens_d", "Cohen's d", "コーエンの d", 2},
        {"split_half_cosine", "split-half cosine", "折半コサイン", 3},
        {"explained_variance_ratio", "variance along it", "方向に沿う分散の割合", 3},
        {"cosine_mean", "cosine with the mean", "平均差とのコサイン", 3},
    };
    const json_t *method;
    size_t i, n = sizeof columns / sizeof *columns;
    str_printf(&page->out, "<div class=\"scroll\"><table>\n<tr><th>%s</th><th>%s</th>",
               page_say(page, "method", "手法"), page_say(page, "reads at", "読み取り位置"));
    for (size_t c = 0; c < n; c++) {
        str_puts(&page->out, "<th>");
        html_text(&page->out, page_say(page, columns[c].english, columns[c].japanese));
        str_puts(&page->out, "</th>");
    }
    str_puts(&page->out, "</tr>\n");
    json_array_foreach(json_object_get(compared, "summary"), i, method)
    {
        str_puts(&page->out, "<tr><td>");
        html_text(&page->out, json_text_at(method, "method"));
        str_puts(&page->out, "</td><td>");
        html_text(&page->out, json_text_at(method, "position"));
        str_puts(&page->out, "</td>");
        for (size_t c = 0; c < n; c++)
            write_cell(page, json_number_at(method, columns[c].key), columns[c].digits);
        str_puts(&page->out, "</tr>\n");
    }
    str_puts(&page->out, "</table></div>\n");
}

int methods_html(struct page *page, const json_t *report, struct gyaru_error *err)
{
    const json_t *compared = json_object_get(report, "methods");
    const json_t *effect = json_object_get(compared, "effect");
    if (!json_is_object(compared))
        return 0;
    page_heading(page, "Methods on the same pairs and split", "手法の比較 (同じペア・同じ分割)");
    write_verdict(page, compared);
    str_puts(&page->out, "<div class=\"plots\">\n");
    int rc = draw_layers(page, compared, err);
    if (!rc && json_is_object(effect))
        rc = draw_effects(page, effect, err);
    str_puts(&page->out, "</div>\n");
    write_table(page, compared);
    return rc;
}
