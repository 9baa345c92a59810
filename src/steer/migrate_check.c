/*
 * migrate_check.c - the document's check list, ticked by evidence and not by hand.
 */
#include "steer/migrate_report.h"

#include <math.h>
#include <string.h>

static void check_path(struct migrate_text *t)
{
    const char *config = report_text(t->root, "applied.config");
    bool done = *config;
    struct cell evidence =
        done ? cell_printf("%s: model.path = %.80s", config, report_text(t->root, "choice.model"))
             : cell_printf("%s", SAY(t, "未適用 (migrate --apply で更新)",
                                     "not applied yet (migrate --apply does it)"));
    doc_check(&t->doc, done, SAY(t, "モデルパスの更新", "Model path updated"), evidence.text);
}

/* 4-bit stays 4-bit: the packed tensors take no more memory than they take in the file. */
static void check_four_bit(struct migrate_text *t)
{
    const json_t *group;
    size_t i;
    double packed = 0, disk = 0, memory = 0;
    json_array_foreach(report_at(t->root, "plan.to.tensors"), i, group)
    {
        if (!json_is_true(json_object_get(group, "four_bit")))
            continue;
        packed += report_number(group, "parameters");
        disk += report_number(group, "disk_bytes");
        memory += report_number(group, "memory_bytes");
    }
    double share = packed / report_number(t->root, "plan.to.parameters");
    bool kept = packed > 0 && memory <= 1.1 * disk;
    struct cell evidence =
        packed > 0
            ? cell_printf(SAY(t, "重みの %.0f%% が 4bit: ファイル %s、メモリ %s (%.2f bit/重み)",
                              "%.0f%% of the weights are 4-bit: %s in the file, %s in "
                              "memory (%.2f bits each)"),
                          100 * share, cell_bytes(disk).text, cell_bytes(memory).text,
                          8 * memory / packed)
            : cell_printf("%s", SAY(t, "4bit のテンソルがない", "no tensor is 4-bit"));
    doc_check(&t->doc, kept,
              SAY(t, "torch_dtype=\"auto\" の確認 (4bit量子化が有効)",
                  "torch_dtype=\"auto\" confirmed (4-bit quantisation in effect)"),
              evidence.text);
}

static void check_layers(struct migrate_text *t)
{
    double visualise = report_number(t->root, "choice.visualise_layer");
    double first = report_number(t->root, "choice.layer_first");
    double last = report_number(t->root, "choice.layer_last");
    bool within = visualise >= first && visualise <= last; /* choose() took one that it has */
    struct cell evidence = cell_printf(
        SAY(t, "層 %.0f-%.0f (計算式 %.0f-%.0f)、可視化レイヤー %.0f はベクトル%s",
            "layers %.0f-%.0f (by formula %.0f-%.0f), the visualise layer %.0f is %s"),
        first, last, report_number(t->root, "plan.to.layer_first"),
        report_number(t->root, "plan.to.layer_last"), visualise,
        within ? SAY(t, "の範囲内", "one of them") : SAY(t, "の範囲外", "none of them"));
    doc_check(&t->doc, within, SAY(t, "レイヤー範囲の調整", "Layer range adjusted"), evidence.text);
}

static void check_vector(struct migrate_text *t)
{
    bool found = !isnan(report_number(t->root, "choice.strength"));
    const char *why = SAY(t, "安全な強度が見つからない", "no safe strength was found");
    struct cell evidence =
        cell_printf("%.90s (SHA-256 %.12s)%s%s", report_text(t->root, "choice.vector"),
                    report_text(t->root, "tune.file_sha256"), found ? "" : ": ", found ? "" : why);
    doc_check(&t->doc, found, SAY(t, "ベクトル再抽出", "Vector extracted anew"), evidence.text);
}

static void check_memory(struct migrate_text *t)
{
    double saved = report_number(t->root, "plan.memory.saved");
    struct cell evidence = cell_printf(
        "%s -> %s (%+.0f%%)",
        cell_bytes(report_number(t->root, "plan.memory.from.total_bytes")).text,
        cell_bytes(report_number(t->root, "plan.memory.to.total_bytes")).text, -100 * saved);
    doc_check(&t->doc, saved > 0, SAY(t, "VRAM使用量の確認", "Memory use confirmed"),
              evidence.text);
}

static void check_speed(struct migrate_text *t)
{
    double a = report_number(t->root, "speed_old.answer_seconds");
    double b = report_number(t->root, "speed_new.answer_seconds");
    struct cell evidence = cell_printf(SAY(t, "50 入力 / 100 出力: %.3f 秒 -> %.3f 秒 (%.2f 倍速)",
                                           "50 in, 100 out: %.3f s -> %.3f s (%.2f times as fast)"),
                                       a, b, a / b);
    doc_check(&t->doc, b <= a, SAY(t, "推論速度の確認", "Speed confirmed"), evidence.text);
}

void migrate_checklist(struct migrate_text *t)
{
    check_path(t);
    check_four_bit(t);
    check_layers(t);
    check_vector(t);
    check_memory(t);
    check_speed(t);
}
