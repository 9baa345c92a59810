/*
 * test_cuda_commands.c - every command that runs a model, with --device cuda against --device cpu,
 * and what `auto` chooses.
 *
 * Drives build/emu/gyaru, which finds the plug-in compiled for the CPU beside itself. EMU_MEMORY is
 * the pretended GPU's memory in MiB.
 */
#include "support/api_client.h"
#include "support/program.h"
#include "support/scratch.h"
#include "support/test_server.h"

#include "base/json.h"
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

#define MODEL  "tests/data/tiny-model"
#define VECTOR MODEL "/vector.safetensors"
#define IDS    "5,17,100,900,33,2,77,1200,4"

#define RUN(result, ...) program_run(result, NULL, (const char *const[]){__VA_ARGS__, NULL})
#define JSON_OF(...)     program_json((const char *const[]){__VA_ARGS__, NULL})
#define ON(device, ...)  JSON_OF(__VA_ARGS__, "-m", MODEL, "--device", device, "--json")

/* Two arrays of numbers, each within `bound` of the other. */
static void close_numbers(const json_t *a, const json_t *b, double bound)
{
    assert_true(json_array_size(a) > 0);
    assert_int_equal(json_array_size(a), json_array_size(b));
    for (size_t i = 0; i < json_array_size(a); i++) {
        double x = json_number_value(json_array_get(a, i));
        double y = json_number_value(json_array_get(b, i));
        if (!(fabs(x - y) <= bound))
            fail_msg("number %zu: %g and %g", i, x, y);
    }
}

static void same(const json_t *a, const json_t *b, const char *key)
{
    assert_non_null(json_object_get(a, key));
    assert_true(json_equal(json_object_get(a, key), json_object_get(b, key)));
}

static void run_answers_alike(void **state)
{
    json_t *cpu = ON("cpu", "run", "--ids", IDS, "--temp", "0", "-n", "8", "-v", VECTOR, "-s", "2");
    json_t *gpu =
        ON("cuda", "run", "--ids", IDS, "--temp", "0", "-n", "8", "-v", VECTOR, "-s", "2");
    same(cpu, gpu, "ids");
    same(cpu, gpu, "text");
    close_numbers(json_object_get(gpu, "gauge"), json_object_get(cpu, "gauge"), 1e-2);
    json_decref(cpu);
    json_decref(gpu);
}

static void eval_reads_alike(void **state)
{
    json_t *cpu = ON("cpu", "eval", "--ids", IDS, "-v", VECTOR, "-s", "2");
    json_t *gpu = ON("cuda", "eval", "--ids", IDS, "-v", VECTOR, "-s", "2");
    same(cpu, gpu, "argmax");
    close_numbers(json_object_get(gpu, "nll"), json_object_get(cpu, "nll"), 5e-2);
    close_numbers(json_object_get(gpu, "cosine"), json_object_get(cpu, "cosine"), 5e-3);
    json_decref(cpu);
    json_decref(gpu);
}

/* The first pairs of the test's: reading all takes the emulation long. */
static const char *some_pairs(size_t n)
{
    json_t *all = json_load_file("tests/data/extract/pairs.json", 0, NULL), *some = json_array();
    assert_true(json_array_size(all) > n);
    for (size_t i = 0; i < n; i++)
        json_array_append(some, json_array_get(all, i));
    const char *path = scratch_path("pairs.json");
    assert_int_equal(json_dump_file(some, path, 0), 0);
    json_decref(all);
    json_decref(some);
    return path;
}

static double cosine(const float *a, const float *b, int n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

static void extract_finds_the_same_directions(void **state)
{
    struct gyaru_error err;
    struct gyaru_vector *vectors[2];
    static const char *const devices[] = {"cpu", "cuda"};
    char pairs[256];
    snprintf(pairs, sizeof pairs, "%s", some_pairs(4));
    for (int i = 0; i < 2; i++) {
        const char *out = scratch_path(i ? "gpu.safetensors" : "cpu.safetensors");
        json_decref(ON(devices[i], "extract", "-d", pairs, "-o", out, "--split", "none", "--layers",
                       "1-2"));
        assert_int_equal(gyaru_vector_open(out, &vectors[i], &err), 0);
    }
    for (int layer = 1; layer <= 2; layer++)
        assert_true(cosine(vector_direction(vectors[0], layer), vector_direction(vectors[1], layer),
                           gyaru_vector_info(vectors[0])->hidden_size) > 0.9999);
    gyaru_vector_close(vectors[0]);
    gyaru_vector_close(vectors[1]);
}

static void measure_answers_alike(void **state)
{
    json_t *reports[2];
    static const char *const devices[] = {"cpu", "cuda"};
    for (int i = 0; i < 2; i++)
        reports[i] = ON(devices[i], "measure", "--limit", "2", "-n", "4", "--batch", "2",
                        "--strengths", "0,2", "--system", "a", "--temp", "0", "-v", VECTOR);
    const json_t *rows = json_object_get(reports[0], "rows");
    assert_int_equal(json_array_size(rows), 2);
    for (size_t r = 0; r < 2; r++) {
        const json_t *a = json_object_get(json_array_get(rows, r), "answers");
        const json_t *b =
            json_object_get(json_array_get(json_object_get(reports[1], "rows"), r), "answers");
        assert_int_equal(json_array_size(a), 2);
        for (size_t i = 0; i < 2; i++)
            same(json_array_get(a, i), json_array_get(b, i), "text");
    }
    json_decref(reports[0]);
    json_decref(reports[1]);
}

static void serve_answers_alike(void **state)
{
    static const char *const devices[] = {"cpu", "cuda"};
    char *answers[2];
    for (int i = 0; i < 2; i++) {
        struct test_server server;
        struct api_answer answer;
        const char *const options[] = {"--device", devices[i], "--sessions", "2", NULL};
        test_server_start(&server, true, options);
        api_call(server.port, "POST", "/v1/chat/completions", NULL,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                 "\"max_tokens\":6,\"temperature\":0}",
                 &answer);
        test_server_stop(&server);
        answers[i] = strdup(api_whole_text(&answer));
        api_release(&answer);
    }
    assert_string_equal(answers[0], answers[1]);
    free(answers[0]);
    free(answers[1]);
}

/* Part by part: the emulation of all takes longer than a program may. */
static void bench_measures_everything(void **state)
{
    static const struct {
        const char *part, *keys[6];
    } parts[] = {
        {"decode_", {"decode_64", "copy_share_64", "taken_gib"}},
        {"answer", {"answer_50_100_seconds"}},
        {"prefill", {"prefill_128", "first_token_cold_30", "first_token_cached_30"}},
        {"streams_1", {"streams_1"}}, /* one by one: emulated, all of them take a minute */
        {"streams_2", {"streams_2"}},
        {"streams_4", {"streams_4"}},
        {"streams_8", {"streams_8"}},
        {"steering", {"steered_tokens_per_second", "attached_tokens_per_second"}},
        {"first_token_cold_16",
         {"load_seconds", "planned_gib", "in_use_gib", "read_gb_per_s", "copy_gb_per_s"}},
    };
    setenv("EMU_MEMORY", "160", 1);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        json_t *b = ON("cuda", "bench", "--runs", "1", "--only", parts[i].part);
        for (size_t k = 0; k < 6 && parts[i].keys[k]; k++)
            if (!(json_number_value(json_object_get(b, parts[i].keys[k])) > 0))
                fail_msg("%s is missing", parts[i].keys[k]);
        if (!strcmp(parts[i].part, "decode_")) /* 512 positions are all this model has */
            assert_int_equal(json_array_size(json_object_get(b, "left_out")), 1);
        assert_true(fabs(json_number_value(json_object_get(b, "planned_gib")) -
                         json_number_value(json_object_get(b, "taken_gib"))) < 1e-4);
        json_decref(b);
    }
    unsetenv("EMU_MEMORY");
}

/* What "auto" took, and that it is said; "" if nothing is said. */
static void auto_takes(const char *mib, const char *device, const char *why)
{
    struct program_result r;
    if (mib)
        setenv("EMU_MEMORY", mib, 1);
    RUN(&r, "run", "-m", MODEL, "--ids", IDS, "-n", "2", "--temp", "0", "--device", "auto", "-v",
        "none");
    unsetenv("EMU_MEMORY");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, device));
    assert_non_null(strstr(r.err, why));
    program_release(&r);
}

static void auto_takes_what_fits(void **state)
{
    auto_takes(NULL, "on host emulation", "auto: on the GPU");
    auto_takes("1", "thread", "auto: not on the GPU: 0.00 GiB needed, 0.00 GiB free");
    struct program_result r;
    setenv("EMU_MEMORY", "1", 1);
    RUN(&r, "run", "-m", MODEL, "--ids", IDS, "--device", "cuda");
    unsetenv("EMU_MEMORY");
    program_check_error(&r, 4, "(1048576 bytes) are free");
    program_release(&r);
}

/* Who holds the memory is said, and nothing is done to them. */
static void holders_are_named(void **state)
{
    struct program_result r;
    char real[600], link[256], folder[256];
    snprintf(real, sizeof real, "%s/../tests/fake_nvml.so", getenv("BUILD"));
    char *absolute = realpath(real, NULL);
    assert_non_null(absolute);
    snprintf(link, sizeof link, "%s", scratch_path("libnvidia-ml.so.1"));
    snprintf(folder, sizeof folder, "%s", link);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(symlink(absolute, link), 0);
    setenv("LD_LIBRARY_PATH", folder, 1);
    setenv("EMU_MEMORY", "1", 1);
    RUN(&r, "run", "-m", MODEL, "--ids", IDS, "--device", "cuda");
    program_check_error(&r, 4, "it is held by pid");
    program_check_error(&r, 4, "pid 4242 /usr/bin/hog 19456 MiB");
    program_release(&r);
    unsetenv("EMU_MEMORY");
    unsetenv("LD_LIBRARY_PATH");
    free(absolute);
}

/* A tied head needs its embedding where it is; nothing is left out in silence. */
static void tied_embeddings_stay(void **state)
{
    struct program_result r;
    RUN(&r, "run", "-m", MODEL, "--ids", IDS, "--device", "cuda", "--host-embedding");
    program_check_error(&r, 2, "head");
    program_release(&r);
    RUN(&r, "run", "-m", MODEL, "--ids", IDS, "--device", "cpu", "--host-embedding", "-n", "1",
        "-v", "none");
    assert_int_equal(r.code, 0);
    program_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_answers_alike),
        cmocka_unit_test(eval_reads_alike),
        cmocka_unit_test(extract_finds_the_same_directions),
        cmocka_unit_test(measure_answers_alike),
        cmocka_unit_test(serve_answers_alike),
        cmocka_unit_test(bench_measures_everything),
        cmocka_unit_test(auto_takes_what_fits),
        cmocka_unit_test(holders_are_named),
        cmocka_unit_test(tied_embeddings_stay),
    };
    char emu[512];
    const char *build = getenv("BUILD");
    snprintf(emu, sizeof emu, "%s/emu", build && *build ? build : "build");
    setenv("BUILD", emu, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
