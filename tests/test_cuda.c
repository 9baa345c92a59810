/*
 * test_cuda.c - the CUDA backend against the CPU backend, operation by operation, and what it
 * promises of whole steps.
 *
 * Built several times (cuda/gpus.h): build/test_cuda drives the plug-in on a GPU,
 * build/emu/test_cuda_host the same sources compiled for the CPU, and those named _pair several
 * GPUs that share a model, by the same bounds. The tests are in tests/cuda/; the random numbers of
 * one follow those of the one before it.
 */
#include "cuda/gpus.h"
#include "cuda/pair.h"
#include "cuda/tests.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* One argument: the tests to run, by a pattern such as "graphs*". */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_agrees),
        cmocka_unit_test(mixed_types_agree),
        cmocka_unit_test(odd_shapes_agree),
        cmocka_unit_test(large_chunks_agree),
        cmocka_unit_test(shares_agree),
        cmocka_unit_test(long_contexts_agree),
        cmocka_unit_test(rows_do_not_depend_on_neighbours),
        cmocka_unit_test(tiles_do_not_depend_on_neighbours),
        cmocka_unit_test(whole_steps_agree),
        cmocka_unit_test(fused_chunks_agree),
        cmocka_unit_test(graphs_take_new_values),
        cmocka_unit_test(large_activations_agree),
        cmocka_unit_test(plans_are_what_is_taken),
#if GPUS > 1
        cmocka_unit_test(each_takes_its_part),
        cmocka_unit_test(tied_heads_agree),
        cmocka_unit_test(the_same_step_gives_the_same_bits),
        cmocka_unit_test(three_share),
#endif
    };
    struct gyaru_error err;
    const struct backend *b;
    struct backend_device *device;
    random_seed(11);
    gpu = backend_find("cuda", &err);
    if (!gpu || open_gpus(GPUS, &b, &device, &err))
        return gpus_missing(err.text);
    printf("on %s\n", b->describe(device));
    b->close(device);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
