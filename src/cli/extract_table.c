/* extract_table.c - see extract_table.h. */
#include "cli/extract_table.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

struct column {
    const char *key, *english, *japanese;
    int width, digits;
};

static const struct column columns[] = {
    {"auroc", "AUROC", "AUROC", 7, 3},
    {"shuffled_auroc_p95", "shuffled", "入替", 9, 3},
    {"random_auroc_p95", "random", "乱数", 7, 3},
    {"cohens_d", "d", "効果量d", 8, 2},
    {"split_half_cosine", "halves", "折半", 7, 3},
    {"cosine_mean_pca", "mean/PCA", "平均/PCA", 9, 3},
    {"pairwise_cosine", "pairs", "ペア間", 7, 3},
    {"explained_variance_ratio", "expl.var", "分散説明", 9, 3},
    {"norm", "norm", "ノルム", 8, 3},
    {"relative_norm", "relative", "相対", 9, 3},
    {"stored_norm", "stored", "保存", 8, 4},
};

static const char *const legend_english =
    "AUROC, d: held-out texts along the direction; shuffled, random: 95th percentile of AUROC "
    "with\n"
    "shuffled labels and with random directions; halves: cosine between the directions of two\n"
    "halves; mean/PCA: cosine of mean difference and centred first component; pairs: mean cosine "
    "of\n"
    "two differences; expl.var: explained variance ratio of that component; norm: of the mean\n"
    "difference; relative: to the residual stream's; stored: length in the file.\n";

static const char *const legend_japanese =
    "AUROC・d: 取り分けた文の方向への射影による分離 / 入替・乱数: ラベル入替・乱数方向での AUROC "
    "の\n"
    "95 パーセンタイル / 折半: 半分ずつで求めた方向のコサイン / 平均/PCA: 平均差と中心化主成分の\n"
    "コサイン / ペア間: 差分どうしの平均コサイン / 分散説明: その主成分の分散説明率 / ノルム: "
    "平均差\n"
    "の長さ / 相対: 残差ストリームとの比 / 保存: ファイル内の長さ\n";

/* Cells that the text takes: East Asian characters two. */
static int cells(const char *text)
{
    int n = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        n += *p < 0x80 ? 1 : *p >= 0xe0 ? 2 : 0;
    return n;
}

static void print_heads(FILE *out, bool japanese)
{
    fputs(japanese ? "  層 " : "layer", out);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        const char *head = japanese ? columns[i].japanese : columns[i].english;
        fprintf(out, "%*s%s", columns[i].width - cells(head), "", head);
    }
    fputs(japanese ? "  採用\n" : "  used\n", out);
}

static const char *reason_text(const char *fault, bool japanese)
{
    static const char *const known[][3] = {
        {"auroc", "AUROC below 0.9", "AUROC が 0.9 未満"},
        {"split_half", "halves below 0.8", "折半が 0.8 未満"},
        {"shuffled", "not above shuffled labels", "ラベル入替を超えない"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(fault, known[i][0]))
            return known[i][japanese ? 2 : 1];
    return fault;
}

static void print_layer(FILE *out, const json_t *layer, bool is_best, bool japanese)
{
    fprintf(out, "%4d ", (int)json_integer_value(json_object_get(layer, "layer")));
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        const json_t *value = json_object_get(layer, columns[i].key);
        if (json_is_number(value))
            fprintf(out, "%*.*f", columns[i].width, columns[i].digits, json_number_value(value));
        else
            fprintf(out, "%*s", columns[i].width, "-");
    }
    const char *fault = json_string_value(json_object_get(layer, "fault"));
    bool selected = json_is_true(json_object_get(layer, "selected"));
    const char *yes = japanese ? "はい" : "yes", *no = japanese ? "いいえ" : "no";
    fprintf(out, "  %s%s", selected ? yes : no, is_best ? (japanese ? " *最良" : " *best") : "");
    if (fault && *fault)
        fprintf(out, " (%s)", reason_text(fault, japanese));
    fputc('\n', out);
}

/* ---- methods side by side ---------------------------------------------------------------------
 */

static const char *const methods[] = {"mean", "pca", "pca_last", "probe"};

#define METHODS (sizeof methods / sizeof *methods)

static void print_number(FILE *out, int width, int digits, double value)
{
    if (isfinite(value))
        fprintf(out, "%*.*f", width, digits, value);
    else
        fprintf(out, "%*s", width, "-");
}

static void print_summary(FILE *out, const json_t *compared, bool japanese)
{
    static const struct column shown[] = {
        {"content_auroc", "AUROC", "AUROC", 8, 3},
        {"auroc", "own", "自位置", 8, 3},
        {"cohens_d", "d", "効果量d", 9, 2},
        {"split_half_cosine", "halves", "折半", 8, 3},
        {"explained_variance_ratio", "expl.var", "分散説明", 10, 3},
        {"cosine_mean", "cos(mean)", "cos(平均)", 11, 3},
    };
    const json_t *method;
    size_t i;
    fprintf(out,
            japanese ? "\n手法の比較 (同じペア・同じ分割、採用層の平均)\n%-22s"
                     : "\nmethods on the same pairs and split, means over the layers used\n%-22s",
            "");
    for (size_t c = 0; c < sizeof shown / sizeof *shown; c++) {
        const char *head = japanese ? shown[c].japanese : shown[c].english;
        fprintf(out, "%*s%s", shown[c].width - cells(head), "", head);
    }
    fputc('\n', out);
    json_array_foreach(json_object_get(compared, "summary"), i, method)
    {
        fprintf(out, "%-12s%-10s", json_text_at(method, "method"),
                json_text_at(method, "position"));
        for (size_t c = 0; c < sizeof shown / sizeof *shown; c++)
            print_number(out, shown[c].width, shown[c].digits,
                         json_number_at(method, shown[c].key));
        fputc('\n', out);
    }
}

/* AUROC of each method, and its cosine with the mean difference, by layer. */
static void print_by_layer(FILE *out, const json_t *compared, bool japanese)
{
    const json_t *layer;
    size_t i;
    fputs(japanese ? "\n  層  AUROC:" : "\nlayer  AUROC:", out);
    for (size_t m = 0; m < METHODS; m++)
        fprintf(out, "%9s", methods[m]);
    fputs(japanese ? "  cos(平均):" : "  cos(mean):", out);
    for (size_t m = 1; m < METHODS; m++)
        fprintf(out, "%9s", methods[m]);
    fputc('\n', out);
    json_array_foreach(json_object_get(compared, "layers"), i, layer)
    {
        fprintf(out, "%4d%9s", (int)json_number_at(layer, "layer"), "");
        for (size_t m = 0; m < METHODS; m++)
            print_number(out, 9, 3,
                         json_number_at(json_object_get(layer, methods[m]), "content_auroc"));
        fprintf(out, "%12s", "");
        for (size_t m = 1; m < METHODS; m++)
            print_number(
                out, 9, 3,
                json_number_at(json_object_get(json_object_get(layer, methods[m]), "cosine"),
                               methods[0]));
        fputc('\n', out);
    }
}

static void print_effect(FILE *out, const json_t *effect, bool japanese)
{
    const json_t *method, *row, *base = json_object_get(effect, "base");
    size_t i, k;
    fprintf(out,
            japanese
                ? "\n同じ量だけ加えたときの回答 (%.0f 件、指示「%s」): マーカー / 崩壊 %%\n%-12s"
                : "\nanswers at the same dose (%.0f, asked: %s): marker / garbled, %%\n%-12s",
            json_number_at(effect, "messages"), json_text_at(effect, "system"),
            japanese ? "強度" : "dose");
    json_array_foreach(
        json_object_get(json_array_get(json_object_get(effect, "methods"), 0), "rows"), k, row)
        fprintf(out, "%10g", json_number_at(row, "strength"));
    fprintf(out, "\n%-12s   %3.0f /%3.0f\n", japanese ? "操作なし" : "none",
            100 * json_number_at(base, "marker"), 100 * json_number_at(base, "garbled"));
    json_array_foreach(json_object_get(effect, "methods"), i, method)
    {
        fprintf(out, "%-12s", json_text_at(method, "method"));
        json_array_foreach(json_object_get(method, "rows"), k, row)
            fprintf(out, "  %3.0f /%3.0f", 100 * json_number_at(row, "marker"),
                    100 * json_number_at(row, "garbled"));
        fputc('\n', out);
    }
}

/* The rest of a line that names a winner. */
static void print_alike(FILE *out, const json_t *object, bool japanese)
{
    const json_t *name;
    size_t i;
    json_array_foreach(json_object_get(object, "alike"), i, name)
        fprintf(out,
                i          ? ", %s"
                : japanese ? " (同程度: %s"
                           : " (alike: %s",
                json_string_value(name));
    fputs(i ? ")\n" : "\n", out);
}

static void print_methods(FILE *out, const json_t *compared, bool japanese)
{
    const json_t *effect = json_object_get(compared, "effect");
    print_summary(out, compared, japanese);
    print_by_layer(out, compared, japanese);
    if (json_is_object(effect))
        print_effect(out, effect, japanese);
    fprintf(out, japanese ? "\n分離が最もよい手法: %s" : "\nseparates best: %s",
            json_text_at(compared, "separates_best"));
    print_alike(out, compared, japanese);
    if (json_is_object(effect)) {
        fprintf(out, japanese ? "効果が最も大きい手法: %s" : "most effect at the same dose: %s",
                *json_text_at(effect, "wins") ? json_text_at(effect, "wins") : "-");
        print_alike(out, effect, japanese);
    }
    fputs(japanese
              ? "AUROC: 回答トークンでの分離 / 自位置: その手法の読み取り位置での分離 / 分散説明: "
                "方向に沿う\n差分の分散の割合 / 同程度: AUROC の差が 0.005 "
                "以内、効果の差が標準誤差の 2 倍以内\n"
              : "AUROC: over the answers' tokens; own: where the method reads; expl.var: share "
                "of the variance\nof the differences along the direction; alike: AUROC within "
                "0.005, effect\nwithin two standard errors\n",
          out);
}

/* ---- all --------------------------------------------------------------------------------------
 */

void extract_table_print(FILE *out, const json_t *report, bool japanese)
{
    const json_t *compared = json_object_get(report, "methods");
    const json_t *layers = json_object_get(report, "layers");
    const json_t *best = json_object_get(report, "best_layer");
    print_heads(out, japanese);
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *layer = json_array_get(layers, i);
        print_layer(out, layer,
                    json_is_integer(best) &&
                        json_integer_value(best) ==
                            json_integer_value(json_object_get(layer, "layer")),
                    japanese);
    }
    fputs(japanese ? legend_japanese : legend_english, out);
    if (json_is_object(compared))
        print_methods(out, compared, japanese);
}
