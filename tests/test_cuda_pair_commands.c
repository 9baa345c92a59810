/*
 * test_cuda_pair_commands.c - commands with --device cuda:0,1 against one GPU, and what is said
 * when GPUs cannot share a model.
 *
 * Drives build/emu/gyaru, as test_cuda_commands.c does. EMU_DEVICES, EMU_MEMORY, EMU_SECOND and
 * EMU_NCCL (tests/cuda_emu) make the GPUs and their link what a test needs.
 */
#include "support/api_client.h"
#include "support/program.h"
#include "support/reference.h"
#include "support/scratch.h"
#include "support/test_server.h"

#include "base/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY "tests/data/tiny-model" /* one kv head: devices are opened, and then it is refused */
#define IDS  "5,17,100,900,33"

#define RUN(result, ...) program_run(result, NULL, (const char *const[]){__VA_ARGS__, NULL})

/* A checkpoint that two GPUs can share. */
static char *model;

static bool no_model(void)
{
    if (!model)
        reference_skip("reference/nf4");
    return !model;
}

#define ON(device, ...)                                                                            \
    program_json(                                                                                  \
        (const char *const[]){__VA_ARGS__, "-m", model, "--device", device, "--json", NULL})

static void same(const json_t *a, const json_t *b, const char *key)
{
    assert_non_null(json_object_get(a, key));
    assert_true(json_equal(json_object_get(a, key), json_object_get(b, key)));
}

static void pairs_answer_as_one(void **state)
{
    char vector[600];
    if (no_model())
        return;
    snprintf(vector, sizeof vector, "%s/vectors.gguf", model);
    for (int steered = 0; steered < 2; steered++) {
        const char *v = steered ? vector : "none", *s = steered ? "6" : "0";
        json_t *one =
            ON("cuda", "run", "--ids", IDS, "--temp", "0", "-n", "4", "-v", v, "-s", s, "--force");
        json_t *two = ON("cuda:0,1", "run", "--ids", IDS, "--temp", "0", "-n", "4", "-v", v, "-s",
                         s, "--force");
        same(one, two, "ids");
        const json_t *a = json_object_get(one, "gauge"), *b = json_object_get(two, "gauge");
        assert_int_equal(json_array_size(a), json_array_size(b));
        assert_int_equal(json_array_size(a), 4);
        for (size_t i = 0; i < 4 && steered; i++)
            assert_true(fabs(json_number_value(json_array_get(a, i)) -
                             json_number_value(json_array_get(b, i))) < 1e-2);
        json_decref(one);
        json_decref(two);
    }
    /* in whatever order they are named, and again the same */
    json_t *first = ON("cuda:0,1", "run", "--ids", IDS, "--seed", "7", "-n", "4", "-v", "none");
    json_t *again = ON("cuda:1,0", "run", "--ids", IDS, "--seed", "7", "-n", "4", "-v", "none");
    same(first, again, "ids");
    json_decref(first);
    json_decref(again);
}

static void plans_are_of_each(void **state)
{
    if (no_model())
        return;
    json_t *one = ON("cuda", "inspect"), *two = ON("cuda:0,1", "inspect");
    const json_t *a = json_array_get(json_object_get(one, "devices"), 0);
    const json_t *b = json_array_get(json_object_get(two, "devices"), 0);
    assert_int_equal(json_integer_value(json_object_get(a, "devices")), 1);
    assert_int_equal(json_integer_value(json_object_get(b, "devices")), 2);
    assert_int_equal(json_integer_value(json_object_get(b, "kv_bytes")),
                     json_integer_value(json_object_get(a, "kv_bytes")) / 2);
    assert_true(json_integer_value(json_object_get(b, "weight_bytes")) <
                json_integer_value(json_object_get(a, "weight_bytes")) * 3 / 4);
    json_decref(one);
    json_decref(two);
    setenv("EMU_MEMORY", "160", 1); /* of which bandwidth takes its share */
    json_t *bench = ON("cuda:0,1", "bench", "--runs", "1", "--only", "first_token_cold_16");
    assert_true(json_number_value(json_object_get(bench, "read_gb_per_s")) > 0);
    assert_true(fabs(json_number_value(json_object_get(bench, "planned_gib")) -
                     json_number_value(json_object_get(bench, "taken_gib"))) < 1e-4);
    json_decref(bench);
    unsetenv("EMU_MEMORY");
}

static void servers_share(void **state)
{
    struct test_server server;
    if (no_model())
        return;
    const char *const options[] = {"--device", "cuda:0,1",   "-m", model, "-v",
                                   "none",     "--sessions", "2",  NULL};
    test_server_start(&server, true, options);
    api_expect(server.port, "/v1/chat/completions",
               "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":6,"
               "\"temperature\":0}",
               200);
    test_server_stop(&server);
}

/* ---- what is said ---------------------------------------------------------------------------- */

static void fails_with(const char *dir, const char *device, int code, const char *said)
{
    struct program_result r;
    RUN(&r, "run", "-m", dir, "--ids", IDS, "-n", "4", "-v", "none", "--device", device);
    program_check_error(&r, code, said);
    program_release(&r);
}

static void names_are_checked(void **state)
{
    fails_with(TINY, "cuda:0,0", 2, "GPU 0 is named twice");
    fails_with(TINY, "cuda:0,2", 2, "device cuda:2: there are 2 GPUs");
    fails_with(TINY, "cuda:0,", 2, "expected numbers");
    fails_with(TINY, "cuda:0,-1", 2, "expected numbers");
    fails_with(TINY, "cuda:0;1", 2, "expected numbers");
    fails_with(TINY, "cuda:0,1,2,3,4,5,6,7,8", 2, "at most 8 GPUs");
    fails_with(TINY, "cpu:0,1", 2, "one cpu only");
    setenv("EMU_DEVICES", "1", 1);
    fails_with(TINY, "cuda:0,1", 2, "device cuda:1: there are 1 GPUs");
    unsetenv("EMU_DEVICES");
    fails_with(TINY, "cuda:0,1", 2, "2 GPUs cannot share a model of 1 kv heads");
}

static void links_are_tried(void **state)
{
    struct program_result r;
    setenv("EMU_NCCL", "refuse", 1);
    fails_with(TINY, "cuda:0,1", 1, "NCCL: connecting the GPUs");
    setenv("EMU_NCCL", "wrong", 1);
    fails_with(TINY, "cuda:0,1", 1, "their link does not work");
    RUN(&r, "doctor", "--device", "cuda:0,1");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "their link does not work"));
    program_release(&r);
    for (int i = 0; i < 2 && model; i++) { /* in the first step, and in a later one */
        setenv("EMU_NCCL", i ? "19" : "2", 1);
        RUN(&r, "run", "-m", model, "--ids", IDS, "-n", "4", "-v", "none", "--device", "cuda:0,1");
        assert_int_equal(r.code, 1);
        assert_non_null(strstr(r.err, "NCCL: adding over the GPUs: an emulated error"));
        program_release(&r);
    }
    unsetenv("EMU_NCCL");
}

/* A file of NCCL's name in front of it that is no library. */
static void nccl_may_be_absent(void **state)
{
    const char *path = scratch_write("libnccl.so.2", "none", 4);
    char folder[300];
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    setenv("LD_LIBRARY_PATH", folder, 1);
    fails_with(TINY, "cuda:0,1", 1, "libnccl.so.2 is not found: install it");
    struct program_result r;
    RUN(&r, "run", "-m", TINY, "--ids", IDS, "-n", "1", "-v", "none", "--device", "cuda:1");
    assert_int_equal(r.code, 0); /* one needs none */
    program_release(&r);
    unsetenv("LD_LIBRARY_PATH");
    unlink(path);
}

static void the_smallest_decides(void **state)
{
    if (no_model())
        return;
    setenv("EMU_MEMORY", "4096,8", 1);
    fails_with(model, "cuda:0,1", 4, "GiB on each of 2 GPUs");
    fails_with(model, "cuda:1,0", 4, "(8388608 bytes) are free on one of them");
    unsetenv("EMU_MEMORY");
}

static void other_cards_are_named(void **state)
{
    struct program_result r;
    setenv("EMU_SECOND", "another card", 1);
    RUN(&r, "doctor", "--device", "cuda:0,1");
    unsetenv("EMU_SECOND");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "host emulation, sm_90, 6 SMs + another card, sm_90, 6 SMs"));
    assert_non_null(strstr(r.out, "not alike: the slowest and the smallest decide"));
    program_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_answer_as_one),  cmocka_unit_test(plans_are_of_each),
        cmocka_unit_test(servers_share),        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(links_are_tried),      cmocka_unit_test(nccl_may_be_absent),
        cmocka_unit_test(the_smallest_decides), cmocka_unit_test(other_cards_are_named),
    };
    char emu[512];
    const char *build = getenv("BUILD");
    snprintf(emu, sizeof emu, "%s/emu", build && *build ? build : "build");
    setenv("BUILD", emu, 1);
    model = reference_shared("reference/nf4");
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(model);
    return rc;
}
