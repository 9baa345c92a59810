/*
 * test_bake.c - a baked checkpoint holds the original's files unchanged, the right biases in the
 * right blocks, and appears whole or not at all. That its logits are those of the steered model is
 * checked with transformers by tools/check_bake.py.
 */
#include "base/file.h"
#include "base/folder.h"
#include "format/checkpoint.h"
#include "steer/vector.h"
#include "support/program.h"
#include "support/scratch.h"
#include "support/test_vector.h"

#include <gyaru.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include <cmocka.h>

#define MODEL    "tests/data/tiny-model"
#define VECTOR   MODEL "/vector.safetensors" /* resid_pre, layers 1 and 2 */
#define HIDDEN   64
#define INNER    128
#define LAYERS   3
#define STRENGTH 3.0f

#define RUN(result, ...) program_run(result, NULL, (const char *const[]){__VA_ARGS__, NULL})

/* ---- helpers -------------------------------------------------------------------------------- */

/* A path of the test's own (caller frees): the ring of scratch_path() is too short to keep. */
static char *place(const char *name)
{
    char *path = strdup(scratch_path(name));
    assert_non_null(path);
    return path;
}

/* One direction for each layer, (layer + 1) / 8 everywhere. */
static struct gyaru_vector *make_vector(enum vector_hook hook, const int *layers, size_t n)
{
    struct gyaru_error err;
    struct gyaru_vector *v;
    float direction[HIDDEN];
    assert_int_equal(vector_new(HIDDEN, hook, &v, &err), 0);
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < HIDDEN; k++)
            direction[k] = (float)(layers[i] + 1) / 8;
        assert_int_equal(vector_set_direction(v, layers[i], direction, &err), 0);
    }
    return v;
}

static struct gyaru_bake_options with_strength(float strength)
{
    struct gyaru_bake_options options;
    gyaru_bake_options_init(&options);
    options.strength = strength;
    return options;
}

/* Bakes and gives the report. */
static json_t *bake(const char *dir, const struct gyaru_vector *v, float strength, const char *out)
{
    struct gyaru_error err;
    struct gyaru_bake_options options = with_strength(strength);
    char *report;
    if (gyaru_bake(dir, v, &options, out, &report, &err))
        fail_msg("%s", err.text);
    json_t *json = json_loads(report, 0, NULL);
    assert_non_null(json);
    free(report);
    return json;
}

static struct checkpoint *open_checkpoint(const char *dir)
{
    struct gyaru_error err;
    struct checkpoint *c;
    if (checkpoint_open(dir, &c, &err))
        fail_msg("%s", err.text);
    return c;
}

static const struct tensor *bias_of(const struct checkpoint *c, int layer, const char *part)
{
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, part);
    const struct tensor *t = checkpoint_find(c, name);
    if (!t)
        fail_msg("%s is missing", name);
    return t;
}

static void check_zero(const struct tensor *t, size_t n)
{
    assert_int_equal(tensor_count(t), n);
    assert_int_equal(t->dtype, DTYPE_BF16);
    for (size_t i = 0; i < t->size; i++)
        assert_int_equal(t->data[i], 0);
}

static void check_values(const struct tensor *t, const float *direction, float strength)
{
    assert_int_equal(t->dtype, DTYPE_F32);
    assert_int_equal(tensor_count(t), HIDDEN);
    for (size_t i = 0; i < HIDDEN; i++) {
        float value;
        memcpy(&value, t->data + 4 * i, sizeof value);
        assert_true(value == strength * direction[i]);
    }
}

/* Entries of the scratch directory whose name has `part` in it. */
static int count_entries(const char *part)
{
    char *any = place("x");
    *strrchr(any, '/') = '\0';
    DIR *dir = opendir(any);
    int n = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        n += strstr(entry->d_name, part) != NULL;
    closedir(dir);
    free(any);
    return n;
}

static bool same_file(const char *a, const char *b)
{
    size_t n, m;
    uint8_t *x = scratch_read(a, &n), *y = scratch_read(b, &m);
    bool same = n == m && !memcmp(x, y, n);
    free(x);
    free(y);
    return same;
}

static void check_same(const char *dir, const char *name, const char *other, const char *other_name)
{
    char *a = file_join(dir, name), *b = file_join(other, other_name);
    if (!same_file(a, b))
        fail_msg("%s and %s differ", a, b);
    free(a);
    free(b);
}

/* ---- what is written ------------------------------------------------------------------------- */

static void biases_lie_where_the_steering_is_added(void **state)
{
    char *out = place("baked");
    struct gyaru_vector *v = test_vector_open(VECTOR);
    json_t *report = bake(MODEL, v, STRENGTH, out);
    struct checkpoint *c = open_checkpoint(out);
    for (int l = 0; l < LAYERS; l++) {
        check_zero(bias_of(c, l, "self_attn.o_proj"), HIDDEN);
        check_zero(bias_of(c, l, "mlp.gate_proj"), INNER);
        check_zero(bias_of(c, l, "mlp.up_proj"), INNER);
    }
    /* Added at the inputs of 1 and 2, which are the outputs of 0 and 1. */
    check_values(bias_of(c, 0, "mlp.down_proj"), vector_direction(v, 1), STRENGTH);
    check_values(bias_of(c, 1, "mlp.down_proj"), vector_direction(v, 2), STRENGTH);
    check_zero(bias_of(c, 2, "mlp.down_proj"), HIDDEN);
    const json_t *layers = json_object_get(report, "layers");
    assert_int_equal(json_array_size(layers), 2);
    assert_int_equal(json_integer_value(json_array_get(layers, 1)), 1);
    checkpoint_close(c);
    gyaru_vector_close(v);
    json_decref(report);
    free(out);
}

static void outputs_are_baked_in_their_own_block(void **state)
{
    char *out = place("post");
    const int layers[] = {0, 2};
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, layers, 2);
    json_decref(bake(MODEL, v, -2, out));
    struct checkpoint *c = open_checkpoint(out);
    check_values(bias_of(c, 0, "mlp.down_proj"), vector_direction(v, 0), -2);
    check_zero(bias_of(c, 1, "mlp.down_proj"), HIDDEN);
    check_values(bias_of(c, 2, "mlp.down_proj"), vector_direction(v, 2), -2);
    checkpoint_close(c);
    gyaru_vector_close(v);
    free(out);
}

static void the_rest_is_copied_byte_for_byte(void **state)
{
    char *out = place("copied");
    struct gyaru_vector *v = test_vector_open(VECTOR);
    json_decref(bake(MODEL, v, STRENGTH, out));
    check_same(MODEL, "model.safetensors", out, "model-00001-of-00002.safetensors");
    check_same(MODEL, "tokenizer.json", out, "tokenizer.json");
    check_same(MODEL, "tokenizer_config.json", out, "tokenizer_config.json");
    struct checkpoint *c = open_checkpoint(out), *original = open_checkpoint(MODEL);
    assert_int_equal(checkpoint_count(c), checkpoint_count(original) + 4 * LAYERS);
    checkpoint_close(original);
    checkpoint_close(c);
    gyaru_vector_close(v);
    free(out);
}

static void config_says_llama_with_biases(void **state)
{
    char *out = place("config"), *path = file_join(out, "config.json");
    struct gyaru_vector *v = test_vector_open(VECTOR);
    json_decref(bake(MODEL, v, STRENGTH, out));
    json_t *c = json_load_file(path, 0, NULL);
    assert_non_null(c);
    assert_string_equal(json_string_value(json_object_get(c, "model_type")), "llama");
    assert_string_equal(json_string_value(json_array_get(json_object_get(c, "architectures"), 0)),
                        "LlamaForCausalLM");
    assert_true(json_is_true(json_object_get(c, "attention_bias")));
    assert_true(json_is_true(json_object_get(c, "mlp_bias")));
    assert_true(json_is_true(json_object_get(c, "tie_word_embeddings")));
    assert_int_equal(json_integer_value(json_object_get(c, "head_dim")), 32);
    assert_int_equal(json_integer_value(json_object_get(c, "eos_token_id")), 1279);
    assert_true(json_is_null(json_object_get(c, "bos_token_id"))); /* Llama's default is 1 */
    assert_null(json_object_get(c, "use_sliding_window"));
    assert_true(json_number_value(json_object_get(c, "rope_theta")) == 10000);
    assert_true(json_number_value(
                    json_object_get(json_object_get(c, "rope_parameters"), "rope_theta")) == 10000);
    assert_true(
        json_is_true(json_object_get(json_object_get(c, "quantization_config"), "load_in_4bit")));
    assert_true(json_number_value(json_object_get(json_object_get(c, "gyaru_bake"), "strength")) ==
                (double)STRENGTH);
    json_decref(c);
    gyaru_vector_close(v);
    free(path);
    free(out);
}

/* Writes the tensors of the tiny model as two shards with an index into a new directory. */
static void make_sharded(const char *dir)
{
    struct gyaru_error err;
    struct checkpoint *c = open_checkpoint(MODEL);
    size_t n = checkpoint_count(c), half = n / 2;
    struct tensor *tensors = calloc(n, sizeof *tensors);
    json_t *map = json_object();
    assert_non_null(tensors);
    assert_int_equal(mkdir(dir, 0777), 0);
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *checkpoint_at(c, i);
        json_object_set_new(map, tensors[i].name,
                            json_string(i < half ? "a.safetensors" : "b.safetensors"));
    }
    char *a = file_join(dir, "a.safetensors"), *b = file_join(dir, "b.safetensors");
    char *index = file_join(dir, "model.safetensors.index.json");
    char *config = file_join(dir, "config.json");
    assert_int_equal(safetensors_write(a, tensors, half, NULL, 0, &err), 0);
    assert_int_equal(safetensors_write(b, tensors + half, n - half, NULL, 0, &err), 0);
    json_t *root = json_pack("{s:o}", "weight_map", map);
    json_dump_file(root, index, 0);
    json_decref(root);
    size_t len;
    uint8_t *text = scratch_read(MODEL "/config.json", &len);
    assert_int_equal(file_write_atomic(config, text, len, &err), 0);
    free(text);
    free(tensors);
    checkpoint_close(c);
    free(a);
    free(b);
    free(index);
    free(config);
}

static void shards_stay_shards(void **state)
{
    char *dir = place("sharded"), *out = place("sharded-baked");
    struct gyaru_vector *v = test_vector_open(VECTOR);
    make_sharded(dir);
    json_decref(bake(dir, v, STRENGTH, out));
    check_same(dir, "a.safetensors", out, "model-00001-of-00003.safetensors");
    check_same(dir, "b.safetensors", out, "model-00002-of-00003.safetensors");
    struct checkpoint *c = open_checkpoint(out);
    check_values(bias_of(c, 1, "mlp.down_proj"), vector_direction(v, 2), STRENGTH);
    checkpoint_close(c);
    gyaru_vector_close(v);
    free(out);
    free(dir);
}

static void only_the_layers_asked_for(void **state)
{
    char *out = place("layers"), *none = place("no-layers");
    char *report;
    struct gyaru_error err;
    struct gyaru_vector *v = test_vector_open(VECTOR);
    struct gyaru_bake_options options = with_strength(STRENGTH);
    options.layer_first = options.layer_last = 2;
    assert_int_equal(gyaru_bake(MODEL, v, &options, out, &report, &err), 0);
    free(report);
    struct checkpoint *c = open_checkpoint(out);
    check_zero(bias_of(c, 0, "mlp.down_proj"), HIDDEN);
    check_values(bias_of(c, 1, "mlp.down_proj"), vector_direction(v, 2), STRENGTH);
    checkpoint_close(c);
    options.layer_first = options.layer_last = 0;
    assert_int_equal(gyaru_bake(MODEL, v, &options, none, &report, &err), -1);
    check_error(&err, GYARU_USAGE, "layers 1-2", NULL);
    gyaru_vector_close(v);
    free(none);
    free(out);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void fails(const struct gyaru_vector *v, const struct gyaru_bake_options *options,
                  enum gyaru_status status, const char *part)
{
    struct gyaru_error err;
    char *report, *out = place("refused");
    if (!gyaru_bake(MODEL, v, options, out, &report, &err))
        fail_msg("not refused: %s", part);
    check_error(&err, status, part, NULL);
    assert_int_equal(count_entries("refused"), 0);
    free(out);
}

static void the_first_input_has_no_bias(void **state)
{
    const int layers[] = {0, 1};
    struct gyaru_vector *v = make_vector(HOOK_RESID_PRE, layers, 2);
    struct gyaru_bake_options options = with_strength(STRENGTH);
    fails(v, &options, GYARU_FAILED, "--layers 1-1");
    gyaru_vector_close(v);
}

static void foreign_vectors_need_force(void **state)
{
    const int layers[] = {1};
    struct gyaru_error err;
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, layers, 1);
    struct gyaru_bake_options options = with_strength(STRENGTH);
    char *out = place("forced"), *report;
    assert_int_equal(vector_set_metadata(v, "model_fingerprint", "0123abcd", &err), 0);
    fails(v, &options, GYARU_MISMATCH, "fingerprint");
    options.force = true;
    assert_int_equal(gyaru_bake(MODEL, v, &options, out, &report, &err), 0);
    json_t *json = json_loads(report, 0, NULL);
    assert_true(json_is_true(json_object_get(json, "forced")));
    assert_non_null(strstr(json_string_value(json_object_get(json, "warning")), "FORCED"));
    json_decref(json);
    free(report);
    gyaru_vector_close(v);
    free(out);
    v = test_vector_open("tests/data/vector/vectors.pt"); /* another hidden size: never */
    fails(v, &options, GYARU_MISMATCH, "hidden size");
    gyaru_vector_close(v);
}

static void strength_is_a_number(void **state)
{
    struct gyaru_vector *v = test_vector_open(VECTOR);
    struct gyaru_bake_options options = with_strength(NAN);
    fails(v, &options, GYARU_USAGE, "strength");
    gyaru_vector_close(v);
}

static void too_much_strength_is_said(void **state)
{
    const int layers[] = {1};
    struct gyaru_error err;
    char *out = place("too-much");
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, layers, 1);
    assert_int_equal(vector_set_metadata(v, "max_strength", "14", &err), 0);
    json_t *report = bake(MODEL, v, 15, out);
    assert_non_null(strstr(json_string_value(json_object_get(report, "warning")), "above 14"));
    json_decref(report);
    gyaru_vector_close(v);
    free(out);
}

/* ---- whole or not at all --------------------------------------------------------------------- */

static int stop_at_once(void *user, const char *what, uint64_t done, uint64_t total)
{
    const char **seen = user;
    *seen = what;
    assert_true(done <= total);
    return 1;
}

static void stopping_leaves_nothing(void **state)
{
    const char *what = NULL;
    struct gyaru_vector *v = test_vector_open(VECTOR);
    struct gyaru_bake_options options = with_strength(STRENGTH);
    options.progress = stop_at_once;
    options.progress_user = &what;
    fails(v, &options, GYARU_FAILED, "stopped");
    assert_string_equal(what, "copying");
    gyaru_vector_close(v);
}

static void an_existing_place_is_left_alone(void **state)
{
    struct gyaru_error err;
    struct folder_writer w;
    const char *path = scratch_write("taken", "mine", 4);
    assert_int_equal(folder_writer_open(&w, path, 0, &err), -1);
    check_error(&err, GYARU_FAILED, "exists already", NULL);
    size_t len;
    uint8_t *data = scratch_read(path, &len);
    assert_int_equal(len, 4);
    free(data);
}

/* Somebody makes the directory while we write. */
static void a_name_taken_meanwhile_is_left_alone(void **state)
{
    struct gyaru_error err;
    struct folder_writer w;
    char *path = place("late");
    assert_int_equal(folder_writer_open(&w, path, 0, &err), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(folder_writer_commit(&w, &err), -1);
    check_error(&err, GYARU_FAILED, "late", NULL);
    assert_int_equal(count_entries(".late.partial"), 0);
    free(path);
}

static void missing_space_is_said_before(void **state)
{
    struct gyaru_error err;
    struct folder_writer w;
    char *path = place("huge");
    assert_int_equal(folder_writer_open(&w, path, (uint64_t)1 << 60, &err), -1);
    check_error(&err, GYARU_FAILED, "not enough disk space", "MB free", NULL);
    assert_int_equal(count_entries("huge"), 0);
    free(path);
}

static void what_a_killed_run_left_is_removed(void **state)
{
    struct gyaru_error err;
    struct folder_writer w;
    char *path = place("again"), *partial = place(".again.partial");
    char *left = file_join(partial, "model-00001-of-00002.safetensors");
    assert_int_equal(mkdir(partial, 0777), 0);
    assert_int_equal(file_write_atomic(left, "half", 4, &err), 0);
    assert_int_equal(folder_writer_open(&w, path, 0, &err), 0);
    assert_int_equal(folder_writer_copy(&w, MODEL "/config.json", "config.json", &err), 0);
    assert_int_equal(folder_writer_commit(&w, &err), 0);
    assert_false(file_exists(partial));
    check_same(path, "config.json", MODEL, "config.json");
    free(left);
    left = file_join(path, "model-00001-of-00002.safetensors");
    assert_false(file_exists(left));
    free(left);
    free(partial);
    free(path);
}

static void two_writers_do_not_meet(void **state)
{
    struct gyaru_error err;
    struct folder_writer w, other;
    char *path = place("both");
    assert_int_equal(folder_writer_open(&w, path, 0, &err), 0);
    assert_int_equal(folder_writer_open(&other, path, 0, &err), -1);
    check_error(&err, GYARU_FAILED, "another run", NULL);
    folder_writer_abort(&w);
    assert_int_equal(count_entries("both"), 0);
    free(path);
}

/* ---- the command ----------------------------------------------------------------------------- */

static void the_command_bakes(void **state)
{
    struct program_result r;
    char *out = place("by-command");
    RUN(&r, "bake", "-m", MODEL, "-v", VECTOR, "-s", "6", "-o", out, "--json");
    assert_int_equal(r.code, 0);
    json_t *json = json_loads(r.out, JSON_REJECT_DUPLICATES, NULL);
    assert_string_equal(json_string_value(json_object_get(json, "out")), out);
    json_decref(json);
    program_release(&r);
    RUN(&r, "bake", "-m", MODEL, "-v", VECTOR, "-s", "6", "-o", out);
    program_check_error(&r, GYARU_FAILED, "exists already");
    program_release(&r);
    free(out);
}

static void the_command_wants_what_it_needs(void **state)
{
    struct program_result r;
    RUN(&r, "bake", "-m", MODEL, "-s", "6", "-o", "/nonexistent/x");
    program_check_error(&r, GYARU_USAGE, "-v FILE");
    program_release(&r);
    RUN(&r, "bake", "-m", MODEL, "-v", VECTOR, "-s", "6");
    program_check_error(&r, GYARU_USAGE, "-o DIR");
    program_release(&r);
    RUN(&r, "bake", "-m", MODEL, "-v", VECTOR, "-o", "/nonexistent/x"); /* no recommendation */
    program_check_error(&r, GYARU_USAGE, "-s X");
    program_release(&r);
    RUN(&r, "bake", "-m", MODEL, "-v", VECTOR, "-s", "6", "-o", "/nonexistent/x");
    program_check_error(&r, GYARU_FAILED, "/nonexistent");
    program_release(&r);
}

/* Every line after the decision says that the vector was forced. */
static void the_command_repeats_force(void **state)
{
    const int layers[] = {1};
    struct gyaru_error err;
    struct program_result r;
    char *warning, *path = place("foreign.safetensors"), *out = place("forced-by-command");
    struct gyaru_vector *v = make_vector(HOOK_RESID_POST, layers, 1);
    assert_int_equal(vector_set_metadata(v, "model_fingerprint", "0123abcd", &err), 0);
    assert_int_equal(vector_save(v, path, &warning, &err), 0);
    free(warning);
    gyaru_vector_close(v);
    RUN(&r, "bake", "-m", MODEL, "-v", path, "-s", "6", "-o", out);
    program_check_error(&r, GYARU_MISMATCH, "fingerprint");
    program_release(&r);
    RUN(&r, "bake", "-m", MODEL, "-v", path, "-s", "6", "-o", out, "--force");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "FORCED"));
    assert_int_equal(strncmp(r.out, "FORCED", 6), 0);
    program_release(&r);
    free(path);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(biases_lie_where_the_steering_is_added),
        cmocka_unit_test(outputs_are_baked_in_their_own_block),
        cmocka_unit_test(the_rest_is_copied_byte_for_byte),
        cmocka_unit_test(config_says_llama_with_biases),
        cmocka_unit_test(shards_stay_shards),
        cmocka_unit_test(only_the_layers_asked_for),
        cmocka_unit_test(the_first_input_has_no_bias),
        cmocka_unit_test(foreign_vectors_need_force),
        cmocka_unit_test(strength_is_a_number),
        cmocka_unit_test(too_much_strength_is_said),
        cmocka_unit_test(stopping_leaves_nothing),
        cmocka_unit_test(an_existing_place_is_left_alone),
        cmocka_unit_test(a_name_taken_meanwhile_is_left_alone),
        cmocka_unit_test(missing_space_is_said_before),
        cmocka_unit_test(what_a_killed_run_left_is_removed),
        cmocka_unit_test(two_writers_do_not_meet),
        cmocka_unit_test(the_command_bakes),
        cmocka_unit_test(the_command_wants_what_it_needs),
        cmocka_unit_test(the_command_repeats_force),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
