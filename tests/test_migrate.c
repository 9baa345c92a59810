/*
 * test_migrate.c - `gyaru migrate` between two tiny models that differ in a bias: plan, phases that
 * are not done twice, report, --apply and --rollback, and kill -9 at any moment of it.
 */
#include "backend/doctor.h"
#include "base/clock.h"
#include "base/file.h"
#include "support/program.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include <cmocka.h>

#define OLD    "tests/data/tiny-model"
#define VECTOR OLD "/vector.safetensors"
#define PAIRS  "tests/data/extract/pairs.json"

static const char config_text[] = "# 凛音 🎀\nmodel:\n  path: models/rinne-base   # keep me\n"
                                  "mine: {a: 1}\nsteering:\n  strength: 12.0 # so\n";

static char dir[128], new_model[160], config[160], vector[160], report[160];

/* Another model of the same sizes. */
static void flip_bias(uint8_t *checkpoint)
{
    uint64_t header;
    unsigned long offset;
    memcpy(&header, checkpoint, sizeof header);
    char *text = strndup((char *)checkpoint + 8, header);
    const char *bias = strstr(text, "model.layers.1.self_attn.q_proj.bias");
    const char *offsets = bias ? strstr(bias, "data_offsets") : NULL;
    assert_non_null(offsets);
    assert_int_equal(sscanf(offsets, "data_offsets\":%*[ [ ]%lu", &offset), 1);
    checkpoint[8 + header + offset] ^= 0x55;
    free(text);
}

static void copy(const char *name)
{
    char from[200], to[240];
    size_t len;
    struct gyaru_error err;
    snprintf(from, sizeof from, OLD "/%s", name);
    snprintf(to, sizeof to, "%s/%s", new_model, name);
    uint8_t *data = scratch_read(from, &len);
    if (!strcmp(name, "model.safetensors"))
        flip_bias(data);
    assert_int_equal(file_write_atomic(to, data, len, &err), 0);
    free(data);
}

static int make_files(void **state)
{
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    struct gyaru_error err;
    snprintf(dir, sizeof dir, "%s", scratch_path("m"));
    snprintf(new_model, sizeof new_model, "%s/new", dir);
    snprintf(config, sizeof config, "%s/c.yaml", dir);
    snprintf(vector, sizeof vector, "%s/v.safetensors", dir);
    snprintf(report, sizeof report, "%s/report", dir);
    assert_int_equal(file_make_dirs(new_model, &err), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        copy(names[i]);
    assert_int_equal(file_write_atomic(config, config_text, strlen(config_text), &err), 0);
    return 0;
}

/* The file as a string (caller frees). */
#define RUN(result, ...) program_run(result, NULL, (const char *const[]){__VA_ARGS__, NULL})

#define MIGRATE(result, ...)                                                                       \
    RUN(result, "migrate", "--from", OLD, "--to", new_model, "--old-vector", VECTOR, "-c", config, \
        "-t", "1", __VA_ARGS__)

#define WHOLE                                                                                      \
    "-d", PAIRS, "--layers", "0-2", "-s", "6", "--limit", "4", "-o", vector, "--report", report

static void done(struct program_result *r)
{
    if (r->code)
        fail_msg("%s", r->err);
}

static json_t *parse(const char *text)
{
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    return json;
}

static void the_plan_compares_both(void **state)
{
    struct program_result r;
    MIGRATE(&r, "--plan", "--json");
    done(&r);
    json_t *plan = parse(r.out);
    assert_true(json_is_false(json_object_get(plan, "same_model")));
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(plan, "to"), "visualise_layer")), 2);
    assert_non_null(json_object_get(json_object_get(plan, "memory"), "saved"));
    json_decref(plan);
    program_release(&r);
    MIGRATE(&r, "--plan");
    done(&r);
    assert_non_null(strstr(r.out, "fingerprint"));
    program_release(&r);
}

static void refuses_what_cannot_be(void **state)
{
    struct program_result r;
    RUN(&r, "migrate", "--from", OLD, "-c", config);
    program_check_error(&r, 2, "--to NEW");
    program_release(&r);
    MIGRATE(&r, "--lang", "fr");
    program_check_error(&r, 2, "ja or en");
    program_release(&r);
    RUN(&r, "migrate", "--from", OLD, "--to", new_model);
    program_check_error(&r, 2, "-d PAIRS");
    program_release(&r);
    RUN(&r, "migrate", "--rollback", "-c", config);
    program_check_error(&r, 1, "no change");
    program_release(&r);
    assert_true(scratch_holds(config, config_text));
}

static void nothing_but_report_and_vector_without_apply(void **state)
{
    struct program_result r;
    MIGRATE(&r, WHOLE, "--json");
    done(&r);
    json_t *json = parse(r.out);
    assert_int_equal(json_array_size(json_object_get(json, "resumed")), 0);
    assert_true(json_is_null(json_object_get(json, "applied")));
    json_decref(json);
    program_release(&r);
    assert_true(scratch_holds(config, config_text));
    assert_true(file_exists(vector));
}

static void finished_phases_are_not_done_again(void **state)
{
    struct program_result r;
    MIGRATE(&r, WHOLE, "--json");
    done(&r);
    json_t *json = parse(r.out);
    assert_int_equal(json_array_size(json_object_get(json, "resumed")), 6);
    json_decref(json);
    program_release(&r);
    assert_int_equal(unlink(vector), 0); /* what a phase made is gone: it is made again */
    MIGRATE(&r, WHOLE, "--json");
    done(&r);
    json = parse(r.out);
    assert_int_equal(json_array_size(json_object_get(json, "resumed")), 5);
    json_decref(json);
    program_release(&r);
    assert_true(file_exists(vector));
}

static void reports_in_both_languages(void **state)
{
    /* As in the document, chapter by chapter. */
    static const char *const ja[] = {"## 概要",
                                     "## 移行の動機",
                                     "### 1. 推論速度の向上",
                                     "### 2. VRAM使用量の削減",
                                     "### 3. システムの軽量化",
                                     "## 移行手順",
                                     "### Step 1: モデルダウンロード",
                                     "### Step 2: 設定ファイル更新",
                                     "### Step 3: サーバー起動確認",
                                     "## 技術的課題と解決策",
                                     "### 課題1: torch_dtype",
                                     "### 課題2: 残存プロセス",
                                     "### 課題3: ベクトルの互換性問題",
                                     "## ベクトル再抽出",
                                     "### レイヤー範囲の計算",
                                     "### 抽出プロセス",
                                     "### 検証結果",
                                     "## パフォーマンス比較",
                                     "### VRAM使用量",
                                     "### 推論速度",
                                     "### 品質比較",
                                     "結論: ",
                                     "## まとめと推奨事項",
                                     "### 成功した点",
                                     "### 注意点",
                                     "### 推奨事項",
                                     "モデル移行時のチェックリスト",
                                     "ベクトル抽出のベストプラクティス",
                                     "Strength最適化",
                                     "### 今後の改善点",
                                     "## 参考資料"};
    struct program_result r;
    MIGRATE(&r, WHOLE, "--lang", "ja");
    done(&r);
    const char *at = r.out;
    for (size_t i = 0; i < sizeof ja / sizeof *ja; i++) {
        at = strstr(at, ja[i]);
        if (!at)
            fail_msg("%s is missing or out of order", ja[i]);
    }
    assert_non_null(strstr(r.out, "- [ ] **モデルパスの更新**"));
    assert_non_null(strstr(r.out, "- [x] **ベクトル再抽出**"));
    program_release(&r);
    MIGRATE(&r, WHOLE, "--lang", "en");
    done(&r);
    assert_non_null(strstr(r.out, "## Overview"));
    program_release(&r);
    char page[200];
    size_t len;
    snprintf(page, sizeof page, "%s/migrate.html", report);
    char *html = (char *)scratch_read(page, &len);
    assert_non_null(memmem(html, len, "</html>", 7));
    assert_null(memmem(html, len, "src=", 4));
    size_t plots = 0;
    for (const char *p = html; (p = memmem(p, len - (size_t)(p - html), "<figure>", 8)); p++)
        plots++;
    assert_true(plots >= 12); /* memory, speed, the ladder, and layers as far as they are known */
    free(html);
}

static void applies_and_takes_back(void **state)
{
    struct program_result r;
    char expected[600];
    snprintf(expected, sizeof expected,
             "# 凛音 🎀\nmodel:\n  path: %s   # keep me\nmine: {a: 1}\nsteering:\n"
             "  strength: 6 # so\n  vector: %s\n  visualise_layer: ",
             new_model, vector);
    MIGRATE(&r, WHOLE, "--apply", "--lang", "ja");
    done(&r);
    assert_non_null(strstr(r.out, "- [x] **モデルパスの更新**"));
    program_release(&r);
    char *text = scratch_text(config);
    if (strlen(text) != strlen(expected) + 2 || memcmp(text, expected, strlen(expected)))
        fail_msg("%s", text);
    free(text);
    RUN(&r, "migrate", "--rollback", "-c", config);
    done(&r);
    program_release(&r);
    assert_true(scratch_holds(config, config_text));
}

static size_t resumed_of(const struct program_result *r)
{
    json_t *json = parse(r->out);
    size_t n = json_array_size(json_object_get(json, "resumed"));
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(json_object_get(json, "plan"), "from"), "path")),
                        OLD);
    json_decref(json);
    return n;
}

/* The same command again, which finds a config that it changed itself: the old model, its vector
 * and strength are those of the config before, and everything that was measured holds. */
static void applying_again_measures_nothing(void **state)
{
    struct program_result r;
    struct gyaru_error err;
    char own[200], own_report[200], text[300];
    snprintf(own, sizeof own, "%s/own.yaml", dir);
    snprintf(own_report, sizeof own_report, "%s/own-report", dir);
    snprintf(text, sizeof text,
             "model:\n  path: " OLD "\nsteering:\n  vector: " VECTOR "\n  strength: 5\n");
    assert_int_equal(file_write_atomic(own, text, strlen(text), &err), 0);
    const char *const arguments[] = {
        "migrate", "--to",     new_model,  "-c",      own,      "-t", "1",    "-d",
        PAIRS,     "-s",       "6",        "--limit", "4",      "-o", vector, "--layers",
        "0-2",     "--report", own_report, "--apply", "--json", NULL};
    program_run(&r, NULL, arguments);
    done(&r);
    assert_int_equal(resumed_of(&r), 0);
    program_release(&r);
    char *changed = scratch_text(own);
    assert_non_null(strstr(changed, new_model));
    program_run(&r, NULL, arguments);
    done(&r);
    assert_int_equal(resumed_of(&r), 6);
    assert_non_null(strstr(r.err, "own.yaml.bak-1"));
    assert_non_null(strstr(r.err, "already so"));
    program_release(&r);
    assert_true(scratch_holds(own, changed));

    /* So it does when something else was written into the config meanwhile; another strength of the
     * old vector is another measurement. */
    snprintf(text, sizeof text, "%smine: 1\n", changed);
    assert_int_equal(file_write_atomic(own, text, strlen(text), &err), 0);
    program_run(&r, NULL, arguments);
    done(&r);
    assert_int_equal(resumed_of(&r), 6);
    program_release(&r);
    free(changed);
    RUN(&r, "migrate", "--from", OLD, "--old-vector", "none", "--to", new_model, "-c", own, "-t",
        "1", "-d", PAIRS, "-s", "6", "--limit", "4", "-o", vector, "--layers", "0-2", "--report",
        own_report, "--json");
    done(&r);
    assert_int_equal(resumed_of(&r), 0);
    program_release(&r);
}

/* Who holds GPU memory, as doctor found it: on this machine, on one with two GPUs (a stand-in for
 * the driver's library), on one with none. */
static void reports_who_holds_the_gpu(void **state)
{
    struct gyaru_error err;
    char path[200], library[256], *page;
    const char *build = getenv("BUILD");
    snprintf(path, sizeof path, "%s/migrate.json", report);
    snprintf(library, sizeof library, "%s/tests/fake_nvml.so", build ? build : "build");
    char *text = scratch_text(path);
    json_t *json = parse(text), *found = doctor_report(library, NULL, &err);
    assert_true(json_is_array(json_object_get(json_object_get(json, "nvidia"), "gpus")));
    free(text);
    assert_non_null(found);
    json_object_set(json, "nvidia", json_object_get(found, "nvidia"));
    text = json_dumps(json, 0);
    assert_int_equal(gyaru_migrate_page(text, "en", false, &page, &err), 0);
    assert_non_null(strstr(page, "Fake GPU 0"));
    assert_non_null(strstr(page, "PID 4242, /usr/bin/hog: 20.40 GB"));
    assert_non_null(strstr(page, "Not Supported"));
    free(page);
    free(text);
    json_decref(found);
    found = doctor_report("libnone.so", NULL, &err);
    json_object_set(json, "nvidia", json_object_get(found, "nvidia"));
    text = json_dumps(json, 0);
    assert_int_equal(gyaru_migrate_page(text, "ja", false, &page, &err), 0);
    assert_non_null(strstr(page, "GPU を調べられなかった"));
    assert_non_null(strstr(page, "libnone.so"));
    free(page);
    free(text);
    json_decref(found);
    json_decref(json);
}

/* All phases are done: what is interrupted is the change of the config, before, in, or after it. */
static void kill_9_at_50_moments(void **state)
{
    struct program_result r;
    const char *const arguments[] = {
        "migrate",  "--from", OLD,       "--to",    new_model, "--old-vector", VECTOR,
        "-c",       config,   "-t",      "1",       "-d",      PAIRS,          "--layers",
        "0-2",      "-s",     "6",       "--limit", "4",       "-o",           vector,
        "--report", report,   "--apply", NULL};
    srand(3);
    double start = clock_seconds();
    MIGRATE(&r, WHOLE, "--apply");
    done(&r);
    program_release(&r);
    double seconds = clock_seconds() - start;
    char *new_text = scratch_text(config);
    int changed = 0;
    for (int i = 0; i < 50; i++) {
        char journal[200];
        snprintf(journal, sizeof journal, "%s.changes", config);
        if (!scratch_holds(config, config_text) || file_exists(journal)) {
            RUN(&r, "migrate", "--rollback", "-c", config);
            done(&r);
            program_release(&r);
        }
        assert_true(scratch_holds(config, config_text));
        program_kill_after(arguments, 1.5 * seconds * rand() / RAND_MAX);
        changed += scratch_holds(config, new_text);
        assert_true(scratch_holds(config, config_text) || scratch_holds(config, new_text));
    }
    printf("killed after the change: %d of 50\n", changed);
    free(new_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_compares_both),
        cmocka_unit_test(refuses_what_cannot_be),
        cmocka_unit_test(nothing_but_report_and_vector_without_apply),
        cmocka_unit_test(finished_phases_are_not_done_again),
        cmocka_unit_test(reports_in_both_languages),
        cmocka_unit_test(applies_and_takes_back),
        cmocka_unit_test(applying_again_measures_nothing),
        cmocka_unit_test(reports_who_holds_the_gpu),
        cmocka_unit_test(kill_9_at_50_moments),
    };
    return cmocka_run_group_tests(tests, make_files, NULL);
}
