/* tune_table.c - see tune_table.h. */
#include "cli/tune_table.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

struct column {
    const char *key, *title;
    bool share; /* shown in per cent */
    int digits;
};

static const struct column columns[] = {
    {"kl_p95", "KL p95", false, 2},       {"gain", "gain", false, 2},
    {"wrong_way", "wrong", true, 0},      {"marker", "marker", true, 0},
    {"signature", "sign.", true, 0},      {"polite", "polite", true, 0},
    {"garbled", "garbled", true, 0},      {"no_end", "no end", true, 0},
    {"repetition_4", "repeat4", true, 0}, {"nll", "NLL", false, 2},
};

#define N_COLUMNS (sizeof columns / sizeof *columns)

static void print_figures(FILE *out, const json_t *point)
{
    for (size_t i = 0; i < N_COLUMNS; i++) {
        double value = json_number_at(point, columns[i].key);
        if (!isfinite(value))
            fprintf(out, " %8s", "-");
        else if (columns[i].share)
            fprintf(out, " %7.0f%%", 100 * value);
        else
            fprintf(out, " %8.*f", columns[i].digits, value);
    }
}

static void print_head(FILE *out, const char *first)
{
    fprintf(out, "%-10s", first);
    for (size_t i = 0; i < N_COLUMNS; i++)
        fprintf(out, " %8s", columns[i].title);
    fputc('\n', out);
}

static void print_candidate(FILE *out, const json_t *c, bool japanese)
{
    const json_t *points = json_object_get(c, "points"), *point;
    size_t i;
    double budget = json_number_at(c, "budget_strength");
    fprintf(out, japanese ? "\n候補 %s: 層 %g-%g (%g 層)" : "\ncandidate %s: layers %g-%g (%g)",
            json_text_at(c, "name"), json_number_at(c, "layer_first"),
            json_number_at(c, "layer_last"), json_number_at(c, "layers"));
    if (isfinite(budget))
        fprintf(out, japanese ? "; KL 予算内の最大強度 %.3g" : "; KL budget reached at %.3g",
                budget);
    fputc('\n', out);
    if (!json_is_true(json_object_get(c, "finalist")))
        return;
    print_head(out, japanese ? "強度" : "strength");
    json_array_foreach(points, i, point)
    {
        fprintf(out, "%-10.4g", json_number_at(point, "strength"));
        print_figures(out, point);
        const char *fault = json_text_at(point, "fault");
        fprintf(out, *fault ? "  %s\n" : "%s\n", fault);
    }
}

static void print_control(FILE *out, const char *name, const json_t *point)
{
    if (!json_is_object(point))
        return;
    const char *fault = json_text_at(point, "fault");
    fprintf(out, "%-10s", name);
    print_figures(out, point);
    fprintf(out, *fault ? "  %s\n" : "%s\n", fault);
}

static void print_choice(FILE *out, const json_t *report, bool japanese)
{
    const json_t *choice = json_object_get(report, "choice");
    const json_t *controls = json_object_get(report, "controls");
    static const char *const names[] = {"none", "prompt", "random", "steered"};
    const json_t *rejected;
    size_t at;
    if (!json_is_object(choice))
        return;
    fputs(japanese ? "\n確認 (未使用のメッセージ)\n" : "\nconfirmed on unseen messages\n", out);
    print_head(out, "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        print_control(out, names[i], json_object_get(controls, names[i]));
    json_array_foreach(json_object_get(report, "rejected"), at, rejected)
    {
        char name[32];
        snprintf(name, sizeof name, japanese ? "却下 %.4g" : "not %.4g",
                 json_number_at(rejected, "strength"));
        print_control(out, name, rejected);
    }
    fprintf(out,
            japanese ? "\n推奨強度 %.4g、上限 %.4g (候補 %s、測定時の強度 %.4g)\n"
                     : "\nrecommended strength %.4g, max %.4g (candidate %s, measured at %.4g)\n",
            json_number_at(choice, "recommended_strength"), json_number_at(choice, "max_strength"),
            json_text_at(choice, "candidate"), json_number_at(choice, "measured_strength"));
    if (json_is_true(json_object_get(report, "written")))
        fprintf(out, "%s\n", json_text_at(report, "output"));
}

void tune_table_print(FILE *out, const json_t *report, bool japanese)
{
    const json_t *candidates = json_object_get(report, "candidates"), *c;
    size_t i;
    print_head(out, "");
    print_control(out, "none", json_object_get(report, "base"));
    print_control(out, "prompt", json_object_get(report, "prompt"));
    json_array_foreach(candidates, i, c) print_candidate(out, c, japanese);
    print_choice(out, report, japanese);
    fputs(
        japanese
            ? "KL p95: トークンごとの KL(操作後 || 元) の 95 % 点 (nat); gain: 普通文に対する\n"
              "スタイル文の対数確率の増加 (nat/トークン); wrong: 逆向きに動いた組; NLL: 生成文の\n"
              "元モデルでの負対数尤度 (二つの指示のうち出やすい方); repeat4: 文字 4-gram の重複率\n"
            : "KL p95: 95th percentile of the per-token KL(steered || base), nats; gain: in log-\n"
              "probability of styled over plain texts, nats per token; wrong: pairs steered the\n"
              "wrong way; NLL: of the answers without steering, under the prompt that expects "
              "them\n"
              "more; repeat4: repeated 4-grams of characters\n",
        out);
}
