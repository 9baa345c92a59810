/*
 * test_model.c - which checkpoints open, and how the others are refused: by one line that names the
 * key or the tensor. Variants are made from the tiny model, one change at a time.
 */
#include "support/scratch.h"

#include "base/file.h"
#include "format/safetensors.h"
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <jansson.h>

#define TINY "tests/data/tiny-model/"

static struct gyaru_error err;

static const char *const plain_files[] = {"tokenizer.json", "tokenizer_config.json"};

static void copy_file(const char *name)
{
    char from[256];
    size_t len;
    snprintf(from, sizeof from, TINY "%s", name);
    uint8_t *data = scratch_read(from, &len);
    scratch_write(name, data, len);
    free(data);
}

/* The scratch directory as a model: the tiny one with its config as given. */
static const char *model_with_config(const json_t *config)
{
    for (size_t i = 0; i < 2; i++)
        copy_file(plain_files[i]);
    copy_file("model.safetensors");
    char *text = json_dumps(config, 0);
    scratch_write("config.json", text, strlen(text));
    free(text);
    return scratch_path("");
}

static json_t *tiny_config(void)
{
    json_t *config = json_load_file(TINY "config.json", 0, NULL);
    assert_non_null(config);
    return config;
}

static int try_open(const char *dir, const struct gyaru_model_options *options)
{
    struct gyaru_model_options defaults;
    struct gyaru_model *model = NULL;
    gyaru_model_options_init(&defaults);
    defaults.threads = 1;
    int rc = gyaru_model_open(dir, options ? options : &defaults, &model, &err);
    if (!rc)
        gyaru_model_close(model);
    return rc;
}

/* ---- config.json ------------------------------------------------------------------------------
 */

static void configs_that_we_do_not_implement_are_named(void **state)
{
    static const struct {
        const char *key, *value, *part;
    } cases[] = {
        {"model_type", "\"llama\"", "llama"},
        {"hidden_act", "\"gelu\"", "gelu"},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4.0}", "yarn"},
        {"rope_parameters", "{\"rope_theta\":10000.0,\"rope_type\":\"linear\"}", "linear"},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"quantization_config", "{\"quant_method\":\"gptq\"}", "gptq"},
        {"quantization_config", "{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}",
         "int8"},
        {"num_hidden_layers", "0", "num_hidden_layers"},
        {"num_hidden_layers", "1e3", "num_hidden_layers"},
        {"num_hidden_layers", "999999999999", "num_hidden_layers"},
        {"hidden_size", "-64", "hidden_size"},
        {"hidden_size", "null", "hidden_size"},
        {"num_key_value_heads", "3", "heads"},
        {"vocab_size", "\"many\"", "vocab_size"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"eos_token_id", "[1, 99999999]", "eos_token_id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *config = tiny_config();
        json_t *value = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_object_set_new(config, cases[i].key, value);
        assert_int_equal(try_open(model_with_config(config), NULL), -1);
        check_error(&err, GYARU_FAILED, cases[i].part, NULL);
        json_decref(config);
    }
}

static void both_styles_of_config_open(void **state)
{
    json_t *config = tiny_config();
    json_object_del(config, "rope_parameters");
    json_object_set_new(config, "rope_theta", json_real(10000.0));
    json_object_set_new(config, "rope_scaling", json_null());
    assert_int_equal(try_open(model_with_config(config), NULL), 0);
    json_decref(config);
}

static void broken_configs_are_refused(void **state)
{
    static const char *const texts[] = {"", "{", "[]", "{\"model_type\":\"qwen2\"}",
                                        "{\"model_type\":\"qwen2\",\"model_type\":\"qwen2\"}"};
    json_t *config = tiny_config();
    const char *dir = model_with_config(config);
    json_decref(config);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        scratch_write("config.json", texts[i], strlen(texts[i]));
        assert_int_equal(try_open(dir, NULL), -1);
        check_error(&err, GYARU_FAILED, "config.json", NULL);
    }
    assert_int_equal(try_open("tests/data/no-such-model", NULL), -1);
    check_error(&err, GYARU_FAILED, "no-such-model", NULL);
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

#define GATE "model.layers.1.mlp.gate_proj.weight"

enum change { DROP, RENAME, DATA };

/* Rewrites model.safetensors with one tensor changed. `data` replaces its bytes. */
static const char *model_with_tensor(const char *name, enum change change, const void *data,
                                     size_t len)
{
    json_t *config = tiny_config();
    const char *dir = model_with_config(config);
    json_decref(config);
    struct safetensors *file;
    assert_int_equal(safetensors_open(TINY "model.safetensors", &file, &err), 0);
    size_t n = safetensors_count(file), kept = 0;
    struct tensor *tensors = calloc(n, sizeof *tensors);
    uint64_t dims[1] = {len};
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        struct tensor t = *safetensors_at(file, i);
        if (!strcmp(t.name, name)) {
            found = true;
            if (change == DROP)
                continue;
            if (change == RENAME)
                t.name = "renamed";
            if (change == DATA) {
                t.data = data;
                t.size = len;
                dims[0] = len / dtype_size(t.dtype);
                t.dims = dims;
                t.n_dims = 1;
            }
        }
        tensors[kept++] = t;
    }
    assert_true(found);
    if (safetensors_write(scratch_path("model.safetensors"), tensors, kept, NULL, 0, &err))
        fail_msg("%s", err.text);
    free(tensors);
    safetensors_close(file);
    return dir;
}

static void missing_tensors_are_named(void **state)
{
    static const char *const names[] = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.2.input_layernorm.weight",
        "model.layers.1.mlp.up_proj.weight",
        GATE ".absmax",
        GATE ".quant_map",
        GATE ".nested_absmax",
        GATE ".nested_quant_map",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(try_open(model_with_tensor(names[i], DROP, NULL, 0), NULL), -1);
        check_error(&err, GYARU_FAILED, names[i], NULL);
    }
    /* Without its quant_state a 4-bit tensor is bytes that mean nothing. */
    assert_int_equal(
        try_open(model_with_tensor(GATE ".quant_state.bitsandbytes__nf4", DROP, NULL, 0), NULL),
        -1);
    check_error(&err, GYARU_FAILED, GATE, "U8", NULL);
}

static void quant_states_are_checked(void **state)
{
    static const char *const states[] = {
        "",
        "{}",
        "not json",
        "{\"shape\":[64,64],\"blocksize\":64}",
        "{\"shape\":[128,64],\"blocksize\":0}",
        "{\"shape\":[128,64],\"blocksize\":63}",
        "{\"shape\":[128,64],\"blocksize\":1e99}",
        "{\"shape\":[128,64],\"blocksize\":64,\"nested_blocksize\":0}",
        "{\"shape\":[128,64],\"blocksize\":64,\"nested_blocksize\":256}",
        "{\"shape\":[128,64],\"blocksize\":32,\"nested_blocksize\":256,\"nested_offset\":0.1}",
    };
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        const char *dir = model_with_tensor(GATE ".quant_state.bitsandbytes__nf4", DATA, states[i],
                                            strlen(states[i]));
        assert_int_equal(try_open(dir, NULL), -1);
        check_error(&err, GYARU_FAILED, GATE, NULL);
    }
}

static void values_that_are_no_numbers_are_refused(void **state)
{
    float map[256];
    for (size_t i = 0; i < 256; i++)
        map[i] = 0.1f;
    map[7] = NAN;
    assert_int_equal(try_open(model_with_tensor(GATE ".quant_map", DATA, map, 16 * 4), NULL), -1);
    check_error(&err, GYARU_FAILED, GATE ".quant_map", "NaN", NULL);
    map[7] = INFINITY;
    assert_int_equal(
        try_open(model_with_tensor(GATE ".nested_quant_map", DATA, map, 256 * 4), NULL), -1);
    check_error(&err, GYARU_FAILED, GATE ".nested_quant_map", NULL);
    uint16_t norm[64];
    memset(norm, 0xff, sizeof norm); /* bf16 NaN */
    assert_int_equal(
        try_open(model_with_tensor("model.norm.weight", DATA, norm, sizeof norm), NULL), -1);
    check_error(&err, GYARU_FAILED, "model.norm.weight", "NaN", NULL);
}

static void reliability_7_cut_files_are_refused(void **state)
{
    json_t *config = tiny_config();
    const char *dir = model_with_config(config);
    json_decref(config);
    size_t len;
    uint8_t *data = scratch_read(TINY "model.safetensors", &len);
    for (size_t i = 1; i <= 20; i++) {
        scratch_write("model.safetensors", data, len - i * (len / 21));
        assert_int_equal(try_open(dir, NULL), -1);
        check_error(&err, GYARU_FAILED, "model.safetensors", NULL);
    }
    free(data);
}

/* ---- memory and options ------------------------------------------------------------------------
 */

static void reliability_3_too_large_models_are_refused_with_numbers(void **state)
{
    struct gyaru_model_options options;
    gyaru_model_options_init(&options);
    options.memory = 1 << 20;
    assert_int_equal(try_open(TINY, &options), -1);
    check_error(&err, GYARU_NO_MEMORY, "1048576", "needs", NULL);
}

static void options_out_of_range_are_usage(void **state)
{
    struct gyaru_model_options options;
    gyaru_model_options_init(&options);
    options.context = 513; /* the tiny model has 512 positions */
    assert_int_equal(try_open(TINY, &options), -1);
    check_error(&err, GYARU_USAGE, "513", "512", NULL);
    gyaru_model_options_init(&options);
    options.sessions = 0;
    assert_int_equal(try_open(TINY, &options), -1);
    check_error(&err, GYARU_USAGE, "sessions", NULL);
    gyaru_model_options_init(&options);
    options.device = "tpu";
    assert_int_equal(try_open(TINY, &options), -1);
    check_error(&err, GYARU_USAGE, "tpu", NULL);
}

/* ---- fingerprint --------------------------------------------------------------------------------
 */

static void fingerprint_of(const char *dir, char out[65])
{
    struct gyaru_model_options options;
    struct gyaru_model *model;
    gyaru_model_options_init(&options);
    if (gyaru_model_open(dir, &options, &model, &err))
        fail_msg("%s", err.text);
    memcpy(out, gyaru_model_info(model)->fingerprint, 65);
    gyaru_model_close(model);
}

/* The 4-bit tensors as the float32 that they stand for, everything else as it was. */
static const char *model_dequantised(void)
{
    json_t *config = tiny_config();
    json_object_del(config, "quantization_config");
    const char *dir = model_with_config(config);
    json_decref(config);
    struct safetensors *file;
    assert_int_equal(safetensors_open(TINY "model.safetensors", &file, &err), 0);
    size_t n = safetensors_count(file), kept = 0;
    struct tensor *tensors = calloc(n, sizeof *tensors);
    float **owned = calloc(n, sizeof *owned);
    uint64_t(*dims)[2] = calloc(n, sizeof *dims);
    for (size_t i = 0; i < n; i++) {
        struct tensor t = *safetensors_at(file, i);
        if (strstr(t.name, ".weight."))
            continue; /* absmax, maps, states */
        if (t.dtype == DTYPE_U8) {
            /* Any float32 values will do: the fingerprint must not look at them. */
            bool down = strstr(t.name, "down_proj"), mlp = strstr(t.name, "mlp.");
            bool small = strstr(t.name, "k_proj") || strstr(t.name, "v_proj");
            dims[i][0] = down || strstr(t.name, "o_proj") ? 64 : mlp ? 128 : small ? 32 : 64;
            dims[i][1] = down ? 128 : 64;
            owned[i] = calloc(dims[i][0] * dims[i][1], sizeof(float));
            t.dtype = DTYPE_F32;
            t.dims = dims[i];
            t.n_dims = 2;
            t.data = (const uint8_t *)owned[i];
            t.size = dims[i][0] * dims[i][1] * sizeof(float);
        }
        tensors[kept++] = t;
    }
    if (safetensors_write(scratch_path("model.safetensors"), tensors, kept, NULL, 0, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++)
        free(owned[i]);
    free(owned);
    free(dims);
    free(tensors);
    safetensors_close(file);
    return dir;
}

static void fingerprints_name_the_model_not_the_file(void **state)
{
    char tiny[65], other[65];
    fingerprint_of(TINY, tiny);
    fingerprint_of(model_dequantised(), other);
    assert_string_equal(tiny, other); /* another quantisation of one model */
    size_t len;
    uint8_t *data = scratch_read(TINY "model.safetensors", &len);
    free(data);
    struct safetensors *file;
    assert_int_equal(safetensors_open(TINY "model.safetensors", &file, &err), 0);
    const struct tensor *t = safetensors_find(file, "model.layers.2.self_attn.v_proj.bias");
    uint8_t *bias = malloc(t->size);
    memcpy(bias, t->data, t->size);
    bias[0] ^= 1; /* one bit of one bias: another training */
    size_t size = t->size;
    safetensors_close(file);
    fingerprint_of(model_with_tensor("model.layers.2.self_attn.v_proj.bias", DATA, bias, size),
                   other);
    assert_string_not_equal(tiny, other);
    free(bias);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs_that_we_do_not_implement_are_named),
        cmocka_unit_test(both_styles_of_config_open),
        cmocka_unit_test(broken_configs_are_refused),
        cmocka_unit_test(missing_tensors_are_named),
        cmocka_unit_test(quant_states_are_checked),
        cmocka_unit_test(values_that_are_no_numbers_are_refused),
        cmocka_unit_test(reliability_7_cut_files_are_refused),
        cmocka_unit_test(reliability_3_too_large_models_are_refused_with_numbers),
        cmocka_unit_test(options_out_of_range_are_usage),
        cmocka_unit_test(fingerprints_name_the_model_not_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
