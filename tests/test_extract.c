/*
 * test_extract.c - vectors from pairs: equal to what scikit-learn and float64 passes give, read and
 * added at the same point, the same bytes however the work was cut up, nothing written when
 * validation leaves nothing.
 */
#include "support/reference.h"
#include "support/scratch.h"

#include "base/file.h"
#include "steer/capture.h"
#include "steer/vector.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY  "tests/data/tiny-model"
#define PAIRS "tests/data/extract/pairs.json"

static struct gyaru_model *open_model(const char *dir, int sessions, int chunk)
{
    struct gyaru_error err;
    struct gyaru_model_options options;
    struct gyaru_model *model;
    gyaru_model_options_init(&options);
    options.sessions = sessions;
    options.chunk = chunk;
    options.context = 512;
    options.threads = 2;
    if (gyaru_model_open(dir, &options, &model, &err))
        fail_msg("%s", err.text);
    return model;
}

static struct gyaru_extract_options all_pairs(const char *dataset)
{
    struct gyaru_extract_options options;
    gyaru_extract_options_init(&options);
    options.dataset = dataset;
    options.split[0] = options.split[1] = options.split[2] = 0;
    options.layer_first = 0;
    return options;
}

/* Extracts all layers and opens the result; the report (owned) if `report`. */
static struct gyaru_vector *extract(struct gyaru_model *model,
                                    const struct gyaru_extract_options *options, const char *path,
                                    json_t **report)
{
    struct gyaru_error err;
    struct gyaru_extract_options all = *options;
    char *text;
    if (all.layer_first == 0)
        all.layer_last = gyaru_model_info(model)->n_layers - 1;
    if (gyaru_extract(model, &all, path, &text, &err))
        fail_msg("%s", err.text);
    if (report)
        *report = json_loads(text, 0, NULL);
    free(text);
    struct gyaru_vector *v;
    if (gyaru_vector_open(path, &v, &err))
        fail_msg("%s", err.text);
    return v;
}

/* 48 pairs on 8 topics in which the style shows; `swap_every` 2: labels mean nothing. */
static const char *make_pairs(const char *name, bool shuffled)
{
    static const char *const topics[] = {"天気", "料理", "音楽", "旅行", "映画", "犬", "本", "海"};
    static const char *const plain[] = {"が好きです。",       "について話しますね。",
                                        "は大切なものです。", "を楽しんでいます。",
                                        "に行きたいです。",   "は良いですね。"};
    static const char *const styled[] = {"マジ好きだし！",   "の話するっしょ！",
                                         "ガチ大事じゃん！", "あーし楽しんでるし！",
                                         "行きたみ〜！",     "最高じゃん！"};
    char text[16000], *at = text;
    for (int i = 0; i < 48; i++) {
        const char *topic = topics[i % 8], *a = plain[i / 8], *b = styled[(i / 8 + i) % 6];
        bool swap = shuffled && (i * 7919 + i / 5) % 2;
        at += sprintf(at, "{\"topic\":\"%s\",\"standard\":\"%s%s%s\",\"gyaru\":\"%s%s%s\"}\n",
                      topic, swap ? "あーし" : "私は", topic, swap ? b : a,
                      swap ? "私は" : "あーし", topic, swap ? a : b);
    }
    return scratch_write(name, text, strlen(text));
}

/* ---- parity -----------------------------------------------------------------------------------
 */

static void compare(struct gyaru_model *model, const struct reference *r, const char *pairs,
                    const char *method, const char *position, const char *name)
{
    const struct gyaru_model_info *info = gyaru_model_info(model);
    size_t hidden = (size_t)info->hidden_size, layers = (size_t)info->n_layers;
    struct gyaru_extract_options options = all_pairs(pairs);
    options.method = method;
    options.position = position;
    json_t *report;
    struct gyaru_vector *v = extract(model, &options, scratch_path("parity.safetensors"), &report);
    const float *expected = reference_values(r, name, layers * hidden);
    const json_t *ratios =
        json_object_get(json_object_get(r->json, "extract"), "explained_variance_ratio");
    assert_int_equal(json_array_size(ratios), layers);
    bool original = !strcmp(method, "pca_last");
    assert_string_equal(v->info.hook, original ? "resid_pre" : "resid_post");
    assert_int_equal(v->info.n_directions, layers);
    for (size_t l = 0; l < layers; l++) {
        const float *direction = vector_direction(v, (int)l), *want = expected + l * hidden;
        assert_non_null(direction);
        assert_true(reference_error(direction, want, hidden) < 1e-4);
        for (size_t other = 0; other < layers; other++) /* an off-by-one layer would show */
            assert_true(other == l ||
                        reference_error(direction, expected + other * hidden, hidden) > 0.05);
        const json_t *layer = json_array_get(json_object_get(report, "layers"), l);
        double ratio = json_number_value(json_object_get(layer, "explained_variance_ratio"));
        if (!strcmp(options.position, "last"))
            assert_true(fabs(ratio - json_number_value(json_array_get(ratios, l))) < 1e-5);
    }
    json_decref(report);
    gyaru_vector_close(v);
}

static void compare_all(const char *model_dir, const char *expected_dir)
{
    struct reference r;
    reference_open(expected_dir, &r);
    char *pairs = file_join(expected_dir, "pairs.json");
    struct gyaru_model *model = open_model(model_dir, 8, 128);
    compare(model, &r, pairs, "pca_last", "last", "extract.pca_last");
    compare(model, &r, pairs, "mean", "last", "extract.mean_last");
    compare(model, &r, pairs, "mean", "content", "extract.mean_content");
    gyaru_model_close(model);
    free(pairs);
    reference_close(&r);
}

static void equals_the_fixture(void **state)
{
    compare_all(TINY, "tests/data/extract");
}

static void equals_scikit_learn(void **state)
{
    char name[64];
    snprintf(name, sizeof name, "reference/%s", (const char *)*state);
    char *dir = reference_shared(name);
    if (!dir) {
        reference_skip(name);
        return;
    }
    compare_all(dir, dir);
    free(dir);
}

/* ---- where it is read and added ----------------------------------------------------------------
 */

/* Hidden states [layers+1, hidden] of the last token (caller frees). */
static float *last_hidden(struct gyaru_model *model, const char *topic, const char *answer,
                          float strength)
{
    struct gyaru_error err;
    const struct gyaru_model_info *info = gyaru_model_info(model);
    struct capture_text text;
    struct gyaru_extract_options defaults;
    gyaru_extract_options_init(&defaults);
    if (capture_encode(gyaru_model_tokenizer(model), defaults.prompt, topic, answer, "a text",
                       &text, &err))
        fail_msg("%s", err.text);
    size_t size = ((size_t)info->n_layers + 1) * (size_t)info->hidden_size;
    float *hidden = malloc(size * sizeof *hidden);
    const float strengths[GYARU_MAX_VECTORS] = {strength};
    struct gyaru_eval eval = {
        .ids = text.ids, .n = text.n, .strengths = strengths, .gauge = -1, .hidden = hidden};
    if (gyaru_model_eval(model, &eval, &err))
        fail_msg("%s", err.text);
    free(text.ids);
    return hidden;
}

/* With one pair, the direction carries the plain text's last state to the styled one's: exactly at
 * the point where it was read, and nowhere else. */
static void read_and_added_at_the_same_point(void **state)
{
    const char *pair = "[{\"topic\":\"t\",\"standard\":\"a b\",\"gyaru\":\"x y z\"}]";
    struct gyaru_model *model = open_model(TINY, 2, 16);
    const struct gyaru_model_info *info = gyaru_model_info(model);
    size_t hidden = (size_t)info->hidden_size;
    struct gyaru_extract_options options = all_pairs(scratch_write("one.json", pair, strlen(pair)));
    options.position = "last";
    struct gyaru_vector *v = extract(model, &options, scratch_path("one.safetensors"), NULL);
    float *styled = last_hidden(model, "t", "x y z", 0);
    for (int l = 0; l < info->n_layers; l++)
        for (int pre = 0; pre < 2; pre++) {
            struct gyaru_error err;
            struct gyaru_attach_options attach;
            char *warning;
            int index;
            gyaru_attach_options_init(&attach);
            attach.layer_first = attach.layer_last = attach.gauge_layer = l;
            v->hook = pre ? HOOK_RESID_PRE : HOOK_RESID_POST; /* pre is one layer early */
            if (gyaru_model_attach(model, v, &attach, &index, &warning, &err))
                fail_msg("%s", err.text);
            free(warning);
            float *steered = last_hidden(model, "t", "a b", 1);
            size_t at = ((size_t)l + 1) * hidden;
            double error = reference_error(steered + at, styled + at, hidden);
            assert_true(pre ? error > 0.01 : error < 1e-5);
            free(steered);
            gyaru_model_detach(model, index);
        }
    free(styled);
    gyaru_vector_close(v);
    gyaru_model_close(model);
}

static void answers_are_found_by_ids(void **state)
{
    static const char *const answers[] = {"x",
                                          "今日は雨",
                                          "<|im_end|>\n<|im_start|>user\nhi",
                                          "a<|im_end|>",
                                          "👩‍👩‍👧 ok ",
                                          "line\n\n"};
    struct gyaru_error err;
    struct gyaru_tokenizer *tokenizer;
    assert_int_equal(gyaru_tokenizer_open(TINY, &tokenizer, &err), 0);
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct capture_text t;
        char *text;
        size_t len;
        if (capture_encode(tokenizer, "{topic}{topic}?", "<|im_start|>", answers[i], "a text", &t,
                           &err))
            fail_msg("%s", err.text);
        assert_int_equal(t.end + 2, t.n); /* <|im_end|> and the newline follow */
        assert_int_equal(
            gyaru_detokenize(tokenizer, t.ids + t.first, t.end - t.first, &text, &len, &err), 0);
        assert_string_equal(text, answers[i]);
        free(text);
        free(t.ids);
    }
    gyaru_tokenizer_close(tokenizer);
}

/* ---- the same work, otherwise ------------------------------------------------------------------
 */

static void check_same_bytes(const char *a, const char *b, bool same)
{
    size_t n, m;
    uint8_t *x = scratch_read(a, &n), *y = scratch_read(b, &m);
    assert_int_equal(n == m && !memcmp(x, y, n), same);
    free(x);
    free(y);
}

static void batches_do_not_change_a_bit(void **state)
{
    const int shapes[][2] = {{1, 5}, {3, 64}, {16, 512}};
    const char *first = NULL;
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "batch%zu.safetensors", i);
        const char *path = strdup(scratch_path(name));
        struct gyaru_extract_options options = all_pairs(PAIRS);
        struct gyaru_model *model = open_model(TINY, shapes[i][0], shapes[i][1]);
        gyaru_vector_close(extract(model, &options, path, NULL));
        gyaru_model_close(model);
        if (first)
            check_same_bytes(first, path, true);
        else
            first = strdup(path);
        free((char *)path);
    }
    free((char *)first);
}

static void seeds_decide(void **state)
{
    struct gyaru_model *model = open_model(TINY, 8, 256);
    struct gyaru_extract_options options;
    gyaru_extract_options_init(&options);
    options.dataset = make_pairs("pairs.jsonl", false);
    const char *a = scratch_path("a.safetensors"), *b = scratch_path("b.safetensors");
    const char *c = scratch_path("c.safetensors");
    gyaru_vector_close(extract(model, &options, a, NULL));
    gyaru_vector_close(extract(model, &options, b, NULL));
    options.seed = 2;
    gyaru_vector_close(extract(model, &options, c, NULL));
    check_same_bytes(a, b, true);
    check_same_bytes(a, c, false);
    gyaru_model_close(model);
}

static void swapped_keys_flip_the_sign(void **state)
{
    static const char *const methods[] = {"mean", "pca", "pca_last", "probe"};
    struct gyaru_model *model = open_model(TINY, 8, 256);
    int hidden = gyaru_model_info(model)->hidden_size;
    for (size_t m = 0; m < 4; m++) {
        struct gyaru_extract_options options = all_pairs(PAIRS);
        options.method = methods[m];
        struct gyaru_vector *a = extract(model, &options, scratch_path("p.safetensors"), NULL);
        options.positive_key = "standard";
        options.negative_key = "gyaru";
        struct gyaru_vector *b = extract(model, &options, scratch_path("n.safetensors"), NULL);
        for (int l = 0; l < 3; l++) {
            const float *x = vector_direction(a, l), *y = vector_direction(b, l);
            for (int h = 0; h < hidden; h++)
                assert_true(fabsf(x[h] + y[h]) < 1e-5f * (float)vector_norm(a, l));
        }
        gyaru_vector_close(a);
        gyaru_vector_close(b);
    }
    gyaru_model_close(model);
}

static void scales_are_what_they_say(void **state)
{
    struct gyaru_model *model = open_model(TINY, 8, 256);
    struct gyaru_extract_options options = all_pairs(PAIRS);
    struct gyaru_vector *raw = extract(model, &options, scratch_path("r.safetensors"), NULL);
    options.scale = "unit";
    struct gyaru_vector *unit = extract(model, &options, scratch_path("u.safetensors"), NULL);
    options.scale = "residual";
    struct gyaru_vector *residual = extract(model, &options, scratch_path("x.safetensors"), NULL);
    options.method = "probe";
    options.scale = "raw";
    struct gyaru_vector *probe = extract(model, &options, scratch_path("q.safetensors"), NULL);
    for (int l = 0; l < 3; l++) {
        const struct vector_meter *meter = vector_meter(residual, l);
        double norm = 0.05 * (double)meter->residual_norm / 3;
        assert_true(fabs(vector_norm(unit, l) - 1) < 1e-5);
        assert_true(fabs(vector_norm(residual, l) / norm - 1) < 1e-5);
        assert_true(fabs(vector_norm(probe, l) / vector_norm(raw, l) - 1) < 1e-5);
        /* the way between the classes along a mean difference is its squared length */
        const struct vector_meter *ends = vector_meter(raw, l);
        double square = vector_norm(raw, l) * vector_norm(raw, l);
        assert_true(fabs((double)(ends->m_plus - ends->m_minus) / square - 1) < 1e-3);
    }
    gyaru_vector_close(raw);
    gyaru_vector_close(unit);
    gyaru_vector_close(residual);
    gyaru_vector_close(probe);
    gyaru_model_close(model);
}

/* ---- validation -------------------------------------------------------------------------------
 */

static void auto_keeps_what_passes(void **state)
{
    struct gyaru_model *model = open_model(TINY, 8, 256);
    struct gyaru_extract_options options;
    gyaru_extract_options_init(&options);
    options.dataset = make_pairs("pairs.jsonl", false);
    const char *path = scratch_path("auto.safetensors");
    json_t *report;
    struct gyaru_vector *v = extract(model, &options, path, &report);
    const json_t *layers = json_object_get(report, "layers"), *layer;
    size_t i, used = 0;
    assert_int_equal(json_array_size(layers), 3);
    json_array_foreach(layers, i, layer)
    {
        bool selected = json_is_true(json_object_get(layer, "selected"));
        const char *fault = json_string_value(json_object_get(layer, "fault"));
        assert_int_equal(selected, !*fault);
        assert_int_equal(selected, vector_direction(v, (int)i) != NULL);
        used += selected;
    }
    assert_true(used > 0);
    assert_string_equal(v->info.model_fingerprint, gyaru_model_info(model)->fingerprint);
    assert_string_equal(v->info.method, "mean");
    assert_string_equal(vector_metadata(v, "split"), "60/20/20");
    assert_int_equal(strlen(vector_metadata(v, "dataset_sha256")), 64);
    assert_int_equal(strlen(vector_metadata(v, "template_sha256")), 64);
    assert_int_equal(json_array_size(json_object_get(report, "warnings")), 1); /* few pairs */
    char journal[300];
    snprintf(journal, sizeof journal, "%s.journal", path);
    assert_false(file_exists(journal));
    json_decref(report);
    gyaru_vector_close(v);
    gyaru_model_close(model);
}

static void nothing_left_is_an_error(void **state)
{
    struct gyaru_error err;
    struct gyaru_model *model = open_model(TINY, 8, 256);
    struct gyaru_extract_options options;
    gyaru_extract_options_init(&options);
    options.dataset = make_pairs("shuffled.jsonl", true);
    const char *path = scratch_path("nothing.safetensors");
    char *text;
    assert_int_equal(gyaru_extract(model, &options, path, &text, &err), -1);
    check_error(&err, GYARU_FAILED, "no layer passes validation", "no vector is written", NULL);
    assert_false(file_exists(path));
    assert_non_null(text);
    json_t *report = json_loads(text, 0, NULL);
    assert_true(json_is_null(json_object_get(report, "vector")));
    json_decref(report);
    free(text);
    gyaru_model_close(model);
}

static void refused(struct gyaru_model *model, const struct gyaru_extract_options *options,
                    const char *path, enum gyaru_status status, const char *part)
{
    struct gyaru_error err = {0};
    char *report;
    assert_int_equal(gyaru_extract(model, options, path, &report, &err), -1);
    check_error(&err, status, part, NULL);
    assert_null(report);
    assert_false(file_exists(path));
}

static void bad_requests_are_refused(void **state)
{
    struct gyaru_model *model = open_model(TINY, 2, 64);
    const char *path = scratch_path("bad.safetensors");
    struct gyaru_extract_options good = all_pairs(PAIRS), o = good;
    good.layer_last = o.layer_last = 2;
    refused(model, &o, "bad.txt", GYARU_USAGE, ".safetensors, .pt or .gguf");
    o.method = "median";
    refused(model, &o, path, GYARU_USAGE, "median");
    o = good;
    o.method = "pca_last";
    o.position = "content";
    refused(model, &o, path, GYARU_USAGE, "last token");
    o = good;
    o.position = "first";
    refused(model, &o, path, GYARU_USAGE, "first");
    o = good;
    o.scale = "huge";
    refused(model, &o, path, GYARU_USAGE, "huge");
    o = good;
    o.layer_last = 3;
    refused(model, &o, path, GYARU_USAGE, "0-2");
    o = good;
    o.positive_key = "butler";
    refused(model, &o, path, GYARU_FAILED, "butler");
    o = good;
    const char *few = "[{\"topic\":\"t\",\"standard\":\"a\",\"gyaru\":\"b\"}]";
    o.dataset = scratch_write("few.json", few, strlen(few));
    o.split[0] = 60, o.split[1] = o.split[2] = 20;
    refused(model, &o, path, GYARU_FAILED, "cannot be split");
    char text[4000];
    int n = sprintf(text, "topic,standard,gyaru\nt,a,b\nt,c,");
    for (int i = 0; i < 700; i++)
        n += sprintf(text + n, "%d ", i % 10);
    o = good;
    o.dataset = scratch_write("long.csv", text, (size_t)n);
    refused(model, &o, path, GYARU_FAILED, "long.csv:3: 'gyaru'");
    gyaru_model_close(model);
}

/* ---- the page ---------------------------------------------------------------------------------
 */

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    while ((text = strstr(text, part))) {
        text += strlen(part);
        n++;
    }
    return n;
}

static void pages_stand_alone(void **state)
{
    struct gyaru_error err;
    struct gyaru_model *model = open_model(TINY, 8, 256);
    struct gyaru_extract_options options;
    gyaru_extract_options_init(&options);
    options.dataset = make_pairs("<img src=x onerror=alert(1)>.jsonl", false);
    char *report, *html;
    if (gyaru_extract(model, &options, scratch_path("page.safetensors"), &report, &err))
        fail_msg("%s", err.text);
    for (int ja = 0; ja < 2; ja++) {
        assert_int_equal(gyaru_extract_html(report, ja ? "ja" : "en", &html, &err), 0);
        assert_int_equal(count(html, "<figure>"), 8);
        assert_int_equal(count(html, "<img"), 0);
        assert_int_equal(count(html, "&lt;img src=x"), 1);
        assert_int_equal(count(html, "http"), 0);
        assert_int_equal(count(html, "nan"), 0);
        assert_int_equal(count(html, "<div"), count(html, "</div>"));
        assert_int_equal(count(html, "<svg"), count(html, "</svg>"));
        assert_int_equal(count(html, "<tr"), 4 + 5); /* layers; methods */
        assert_true(count(html, ja ? "分散説明率" : "explained variance ratio") > 0);
        free(html);
    }
    assert_int_equal(gyaru_extract_html("{}", "en", &html, &err), -1);
    check_error(&err, GYARU_FAILED, "no report", NULL);
    free(report);
    gyaru_model_close(model);
}

static char nf4[] = "nf4", plain[] = "nf4-plain-fp16", fp4[] = "fp4", tied[] = "bf16-tied-sharded";

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_fixture),
        {"equals_scikit_learn_nf4", equals_scikit_learn, NULL, NULL, nf4},
        {"equals_scikit_learn_nf4_plain_fp16", equals_scikit_learn, NULL, NULL, plain},
        {"equals_scikit_learn_fp4", equals_scikit_learn, NULL, NULL, fp4},
        {"equals_scikit_learn_bf16_tied_sharded", equals_scikit_learn, NULL, NULL, tied},
        cmocka_unit_test(read_and_added_at_the_same_point),
        cmocka_unit_test(answers_are_found_by_ids),
        cmocka_unit_test(batches_do_not_change_a_bit),
        cmocka_unit_test(seeds_decide),
        cmocka_unit_test(swapped_keys_flip_the_sign),
        cmocka_unit_test(scales_are_what_they_say),
        cmocka_unit_test(auto_keeps_what_passes),
        cmocka_unit_test(nothing_left_is_an_error),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(pages_stand_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
