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

struct tune_page {
    struct page page;
    const json_t *report;
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

static const char *label(const struct tune_page *p, enum curve curve)
{
    return page_say(&p->page, shown[curve].english, shown[curve].japanese);
}

/* ---- facts ------------------------------------------------------------------------------------
 */

static void write_verdict(struct tune_page *p)
{
    const json_t *choice = json_object_get(p->report, "choice");
    bool written = json_flag_at(p->report, "written");
    str_printf(&p->page.out, "<div class=\"verdict %s\">", written ? "good" : "bad");
    if (!json_is_object(choice))
        html_text(&p->page.out, page_say(&p->page, "No safe strength", "安全な強度がありません"));
    else if (p->page.japanese)
        str_printf(&p->page.out, "推奨強度 %.4g、上限 %.4g",
                   json_number_at(choice, "recommended_strength"),
                   json_number_at(choice, "max_strength"));
    else
        str_printf(&p->page.out, "Recommended strength %.4g, maximum %.4g",
                   json_number_at(choice, "recommended_strength"),
                   json_number_at(choice, "max_strength"));
    str_puts(&p->page.out, "<small>");
    html_text(&p->page.out,
              !json_is_object(choice)
                  ? page_say(&p->page, "nothing was written", "何も書き出していません")
              : written
                  ? json_text_at(p->report, "output")
                  : page_say(&p->page, "not confirmed on unseen messages: nothing was written",
                             "未使用メッセージで確認できず、書き出していません"));
    str_puts(&p->page.out, "</small></div>\n");
    if (*json_text_at(p->report, "warning")) {
        str_puts(&p->page.out, "<div class=\"warn\"><ul><li>");
        html_text(&p->page.out, json_text_at(p->report, "warning"));
        str_puts(&p->page.out, "</li></ul></div>\n");
    }
}

static void write_facts(struct tune_page *p)
{
    const json_t *model = json_object_get(p->report, "model");
    const json_t *data = json_object_get(p->report, "dataset");
    const json_t *settings = json_object_get(p->report, "settings");
    const json_t *choice = json_object_get(p->report, "choice");
    str_puts(&p->page.out, "<dl class=\"facts\">\n");
    page_fact(&p->page, page_say(&p->page, "Model", "モデル"), "%s (%s)",
              json_text_at(model, "name"), json_text_at(model, "device"));
    page_fact(&p->page, page_say(&p->page, "Vector", "ベクトル"), "%s",
              json_text_at(p->report, "vector"));
    page_fact(&p->page, page_say(&p->page, "Works against", "逆らう指示"), "%s",
              json_text_at(settings, "system"));
    page_fact(&p->page, page_say(&p->page, "Control prompt", "対照の指示"), "%s",
              json_text_at(settings, "style_system"));
    page_fact(&p->page, page_say(&p->page, "Pairs, search / confirmation", "ペア (探索 / 確認)"),
              "%.0f / %.0f%s", json_number_at(data, "search_pairs"),
              json_number_at(data, "confirm_pairs"),
              json_flag_at(data, "unseen")
                  ? ""
                  : page_say(&p->page, " (the vector was made from them too)",
                             " (ベクトルの抽出にも使用)"));
    page_fact(&p->page,
              page_say(&p->page, "Messages, search / confirmation", "メッセージ (探索 / 確認)"),
              "%.0f / %.0f", json_number_at(data, "search_messages"),
              json_number_at(data, "confirm_messages"));
    page_fact(&p->page, page_say(&p->page, "KL budget", "KL 予算"), "%.3g nat",
              json_number_at(settings, "kl_budget"));
    if (json_is_object(choice)) {
        page_fact(&p->page, page_say(&p->page, "Layers", "層"), "%s",
                  json_text_at(choice, "candidate"));
        page_fact(&p->page, page_say(&p->page, "Measured at", "測定時の強度"), "%.4g",
                  json_number_at(choice, "measured_strength"));
        page_fact(&p->page, page_say(&p->page, "Directions scaled by", "方向の倍率"), "%.4g",
                  json_number_at(choice, "factor"));
        page_fact(&p->page, page_say(&p->page, "Within the KL budget", "KL 予算内"), "%s",
                  json_flag_at(choice, "within_kl_budget") ? page_say(&p->page, "yes", "はい")
                                                           : page_say(&p->page, "no", "いいえ"));
    }
    page_fact(&p->page, page_say(&p->page, "Time", "所要時間"),
              page_say(&p->page, "%.0f s", "%.0f 秒"), json_number_at(p->report, "seconds"));
    str_puts(&p->page.out, "</dl>\n");
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
        c->x[i] = json_number_at(point, "strength");
        for (int k = 0; k < CURVES; k++)
            c->y[(size_t)k * n + i] = shown[k].factor * json_number_at(point, shown[k].key);
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

static int draw(struct tune_page *p, const struct curves *c, const struct figure *f, double limit,
                const char *limit_label, double chosen, struct gyaru_error *err)
{
    struct plot_series series[4];
    double *x = calloc(c->n + 1, sizeof *x), *y = calloc(4 * (c->n + 1), sizeof *y);
    int rc = x && y ? 0 : error_memory(err, 5 * c->n * sizeof *x, "a plot");
    if (!rc) {
        size_t n = squeeze(c, f->list[0], x, y, f->list, f->n_list);
        for (size_t k = 0; k < f->n_list; k++)
            series[k] = (struct plot_series){label(p, f->list[k]), y + k * c->n, false, (int)k};
        struct plot plot = {.title = page_say(&p->page, f->english, f->japanese),
                            .x_label = page_say(&p->page, "strength", "強度"),
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
                            .highlight_label = page_say(&p->page, "chosen", "採用")};
        if (n > 1)
            plot_write(&p->page.out, &plot);
    }
    free(x);
    free(y);
    return rc;
}

static int draw_all(struct tune_page *p, const struct curves *c, double chosen,
                    struct gyaru_error *err)
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
    double nll = json_number_at(json_object_get(p->report, "base"), "nll") +
                 json_number_at(json_object_get(p->report, "limits"), "nll_more");
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        double limit = figures[i].list[0] == KL_P95 ? json_number_at(settings, "kl_budget")
                       : figures[i].list[0] == NLL  ? nll
                                                    : NAN;
        if (draw(p, c, &figures[i], limit, page_say(&p->page, "limit", "限度"), chosen, err))
            return -1;
    }
    return 0;
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static void write_cell(struct tune_page *p, const json_t *point, enum curve curve)
{
    double value = shown[curve].factor * json_number_at(point, shown[curve].key);
    if (isfinite(value))
        str_printf(&p->page.out, "<td>%.*f</td>", shown[curve].digits, value);
    else
        str_puts(&p->page.out, "<td>–</td>");
}

static void write_row(struct tune_page *p, const char *name, const json_t *point)
{
    if (!json_is_object(point))
        return;
    str_puts(&p->page.out, "<tr><td>");
    html_text(&p->page.out, name);
    str_puts(&p->page.out, "</td>");
    for (int k = 0; k < CURVES; k++)
        write_cell(p, point, (enum curve)k);
    str_puts(&p->page.out, "<td>");
    html_text(&p->page.out, json_text_at(point, "fault"));
    str_puts(&p->page.out, "</td></tr>\n");
}

static void begin_table(struct tune_page *p, const char *first)
{
    str_puts(&p->page.out, "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">");
    html_text(&p->page.out, first);
    str_puts(&p->page.out, "</th>");
    for (int k = 0; k < CURVES; k++) {
        str_puts(&p->page.out, "<th scope=\"col\">");
        html_text(&p->page.out, label(p, (enum curve)k));
        str_puts(&p->page.out, shown[k].factor > 1 ? " %</th>" : "</th>");
    }
    str_puts(&p->page.out, "<th scope=\"col\">");
    html_text(&p->page.out, page_say(&p->page, "not safe because", "安全でない理由"));
    str_puts(&p->page.out, "</th></tr></thead><tbody>\n");
}

static void end_table(struct tune_page *p)
{
    str_puts(&p->page.out, "</tbody></table></div>\n");
}

static int write_candidate(struct tune_page *p, const json_t *candidate, double chosen,
                           struct gyaru_error *err)
{
    struct curves curves;
    const json_t *point;
    size_t i;
    double budget = json_number_at(candidate, "budget_strength");
    str_puts(&p->page.out, "<h3>");
    html_text(&p->page.out, json_text_at(candidate, "name"));
    str_printf(&p->page.out,
               page_say(&p->page, ": layers %.0f–%.0f (%.0f)</h3>\n<p>",
                        ": 層 %.0f–%.0f (%.0f 層)</h3>\n<p>"),
               json_number_at(candidate, "layer_first"), json_number_at(candidate, "layer_last"),
               json_number_at(candidate, "layers"));
    if (isfinite(budget))
        str_printf(&p->page.out,
                   page_say(&p->page,
                            "The KL budget is reached at strength %.4g, with a gain of %.3g.",
                            "KL 予算に達する強度 %.4g、そこでの利得 %.3g。"),
                   budget, json_number_at(candidate, "budget_gain"));
    str_puts(&p->page.out, "</p>\n");
    if (!json_flag_at(candidate, "finalist"))
        return 0;
    int rc = curves_read(candidate, &curves, err);
    str_puts(&p->page.out, "<div class=\"plots\">\n");
    if (!rc)
        rc = draw_all(p, &curves, chosen, err);
    str_puts(&p->page.out, "</div>\n");
    curves_release(&curves);
    begin_table(p, page_say(&p->page, "strength", "強度"));
    json_array_foreach(json_object_get(candidate, "points"), i, point)
    {
        char name[32];
        snprintf(name, sizeof name, "%.4g", json_number_at(point, "strength"));
        write_row(p, name, point);
    }
    end_table(p);
    return rc;
}

static const char *const controls[] = {"none", "prompt", "random", "steered"};

static const char *control_name(const struct tune_page *p, size_t i)
{
    static const char *const names[][2] = {{"no steering", "操作なし"},
                                           {"prompt only", "指示のみ"},
                                           {"random vector", "乱数ベクトル"},
                                           {"this vector", "このベクトル"}};
    return page_say(&p->page, names[i][0], names[i][1]);
}

static void write_controls(struct tune_page *p)
{
    const json_t *all = json_object_get(p->report, "controls");
    const json_t *samples = json_object_get(p->report, "answers"), *answer, *rejected;
    size_t i, k;
    page_heading(&p->page, "Confirmation on unseen messages", "未使用メッセージでの確認");
    begin_table(p, "");
    for (i = 0; i < sizeof controls / sizeof *controls; i++)
        write_row(p, control_name(p, i), json_object_get(all, controls[i]));
    json_array_foreach(json_object_get(p->report, "rejected"), k, rejected)
    {
        char name[64];
        snprintf(name, sizeof name, page_say(&p->page, "rejected: %.4g", "却下: %.4g"),
                 json_number_at(rejected, "strength"));
        write_row(p, name, rejected);
    }
    end_table(p);
    for (i = 0; i < sizeof controls / sizeof *controls; i++) {
        const json_t *list = json_object_get(samples, controls[i]);
        if (!json_array_size(list))
            continue;
        str_puts(&p->page.out, "<h3>");
        html_text(&p->page.out, control_name(p, i));
        str_puts(&p->page.out, "</h3>\n<dl class=\"facts\">\n");
        json_array_foreach(list, k, answer) page_fact(&p->page, json_text_at(answer, "message"),
                                                      "%s", json_text_at(answer, "text"));
        str_puts(&p->page.out, "</dl>\n");
    }
}

static int write_candidates(struct tune_page *p, struct gyaru_error *err)
{
    const json_t *candidates = json_object_get(p->report, "candidates"), *candidate;
    const json_t *choice = json_object_get(p->report, "choice");
    size_t i;
    page_heading(&p->page, "Candidates", "候補");
    json_array_foreach(candidates, i, candidate)
    {
        bool chosen = !strcmp(json_text_at(candidate, "name"), json_text_at(choice, "candidate"));
        if (write_candidate(p, candidate,
                            chosen ? json_number_at(choice, "measured_strength") : NAN, err))
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
    struct tune_page p = {.page = {.out = STR_INIT, .japanese = !strcmp(language, "ja")},
                          .report = root};
    int rc = strcmp(json_text_at(root, "report"), "tune")
                 ? error_set(err, GYARU_FAILED, "the report is not one of tune")
                 : 0;
    if (!rc) {
        page_begin(&p.page.out, p.page.japanese ? "ja" : "en",
                   page_say(&p.page, "Strength of a control vector", "制御ベクトルの強度調整"),
                   json_text_at(root, "vector"));
        write_verdict(&p);
        write_facts(&p);
        if (json_is_object(json_object_get(root, "choice")))
            write_controls(&p);
        rc = write_candidates(&p, err);
        page_end(&p.page.out);
    }
    json_decref(root);
    if (rc) {
        str_release(&p.page.out);
        return -1;
    }
    *html = str_take(&p.page.out);
    return *html ? 0 : error_memory(err, 1 << 16, "the page");
}
