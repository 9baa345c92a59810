/*
 * test_commands.c - the program as a person or a script meets it: exit codes, --help, JSON that is
 * one document, errors in one line.
 */
#include "support/program.h"
#include "support/scratch.h"

#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <cmocka.h>

#define MODEL  "tests/data/tiny-model"
#define VECTOR MODEL "/vector.safetensors"

#define RUN(result, input, ...) program_run(result, input, (const char *const[]){__VA_ARGS__, NULL})

static const char *const commands[] = {"run",     "chat",  "serve",   "eval",   "tokenize",
                                       "inspect", "check", "bench",   "doctor", "extract",
                                       "convert", "bake",  "measure", "tune"};

#define N_COMMANDS (sizeof commands / sizeof *commands)

#define JSON(...) program_json((const char *const[]){__VA_ARGS__, NULL})

/* ---- every command ------------------------------------------------------------------------- */

static void help_lists_every_command(void **state)
{
    struct program_result r;
    RUN(&r, NULL, "--help");
    assert_int_equal(r.code, 0);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char line[32];
        snprintf(line, sizeof line, "\n  %-10s ", commands[i]);
        if (!strstr(r.out, line))
            fail_msg("%s is not in: %s", commands[i], r.out);
    }
    program_release(&r);
}

static void every_command_explains_itself(void **state)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        struct program_result r;
        char usage[64];
        RUN(&r, NULL, commands[i], "--help");
        snprintf(usage, sizeof usage, "usage: gyaru %s", commands[i]);
        if (r.code || strncmp(r.out, usage, strlen(usage)) || r.err_len)
            fail_msg("%s --help: %d: %s%s", commands[i], r.code, r.out, r.err);
        program_release(&r);
    }
}

static void every_command_refuses_unknown_options(void **state)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        struct program_result r;
        RUN(&r, NULL, commands[i], "--no-such-option");
        program_check_error(&r, GYARU_USAGE, commands[i]);
        assert_int_equal(r.out_len, 0);
        program_release(&r);
    }
}

static void unknown_command(void **state)
{
    struct program_result r;
    RUN(&r, NULL, "sing");
    program_check_error(&r, GYARU_USAGE, "sing");
    program_release(&r);
}

static void missing_model(void **state)
{
    static const char *const with_model[] = {"inspect", "bench", "chat"};
    for (size_t i = 0; i < sizeof with_model / sizeof *with_model; i++) {
        struct program_result r;
        RUN(&r, NULL, with_model[i], "-m", "/nonexistent");
        program_check_error(&r, GYARU_FAILED, "/nonexistent");
        program_release(&r);
    }
}

/* ---- inspect ------------------------------------------------------------------------------- */

static json_int_t int_at(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_integer(value))
        fail_msg("%s is no integer", key);
    return json_integer_value(value);
}

static void inspect_describes_a_model(void **state)
{
    json_t *m = JSON("inspect", MODEL, "--json");
    assert_string_equal(json_string_value(json_object_get(m, "kind")), "model");
    assert_int_equal(int_at(m, "n_layers"), 3);
    assert_int_equal(int_at(m, "hidden_size"), 64);
    assert_int_equal(int_at(m, "layer_first"), 0);
    assert_int_equal(int_at(m, "layer_last"), 2);
    assert_int_equal(int_at(m, "visualise_layer"), 2);
    assert_int_equal(strlen(json_string_value(json_object_get(m, "fingerprint"))), 64);
    json_decref(m);
}

/* One mlp tensor of the model is bf16 ("dynamic" quantisation): the file decides, not the config.
 */
static void inspect_counts_4bit_tensor_by_tensor(void **state)
{
    json_t *m = JSON("inspect", MODEL, "--json");
    size_t i;
    const json_t *g;
    json_int_t four_bit = 0, plain_mlp = 0, parameters = 0, memory = 0;
    json_array_foreach(json_object_get(m, "tensors"), i, g)
    {
        bool packed = json_is_true(json_object_get(g, "four_bit"));
        four_bit += packed ? int_at(g, "count") : 0;
        if (!packed && !strcmp(json_string_value(json_object_get(g, "part")), "mlp"))
            plain_mlp += int_at(g, "count");
        parameters += int_at(g, "parameters");
        memory += int_at(g, "memory_bytes");
    }
    assert_int_equal(four_bit, 20);
    assert_int_equal(plain_mlp, 1);
    assert_int_equal(parameters, int_at(m, "parameters"));
    const json_t *cpu = json_array_get(json_object_get(m, "devices"), 0);
    assert_int_equal(memory, int_at(cpu, "weight_bytes"));
    json_decref(m);
}

static void inspect_plans_memory(void **state)
{
    json_t *m = JSON("inspect", MODEL, "--json", "--context", "100", "--kv", "f16");
    const json_t *cpu = json_array_get(json_object_get(m, "devices"), 0);
    /* keys and values of 3 layers, one head of 32, two bytes each */
    assert_int_equal(int_at(cpu, "kv_bytes_per_token"), 2 * 3 * 32 * 2);
    assert_int_equal(int_at(cpu, "kv_bytes"), 100 * int_at(cpu, "kv_bytes_per_token"));
    assert_int_equal(int_at(cpu, "total_bytes"), int_at(cpu, "weight_bytes") +
                                                     int_at(cpu, "kv_bytes") +
                                                     int_at(cpu, "workspace_bytes"));
    assert_true(json_is_true(json_object_get(cpu, "fits")));
    json_decref(m);
}

static void inspect_describes_a_vector(void **state)
{
    json_t *v = JSON("inspect", VECTOR, "--json");
    const json_t *layers = json_object_get(v, "layers");
    assert_string_equal(json_string_value(json_object_get(v, "kind")), "vector");
    assert_int_equal(int_at(v, "hidden_size"), 64);
    assert_int_equal(json_array_size(layers), int_at(v, "n_directions"));
    assert_true(json_number_value(json_object_get(json_array_get(layers, 0), "norm")) > 0);
    json_decref(v);
}

static void inspect_prints_tables(void **state)
{
    struct program_result r;
    RUN(&r, NULL, "inspect", MODEL);
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "NF4, double-quantised"));
    assert_non_null(strstr(r.out, ": fits"));
    program_release(&r);
    RUN(&r, NULL, "inspect", VECTOR);
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "hidden size      64"));
    program_release(&r);
}

static void inspect_refuses_garbage(void **state)
{
    struct program_result r;
    RUN(&r, NULL, "inspect", scratch_write("garbage.safetensors", "garbage", 7), "--json");
    program_check_error(&r, GYARU_FAILED, "garbage.safetensors");
    assert_int_equal(r.out_len, 0);
    program_release(&r);
    RUN(&r, NULL, "inspect", MODEL, "--context", "513");
    program_check_error(&r, GYARU_USAGE, "512");
    program_release(&r);
}

/* ---- check --------------------------------------------------------------------------------- */

static void check_accepts_and_refuses(void **state)
{
    struct program_result r;
    RUN(&r, NULL, "check", "-m", MODEL, "-v", VECTOR);
    assert_int_equal(r.code, 0);
    assert_ptr_equal(strchr(r.out, '\n'), r.out + r.out_len - 1); /* one line */
    program_release(&r);
    RUN(&r, NULL, "check", "-m", MODEL, "-v", "tests/data/vector/vectors.pt");
    program_check_error(&r, GYARU_MISMATCH, "hidden size");
    assert_int_equal(r.out_len, 0);
    program_release(&r);
    RUN(&r, NULL, "check", "-m", MODEL, "-v", "tests/data/vector/vectors.pt", "--json");
    json_t *json = json_loads(r.out, 0, NULL);
    assert_int_equal(r.code, GYARU_MISMATCH);
    assert_true(json_is_false(json_object_get(json, "match")));
    json_decref(json);
    program_release(&r);
    RUN(&r, NULL, "check", "-m", MODEL);
    program_check_error(&r, GYARU_USAGE, "-v");
    program_release(&r);
}

/* ---- chat ---------------------------------------------------------------------------------- */

static size_t lines_of(const char *text)
{
    size_t n = 0;
    for (; (text = strchr(text, '\n')); text++)
        n++;
    return n;
}

static void chat_answers_a_pipe(void **state)
{
    struct program_result r;
    RUN(&r, "hello\n\n/strength 3\nhello again\n/quit\nnever read\n", "chat", "-m", MODEL, "-v",
        VECTOR, "-n", "1", "--temp", "0", "--seed", "1");
    assert_int_equal(r.code, 0);
    assert_int_equal(lines_of(r.out), 2); /* one token each: no line ends within */
    assert_null(strstr(r.out, "\033"));
    assert_null(strstr(r.out, "strength"));
    assert_non_null(strstr(r.err, "strength 3"));
    program_release(&r);
}

static void chat_refuses_wrong_commands(void **state)
{
    struct program_result r;
    RUN(&r, "/strength 31\n/strength x\n/strengt 3\n/system be brief\n/reset\n/help\n", "chat",
        "-m", MODEL, "-v", VECTOR);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.out_len, 0);
    assert_non_null(strstr(r.err, "'31' is not a number from -10 to 30"));
    assert_non_null(strstr(r.err, "'x' is not a number"));
    assert_non_null(strstr(r.err, "/strengt: no such command"));
    assert_non_null(strstr(r.err, "/quit"));
    program_release(&r);
}

static void chat_forgets_the_oldest_turns(void **state)
{
    struct program_result r;
    RUN(&r, "hello there\nhello there\nhello there\nhello there\n", "chat", "-m", MODEL, "-v",
        "none", "--context", "96", "-n", "8", "--seed", "1");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "the context is full: the oldest"));
    program_release(&r);
    RUN(&r, "hello there\n", "chat", "-m", MODEL, "-v", "none", "--context", "16");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "shorten it"));
    program_release(&r);
}

/* ---- bench and doctor ---------------------------------------------------------------------- */

static void bench_reports_rates(void **state)
{
    json_t *b = JSON("bench", "-m", MODEL, "-p", "20", "-n", "5", "--prefill", "40", "--json");
    assert_int_equal(int_at(b, "prompt_tokens"), 20);
    assert_int_equal(int_at(b, "generated_tokens"), 5);
    assert_true(json_number_value(json_object_get(b, "decode_tokens_per_second")) > 0);
    assert_true(json_number_value(json_object_get(b, "prefill_tokens_per_second")) > 0);
    assert_true(json_number_value(json_object_get(b, "first_token_seconds")) > 0);
    double fraction = json_number_value(json_object_get(b, "bandwidth_fraction"));
    assert_true(fraction > 0 && fraction < 10); /* a tiny model lies in the cache */
    json_decref(b);
}

static void bench_refuses_what_does_not_fit(void **state)
{
    struct program_result r;
    json_t *d = JSON("doctor", "--json");
    json_int_t available = int_at(json_object_get(d, "memory"), "available_bytes");
    json_decref(d);
    if (available > (json_int_t)32 << 30) {
        printf("SKIP: this machine can hold the 32b shape with a long context\n");
        skip();
    }
    RUN(&r, NULL, "bench", "--shape", "32b", "--context", "32768", "--kv", "f32");
    program_check_error(&r, GYARU_NO_MEMORY, "GiB");
    program_release(&r);
}

/* The same plan decides, whatever the machine has. */
static void random_models_are_planned_first(void **state)
{
    struct gyaru_error err;
    struct gyaru_model *model;
    struct gyaru_model_options options;
    gyaru_model_options_init(&options);
    options.memory = 100 << 20;
    assert_int_equal(gyaru_model_open_random("14b", &options, &model, &err), -1);
    check_error(&err, GYARU_NO_MEMORY, "random-qwen2.5-14b", "GiB", NULL);
    assert_int_equal(gyaru_model_open_random("3b", &options, &model, &err), -1);
    check_error(&err, GYARU_USAGE, "3b", "0.5b", NULL);
}

static void bench_refuses_wrong_options(void **state)
{
    struct program_result r;
    RUN(&r, NULL, "bench", "-m", MODEL, "--kv", "int8", "--device", "cpu");
    program_check_error(&r, 2, "int8 needs a GPU");
    program_release(&r);
    RUN(&r, NULL, "bench", "--only", "everything");
    program_check_error(&r, 2, "--only everything");
    program_release(&r);
    RUN(&r, NULL, "bench", "--shape", "3b");
    program_check_error(&r, GYARU_USAGE, "0.5b");
    program_release(&r);
    RUN(&r, NULL, "bench", "--shape", "0.5b", "-m", MODEL);
    program_check_error(&r, GYARU_USAGE, "either");
    program_release(&r);
    RUN(&r, NULL, "bench", "-m", MODEL, "-p", "512");
    program_check_error(&r, GYARU_USAGE, "512");
    program_release(&r);
}

static void doctor_reports_the_machine(void **state)
{
    json_t *d = JSON("doctor", "--json");
    const json_t *cpu = json_object_get(d, "cpu"), *nvidia = json_object_get(d, "nvidia");
    assert_true(int_at(cpu, "cores") > 0);
    assert_true(json_is_object(json_object_get(cpu, "features")));
    assert_true(int_at(json_object_get(d, "memory"), "available_bytes") > 0);
    assert_true(json_is_array(json_object_get(nvidia, "gpus")));
    json_decref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_every_command),
        cmocka_unit_test(every_command_explains_itself),
        cmocka_unit_test(every_command_refuses_unknown_options),
        cmocka_unit_test(unknown_command),
        cmocka_unit_test(missing_model),
        cmocka_unit_test(inspect_describes_a_model),
        cmocka_unit_test(inspect_counts_4bit_tensor_by_tensor),
        cmocka_unit_test(inspect_plans_memory),
        cmocka_unit_test(inspect_describes_a_vector),
        cmocka_unit_test(inspect_prints_tables),
        cmocka_unit_test(inspect_refuses_garbage),
        cmocka_unit_test(check_accepts_and_refuses),
        cmocka_unit_test(chat_answers_a_pipe),
        cmocka_unit_test(chat_refuses_wrong_commands),
        cmocka_unit_test(chat_forgets_the_oldest_turns),
        cmocka_unit_test(bench_reports_rates),
        cmocka_unit_test(bench_refuses_what_does_not_fit),
        cmocka_unit_test(bench_refuses_wrong_options),
        cmocka_unit_test(random_models_are_planned_first),
        cmocka_unit_test(doctor_reports_the_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
