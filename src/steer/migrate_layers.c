/*
 * migrate_layers.c - the document's chapter on the vector: the range of layers, the extraction, and
 * what validation says of each layer, drawn beside the old model's.
 */
#include "steer/migrate_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_MOST 4096 /* of both models */

static const char *path_of(const struct migrate_text *t, int side)
{
    return report_text(t->root, side ? "plan.to.path" : "plan.from.path");
}

static void range_table(struct migrate_text *t)
{
    doc_table(&t->doc,
              (const char *const[]){SAY(t, "モデル", "model"), SAY(t, "総レイヤー数", "layers"),
                                    "int(L*0.3)..int(L*0.8)", "int(L*0.73)", NULL});
    for (int i = 0; i < 2; i++) {
        const json_t *m = report_at(t->root, i ? "plan.to" : "plan.from");
        doc_row(&t->doc,
                (const char *const[]){
                    report_text(m, "path"), cell_number(report_number(m, "n_layers"), 0).text,
                    cell_printf("%.0f-%.0f", report_number(m, "layer_first"),
                                report_number(m, "layer_last"))
                        .text,
                    cell_number(report_number(m, "visualise_layer"), 0).text, NULL});
    }
    doc_table_end(&t->doc);
    doc_paragraph(&t->doc,
                  SAY(t, "測定による範囲: %.0f-%.0f、可視化レイヤー: %.0f (計算式では %.0f)。",
                      "By measurement: layers %.0f-%.0f, visualise layer %.0f (by the formula "
                      "%.0f)."),
                  report_number(t->root, "choice.layer_first"),
                  report_number(t->root, "choice.layer_last"),
                  report_number(t->root, "choice.visualise_layer"),
                  report_number(t->root, "choice.formula_layer"));
}

static void layer_table(struct migrate_text *t)
{
    const json_t *layer;
    size_t i;
    doc_table(&t->doc, (const char *const[]){SAY(t, "レイヤー", "layer"), SAY(t, "使用", "used"),
                                             SAY(t, "分散説明率", "explained variance"), "AUROC",
                                             "Cohen's d", SAY(t, "備考", "remark"), NULL});
    json_array_foreach(report_at(t->root, "extract.report.layers"), i, layer) doc_row(
        &t->doc, (const char *const[]){
                     cell_number(report_number(layer, "layer"), 0).text,
                     json_is_true(json_object_get(layer, "selected")) ? SAY(t, "はい", "yes") : "-",
                     cell_percent(report_number(layer, "explained_variance_ratio")).text,
                     cell_number(report_number(layer, "auroc"), 3).text,
                     cell_number(report_number(layer, "cohens_d"), 2).text,
                     report_text(layer, "fault"), NULL});
    doc_table_end(&t->doc);
}

/* ---- both models' layers ------------------------------------------------------------------------
 */

enum figure { AUROC, RESIDUAL, EXPLAINED, FIGURES };

static const char *const keys[FIGURES] = {
    [AUROC] = "auroc", [RESIDUAL] = "residual_norm", [EXPLAINED] = "explained_variance_ratio"};

/* Layers of both models on one axis: the depth in per cent. */
struct depths {
    size_t n;
    double *x;              /* [n] ascending */
    double *y[FIGURES][2];  /* [n] each, old and new; in the block of x */
    bool known[FIGURES][2]; /* has any value */
};

struct layer_at {
    double depth;
    int side;
    const json_t *layer;
};

static int by_depth(const void *a, const void *b)
{
    const struct layer_at *x = a, *y = b;
    return (x->depth > y->depth) - (x->depth < y->depth);
}

static size_t collect(const struct migrate_text *t, struct layer_at *out)
{
    static const char *const lists[2] = {"plan.old_vector.layers", "extract.report.layers"};
    size_t n = 0;
    for (int side = 0; side < 2; side++) {
        double layers = report_number(t->root, side ? "plan.to.n_layers" : "plan.from.n_layers");
        const json_t *layer;
        size_t i;
        json_array_foreach(report_at(t->root, lists[side]), i, layer)
        {
            double depth = 100 * (report_number(layer, "layer") + 1) / layers;
            if (n < LAYERS_MOST && isfinite(depth))
                out[n++] = (struct layer_at){depth, side, layer};
        }
    }
    qsort(out, n, sizeof *out, by_depth);
    return n;
}

static void fill(struct depths *d, const struct layer_at *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!i || list[i].depth > d->x[d->n - 1] + 1e-9) {
            d->x[d->n] = list[i].depth;
            for (int f = 0; f < FIGURES; f++)
                d->y[f][0][d->n] = d->y[f][1][d->n] = NAN;
            d->n++;
        }
        for (int f = 0; f < FIGURES; f++) {
            double value = report_number(list[i].layer, keys[f]);
            d->y[f][list[i].side][d->n - 1] = value;
            d->known[f][list[i].side] |= isfinite(value);
        }
    }
}

static void draw(struct migrate_text *t, const struct depths *d, enum figure f, struct plot plot)
{
    struct plot_series series[2];
    plot.x_label = SAY(t, "深さ (%)", "depth (%)");
    plot.x = d->x;
    plot.n = d->n;
    plot.series = series;
    plot.joined = true;
    plot.highlight = NAN;
    for (int side = 1; side >= 0; side--) /* the new model on top */
        if (d->known[f][side])
            series[plot.n_series++] =
                (struct plot_series){path_of(t, side), d->y[f][side], !side, side ? 0 : 2};
    if (plot.n_series)
        doc_plot(&t->doc, &plot);
}

static void draw_all(struct migrate_text *t, const struct depths *d)
{
    doc_plots(&t->doc);
    draw(t, d, AUROC,
         (struct plot){.title = "AUROC",
                       .note = SAY(t, "取り分けた文の分離。旧モデルはベクトルの記録による",
                                   "Separation of held-out texts; the old model's as its vector "
                                   "recorded it"),
                       .y_min = 0.5,
                       .y_max = 1,
                       .limit = 0.9,
                       .limit_label = SAY(t, "採用の下限 0.9", "needed: 0.9")});
    draw(t, d, RESIDUAL,
         (struct plot){.title = SAY(t, "残差ストリームのノルム", "Norm of the residual stream"),
                       .note = SAY(t, "回答トークンの中央値 (対数軸)。強度の意味はこれで変わる",
                                   "Median over the answers' tokens, logarithmic axis: what a "
                                   "strength means depends on it"),
                       .y_min = NAN,
                       .y_max = NAN,
                       .limit = NAN,
                       .logarithmic = true});
    draw(t, d, EXPLAINED,
         (struct plot){.title = SAY(t, "分散説明率", "Explained variance ratio"),
                       .note = SAY(t, "中心化した第一主成分。品質の証拠にはならない",
                                   "Of the centred first component; no evidence of quality"),
                       .y_min = 0,
                       .y_max = NAN,
                       .limit = NAN});
    doc_plots_end(&t->doc);
}

static void plots(struct migrate_text *t)
{
    struct layer_at *list = calloc(LAYERS_MOST, sizeof *list);
    struct depths d = {0};
    size_t n = list ? collect(t, list) : 0, columns = 1 + 2 * FIGURES;
    d.x = n ? calloc(columns * n, sizeof *d.x) : NULL;
    if (d.x) {
        for (size_t c = 0; c < columns - 1; c++)
            d.y[c / 2][c % 2] = d.x + (c + 1) * n;
        fill(&d, list, n);
        draw_all(t, &d);
    } else if (n || !list) {
        t->doc.out.failed = true;
    }
    free(d.x);
    free(list);
}

/* ---- quality of the vector ----------------------------------------------------------------------
 */

static double mean_auroc(const struct migrate_text *t)
{
    const json_t *layer;
    size_t i;
    double sum = 0, n = 0;
    json_array_foreach(report_at(t->root, "extract.report.layers"), i, layer)
    {
        if (!json_flag_at(layer, "selected"))
            continue;
        sum += report_number(layer, "auroc");
        n++;
    }
    return sum / n;
}

static void quality(struct migrate_text *t)
{
    const json_t *methods = report_at(t->root, "extract.report.methods");
    doc_paragraph(&t->doc, "%s", SAY(t, "ベクトル品質:", "Quality of the vector:"));
    doc_item(&t->doc,
             SAY(t, "採用した層の AUROC の平均: %.3f", "AUROC of the layers used, mean: %.3f"),
             mean_auroc(t));
    if (json_is_object(methods))
        doc_item(
            &t->doc,
            SAY(t, "同じペアで分離が最もよい手法: %s (mean %.3f、pca_last %.3f)",
                "separates best of all methods on these pairs: %s (mean %.3f, pca_last %.3f)"),
            json_text_at(methods, "separates_best"),
            json_number_at(json_array_get(json_object_get(methods, "summary"), 0), "content_auroc"),
            json_number_at(json_array_get(json_object_get(methods, "summary"), 2),
                           "content_auroc"));
}

void migrate_layers(struct migrate_text *t)
{
    double seconds = report_number(t->root, "extract.seconds");
    double old_bytes = report_number(t->root, "plan.old_vector.file_bytes");
    doc_heading(&t->doc, 2, SAY(t, "ベクトル再抽出", "Extracting the vector"));
    doc_heading(&t->doc, 3, SAY(t, "レイヤー範囲の計算", "Layer range"));
    range_table(t);
    doc_heading(&t->doc, 3, SAY(t, "抽出プロセス", "Extraction"));
    doc_code(&t->doc,
             cell_printf("gyaru extract -m %s -d %s -o %s\n", path_of(t, 1),
                         report_text(t->root, "dataset"), report_text(t->root, "choice.vector"))
                 .text);
    doc_item(&t->doc, SAY(t, "ペア: %s (%.0f 組)", "pairs: %s (%.0f)"),
             report_text(t->root, "dataset"),
             report_number(t->root, "extract.report.dataset.pairs"));
    doc_item(&t->doc, SAY(t, "方法: %s", "method: %s"),
             report_text(t->root, "extract.report.options.method"));
    doc_item(&t->doc, SAY(t, "実行時間: %.1f 秒", "time: %.1f s"), seconds);
    doc_item(&t->doc, SAY(t, "出力: %s (%s%s%s)", "output: %s (%s%s%s)"),
             report_text(t->root, "choice.vector"),
             cell_bytes(report_number(t->root, "tune.file_bytes")).text,
             isnan(old_bytes) ? "" : SAY(t, "、旧モデルのもの ", ", the old model's "),
             isnan(old_bytes) ? "" : cell_bytes(old_bytes).text);
    doc_heading(&t->doc, 3, SAY(t, "検証結果", "Validation"));
    layer_table(t);
    plots(t);
    quality(t);
}
