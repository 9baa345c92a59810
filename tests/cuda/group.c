/* group.c - what holds only where several GPUs share a model. */
#include "cuda/gpus.h"
#include "cuda/pair.h"
#include "cuda/tests.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Heads, columns and ids that do not go evenly: some GPUs have more of them. */
void three_share(void **state)
{
    static const int counts[] = {1, 9, 70, 3};
    struct gyaru_error err;
    struct backend_device *third;
    setenv("EMU_DEVICES", "3", 1);
    if (gpu->open(2, 1, &third, &err)) {
        printf("SKIP: %s\n", err.text);
        skip();
    }
    gpu->close(third);
    for (int round = 0; round < 4; round++) {
        struct pair p;
        n_gpus = 3;
        struct backend_shape shape = random_shape(round);
        shape.n_heads = shape.n_heads / shape.n_kv_heads * 4;
        shape.n_kv_heads = 4;
        while (shape.n_heads * shape.head_dim % 64)
            shape.n_heads += 4;
        pair_new(&p, &shape, round ? -1 : NESTED);
        pair_check(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
    n_gpus = GPUS;
    unsetenv("EMU_DEVICES");
}

/* The embedding is the head, too: each GPU has all of it and takes its rows. */
void tied_heads_agree(void **state)
{
    static const int counts[] = {1, 5, 33};
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct pair p;
        struct backend_shape shape = random_shape(kind);
        shape.hidden = 256; /* 64 rows are a whole run of nested scales */
        pair_new(&p, &shape, kind);
        for (int i = 0; i < 2; i++) {
            p.side[i].b->matrix_free(p.side[i].head);
            p.side[i].head = p.side[i].embedding;
        }
        pair_check(&p, counts, sizeof counts / sizeof *counts);
        for (int i = 0; i < 2; i++)
            p.side[i].head = NULL;
        pair_free(&p);
    }
}

void the_same_step_gives_the_same_bits(void **state)
{
    struct backend_shape shape = random_shape(3);
    struct pair a, b;
    struct backend_row rows[MAX_ROWS];
    uint64_t seed = random_state();
    pair_new(&a, &shape, NESTED);
    random_seed(seed);
    pair_new(&b, &shape, NESTED);
    int pos[8] = {0};
    for (int n = 1; n < 100; n *= 6) {
        struct result one, other;
        int made = pair_rows(&a, rows, pos, n);
        pair_run(&a, GPU, rows, made, true, &one);
        pair_run(&b, GPU, rows, made, true, &other);
        assert_memory_equal(one.taps, other.taps,
                            POINTS * (size_t)made * (size_t)shape.hidden * sizeof(float));
        assert_memory_equal(one.meter, other.meter, (size_t)made * sizeof *one.meter);
        result_free(&one);
        result_free(&other);
    }
    pair_free(&a);
    pair_free(&b);
}

void each_takes_its_part(void **state)
{
    struct gyaru_error err;
    struct backend_shape shape = random_shape(2), small = shape;
    struct quant_source source;
    const struct backend *b;
    struct backend_device *group, *one;
    uint64_t kv[2], workspace[2];
    void *data = random_source(NESTED, 256, 1024, &source);
    check(open_gpus(GPUS, &b, &group, &err), &err);
    check(gpu->open(0, 1, &one, &err), &err);
    shape.n_kv_heads = shape.n_heads = 2 * GPUS;
    for (int cut = QUANT_BY_ROWS; cut <= QUANT_BY_COLUMNS; cut++) {
        uint64_t all = gpu->matrix_bytes(one, &source);
        source.cut = (enum quant_cut)cut;
        source.unit = 64;
        assert_in_range(b->matrix_bytes(group, &source), all / GPUS, all / GPUS + all / 20);
    }
    gpu->stage_bytes(one, &shape, &kv[0], &workspace[0]);
    b->stage_bytes(group, &shape, &kv[1], &workspace[1]);
    assert_int_equal(kv[1], kv[0] / GPUS);
    assert_true(workspace[1] < workspace[0]);
    assert_int_equal(b->check(group, &shape, &err), 0);
    small.n_kv_heads = 1;
    assert_int_equal(b->check(group, &small, &err), -1);
    assert_non_null(strstr(err.text, "1 kv heads"));
    struct backend_memory memory;
    b->memory(group, &memory);
    assert_int_equal(memory.devices, GPUS);
    printf("on %s\n", b->describe(group));
    gpu->close(one);
    b->close(group);
    free(data);
}
