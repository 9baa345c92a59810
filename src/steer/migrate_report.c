/*
 * migrate_report.c - gyaru_migrate_page(): the report of a migration in the order of sections of
 * the document that described the first one by hand.
 */
#include "steer/migrate_report.h"

#include "base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- fields and cells -------------------------------------------------------------------------
 */

const json_t *report_at(const json_t *root, const char *path)
{
    while (root && *path) {
        char key[48];
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        root = json_object_get(root, key);
        path += len + (path[len] == '.');
    }
    return root;
}

const char *report_text(const json_t *root, const char *path)
{
    const char *text = json_string_value(report_at(root, path));
    return text ? text : "";
}

double report_number(const json_t *root, const char *path)
{
    const json_t *value = report_at(root, path);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

struct cell cell_printf(const char *format, ...)
{
    struct cell cell;
    va_list args;
    va_start(args, format);
    int len = vsnprintf(cell.text, sizeof cell.text, format, args);
    va_end(args);
    if (len >= (int)sizeof cell.text) { /* no half character at the end */
        size_t end = sizeof cell.text - 1;
        while (end && ((unsigned char)cell.text[end - 1] & 0xC0) == 0x80)
            end--;
        cell.text[end ? end - 1 : 0] = '\0';
    }
    return cell;
}

struct cell cell_bytes(double bytes)
{
    if (isnan(bytes))
        return cell_printf("-");
    double size = fabs(bytes);
    return size >= 1e9   ? cell_printf("%.2f GB", bytes / 1e9)
           : size >= 1e6 ? cell_printf("%.1f MB", bytes / 1e6)
                         : cell_printf("%.0f KB", bytes / 1e3);
}

struct cell cell_percent(double share)
{
    /* + 0.0: a negative zero has no sign to show. */
    return isnan(share) ? cell_printf("-") : cell_printf("%.0f%%", round(100 * share) + 0.0);
}

struct cell cell_number(double value, int digits)
{
    return isnan(value) ? cell_printf("-") : cell_printf("%.*f", digits, value);
}

/* ---- sections, in the document's order --------------------------------------------------------
 */

static const char *old_path(const struct migrate_text *t)
{
    return report_text(t->root, "plan.from.path");
}

static const char *new_path(const struct migrate_text *t)
{
    return report_text(t->root, "plan.to.path");
}

static struct cell day_of(const struct migrate_text *t)
{
    time_t when = (time_t)json_integer_value(report_at(t->root, "time"));
    struct tm date;
    char day[16] = "";
    if (gmtime_r(&when, &date))
        strftime(day, sizeof day, "%Y-%m-%d", &date);
    return cell_printf("%s", day);
}

static void overview(struct migrate_text *t)
{
    doc_heading(&t->doc, 2, SAY(t, "概要", "Overview"));
    doc_paragraph(&t->doc,
                  SAY(t, "%s から %s への移行の計画、実行、測定結果。",
                      "The move from %s to %s: plan, what was done, what was measured."),
                  old_path(t), new_path(t));
    doc_item(&t->doc, SAY(t, "移行日: %s", "Date: %s"), day_of(t).text);
    doc_item(&t->doc, "%s",
             SAY(t, "目的: 推論速度向上とVRAM使用量削減", "Purpose: speed and less memory"));
    doc_item(&t->doc, SAY(t, "所要時間: %.0f 秒", "It took %.0f s"),
             report_number(t->root, "seconds"));
}

static void motives(struct migrate_text *t)
{
    doc_heading(&t->doc, 2, SAY(t, "移行の動機", "Why"));
    doc_heading(&t->doc, 3, SAY(t, "1. 推論速度の向上", "1. Speed"));
    doc_item(&t->doc, SAY(t, "測定: %.2f 倍", "measured: %.2f times as fast"), migrate_speed_up(t));
    doc_heading(&t->doc, 3, SAY(t, "2. VRAM使用量の削減", "2. Less memory"));
    doc_item(&t->doc, SAY(t, "計画: %s -> %s (%s削減)", "plan: %s -> %s (%s saved)"),
             cell_bytes(report_number(t->root, "plan.memory.from.total_bytes")).text,
             cell_bytes(report_number(t->root, "plan.memory.to.total_bytes")).text,
             cell_percent(report_number(t->root, "plan.memory.saved")).text);
    doc_heading(&t->doc, 3, SAY(t, "3. システムの軽量化", "3. A lighter system"));
    doc_item(&t->doc, SAY(t, "1トークンに読む重み: %s -> %s", "weights read for a token: %s -> %s"),
             cell_bytes(report_number(t->root, "plan.memory.from.weight_bytes_per_token")).text,
             cell_bytes(report_number(t->root, "plan.memory.to.weight_bytes_per_token")).text);
}

/* Of the 4-bit tensors: "NF4, double-quantised (84%)". */
static struct cell quantisation(const struct migrate_text *t, const char *side)
{
    const json_t *model = report_at(t->root, side), *group;
    size_t i;
    json_array_foreach(json_object_get(model, "tensors"), i, group)
    {
        if (json_flag_at(group, "four_bit"))
            return cell_printf("%s (%.0f%%)", json_text_at(group, "type"),
                               100 * json_number_at(model, "four_bit_parameters") /
                                   json_number_at(model, "parameters"));
    }
    return cell_printf("%s", SAY(t, "なし", "none"));
}

static void model_table(struct migrate_text *t)
{
    const struct {
        const char *ja, *en, *key;
        int digits;
    } rows[] = {{"層数", "layers", "n_layers", 0},
                {"隠れ次元", "hidden size", "hidden_size", 0},
                {"中間次元", "intermediate size", "intermediate_size", 0},
                {"語彙", "vocabulary", "vocab_size", 0},
                {"パラメータ数", "parameters", "parameters", 0},
                {"bit/重み (ファイル)", "bits per weight (file)", "bits_per_weight", 2}};
    doc_table(&t->doc, (const char *const[]){"", old_path(t), new_path(t), NULL});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double a = report_number(report_at(t->root, "plan.from"), rows[i].key);
        double b = report_number(report_at(t->root, "plan.to"), rows[i].key);
        doc_row(&t->doc, (const char *const[]){SAY(t, rows[i].ja, rows[i].en),
                                               cell_number(a, rows[i].digits).text,
                                               cell_number(b, rows[i].digits).text, NULL});
    }
    doc_row(&t->doc, (const char *const[]){SAY(t, "量子化方式", "quantisation"),
                                           quantisation(t, "plan.from").text,
                                           quantisation(t, "plan.to").text, NULL});
    doc_row(&t->doc, (const char *const[]){
                         SAY(t, "ファイルサイズ", "file"),
                         cell_bytes(report_number(t->root, "plan.from.file_bytes")).text,
                         cell_bytes(report_number(t->root, "plan.to.file_bytes")).text, NULL});
    doc_row(&t->doc,
            (const char *const[]){
                SAY(t, "展開後の重み", "weights in memory"),
                cell_bytes(report_number(t->root, "plan.memory.from.weight_bytes")).text,
                cell_bytes(report_number(t->root, "plan.memory.to.weight_bytes")).text, NULL});
    doc_row(&t->doc,
            (const char *const[]){
                SAY(t, "指紋", "fingerprint"),
                cell_printf("%.16s", report_text(t->root, "plan.from.fingerprint")).text,
                cell_printf("%.16s", report_text(t->root, "plan.to.fingerprint")).text, NULL});
    doc_table_end(&t->doc);
}

/* What was in the config's place before, and what is now. */
static void change_table(struct migrate_text *t)
{
    const json_t *root = t->root;
    double strength = report_number(root, "choice.strength");
    const char *none = SAY(t, "なし", "none");
    const char *vector = report_text(root, "plan.old_vector.path");
    doc_table(&t->doc,
              (const char *const[]){SAY(t, "変更箇所", "setting"), SAY(t, "変更前", "before"),
                                    SAY(t, "変更後", "after"), NULL});
    doc_row(&t->doc, (const char *const[]){"model.path", old_path(t), new_path(t), NULL});
    doc_row(&t->doc, (const char *const[]){"steering.vector", *vector ? vector : none,
                                           report_text(root, "choice.vector"), NULL});
    doc_row(&t->doc, (const char *const[]){
                         "steering.strength",
                         cell_printf("%g", report_number(root, "quality_old.strength")).text,
                         isnan(strength) ? none : cell_printf("%g", strength).text, NULL});
    double layer = report_number(root, "quality_old.gauge_layer");
    doc_row(&t->doc, (const char *const[]){
                         "steering.visualise_layer", layer < 0 ? none : cell_number(layer, 0).text,
                         cell_number(report_number(root, "choice.visualise_layer"), 0).text, NULL});
    double first = report_number(root, "plan.old_vector.layer_min");
    doc_row(&t->doc,
            (const char *const[]){
                SAY(t, "レイヤー範囲", "layers"),
                isnan(first) ? none
                             : cell_printf("%.0f-%.0f", first,
                                           report_number(root, "plan.old_vector.layer_max"))
                                   .text,
                cell_printf("%.0f-%.0f", report_number(root, "choice.layer_first"),
                            report_number(root, "choice.layer_last"))
                    .text,
                NULL});
    doc_table_end(&t->doc);
}

static void settings(struct migrate_text *t)
{
    struct str yaml = STR_INIT;
    double strength = report_number(t->root, "choice.strength");
    str_printf(&yaml, "model:\n  path: %s\nsteering:\n  vector: %s\n",
               report_text(t->root, "choice.model"), report_text(t->root, "choice.vector"));
    if (!isnan(strength))
        str_printf(&yaml, "  strength: %g\n", strength);
    str_printf(&yaml, "  visualise_layer: %.0f\n",
               report_number(t->root, "choice.visualise_layer"));
    doc_heading(&t->doc, 3, SAY(t, "Step 2: 設定ファイル更新", "Step 2: Settings"));
    const char *config = report_text(t->root, "applied.config");
    doc_paragraph(&t->doc, "%s:", *config ? config : "config/generation_config.yaml");
    doc_code(&t->doc, yaml.data ? yaml.data : "");
    str_release(&yaml);
    change_table(t);
    if (*config)
        doc_paragraph(&t->doc,
                      SAY(t, "%s に適用済み。元に戻すには gyaru migrate --rollback。",
                          "Applied to %s; gyaru migrate --rollback takes it back."),
                      config);
    else
        doc_paragraph(&t->doc, "%s",
                      SAY(t, "未適用。--apply を付けると設定に書き込む。",
                          "Not applied: --apply writes it into the config."));
}

static void confirmed(struct migrate_text *t, bool good, const char *text)
{
    doc_item(&t->doc, "%s %s", good ? "\u2705" : "\u26A0\uFE0F", text);
}

static void steps(struct migrate_text *t)
{
    double load = report_number(t->root, "speed_new.load_seconds");
    double saved = report_number(t->root, "plan.memory.saved");
    doc_heading(&t->doc, 2, SAY(t, "移行手順", "Steps"));
    doc_heading(&t->doc, 3, SAY(t, "Step 1: モデルダウンロード", "Step 1: The model"));
    doc_paragraph(&t->doc,
                  SAY(t, "モデル情報 (ダウンロード済みのもの: %s)", "What was found in %s"),
                  new_path(t));
    model_table(t);
    settings(t);
    doc_heading(&t->doc, 3, SAY(t, "Step 3: サーバー起動確認", "Step 3: Starting the server"));
    doc_code(&t->doc, "./stop_server.sh\n./start_server.sh\n");
    doc_paragraph(&t->doc, "%s", SAY(t, "確認項目:", "Confirmed:"));
    confirmed(
        t, !isnan(load),
        cell_printf(SAY(t, "モデルロード成功 (%.2f 秒)", "the model loads (%.2f s)"), load).text);
    confirmed(t, saved > 0,
              cell_printf(SAY(t, "VRAM使用量: %s -> %s", "memory: %s -> %s"),
                          cell_bytes(report_number(t->root, "plan.memory.from.total_bytes")).text,
                          cell_bytes(report_number(t->root, "plan.memory.to.total_bytes")).text)
                  .text);
    confirmed(
        t, migrate_speed_up(t) >= 1,
        cell_printf(SAY(t, "推論速度: %.2f 倍", "speed: %.2f times"), migrate_speed_up(t)).text);
}

static void holders(struct migrate_text *t, const json_t *gpu)
{
    const json_t *processes = json_object_get(gpu, "processes");
    size_t i;
    json_t *process;
    json_array_foreach(processes, i, process)
    {
        const json_t *mib = json_object_get(process, "mib");
        doc_item(&t->doc, "PID %lld, %s: %s",
                 (long long)json_integer_value(json_object_get(process, "pid")),
                 *report_text(process, "name") ? report_text(process, "name") : "?",
                 json_is_integer(mib) ? cell_bytes((double)json_integer_value(mib) * (1 << 20)).text
                                      : SAY(t, "使用量は不明", "how much is not told"));
    }
    if (!json_array_size(processes))
        doc_item(&t->doc, "%s", SAY(t, "メモリを持つプロセスはない。", "No process holds any."));
}

/* What was found on this machine when the report was made. */
static void gpu_memory(struct migrate_text *t)
{
    const json_t *gpus = report_at(t->root, "nvidia.gpus");
    size_t i;
    json_t *gpu;
    if (!json_array_size(gpus))
        doc_paragraph(&t->doc,
                      SAY(t, "このマシンでは GPU を調べられなかった: %s。",
                          "No GPU could be looked at on this machine: %s."),
                      *report_text(t->root, "nvidia.problem")
                          ? report_text(t->root, "nvidia.problem")
                          : SAY(t, "GPU がない", "there is none"));
    json_array_foreach(gpus, i, gpu)
    {
        if (*report_text(gpu, "problem")) {
            doc_paragraph(&t->doc, "%s: %s", report_text(gpu, "name"), report_text(gpu, "problem"));
            continue;
        }
        doc_paragraph(&t->doc, SAY(t, "%s: %s 中 %s が使用中。", "%s: of %s, %s in use."),
                      report_text(gpu, "name"), cell_bytes(report_number(gpu, "total_bytes")).text,
                      cell_bytes(report_number(gpu, "used_bytes")).text);
        holders(t, gpu);
    }
    doc_paragraph(&t->doc, "%s",
                  SAY(t, "いまの様子は gyaru doctor でわかる。プロセスは終了させない。",
                      "gyaru doctor says how it is now; it ends no process."));
}

static void problems(struct migrate_text *t)
{
    const json_t *check = report_at(t->root, "plan.old_vector.with_new");
    doc_heading(&t->doc, 2, SAY(t, "技術的課題と解決策", "Problems and solutions"));
    doc_heading(&t->doc, 3,
                SAY(t, "課題1: torch_dtype設定による4bit量子化の無効化",
                    "1. torch_dtype and 4-bit quantisation"));
    doc_paragraph(&t->doc,
                  SAY(t,
                      "この実装に torch_dtype はない。量子化はテンソルごとにファイルから読む。"
                      "新モデルの4bitテンソル: %.0f 個の重み。",
                      "There is no torch_dtype here: the file says which tensors are 4-bit. In the "
                      "new model: %.0f weights."),
                  report_number(t->root, "plan.to.four_bit_parameters"));
    doc_heading(&t->doc, 3,
                SAY(t, "課題2: 残存プロセス (vLLM など)",
                    "2. Processes that hold the GPU (vLLM and others)"));
    gpu_memory(t);
    doc_heading(&t->doc, 3, SAY(t, "課題3: ベクトルの互換性問題", "3. The old vector"));
    if (!json_is_object(check))
        doc_paragraph(&t->doc, "%s",
                      SAY(t, "旧モデルのベクトルはない。", "The old model has no vector."));
    else if (json_is_true(json_object_get(check, "fits")))
        doc_paragraph(&t->doc, SAY(t, "%s は新モデルに合う。%s", "%s fits the new model. %s"),
                      report_text(t->root, "plan.old_vector.path"), report_text(check, "warning"));
    else
        doc_paragraph(&t->doc,
                      SAY(t, "%s は新モデルで使えない: %s", "%s does not fit the new model: %s"),
                      report_text(t->root, "plan.old_vector.path"), report_text(check, "reason"));
}

static void references(struct migrate_text *t)
{
    doc_heading(&t->doc, 2, SAY(t, "参考資料", "References"));
    doc_item(&t->doc, "bitsandbytes: https://github.com/TimDettmers/bitsandbytes");
    doc_item(&t->doc, "Representation Engineering: https://arxiv.org/abs/2310.01405");
}

/* ---- all --------------------------------------------------------------------------------------
 */

int gyaru_migrate_page(const char *report, const char *language, bool html, char **text,
                       struct gyaru_error *err)
{
    json_t *root = json_parse_text(report, strlen(report), "the report", err);
    if (!root)
        return -1;
    struct migrate_text t = {
        .doc = {.out = STR_INIT, .html = html, .japanese = !strcmp(language, "ja")}, .root = root};
    struct str subtitle = STR_INIT;
    str_printf(&subtitle, "%s -> %s", old_path(&t), new_path(&t));
    doc_begin(&t.doc, SAY(&t, "モデル移行レポート", "Model migration report"),
              subtitle.data ? subtitle.data : "");
    overview(&t);
    motives(&t);
    steps(&t);
    problems(&t);
    migrate_layers(&t);
    doc_heading(&t.doc, 2, SAY(&t, "パフォーマンス比較", "Performance"));
    migrate_compare(&t);
    migrate_advice(&t);
    references(&t);
    doc_paragraph(&t.doc,
                  SAY(&t, "最終更新: %s / 作成: gyaru migrate %s",
                      "Last change: %s, made by gyaru migrate %s"),
                  day_of(&t).text, GYARU_VERSION);
    doc_end(&t.doc);
    str_release(&subtitle);
    json_decref(root);
    char *out = str_take(&t.doc.out);
    if (!out)
        return error_memory(err, 1 << 16, "the report");
    *text = out;
    return 0;
}
