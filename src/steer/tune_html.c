/*
 * tune_html.c - gyaru_tune_html(): the report of `tune` as a page, in Japanese or English.
 *
 * The page is made from the JSON document alone, so that an old report can be shown again.
 */
#include "base/json.h"
#include "steer/report_page.h"
#include "steer/report_plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MOST 4096 /* points of a candidate */

struct page {
    struct str out;
    const json_t *report;
    bool japanese;
};

/* One candidate's points as columns. */
struct curves {
    const json_t *points;
    size_t n;
    double *x; /* [n] strengths */
    double *y; /* [CURVES][n] */
};

enum curve {
    MARKER,
    POLITE,
    GARBLED,
    NO_END,
    REPETITION,
    DISTINCT,
    KL_P95,
    KL_MEAN,
    GAIN,
    WRONG,
    NLL,
    COSINE,
    GAUGE,
    CURVES
};

static const struct {
    const char *key, *english, *japanese;
    double factor; /* 100: shown in per cent */
    int digits;
} shown[CURVES] = {
    [MARKER] = {"marker", "answers with a marker", "マーカーのある回答", 100, 0},
    [POLITE] = {"polite", "polite endings", "丁寧な文末", 100, 0},
    [GARBLED] = {"garbled", "garbled", "崩れた回答", 100, 0},
    [NO_END] = {"no_end", "no end", "終わらない回答", 100, 0},
    [REPETITION] = {"repetition_4", "repeated 4-grams", "4-gram の重複", 100, 1},
    [DISTINCT] = {"distinct_2", "distinct-2", "distinct-2", 100, 0},
    [KL_P95] = {"kl_p95", "KL, 95th percentile", "KL 95 % 点", 1, 2},
    [KL_MEAN] = {"kl_mean", "KL, mean", "KL 平均", 1, 2},
    [GAIN] = {"gain", "gain, styled over plain", "普通文に対する利得", 1, 2},
    [WRONG] = {"wrong_way", "steered the wrong way", "逆向きに動いた組", 100, 0},
    [NLL] = {"nll", "NLL of the answers", "回答の負対数尤度", 1, 2},
    [COSINE] = {"cosine", "raw meter (cosine)", "メーター生値 (コサイン)", 1, 3},
    [GAUGE] = {"gauge", "calibrated gauge", "較正ゲージ", 1, 2},
};

static const char *say(const struct page *p, const char *english, const char *japanese)
{
    return p->japanese ? japanese : english;
}

static const char *label(const struct page *p, enum curve curve)
{
    return say(p, shown[curve].english, shown[curve].japanese);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static bool flag_of(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

__attribute__((format(printf, 3, 4))) static void fact(struct page *p, const char *name,
                                                       const char *format, ...)
{
    struct str value = STR_INIT;
    va_list args;
    va_start(args, format);
    str_vprintf(&value, format, args);
    va_end(args);
    page_fact(&p->out, name, value.data ? value.data : "");
    str_release(&value);
}

static void heading(struct page *p, const char *english, const char *japanese)
{
    str_puts(&p->out, "<h2>");
    html_text(&p->out, say(p, english, japanese));
    str_puts(&p->out, "</h2>\n");
}

/* ---- facts ------------------------------------------------------------------------------------
 */

static void write_verdict(struct page *p)
{
    const json_t *choice = json_object_get(p->report, "choice");
    bool written = flag_of(p->report, "written");
    str_printf(&p->out, "<div class=\"verdict %s\">", written ? "good" : "bad");
    if (!json_is_object(choice))
        html_text(&p->out, say(p, "No safe strength", "安全な強度がありません"));
    else if (p->japanese)
        str_printf(&p->out, "推奨強度 %.4g、上限 %.4g", number_of(choice, "recommended_strength"),
                   number_of(choice, "max_strength"));
    else
        str_printf(&p->out, "Recommended strength %.4g, maximum %.4g",
                   number_of(choice, "recommended_strength"), number_of(choice, "max_strength"));
    str_puts(&p->out, "<small>");
    html_text(&p->out, !json_is_object(choice)
                           ? say(p, "nothing was written", "何も書き出していません")
                       : written ? text_of(p->report, "output")
                                 : say(p, "not confirmed on unseen messages: nothing was written",
                                       "未使用メッセージで確認できず、書き出していません"));
    str_puts(&p->out, "</small></div>\n");
    if (*text_of(p->report, "warning")) {
        str_puts(&p->out, "<div class=\"warn\"><ul><li>");
        html_text(&p->out, text_of(p->report, "warning"));
        str_puts(&p->out, "</li></ul></div>\n");
    }
}

static void write_facts(struct page *p)
{
    const json_t *model = json_object_get(p->report, "model");
    const json_t *data = json_object_get(p->report, "dataset");
    const json_t *settings = json_object_get(p->report, "settings");
    const json_t *choice = json_object_get(p->report, "choice");
    str_puts(&p->out, "<dl class=\"facts\">\n");
    fact(p, say(p, "Model", "モデル"), "%s (%s)", text_of(model, "name"), text_of(model, "device"));
    fact(p, say(p, "Vector", "ベクトル"), "%s", text_of(p->report, "vector"));
    fact(p, say(p, "Works against", "逆らう指示"), "%s", text_of(settings, "system"));
    fact(p, say(p, "Control prompt", "対照の指示"), "%s", text_of(settings, "style_system"));
    fact(p, say(p, "Pairs, search / confirmation", "ペア (探索 / 確認)"), "%.0f / %.0f%s",
         number_of(data, "search_pairs"), number_of(data, "confirm_pairs"),
         flag_of(data, "unseen")
             ? ""
             : say(p, " (the vector was made from them too)", " (ベクトルの抽出にも使用)"));
    fact(p, say(p, "Messages, search / confirmation", "メッセージ (探索 / 確認)"), "%.0f / %.0f",
         number_of(data, "search_messages"), number_of(data, "confirm_messages"));
    fact(p, say(p, "KL budget", "KL 予算"), "%.3g nat", number_of(settings, "kl_budget"));
    if (json_is_object(choice)) {
        fact(p, say(p, "Layers", "層"), "%s", text_of(choice, "candidate"));
        fact(p, say(p, "Measured at", "測定時の強度"), "%.4g",
             number_of(choice, "measured_strength"));
        fact(p, say(p, "Directions scaled by", "方向の倍率"), "%.4g", number_of(choice, "factor"));
        fact(p, say(p, "Within the KL budget", "KL 予算内"), "%s",
             flag_of(choice, "within_kl_budget") ? say(p, "yes", "はい") : say(p, "no", "いいえ"));
    }
    fact(p, say(p, "Time", "所要時間"), say(p, "%.0f s", "%.0f 秒"),
         number_of(p->report, "seconds"));
    str_puts(&p->out, "</dl>\n");
}

/* ---- curves -----------------------------------------------------------------------------------
 */

static int curves_read(const json_t *candidate, struct curves *c, struct gyaru_error *err)
{
    const json_t *points = json_object_get(candidate, "points"), *point;
    size_t i, n = json_array_size(points);
    *c = (struct curves){.points = points, .n = n};
    if (n > SHOWN_MOST)
        return error_set(err, GYARU_FAILED, "the report has too many points");
    c->x = calloc(n + 1, sizeof *c->x);
    c->y = calloc(CURVES * (n + 1), sizeof *c->y);
    if (!c->x || !c->y)
        return error_memory(err, CURVES * n * sizeof *c->y, "the curves");
    json_array_foreach(points, i, point)
    {
        c->x[i] = number_of(point, "strength");
        for (int k = 0; k < CURVES; k++)
            c->y[(size_t)k * n + i] = shown[k].factor * number_of(point, shown[k].key);
    }
    return 0;
}

static void curves_release(struct curves *c)
{
    free(c->x);
    free(c->y);
}

/* Answers were measured at some strengths only: a curve must not have gaps there. */
static size_t squeeze(const struct curves *c, enum curve first, double *x, double *y,
                      const enum curve *list, size_t n_list)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (!isfinite(c->y[(size_t)first * c->n + i]))
            continue;
        x[n] = c->x[i];
        for (size_t k = 0; k < n_list; k++)
            y[k * c->n + n] = c->y[(size_t)list[k] * c->n + i];
        n++;
    }
    return n;
}

struct figure {
    const char *english, *japanese;
    enum curve list[4];
    size_t n_list;
    bool share, logarithmic;
};

static int draw(struct page *p, const struct curves *c, const struct figure *f, double limit,
                const char *limit_label, double chosen, struct gyaru_error *err)
{
    struct plot_series series[4];
    double *x = calloc(c->n + 1, sizeof *x), *y = calloc(4 * (c->n + 1), sizeof *y);
    int rc = x && y ? 0 : error_memory(err, 5 * c->n * sizeof *x, "a plot");
    if (!rc) {
        size_t n = squeeze(c, f->list[0], x, y, f->list, f->n_list);
        for (size_t k = 0; k < f->n_list; k++)
            series[k] = (struct plot_series){label(p, f->list[k]), y + k * c->n, false, (int)k};
        struct plot plot = {.title = say(p, f->english, f->japanese),
                            .x_label = say(p, "strength", "強度"),
                            .x = x,
                            .n = n,
                            .series = series,
                            .n_series = f->n_list,
                            .y_min = f->share ? 0 : NAN,
                            .y_max = f->share ? 100 : NAN,
                            .logarithmic = f->logarithmic,
                            .limit = limit,
                            .limit_label = limit_label,
                            .highlight = chosen,
                            .highlight_label = say(p, "chosen", "採用")};
        if (n > 1)
            plot_write(&p->out, &plot);
    }
    free(x);
    free(y);
    return rc;
}

static int draw_all(struct page *p, const struct curves *c, double chosen, struct gyaru_error *err)
{
    static const struct figure figures[] = {
        {"Style and damage, % of the answers",
         "スタイルと損傷 (回答の %)",
         {MARKER, POLITE, GARBLED, NO_END},
         4,
         true,
         false},
        {"Divergence from the unsteered model, nats per token",
         "元のモデルからの乖離 (nat/トークン)",
         {KL_P95, KL_MEAN},
         2,
         false,
         true},
        {"Log-probability gain of styled texts, nats per token",
         "スタイル文の対数確率の利得 (nat/トークン)",
         {GAIN},
         1,
         false,
         false},
        {"NLL of the answers without steering, nats per token",
         "回答の元モデルでの負対数尤度 (nat/トークン)",
         {NLL},
         1,
         false,
         false},
        {"Repetition and variety, %", "重複と多様性 (%)", {REPETITION, DISTINCT}, 2, true, false},
        {"Meter over the answers", "回答中のメーター", {COSINE, GAUGE}, 2, false, false},
    };
    const json_t *settings = json_object_get(p->report, "settings");
    const json_t *prompt = json_object_get(p->report, "prompt");
    const json_t *reference = json_is_object(prompt) ? prompt : json_object_get(p->report, "base");
    double nll =
        number_of(reference, "nll") + number_of(json_object_get(p->report, "limits"), "nll_more");
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        double limit = figures[i].list[0] == KL_P95 ? number_of(settings, "kl_budget")
                       : figures[i].list[0] == NLL  ? nll
                                                    : NAN;
        if (draw(p, c, &figures[i], limit, say(p, "limit", "限度"), chosen, err))
            return -1;
    }
    return 0;
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static void write_cell(struct page *p, const json_t *point, enum curve curve)
{
    double value = shown[curve].factor * number_of(point, shown[curve].key);
    if (isfinite(value))
        str_printf(&p->out, "<td>%.*f</td>", shown[curve].digits, value);
    else
        str_puts(&p->out, "<td>–</td>");
}

static void write_row(struct page *p, const char *name, const json_t *point)
{
    if (!json_is_object(point))
        return;
    str_puts(&p->out, "<tr><td>");
    html_text(&p->out, name);
    str_puts(&p->out, "</td>");
    for (int k = 0; k < CURVES; k++)
        write_cell(p, point, (enum curve)k);
    str_puts(&p->out, "<td>");
    html_text(&p->out, text_of(point, "fault"));
    str_puts(&p->out, "</td></tr>\n");
}

static void begin_table(struct page *p, const char *first)
{
    str_puts(&p->out, "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">");
    html_text(&p->out, first);
    str_puts(&p->out, "</th>");
    for (int k = 0; k < CURVES; k++) {
        str_puts(&p->out, "<th scope=\"col\">");
        html_text(&p->out, label(p, (enum curve)k));
        str_puts(&p->out, shown[k].factor > 1 ? " %</th>" : "</th>");
    }
    str_puts(&p->out, "<th scope=\"col\">");
    html_text(&p->out, say(p, "not safe because", "安全でない理由"));
    str_puts(&p->out, "</th></tr></thead><tbody>\n");
}

static void end_table(struct page *p)
{
    str_puts(&p->out, "</tbody></table></div>\n");
}

static int write_candidate(struct page *p, const json_t *candidate, double chosen,
                           struct gyaru_error *err)
{
    struct curves curves;
    const json_t *point;
    size_t i;
    double budget = number_of(candidate, "budget_strength");
    str_puts(&p->out, "<h3>");
    html_text(&p->out, text_of(candidate, "name"));
    str_printf(&p->out,
               say(p, ": layers %.0f–%.0f (%.0f)</h3>\n<p>", ": 層 %.0f–%.0f (%.0f 層)</h3>\n<p>"),
               number_of(candidate, "layer_first"), number_of(candidate, "layer_last"),
               number_of(candidate, "layers"));
    if (isfinite(budget))
        str_printf(&p->out,
                   say(p, "The KL budget is reached at strength %.4g, with a gain of %.3g.",
                       "KL 予算に達する強度 %.4g、そこでの利得 %.3g。"),
                   budget, number_of(candidate, "budget_gain"));
    str_puts(&p->out, "</p>\n");
    if (!flag_of(candidate, "finalist"))
        return 0;
    int rc = curves_read(candidate, &curves, err);
    str_puts(&p->out, "<div class=\"plots\">\n");
    if (!rc)
        rc = draw_all(p, &curves, chosen, err);
    str_puts(&p->out, "</div>\n");
    curves_release(&curves);
    begin_table(p, say(p, "strength", "強度"));
    json_array_foreach(json_object_get(candidate, "points"), i, point)
    {
        char name[32];
        snprintf(name, sizeof name, "%.4g", number_of(point, "strength"));
        write_row(p, name, point);
    }
    end_table(p);
    return rc;
}

static const char *const controls[] = {"none", "prompt", "random", "steered"};

static const char *control_name(const struct page *p, size_t i)
{
    static const char *const names[][2] = {{"no steering", "操作なし"},
                                           {"prompt only", "指示のみ"},
                                           {"random vector", "乱数ベクトル"},
                                           {"this vector", "このベクトル"}};
    return say(p, names[i][0], names[i][1]);
}

static void write_controls(struct page *p)
{
    const json_t *all = json_object_get(p->report, "controls");
    const json_t *samples = json_object_get(p->report, "answers"), *answer;
    size_t i, k;
    heading(p, "Confirmation on unseen messages", "未使用メッセージでの確認");
    begin_table(p, "");
    for (i = 0; i < sizeof controls / sizeof *controls; i++)
        write_row(p, control_name(p, i), json_object_get(all, controls[i]));
    end_table(p);
    for (i = 0; i < sizeof controls / sizeof *controls; i++) {
        const json_t *list = json_object_get(samples, controls[i]);
        if (!json_array_size(list))
            continue;
        str_puts(&p->out, "<h3>");
        html_text(&p->out, control_name(p, i));
        str_puts(&p->out, "</h3>\n<dl class=\"facts\">\n");
        json_array_foreach(list, k, answer)
            page_fact(&p->out, text_of(answer, "message"), text_of(answer, "text"));
        str_puts(&p->out, "</dl>\n");
    }
}

static int write_candidates(struct page *p, struct gyaru_error *err)
{
    const json_t *candidates = json_object_get(p->report, "candidates"), *candidate;
    const json_t *choice = json_object_get(p->report, "choice");
    size_t i;
    heading(p, "Candidates", "候補");
    json_array_foreach(candidates, i, candidate)
    {
        bool chosen = !strcmp(text_of(candidate, "name"), text_of(choice, "candidate"));
        if (write_candidate(p, candidate, chosen ? number_of(choice, "measured_strength") : NAN,
                            err))
            return -1;
    }
    return 0;
}

/* ---- all --------------------------------------------------------------------------------------
 */

int gyaru_tune_html(const char *report, const char *language, char **html, struct gyaru_error *err)
{
    json_t *root = json_parse_text(report, strlen(report), "the report", err);
    if (!root)
        return -1;
    struct page p = {.out = STR_INIT, .report = root, .japanese = !strcmp(language, "ja")};
    int rc = strcmp(text_of(root, "report"), "tune")
                 ? error_set(err, GYARU_FAILED, "the report is not one of tune")
                 : 0;
    if (!rc) {
        page_begin(&p.out, p.japanese ? "ja" : "en",
                   say(&p, "Strength of a control vector", "制御ベクトルの強度調整"),
                   text_of(root, "vector"));
        write_verdict(&p);
        write_facts(&p);
        if (json_is_object(json_object_get(root, "choice")))
            write_controls(&p);
        rc = write_candidates(&p, err);
        page_end(&p.out);
    }
    json_decref(root);
    if (rc) {
        str_release(&p.out);
        return -1;
    }
    *html = str_take(&p.out);
    return *html ? 0 : error_memory(err, 1 << 16, "the page");
}
