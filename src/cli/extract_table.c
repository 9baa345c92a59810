/* extract_table.c - see extract_table.h. */
#include "cli/extract_table.h"

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

void extract_table_print(FILE *out, const json_t *report, bool japanese)
{
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
}
