/*
 * migrate_advice.c - the document's last chapter: what was reached, what to mind, what to do. Every
 * sentence follows from a figure of this run.
 */
#include "steer/migrate_report.h"

#include <math.h>
#include <string.h>

#define MARKED  0.80 /* answers in the style that a persona should reach */
#define GARBLED 0.05 /* broken ones that it may have */

struct result {
    bool good;
    struct cell text;
};

double migrate_speed_up(const struct migrate_text *t)
{
    return report_number(t->root, "speed_old.answer_seconds") /
           report_number(t->root, "speed_new.answer_seconds");
}

static double saved(const struct migrate_text *t)
{
    return report_number(t->root, "plan.memory.saved");
}

static double strength(const struct migrate_text *t)
{
    return report_number(t->root, "choice.strength");
}

static double marked(const struct migrate_text *t)
{
    return report_number(t->root, "quality_new.own.marker");
}

static double garbled(const struct migrate_text *t)
{
    return report_number(t->root, "quality_new.own.garbled");
}

#define RESULTS 5

static void judge(const struct migrate_text *t, struct result out[RESULTS])
{
    bool found = !isnan(strength(t));
    out[0] = (struct result){
        saved(t) > 0,
        cell_printf(SAY(t, "VRAM使用量の削減: %s -> %s (%s削減)", "memory: %s -> %s (%s saved)"),
                    cell_bytes(report_number(t->root, "plan.memory.from.total_bytes")).text,
                    cell_bytes(report_number(t->root, "plan.memory.to.total_bytes")).text,
                    cell_percent(saved(t)).text)};
    out[1] = (struct result){
        migrate_speed_up(t) >= 1,
        cell_printf(SAY(t, "推論速度の向上: %.2f 倍", "speed: %.2f times"), migrate_speed_up(t))};
    out[2] = (struct result){
        found,
        cell_printf("%s", found ? SAY(t, "ベクトル再抽出成功: 新モデル専用のベクトル",
                                      "a vector of its own")
                                : SAY(t, "安全な強度が見つからない: このベクトルは使わないこと",
                                      "no safe strength: do not use this vector"))};
    out[3] = (struct result){marked(t) >= MARKED,
                             cell_printf(SAY(t, "ギャル語使用率: %.0f%% (目標 %.0f%%)",
                                             "answers in the style: %.0f%% (aim: %.0f%%)"),
                                         100 * marked(t), 100 * MARKED)};
    out[4] = (struct result){garbled(t) <= GARBLED,
                             cell_printf(SAY(t, "システムの安定動作: 文字化け・崩壊 %.0f%%",
                                             "stable: %.0f%% of the answers garbled"),
                                         100 * garbled(t))};
}

static void achieved(struct migrate_text *t, const struct result *results)
{
    doc_heading(&t->doc, 3, SAY(t, "成功した点", "What was reached"));
    for (int i = 0; i < RESULTS; i++)
        if (results[i].good)
            doc_item(&t->doc, "\u2705 %s", results[i].text.text);
}

static void to_mind(struct migrate_text *t, const struct result *results)
{
    double old = report_number(t->root, "quality_old.strength");
    doc_heading(&t->doc, 3, SAY(t, "注意点", "What to mind"));
    for (int i = 0; i < RESULTS; i++)
        if (!results[i].good)
            doc_item(&t->doc, "\u26A0\uFE0F %s", results[i].text.text);
    if (!json_flag_at(report_at(t->root, "plan.old_vector.with_new"), "fits"))
        doc_item(&t->doc, "\u26A0\uFE0F %s",
                 SAY(t, "ベクトル互換性: モデルが変わるとベクトルの再抽出が必要",
                     "vectors do not move: another model needs one of its own"));
    if (!isnan(strength(t)) && fabs(strength(t) - old) > 1e-6)
        doc_item(
            &t->doc,
            SAY(t, "\u26A0\uFE0F Strengthパラメータ: 旧モデルと異なる値が必要 (%g → %g)",
                "\u26A0\uFE0F strength: this vector needs another one than the old (%g -> %g)"),
            old, strength(t));
    doc_item(&t->doc, "\u26A0\uFE0F %s",
             SAY(t, "分散説明率は品質の証拠ではない。AUROC と回答で判断する",
                 "the explained variance is no evidence of quality: judge by AUROC and answers"));
}

/* The first rung of the new model's ladder that breaks answers; NaN: none. */
static double first_broken(const struct migrate_text *t)
{
    const json_t *row;
    size_t i;
    json_array_foreach(report_at(t->root, "quality_new.report.rows"), i, row)
    {
        if (report_number(row, "garbled") > GARBLED)
            return report_number(row, "strength");
    }
    return NAN;
}

static void strengths(struct migrate_text *t)
{
    double broken = first_broken(t), most = report_number(t->root, "tune.max_strength");
    doc_item(&t->doc, "%s",
             SAY(t, "ベースライン (Strength 0.0) から段階的に測定した (品質比較の執事テスト)",
                 "measured step by step from 0 on: the butler test above"));
    if (isnan(broken))
        doc_item(&t->doc, "%s",
                 SAY(t, "測定した範囲では文字化けが許容範囲を超えない",
                     "no strength that was measured breaks more answers than it may"));
    else
        doc_item(&t->doc, SAY(t, "文字化けが始まる強度: %g", "answers begin to break at %g"),
                 broken);
    if (isnan(strength(t)))
        doc_item(&t->doc, SAY(t, "推奨値は見つからない: %s", "no strength to recommend: %s"),
                 report_text(t->root, "tune.reason"));
    else
        doc_item(&t->doc,
                 SAY(t, "推奨 %g (旧モデル %g)%s%s。%s", "recommended: %g (old model: %g)%s%s. %s"),
                 strength(t), report_number(t->root, "quality_old.strength"),
                 isnan(most) ? "" : SAY(t, "、上限 ", ", at most "),
                 isnan(most) ? "" : cell_printf("%g", most).text,
                 strcmp(report_text(t->root, "tune.source"), "given")
                     ? SAY(t, "tune による測定", "Measured by tune")
                     : SAY(t, "指定された値", "As it was asked for"));
}

static void layers(struct migrate_text *t)
{
    const char *candidate = report_text(t->root, "tune.report.choice.candidate");
    double visualise = report_number(t->root, "choice.visualise_layer");
    bool best = !(fabs(visualise - report_number(t->root, "extract.report.best_layer")) > 0);
    doc_item(
        &t->doc,
        SAY(t, "層 %.0f-%.0f を使用: 検証 (AUROC、折半) を通った層%s%s",
            "layers %.0f-%.0f: they passed validation (AUROC, halves)%s%s"),
        report_number(t->root, "choice.layer_first"), report_number(t->root, "choice.layer_last"),
        *candidate ? SAY(t, "のうち tune が選んだ組: ", "; of the sets tried, tune took: ") : "",
        candidate);
    doc_item(
        &t->doc, "%s",
        cell_printf(best ? SAY(t, "可視化レイヤー %.0f: 検証で最もよく分かれる層",
                               "visualise layer %.0f: where validation separates best")
                         : SAY(t, "可視化レイヤー %.0f: 計算式の位置に最も近い、ベクトルのある層",
                               "visualise layer %.0f: the vector's layer next to the formula's"),
                    visualise)
            .text);
}

static void recommendations(struct migrate_text *t)
{
    doc_heading(&t->doc, 3, SAY(t, "推奨事項", "Advice"));
    doc_paragraph(&t->doc, "%s",
                  SAY(t, "1. モデル移行時のチェックリスト:", "1. Check list of a migration:"));
    migrate_checklist(t);
    doc_paragraph(&t->doc, "%s",
                  SAY(t, "2. ベクトル抽出のベストプラクティス:", "2. Extracting the vector:"));
    layers(t);
    doc_paragraph(&t->doc, "%s", SAY(t, "3. Strength最適化:", "3. Strength:"));
    strengths(t);
}

static void improvements(struct migrate_text *t)
{
    bool some = false;
    doc_heading(&t->doc, 3, SAY(t, "今後の改善点", "What could be better"));
    if (isnan(strength(t)) || marked(t) < MARKED) {
        doc_item(
            &t->doc, "%s",
            SAY(t,
                "ベクトル品質の向上: ペアを増やす、または gyaru extract --compare で手法を比べる",
                "the vector: more pairs, or another method (gyaru extract --compare)"));
        some = true;
    }
    if (garbled(t) > GARBLED) {
        doc_item(&t->doc, "%s",
                 SAY(t, "崩壊の低減: 強度を下げる、または狭い層の範囲を試す",
                     "fewer broken answers: less strength, or fewer layers"));
        some = true;
    }
    if (!some)
        doc_paragraph(&t->doc, "%s",
                      SAY(t, "この測定からは、ない。", "Nothing that these figures show."));
}

void migrate_advice(struct migrate_text *t)
{
    struct result results[RESULTS];
    judge(t, results);
    doc_heading(&t->doc, 2, SAY(t, "まとめと推奨事項", "Summary and advice"));
    achieved(t, results);
    to_mind(t, results);
    recommendations(t);
    improvements(t);
}
