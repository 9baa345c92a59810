/*
 * test_vector.c - control vectors: the same directions from three formats, layers moved between
 * hooks, bad directions refused by layer, and vectors of other models told apart.
 */
#include "format/gguf.h"
#include "format/safetensors.h"
#include "steer/vector.h"
#include "support/scratch.h"
#include "support/test_vector.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include <cmocka.h>

#define DATA "tests/data/vector/"

static void refused(const char *path, enum gyaru_status status, const char *a, const char *b)
{
    struct gyaru_vector *v = NULL;
    struct gyaru_error err = {0};
    if (!gyaru_vector_open(path, &v, &err))
        fail_msg("accepted: %s, expected: %s", path, a);
    assert_null(v);
    check_error(&err, status, path, a, b, NULL);
}

/* Directions [4] of 1 + layer, -1, 0, 0.5 at these layers. */
static struct gyaru_vector *make_vector(enum vector_hook hook, int first, int last)
{
    struct gyaru_vector *v;
    struct gyaru_error err;
    assert_int_equal(vector_new(4, hook, &v, &err), 0);
    for (int layer = last; layer >= first; layer--) {
        const float direction[4] = {1 + (float)layer, -1, 0, 0.5f};
        if (vector_set_direction(v, layer, direction, &err))
            fail_msg("%s", err.text);
    }
    return v;
}

static void save(const struct gyaru_vector *v, const char *path)
{
    char *warning;
    struct gyaru_error err;
    if (vector_save(v, path, &warning, &err))
        fail_msg("%s", err.text);
    free(warning);
}

/* Both fixtures hold what was read at the output of L under the name L. The original adds it at
 * the input of L, llama.cpp at the output of L: one block later. */
static void formats_give_the_same_directions(void **state)
{
    struct gyaru_vector *pt = test_vector_open(DATA "vectors.pt");
    struct gyaru_vector *gguf = test_vector_open(DATA "vectors.gguf");
    struct safetensors *expected;
    struct gyaru_error err;
    assert_int_equal(safetensors_open(DATA "expected.safetensors", &expected, &err), 0);
    const struct tensor *t = safetensors_find(expected, "extract.pca_last"); /* [4, 192] */
    const float *truth = (const float *)t->data;
    assert_int_equal(pt->info.n_directions, 4);
    assert_int_equal(gguf->info.n_directions, 3);
    assert_string_equal(pt->info.hook, "resid_pre");
    assert_string_equal(gguf->info.hook, "resid_post");
    assert_null(vector_direction(gguf, 0));
    for (int layer = 0; layer < 4; layer++) {
        const float *a = vector_direction(pt, layer), *b = vector_direction(gguf, layer);
        double dot = 0, norm = 0;
        for (int i = 0; i < 192; i++) {
            float want = truth[layer * 192 + i];
            assert_true(fabsf(a[i] - want) <= 1e-3f);
            if (layer)
                assert_true(fabsf(b[i] - a[i]) <= 1e-3f * fabsf(a[i]) + 1e-4f);
            dot += (double)a[i] * (double)want;
            norm += (double)want * (double)want;
        }
        assert_true(fabs(dot / norm - 1) < 1e-3);
    }
    safetensors_close(expected);
    gyaru_vector_close(pt);
    gyaru_vector_close(gguf);
}

static void info_says_what_the_file_says(void **state)
{
    struct gyaru_vector *v = test_vector_open(DATA "vectors.gguf");
    const struct gyaru_vector_info *info = gyaru_vector_info(v);
    assert_string_equal(info->name, "vectors");
    assert_string_equal(info->path, DATA "vectors.gguf");
    assert_string_equal(info->model_fingerprint, "");
    assert_int_equal(info->hidden_size, 192);
    assert_int_equal(info->n_layers, 0);
    assert_int_equal(info->layer_min, 1);
    assert_int_equal(info->layer_max, 3);
    assert_true(isnan(info->recommended_strength) && isnan(info->max_strength));
    assert_true(fabs(vector_norm(v, 2) - 1) < 1e-3);
    assert_true(vector_norm(v, 0) == 0);
    gyaru_vector_close(v);
}

static void content_decides_not_the_name(void **state)
{
    size_t len;
    uint8_t *bytes = scratch_read(DATA "vectors.pt", &len);
    struct gyaru_vector *v = test_vector_open(scratch_write("really-pt.gguf", bytes, len));
    free(bytes);
    assert_string_equal(v->info.hook, "resid_pre");
    assert_string_equal(v->info.name, "really-pt");
    gyaru_vector_close(v);
    refused(scratch_write("old.pt", "\x80\x02\x8a\nl\xfc\x9c", 7), GYARU_FAILED, "before 1.6",
            NULL);
    refused(scratch_write("empty.pt", "", 0), GYARU_FAILED, "0 bytes", NULL);
    refused(scratch_path("none.pt"), GYARU_FAILED, "No such file", NULL);
}

static void our_format_keeps_everything(void **state)
{
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, 2, 4);
    const struct vector_meter meter = {3.25f, -1.1f, 40.5f};
    const char *path = scratch_path("full.safetensors"), *again = scratch_path("again.safetensors");
    struct gyaru_error err;
    const char *const pairs[][2] = {{"n_layers", "12"},        {"model_fingerprint", "abcd"},
                                    {"model_name", "rinne"},   {"method", "mean"},
                                    {"position", "content"},   {"recommended_strength", "12"},
                                    {"max_strength", "18.5"},  {"dataset_sha256", "00ff"},
                                    {"note", "あーし\n\"x\""}, {"recommended_strength", "9"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_int_equal(vector_set_metadata(v, pairs[i][0], pairs[i][1], &err), 0);
    assert_int_equal(vector_set_meter(v, 3, &meter, &err), 0);
    save(v, path);
    gyaru_vector_close(v);

    v = test_vector_open(path);
    assert_string_equal(v->info.hook, "resid_post");
    assert_int_equal(v->info.n_layers, 12);
    assert_string_equal(v->info.model_fingerprint, "abcd");
    assert_string_equal(v->info.model_name, "rinne");
    assert_string_equal(v->info.method, "mean");
    assert_string_equal(v->info.position, "content");
    assert_true(v->info.recommended_strength == 9 && v->info.max_strength == 18.5f);
    assert_string_equal(vector_metadata(v, "note"), "あーし\n\"x\"");
    assert_string_equal(vector_metadata(v, "dataset_sha256"), "00ff");
    assert_null(v->warning);
    assert_null(vector_meter(v, 2));
    assert_memory_equal(vector_meter(v, 3), &meter, sizeof meter);
    assert_int_equal(v->info.layer_min, 2);
    assert_true(vector_direction(v, 4)[0] == 5);
    save(v, again);
    gyaru_vector_close(v);
    size_t a_len, b_len;
    uint8_t *a = scratch_read(path, &a_len), *b = scratch_read(again, &b_len);
    assert_int_equal(a_len, b_len);
    assert_memory_equal(a, b, a_len);
    free(a);
    free(b);
}

/* Saves at one hook, opens again, compares layers. */
static void moved(enum vector_hook hook, const char *name, const char *hook_there, int by)
{
    struct gyaru_vector *v = make_vector(hook, 2, 5);
    const char *path = scratch_path(name);
    save(v, path);
    struct gyaru_vector *there = test_vector_open(path);
    assert_string_equal(there->info.hook, hook_there);
    assert_int_equal(there->info.n_directions, 4);
    assert_int_equal(there->info.layer_min, 2 + by);
    for (int layer = 2; layer <= 5; layer++)
        assert_memory_equal(vector_direction(v, layer), vector_direction(there, layer + by), 16);
    gyaru_vector_close(v);
    gyaru_vector_close(there);
}

static void saving_moves_layers_between_hooks(void **state)
{
    moved(HOOK_RESID_PRE, "a.pt", "resid_pre", 0);
    moved(HOOK_RESID_POST, "b.pt", "resid_pre", 1);
    moved(HOOK_RESID_PRE, "a.gguf", "resid_post", -1);
    moved(HOOK_RESID_POST, "b.gguf", "resid_post", 0);
    moved(HOOK_RESID_PRE, "a.safetensors", "resid_pre", 0);
    moved(HOOK_RESID_POST, "b.safetensors", "resid_post", 0);
}

static void cannot_save(const struct gyaru_vector *v, const char *name, enum gyaru_status status,
                        const char *cause, const char *more)
{
    char *warning;
    struct gyaru_error err = {0};
    const char *path = scratch_path(name);
    assert_int_equal(vector_save(v, path, &warning, &err), -1);
    check_error(&err, status, path, cause, more, NULL);
}

static void what_a_format_cannot_say_is_an_error(void **state)
{
    struct gyaru_error err;
    struct gyaru_vector *v = make_vector(HOOK_RESID_PRE, 0, 3);
    cannot_save(v, "x.gguf", GYARU_FAILED, "layer 0", "input of block 0");
    cannot_save(v, "x.bin", GYARU_USAGE, ".safetensors", NULL);
    cannot_save(v, "x", GYARU_USAGE, ".safetensors", NULL);
    gyaru_vector_close(v);
    v = make_vector(HOOK_RESID_PRE, 1, 3); /* input of 1 = output of 0, which GGUF leaves alone */
    cannot_save(v, "x.gguf", GYARU_FAILED, "layer 1", NULL);
    gyaru_vector_close(v);
    v = make_vector(HOOK_RESID_POST, 0, 3);
    cannot_save(v, "x.gguf", GYARU_FAILED, "layer 0", "output of block 0");
    save(v, scratch_path("x.pt"));
    assert_int_equal(vector_set_metadata(v, "n_layers", "4", &err), 0);
    cannot_save(v, "x.pt", GYARU_FAILED, "layer 3", "last block");
    gyaru_vector_close(v);
    assert_int_equal(vector_new(4, HOOK_RESID_PRE, &v, &err), 0);
    cannot_save(v, "x.pt", GYARU_FAILED, "no direction", NULL);
    gyaru_vector_close(v);
}

static void lost_metadata_is_said(void **state)
{
    struct gyaru_error err;
    char *warning;
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, 1, 2);
    assert_int_equal(vector_save(v, scratch_path("w.pt"), &warning, &err), 0);
    assert_null(warning);
    assert_int_equal(vector_set_metadata(v, "model_name", "x", &err), 0);
    assert_int_equal(vector_save(v, scratch_path("w.gguf"), &warning, &err), 0);
    assert_non_null(strstr(warning, "fingerprint"));
    free(warning);
    assert_int_equal(vector_save(v, scratch_path("w.safetensors"), &warning, &err), 0);
    assert_null(warning);
    gyaru_vector_close(v);
}

static void bad_directions_are_refused_by_layer(void **state)
{
    const struct {
        float value;
        const char *cause;
    } cases[] = {{NAN, "NaN"}, {INFINITY, "infinite"}, {-INFINITY, "infinite"}, {1e38f, "65504"},
                 {0, "zero"},  {-0.0f, "zero"},        {1e-40f, "denorm"},      {6e-8f, "denorm"}};
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, 1, 3);
    struct gyaru_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const float direction[4] = {0, 0, cases[i].value, 0};
        assert_int_equal(vector_set_direction(v, 2, direction, &err), -1);
        check_error(&err, GYARU_FAILED, "layer 2", cases[i].cause, NULL);
        assert_true(vector_direction(v, 2)[0] == 3); /* as it was */
    }
    gyaru_vector_close(v);
    /* The same from a file of each kind; in ours and in GGUF the values lie in plain sight. */
    const char *const names[] = {"n.safetensors", "n.gguf"};
    for (int i = 0; i < 2; i++) {
        v = make_vector(HOOK_RESID_POST, 2, 2);
        const char *path = scratch_path(names[i]);
        save(v, path);
        gyaru_vector_close(v);
        const float three[2] = {3, -1}, bad[2] = {NAN, -1};
        size_t len, done = 0;
        uint8_t *bytes = scratch_read(path, &len);
        for (size_t k = 0; k + 8 < len; k++) {
            if (!memcmp(bytes + k, three, 8))
                memcpy(bytes + k, bad, 8), done++;
        }
        assert_int_equal(done, 1);
        refused(scratch_write(names[i], bytes, len), GYARU_FAILED, "layer 2", "NaN");
        free(bytes);
    }
    v = make_vector(HOOK_RESID_PRE, 2, 2);
    const char *path = scratch_path("n.pt");
    save(v, path);
    gyaru_vector_close(v);
    const uint16_t halves[][4] = {
        {0x7e00, 1, 1, 1}, {0xfc00, 1, 1, 1}, {0, 0, 0x8000, 0}, {1, 2, 3, 4}};
    const char *const causes[] = {"NaN", "infinite", "zero", "denormal"};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        int why;
        zip_t *zip = zip_open(path, 0, &why);
        assert_non_null(zip);
        zip_uint64_t at = (zip_uint64_t)zip_name_locate(zip, "archive/data/0", 0);
        zip_file_replace(zip, at, zip_source_buffer(zip, halves[i], sizeof halves[i], 0), 0);
        zip_set_file_compression(zip, at, ZIP_CM_STORE, 0);
        assert_int_equal(zip_close(zip), 0);
        refused(path, GYARU_FAILED, "layer 2", causes[i]);
    }
}

static void hints_must_be_text(void **state)
{
    float values[2] = {1, 2};
    char hint[] = "qwen\xff";
    struct gguf_direction direction = {1, values};
    const struct gguf_vector gguf = {hint, 4, 2, &direction, 1};
    const char *path = scratch_path("hint.gguf");
    struct gyaru_error err;
    assert_int_equal(gguf_vector_write(path, &gguf, &err), 0);
    refused(path, GYARU_FAILED, "model_hint", "UTF-8");
}

static void bad_layers_are_refused(void **state)
{
    const float direction[4] = {1, 2, 3, 4};
    struct vector_meter meter = {1, 0, 1};
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, 1, 3);
    struct gyaru_error err;
    assert_int_equal(vector_set_direction(v, -1, direction, &err), -1);
    assert_int_equal(vector_set_direction(v, 10000, direction, &err), -1);
    check_error(&err, GYARU_FAILED, "layer 10000", NULL);
    assert_int_equal(vector_set_meter(v, 7, &meter, &err), -1);
    check_error(&err, GYARU_FAILED, "layer 7", NULL);
    meter.m_minus = 1;
    assert_int_equal(vector_set_meter(v, 1, &meter, &err), -1);
    meter = (struct vector_meter){1, 0, 0};
    assert_int_equal(vector_set_meter(v, 1, &meter, &err), -1);
    meter = (struct vector_meter){NAN, 0, 1};
    assert_int_equal(vector_set_meter(v, 1, &meter, &err), -1);
    assert_null(vector_meter(v, 1));
    assert_int_equal(vector_set_metadata(v, "hook", "resid_pre", &err), -1);
    assert_int_equal(vector_set_metadata(v, "n_layers", "-3", &err), -1);
    assert_int_equal(vector_set_metadata(v, "max_strength", "nan", &err), -1);
    check_error(&err, GYARU_FAILED, "max_strength", "'nan'", NULL);
    gyaru_vector_close(v);
    assert_int_equal(vector_new(0, HOOK_RESID_PRE, &v, &err), -1);
}

/* A safetensors file with layers 1 and 2 of three elements and this metadata. */
static const char *foreign(const struct safetensors_pair *metadata, size_t n)
{
    static const float data[3] = {1, 2, 3};
    static const uint64_t dims[] = {3};
    const struct tensor tensors[] = {
        {"layer.2", DTYPE_F32, 1, dims, (const uint8_t *)data, sizeof data},
        {"layer.1", DTYPE_F32, 1, dims, (const uint8_t *)data, sizeof data}};
    const char *path = scratch_path("foreign.safetensors");
    struct gyaru_error err;
    assert_int_equal(safetensors_write(path, tensors, 2, metadata, n, &err), 0);
    return path;
}

static void files_without_our_metadata_warn(void **state)
{
    struct gyaru_vector *v = test_vector_open(foreign(NULL, 0));
    assert_string_equal(v->info.hook, "resid_pre");
    assert_non_null(strstr(v->warning, "resid_pre"));
    gyaru_vector_close(v);
    const struct safetensors_pair pt[] = {{"format", "pt"}, {"hook", "resid_post"}};
    v = test_vector_open(foreign(pt, 1));
    assert_string_equal(v->info.hook, "resid_pre");
    assert_non_null(v->warning);
    gyaru_vector_close(v);
    v = test_vector_open(foreign(pt, 2));
    assert_string_equal(v->info.hook, "resid_post");
    assert_null(v->warning);
    gyaru_vector_close(v);
}

static void bad_metadata_is_refused(void **state)
{
    const struct {
        const char *key, *value, *cause;
    } cases[] = {
        {"version", "2", "version '2'"},
        {"hook", "resid_mid", "resid_mid"},
        {"hidden_size", "4", "hidden_size"},
        {"n_layers", "2", "layer 2"},
        {"n_layers", "x", "n_layers"},
        {"recommended_strength", "12x", "recommended_strength"},
        {"max_strength", "inf", "max_strength"},
        {"meter", "{", "JSON"},
        {"meter", "[]", "meter"},
        {"meter", "{\"1\":7}", "meter"},
        {"meter", "{\"9\":{\"m_plus\":1,\"m_minus\":0,\"residual_norm\":1}}", "layer 9"},
        {"meter", "{\"01\":{\"m_plus\":1,\"m_minus\":0,\"residual_norm\":1}}", "'01'"},
        {"meter", "{\"1\":{\"m_plus\":1e300,\"m_minus\":0,\"residual_norm\":1}}", "layer 1"},
        {"meter", "{\"1\":{\"m_plus\":1,\"m_minus\":1,\"residual_norm\":1}}", "layer 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors_pair pairs[5] = {
            {"format", "gyaru-vector"}, {"version", "1"}, {"hook", "resid_post"}};
        size_t n = 3;
        for (size_t k = 0; k < 3; k++) {
            if (!strcmp(pairs[k].key, cases[i].key))
                n = k;
        }
        pairs[n] = (struct safetensors_pair){cases[i].key, cases[i].value};
        refused(foreign(pairs, n < 3 ? 3 : 4), GYARU_FAILED, cases[i].cause, NULL);
    }
    const struct safetensors_pair no_hook[] = {{"format", "gyaru-vector"}, {"version", "1"}};
    refused(foreign(no_hook, 2), GYARU_FAILED, "hook", NULL);
    refused(foreign(no_hook, 1), GYARU_FAILED, "version", NULL);
}

static void other_tensors_are_refused(void **state)
{
    static const float data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const uint64_t dims[] = {2, 2};
    const struct {
        const char *name;
        enum dtype dtype;
        size_t n_dims;
        const char *cause;
    } cases[] = {
        {"layer.x", DTYPE_F32, 1, "layer.x"},   {"layer.", DTYPE_F32, 1, "layer."},
        {"layer.-1", DTYPE_F32, 1, "layer.-1"}, {"layer.01", DTYPE_F32, 1, "layer.01"},
        {"lm_head", DTYPE_F32, 1, "lm_head"},   {"layer.9999999", DTYPE_F32, 1, "no layer"},
        {"layer.1", DTYPE_BF16, 1, "BF16"},     {"layer.1", DTYPE_I32, 1, "I32"},
        {"layer.1", DTYPE_F32, 2, "layer 1"},   {"layer.1", DTYPE_F32, 0, "layer 1"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tensor t = {cases[i].name, cases[i].dtype,        cases[i].n_dims,
                           dims,          (const uint8_t *)data, dtype_size(cases[i].dtype)};
        for (size_t k = 0; k < t.n_dims; k++)
            t.size *= 2;
        const char *path = scratch_path("other.safetensors");
        struct gyaru_error err;
        assert_int_equal(safetensors_write(path, &t, 1, NULL, 0, &err), 0);
        refused(path, GYARU_FAILED, cases[i].cause, NULL);
    }
    const struct tensor uneven[] = {
        {"layer.1", DTYPE_F32, 1, (uint64_t[]){2}, (const uint8_t *)data, 8},
        {"layer.2", DTYPE_F32, 1, (uint64_t[]){3}, (const uint8_t *)data, 12}};
    const char *path = scratch_path("other.safetensors");
    struct gyaru_error err;
    assert_int_equal(safetensors_write(path, uneven, 2, NULL, 0, &err), 0);
    refused(path, GYARU_FAILED, "layer 2", "3 elements");
    assert_int_equal(safetensors_write(path, uneven, 0, NULL, 0, &err), 0);
    refused(path, GYARU_FAILED, "0 tensors", NULL);
}

static void half_tensors_are_read(void **state)
{
    const uint16_t half[2] = {0x3c00, 0xc100};
    const struct tensor t = {"layer.7", DTYPE_F16, 1, (uint64_t[]){2}, (const uint8_t *)half, 4};
    const char *path = scratch_path("half.safetensors");
    struct gyaru_error err;
    assert_int_equal(safetensors_write(path, &t, 1, NULL, 0, &err), 0);
    struct gyaru_vector *v = test_vector_open(path);
    assert_true(vector_direction(v, 7)[0] == 1 && vector_direction(v, 7)[1] == -2.5f);
    gyaru_vector_close(v);
}

static void check_tells_models_apart(void **state)
{
    struct vector_model model = {"rinne-base", "aaaa", 4, 12};
    struct gyaru_error err;
    char *warning = NULL;
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, 2, 11);
    assert_int_equal(vector_check(&model, v, &warning, &err), 0);
    assert_non_null(strstr(warning, "no fingerprint"));
    free(warning);
    assert_int_equal(vector_set_metadata(v, "model_fingerprint", "aaaa", &err), 0);
    assert_int_equal(vector_check(&model, v, &warning, &err), 0);
    assert_null(warning);
    model.fingerprint = "";
    assert_int_equal(vector_check(&model, v, &warning, &err), 0);
    assert_non_null(strstr(warning, "the model has no fingerprint"));
    free(warning);

    const struct {
        struct vector_model model;
        const char *cause;
    } cases[] = {{{"m", "bbbb", 4, 12}, "fingerprint"},
                 {{"m", "aaaa", 5, 12}, "hidden size 4, the model has 5"},
                 {{"m", "aaaa", 4, 11}, "layer 11"},
                 {{"m", "", 4, 11}, "layer 11"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(vector_check(&cases[i].model, v, &warning, &err), -1);
        check_error(&err, GYARU_MISMATCH, cases[i].cause, "'m'", NULL);
    }
    assert_int_equal(vector_set_metadata(v, "n_layers", "13", &err), 0);
    assert_int_equal(vector_check(&model, v, &warning, &err), -1);
    check_error(&err, GYARU_MISMATCH, "13 layers, the model has 12", NULL);
    gyaru_vector_close(v);

    v = test_vector_open(foreign(NULL, 0));
    model = (struct vector_model){"m", "aaaa", 3, 3};
    assert_int_equal(vector_check(&model, v, &warning, &err), 0);
    assert_non_null(strstr(warning, "hook"));
    assert_non_null(strstr(warning, "fingerprint"));
    assert_null(strchr(warning, '\n'));
    free(warning);
    gyaru_vector_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_give_the_same_directions),
        cmocka_unit_test(info_says_what_the_file_says),
        cmocka_unit_test(content_decides_not_the_name),
        cmocka_unit_test(our_format_keeps_everything),
        cmocka_unit_test(saving_moves_layers_between_hooks),
        cmocka_unit_test(what_a_format_cannot_say_is_an_error),
        cmocka_unit_test(lost_metadata_is_said),
        cmocka_unit_test(bad_directions_are_refused_by_layer),
        cmocka_unit_test(hints_must_be_text),
        cmocka_unit_test(bad_layers_are_refused),
        cmocka_unit_test(files_without_our_metadata_warn),
        cmocka_unit_test(bad_metadata_is_refused),
        cmocka_unit_test(other_tensors_are_refused),
        cmocka_unit_test(half_tensors_are_read),
        cmocka_unit_test(check_tells_models_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
