/*
 * migrate_compare.c - the document's comparison: memory, speed, quality, and the butler test.
 */
#include "steer/migrate_report.h"

#include <math.h>

static const char *const keys[] = {"from", "to"}, *const sides[] = {"old", "new"};

/* "plan.from.name", "speed_old.x": the side's part of a path. */
static double side_number(const struct migrate_text *t, int side, const char *format)
{
    char path[80];
    snprintf(path, sizeof path, format, sides[side]);
    return report_number(t->root, path);
}

static double plan_number(const struct migrate_text *t, int side, const char *key)
{
    return report_number(t->root, cell_printf("plan.memory.%s.%s", keys[side], key).text);
}

static const char *model_name(const struct migrate_text *t, int side)
{
    return report_text(t->root, side ? "plan.to.path" : "plan.from.path");
}

static void memory(struct migrate_text *t)
{
    doc_heading(&t->doc, 3, SAY(t, "VRAM使用量", "Memory use"));
    doc_table(&t->doc,
              (const char *const[]){SAY(t, "モデル", "model"), SAY(t, "重み", "weights"),
                                    SAY(t, "KVキャッシュ", "KV cache"),
                                    SAY(t, "作業領域", "workspace"), SAY(t, "合計", "together"),
                                    SAY(t, "実測の常駐増加", "resident growth measured"),
                                    SAY(t, "削減率", "saved"), NULL});
    for (int i = 0; i < 2; i++)
        doc_row(&t->doc,
                (const char *const[]){
                    model_name(t, i), cell_bytes(plan_number(t, i, "weight_bytes")).text,
                    cell_bytes(plan_number(t, i, "kv_bytes")).text,
                    cell_bytes(plan_number(t, i, "workspace_bytes")).text,
                    cell_bytes(plan_number(t, i, "total_bytes")).text,
                    cell_bytes(side_number(t, i, "speed_%s.resident_growth_bytes")).text,
                    i ? cell_percent(report_number(t->root, "plan.memory.saved")).text : "-",
                    NULL});
    doc_table_end(&t->doc);
    migrate_memory_plots(t);
}

static void speed(struct migrate_text *t)
{
    double base = side_number(t, 0, "speed_%s.answer_seconds");
    doc_heading(&t->doc, 3, SAY(t, "推論速度", "Speed"));
    doc_table(&t->doc, (const char *const[]){
                           SAY(t, "モデル", "model"), SAY(t, "読み込み (秒)", "load (s)"),
                           SAY(t, "最初のトークン (秒)", "first token (s)"),
                           SAY(t, "推論時間 (秒)", "answer (s)"), SAY(t, "トークン/秒", "tokens/s"),
                           SAY(t, "速度比", "ratio"), NULL});
    for (int i = 0; i < 2; i++) {
        double answer = side_number(t, i, "speed_%s.answer_seconds");
        doc_row(&t->doc,
                (const char *const[]){
                    model_name(t, i),
                    cell_number(side_number(t, i, "speed_%s.load_seconds"), 2).text,
                    cell_number(side_number(t, i, "speed_%s.first_token_seconds"), 4).text,
                    cell_number(answer, 3).text,
                    cell_number(side_number(t, i, "speed_%s.decode_tokens_per_second"), 1).text,
                    cell_printf("%.2fx", base / answer).text, NULL});
    }
    doc_table_end(&t->doc);
    doc_paragraph(&t->doc,
                  SAY(t, "測定条件: 入力 %.0f トークン、出力 %.0f トークン、%s、3回の中央値。",
                      "Conditions: %.0f tokens in, %.0f out, %s, median of 3."),
                  side_number(t, 1, "speed_%s.prompt_tokens"),
                  side_number(t, 1, "speed_%s.generated_tokens"),
                  report_text(t->root, "speed_new.device"));
    migrate_speed_plots(t);
}

/* The row of one strength in a side's butler test. */
static const json_t *row_of(const struct migrate_text *t, int side, double strength)
{
    const json_t *row;
    size_t i;
    json_array_foreach(report_at(t->root, cell_printf("quality_%s.report.rows", sides[side]).text),
                       i, row)
    {
        if (fabs(report_number(row, "strength") - strength) < 1e-5)
            return row;
    }
    return NULL;
}

static struct cell meter_range(const struct migrate_text *t, int side)
{
    const json_t *range = report_at(t->root, cell_printf("quality_%s.meter", sides[side]).text);
    if (!json_is_array(range))
        return cell_printf("-");
    return cell_printf("%.2f - %.2f", json_number_value(json_array_get(range, 0)),
                       json_number_value(json_array_get(range, 1)));
}

/* How many more answers show a marker than without the vector. */
static double effect(const struct migrate_text *t, int side)
{
    return side_number(t, side, "quality_%s.own.marker") -
           report_number(row_of(t, side, 0), "marker");
}

static void quality_row(struct migrate_text *t, const char *what, struct cell a, struct cell b)
{
    doc_row(&t->doc, (const char *const[]){what, a.text, b.text, NULL});
}

static void shares(struct migrate_text *t)
{
    const struct {
        const char *ja, *en, *path;
    } rows[] = {
        {"ギャル語使用率", "answers with any marker", "quality_%s.own.marker"},
        {"丁寧語の語尾", "polite endings", "quality_%s.own.polite"},
        {"文字化け・崩壊", "garbled", "quality_%s.own.garbled"},
        {"文字化け (文字種)", "unexpected characters", "quality_%s.own.script"},
        {"繰り返し (4-gram)", "repeated 4-grams", "quality_%s.own.repetition_4"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        quality_row(t, SAY(t, rows[i].ja, rows[i].en),
                    cell_percent(side_number(t, 0, rows[i].path)),
                    cell_percent(side_number(t, 1, rows[i].path)));
}

static void ladder(struct migrate_text *t, int side)
{
    const json_t *row;
    size_t i;
    const char *signature = report_text(t->root, "quality_new.report.signature");
    doc_paragraph(&t->doc, SAY(t, "執事テスト: %s (指示「%s」)", "Butler test: %s (asked: %s)"),
                  model_name(t, side), report_text(t->root, "system"));
    doc_table(&t->doc,
              (const char *const[]){
                  "Strength",
                  cell_printf("%s%s%s", SAY(t, "「", "\""), signature, SAY(t, "」", "\"")).text,
                  SAY(t, "ギャル語", "marker"), SAY(t, "丁寧", "polite"), SAY(t, "崩壊", "garbled"),
                  SAY(t, "繰り返し", "repeated"), SAY(t, "メーター", "meter"), NULL});
    json_array_foreach(report_at(t->root, cell_printf("quality_%s.report.rows", sides[side]).text),
                       i, row)
        doc_row(&t->doc,
                (const char *const[]){cell_printf("%g", report_number(row, "strength")).text,
                                      cell_percent(report_number(row, "signature")).text,
                                      cell_percent(report_number(row, "marker")).text,
                                      cell_percent(report_number(row, "polite")).text,
                                      cell_percent(report_number(row, "garbled")).text,
                                      cell_percent(report_number(row, "repetition_4")).text,
                                      cell_number(report_number(row, "cosine"), 3).text, NULL});
    doc_table_end(&t->doc);
}

/* In one sentence, from the figures of both sides at their own strengths. */
static void conclusion(struct migrate_text *t)
{
    double a = side_number(t, 0, "quality_%s.own.marker");
    double b = side_number(t, 1, "quality_%s.own.marker");
    double garbled = side_number(t, 1, "quality_%s.own.garbled");
    const char *effect = b >= a ? SAY(t, "旧モデル以上", "no weaker than the old model's")
                                : SAY(t, "旧モデルよりやや弱い", "weaker than the old model's");
    const char *whole = garbled <= 0.05 ? SAY(t, "文字化けは許容範囲", "few answers break")
                                        : SAY(t, "文字化けが多い", "too many answers break");
    doc_paragraph(&t->doc,
                  SAY(t, "結論: RepE効果は%s (ギャル語 %.0f%% → %.0f%%)、%s (%.0f%%)。",
                      "Conclusion: the effect is %s (answers with a marker: %.0f%% -> %.0f%%), %s "
                      "(%.0f%%)."),
                  effect, 100 * a, 100 * b, whole, 100 * garbled);
}

static void quality(struct migrate_text *t)
{
    const char *signature = report_text(t->root, "quality_new.report.signature");
    doc_heading(&t->doc, 3, SAY(t, "品質比較", "Quality"));
    doc_table(&t->doc, (const char *const[]){SAY(t, "項目", "point"), model_name(t, 0),
                                             model_name(t, 1), NULL});
    quality_row(t, "Strength", cell_printf("%g", side_number(t, 0, "quality_%s.strength")),
                cell_printf("%g", side_number(t, 1, "quality_%s.strength")));
    quality_row(t, SAY(t, "ギャル度メーター", "meter, raw cosine"), meter_range(t, 0),
                meter_range(t, 1));
    quality_row(t, cell_printf(SAY(t, "「%s」使用率", "answers with \"%s\""), signature).text,
                cell_percent(side_number(t, 0, "quality_%s.own.signature")),
                cell_percent(side_number(t, 1, "quality_%s.own.signature")));
    quality_row(t, SAY(t, "RepE効果 (ギャル語の増加)", "effect (more answers with a marker)"),
                cell_percent(effect(t, 0)), cell_percent(effect(t, 1)));
    shares(t);
    doc_table_end(&t->doc);
    if (!json_is_true(report_at(t->root, "quality_old.steered")))
        doc_paragraph(&t->doc, "%s",
                      SAY(t, "旧モデルにはベクトルがなく、ステアリングなしで測定した。",
                          "The old model has no vector: it was measured without steering."));
    ladder(t, 0);
    ladder(t, 1);
    migrate_ladder_plots(t);
    conclusion(t);
}

void migrate_compare(struct migrate_text *t)
{
    memory(t);
    speed(t);
    quality(t);
}
