/*
 * extract_html.c - gyaru_extract_html(): the report of `extract` as a page, in Japanese or English.
 *
 * The page is made from the JSON document alone, so that an old report can be shown again.
 */
#include "base/json.h"
#include "steer/extract_methods_html.h"
#include "steer/report_page.h"
#include "steer/report_plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_MAX 4096

struct extract_page {
    struct page page;
    const json_t *report, *layers;
    bool validated;
    size_t n, n_used;
    double *x, *used; /* [n] layer numbers; [n_used] those in the file */
    double *columns;  /* [SHOWN][n] */
    double best;      /* NaN: none */
};

/* The figures of a layer that the page shows. */
enum shown {
    AUROC,
    SHUFFLED,
    RANDOM,
    EFFECT,
    HALVES,
    MEAN_PCA,
    PAIRWISE,
    EXPLAINED,
    NORM,
    RELATIVE,
    RESIDUAL,
    STORED,
    SHOWN
};

static const struct {
    const char *key, *english, *japanese;
    int digits;
} figures[SHOWN] = {
    [AUROC] = {"auroc", "AUROC", "AUROC", 3},
    [SHUFFLED] = {"shuffled_auroc_p95", "AUROC, shuffled labels, 95 %", "AUROC ラベル入替 95 %", 3},
    [RANDOM] = {"random_auroc_p95", "AUROC, random vectors, 95 %", "AUROC 乱数ベクトル 95 %", 3},
    [EFFECT] = {"cohens_d", "Cohen's d", "コーエンの d", 2},
    [HALVES] = {"split_half_cosine", "split-half cosine", "折半コサイン", 3},
    [MEAN_PCA] = {"cosine_mean_pca", "cosine mean / PCA", "平均 / PCA のコサイン", 3},
    [PAIRWISE] = {"pairwise_cosine", "cosine between pairs", "ペア間コサイン", 3},
    [EXPLAINED] = {"explained_variance_ratio", "explained variance ratio", "分散説明率", 3},
    [NORM] = {"norm", "norm of the mean difference", "平均差のノルム", 3},
    [RELATIVE] = {"relative_norm", "relative norm", "相対ノルム", 3},
    [RESIDUAL] = {"residual_norm", "median norm of the residual stream",
                  "残差ストリームのノルム中央値", 2},
    [STORED] = {"stored_norm", "norm in the file", "ファイル内のノルム", 4},
};

static const char *label(const struct extract_page *p, enum shown figure)
{
    return page_say(&p->page, figures[figure].english, figures[figure].japanese);
}

/* ---- facts ------------------------------------------------------------------------------------
 */

static void write_verdict(struct extract_page *p)
{
    const char *path = json_string_value(json_object_get(p->report, "vector"));
    str_printf(&p->page.out, "<div class=\"verdict %s\">", path ? "good" : "bad");
    if (path) {
        html_text(&p->page.out,
                  page_say(&p->page, "Vector written: ", "ベクトルを書き出しました: "));
        html_text(&p->page.out, path);
        str_puts(&p->page.out, "<small>");
        if (p->page.japanese)
            str_printf(&p->page.out, "%zu 層のうち %zu 層を採用", p->n, p->n_used);
        else
            str_printf(&p->page.out, "%zu of %zu layers are in it", p->n_used, p->n);
        if (!p->validated)
            html_text(&p->page.out,
                      page_say(&p->page, "; all pairs were used, nothing was validated",
                               " (全ペアを使用、検証なし)"));
        str_puts(&p->page.out, "</small>");
    } else {
        html_text(&p->page.out,
                  page_say(&p->page, "No layer passed validation: no vector was written",
                           "検証を通った層がないため、ベクトルは書き出していません"));
    }
    str_puts(&p->page.out, "</div>\n");
}

static void write_warnings(struct extract_page *p)
{
    const json_t *warnings = json_object_get(p->report, "warnings"), *warning;
    size_t i;
    if (!json_array_size(warnings))
        return;
    str_puts(&p->page.out, "<div class=\"warn\"><ul>");
    json_array_foreach(warnings, i, warning)
    {
        str_puts(&p->page.out, "<li>");
        html_text(&p->page.out, json_text_at(warning, p->page.japanese ? "text_ja" : "text"));
        str_puts(&p->page.out, "</li>");
    }
    str_puts(&p->page.out, "</ul></div>\n");
}

static const char *method_text(const struct extract_page *p, const char *method)
{
    static const char *const names[][3] = {
        {"mean", "mean difference", "平均差"},
        {"pca", "first component, not centred", "主成分 (中心化なし)"},
        {"pca_last", "centred PCA, last token (the original's)", "中心化 PCA・最終トークン (原版)"},
        {"probe", "logistic regression", "ロジスティック回帰"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(method, names[i][0]))
            return page_say(&p->page, names[i][1], names[i][2]);
    return method;
}

static void write_facts(struct extract_page *p)
{
    const json_t *model = json_object_get(p->report, "model");
    const json_t *data = json_object_get(p->report, "dataset");
    const json_t *options = json_object_get(p->report, "options");
    bool pre = !strcmp(json_text_at(options, "hook"), "resid_pre");
    str_puts(&p->page.out, "<dl class=\"facts\">\n");
    page_fact(&p->page, page_say(&p->page, "Model", "モデル"), "%s", json_text_at(model, "name"));
    page_fact(&p->page, page_say(&p->page, "Layers × hidden size", "層数 × 隠れ次元"),
              "%.0f × %.0f", json_number_at(model, "n_layers"),
              json_number_at(model, "hidden_size"));
    page_fact(&p->page, page_say(&p->page, "Fingerprint", "フィンガープリント"), "%.16s…",
              json_text_at(model, "fingerprint"));
    page_fact(&p->page, page_say(&p->page, "Pairs", "ペアデータ"), "%s",
              json_text_at(data, "path"));
    if (p->validated)
        page_fact(&p->page,
                  page_say(&p->page, "Training / validation / test", "学習 / 検証 / テスト"),
                  "%.0f = %.0f / %.0f / %.0f", json_number_at(data, "pairs"),
                  json_number_at(data, "training"), json_number_at(data, "validation"),
                  json_number_at(data, "test"));
    else
        page_fact(&p->page, page_say(&p->page, "Number of pairs", "ペア数"), "%.0f",
                  json_number_at(data, "pairs"));
    page_fact(&p->page, page_say(&p->page, "Method", "手法"), "%s",
              method_text(p, json_text_at(options, "method")));
    page_fact(&p->page, page_say(&p->page, "Read at", "読み取り位置"), "%s",
              !strcmp(json_text_at(options, "position"), "last")
                  ? page_say(&p->page, "last token of the conversation", "会話の最終トークン")
                  : page_say(&p->page, "mean over the answer's tokens", "回答トークンの平均"));
    page_fact(&p->page, page_say(&p->page, "Added at", "加える位置"), "%s",
              pre ? page_say(&p->page, "input of the layer", "層の入力")
                  : page_say(&p->page, "output of the layer", "層の出力"));
    page_fact(&p->page, page_say(&p->page, "Scale", "尺度"), "%s", json_text_at(options, "scale"));
    if (isfinite(p->best))
        page_fact(&p->page, page_say(&p->page, "Best layer", "最良の層"), "%.0f", p->best);
    page_fact(&p->page, page_say(&p->page, "Seed", "乱数の種"), "%.0f",
              json_number_at(options, "seed"));
    page_fact(&p->page, page_say(&p->page, "Time", "所要時間"),
              page_say(&p->page, "%.1f s", "%.1f 秒"), json_number_at(p->report, "seconds"));
    str_puts(&p->page.out, "</dl>\n");
}

/* ---- plots ------------------------------------------------------------------------------------
 */

static struct plot_series series(const struct extract_page *p, enum shown figure, int colour,
                                 bool dashed)
{
    return (struct plot_series){label(p, figure), p->columns + (size_t)figure * p->n, dashed,
                                colour};
}

static struct plot new_plot(const struct extract_page *p, const char *title, const char *note,
                            const struct plot_series *list, size_t n_series)
{
    return (struct plot){.title = title,
                         .note = note,
                         .x_label = page_say(&p->page, "layer", "層"),
                         .x = p->x,
                         .n = p->n,
                         .series = list,
                         .n_series = n_series,
                         .y_min = NAN,
                         .y_max = NAN,
                         .limit = NAN,
                         .marked = p->used,
                         .n_marked = p->n_used,
                         .highlight = p->best,
                         .highlight_label = page_say(&p->page, "best", "最良")};
}

static void plot_validation(struct extract_page *p)
{
    const struct plot_series auroc[] = {series(p, AUROC, 0, false), series(p, SHUFFLED, 2, true),
                                        series(p, RANDOM, 1, true)};
    struct plot plot = new_plot(
        p, "AUROC",
        page_say(&p->page, "How well held-out texts separate along the direction; 0.5 is chance",
                 "取り分けた文が方向に沿ってどれだけ分かれるか。0.5 は偶然と同じ"),
        auroc, 3);
    plot.y_min = 0.5;
    plot.y_max = 1;
    plot.limit = 0.9;
    plot.limit_label = page_say(&p->page, "needed: 0.9", "採用の下限 0.9");
    plot_write(&p->page.out, &plot);
    const struct plot_series effect[] = {series(p, EFFECT, 0, false)};
    plot = new_plot(p, label(p, EFFECT),
                    page_say(&p->page, "Distance of the two classes in standard deviations",
                             "二つの文の組の隔たり (標準偏差を単位として)"),
                    effect, 1);
    plot.y_min = 0;
    plot_write(&p->page.out, &plot);
}

static void write_plots(struct extract_page *p)
{
    page_heading(&p->page, "By layer", "層ごとの指標");
    str_puts(&p->page.out, "<div class=\"plots\">\n");
    if (p->validated)
        plot_validation(p);
    const struct plot_series cosines[] = {
        series(p, HALVES, 0, false), series(p, MEAN_PCA, 1, false), series(p, PAIRWISE, 3, false)};
    size_t skip = p->validated ? 0 : 1;
    struct plot plot =
        new_plot(p, page_say(&p->page, "Agreement", "方向の一致"),
                 page_say(&p->page, "Cosines: two halves of the pairs, two methods, single pairs",
                          "コサイン: データの半分どうし、二つの手法、個々のペア"),
                 cosines + skip, 3 - skip);
    plot.y_min = 0;
    plot.y_max = 1;
    if (p->validated) {
        plot.limit = 0.8;
        plot.limit_label = page_say(&p->page, "needed from halves: 0.8", "折半の下限 0.8");
    }
    plot_write(&p->page.out, &plot);
    const struct plot_series explained[] = {series(p, EXPLAINED, 5, false)};
    plot =
        new_plot(p, label(p, EXPLAINED),
                 page_say(&p->page, "Of the centred first component; it says nothing about quality",
                          "中心化した第一主成分の割合。品質の証拠にはならない"),
                 explained, 1);
    plot.y_min = 0;
    plot_write(&p->page.out, &plot);
    const struct plot_series norms[] = {series(p, NORM, 0, false), series(p, RESIDUAL, 2, false),
                                        series(p, STORED, 4, true)};
    plot = new_plot(p, page_say(&p->page, "Norms", "ノルム"),
                    page_say(&p->page, "The residual stream grows with depth; logarithmic axis",
                             "残差ストリームは深いほど大きい (対数軸)"),
                    norms, 3);
    plot.logarithmic = true;
    plot_write(&p->page.out, &plot);
    const struct plot_series relative[] = {series(p, RELATIVE, 0, false)};
    plot = new_plot(p, label(p, RELATIVE),
                    page_say(&p->page, "Mean difference over the residual stream's norm",
                             "平均差と残差ストリームのノルムの比"),
                    relative, 1);
    plot.y_min = 0;
    plot_write(&p->page.out, &plot);
    str_puts(&p->page.out, "</div>\n");
}

/* ---- table ------------------------------------------------------------------------------------
 */

static const char *fault_text(const struct extract_page *p, const char *fault)
{
    if (!strcmp(fault, "auroc"))
        return page_say(&p->page, "AUROC below 0.9", "AUROC が 0.9 未満");
    if (!strcmp(fault, "split_half"))
        return page_say(&p->page, "split-half below 0.8", "折半が 0.8 未満");
    if (!strcmp(fault, "shuffled"))
        return page_say(&p->page, "not above shuffled labels", "ラベル入替を超えない");
    return fault;
}

static void write_row(struct extract_page *p, size_t i)
{
    const json_t *layer = json_array_get(p->layers, i);
    bool used = json_is_true(json_object_get(layer, "selected"));
    const char *fault = json_text_at(layer, "fault");
    str_printf(&p->page.out, "<tr class=\"%s%s\"><td>%.0f</td><td>", used ? "used" : "",
               p->x[i] == p->best ? " best" : "", p->x[i]);
    html_text(&p->page.out, used ? page_say(&p->page, "in the file", "採用")
                                 : page_say(&p->page, "left out", "除外"));
    if (*fault) {
        str_puts(&p->page.out, ": ");
        html_text(&p->page.out, fault_text(p, fault));
    }
    str_puts(&p->page.out, "</td>");
    for (int f = 0; f < SHOWN; f++) {
        double value = p->columns[(size_t)f * p->n + i];
        if (isfinite(value))
            str_printf(&p->page.out, "<td>%.*f</td>", figures[f].digits, value);
        else
            str_puts(&p->page.out, "<td>–</td>");
    }
    str_puts(&p->page.out, "</tr>\n");
}

static void write_table(struct extract_page *p)
{
    page_heading(&p->page, "Figures", "数値");
    str_printf(&p->page.out, "<div class=\"scroll\"><table>\n<tr><th>%s</th><th></th>",
               page_say(&p->page, "layer", "層"));
    for (int f = 0; f < SHOWN; f++) {
        str_puts(&p->page.out, "<th>");
        html_text(&p->page.out, label(p, (enum shown)f));
        str_puts(&p->page.out, "</th>");
    }
    str_puts(&p->page.out, "</tr>\n");
    for (size_t i = 0; i < p->n; i++)
        write_row(p, i);
    str_puts(&p->page.out, "</table></div>\n");
}

static void write_help(struct extract_page *p)
{
    static const char *const terms[][4] = {
        {"AUROC",
         "Chance that a styled text that was not used for the direction lies further "
         "along it than a plain one. `auto` asks for 0.9, and for more than 95 % of the "
         "runs in which the labels were shuffled.",
         "AUROC",
         "方向を求めるのに使っていない文で、口調のある文が普通の文より方向に沿って先にある"
         "確率。auto は 0.9 以上で、かつラベルを入れ替えた試行の 95 % を上回る層だけを採る。"},
        {"Split-half cosine",
         "Two directions, each from half of the training pairs, averaged over "
         "20 halvings: would other pairs give the same direction?",
         "折半コサイン",
         "学習ペアの半分ずつから求めた二つの方向の一致 (20 通りの平均)。別のデータでも"
         "同じ方向になるかを示す。"},
        {"Explained variance ratio",
         "The first principal component of the centred differences. "
         "Centring removes the mean difference, which is the signal: a "
         "high figure is no evidence of a good vector.",
         "分散説明率",
         "中心化した差分の第一主成分の割合。中心化は信号である平均差そのものを取り除く"
         "ため、高くてもよいベクトルの証拠にはならない。"},
        {"Relative norm",
         "Length of the mean difference over the median length of the hidden "
         "states of the answers' tokens at that layer.",
         "相対ノルム", "その層での回答トークンの隠れ状態の長さ (中央値) に対する平均差の長さ。"},
    };
    page_heading(&p->page, "How to read this", "読み方");
    str_puts(&p->page.out, "<dl class=\"help\">\n");
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        str_puts(&p->page.out, "<dt>");
        html_text(&p->page.out, page_say(&p->page, terms[i][0], terms[i][2]));
        str_puts(&p->page.out, "</dt><dd>");
        html_text(&p->page.out, page_say(&p->page, terms[i][1], terms[i][3]));
        str_puts(&p->page.out, "</dd>\n");
    }
    str_puts(&p->page.out, "</dl>\n");
}

/* ---- all --------------------------------------------------------------------------------------
 */

static int read_layers(struct extract_page *p, struct gyaru_error *err)
{
    p->layers = json_object_get(p->report, "layers");
    p->n = json_array_size(p->layers);
    if (strcmp(json_text_at(p->report, "report"), "extract") || !p->n || p->n > LAYERS_MAX)
        return error_set(err, GYARU_FAILED, "this is no report of extract");
    p->x = malloc((2 + SHOWN) * p->n * sizeof *p->x);
    if (!p->x)
        return error_memory(err, (2 + SHOWN) * p->n * sizeof *p->x, "the plots");
    p->used = p->x + p->n;
    p->columns = p->used + p->n;
    for (size_t i = 0; i < p->n; i++) {
        const json_t *layer = json_array_get(p->layers, i);
        p->x[i] = json_number_at(layer, "layer");
        if (json_is_true(json_object_get(layer, "selected")))
            p->used[p->n_used++] = p->x[i];
        for (int f = 0; f < SHOWN; f++)
            p->columns[(size_t)f * p->n + i] = json_number_at(layer, figures[f].key);
    }
    p->best = json_number_at(p->report, "best_layer");
    p->validated = json_is_true(json_object_get(json_object_get(p->report, "options"), "split"));
    return 0;
}

int gyaru_extract_html(const char *report, const char *language, char **html,
                       struct gyaru_error *err)
{
    json_t *json = json_parse(report, strlen(report), "the report", err);
    if (!json)
        return -1;
    struct extract_page p = {.page = {.out = STR_INIT, .japanese = !strcmp(language, "ja")},
                             .report = json};
    int rc = read_layers(&p, err);
    if (!rc) {
        const char *name = json_text_at(json_object_get(json, "model"), "name");
        struct str title = STR_INIT;
        str_printf(&title, "%s — %s",
                   page_say(&p.page, "Vector extraction", "ベクトル抽出レポート"), name);
        page_begin(&p.page.out, language, title.data ? title.data : "",
                   page_say(&p.page, "What each layer of the model makes of the pairs",
                            "モデルの各層がペアをどう表しているか"));
        str_release(&title);
        write_verdict(&p);
        write_warnings(&p);
        write_facts(&p);
        write_plots(&p);
        write_table(&p);
        rc = methods_html(&p.page, json, err);
        write_help(&p);
        page_end(&p.page.out);
        *html = rc ? NULL : str_take(&p.page.out);
        if (!rc && !*html)
            rc = error_memory(err, 1 << 16, "the page");
    }
    str_release(&p.page.out);
    free(p.x);
    json_decref(json);
    return rc;
}
