/* operations.c - each operation gives what the CPU's does, and memory is what was planned. */
#include "cuda/gpus.h"
#include "cuda/pair.h"
#include "cuda/tests.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void every_type_agrees(void **state)
{
    static const int counts[] = {1, 7, 8, 9, 2, 33, 48};
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct pair p;
        struct backend_shape shape = random_shape(kind);
        pair_new(&p, &shape, kind);
        pair_check(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
}

void mixed_types_agree(void **state)
{
    static const int counts[] = {3, 1, 17};
    for (int round = 0; round < 6; round += GPUS) {
        struct pair p;
        struct backend_shape shape = random_shape(round);
        pair_new(&p, &shape, -1);
        pair_check(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
}

/* Widths that are no multiple of anything; 4-bit rows that are no whole blocks. */
void odd_shapes_agree(void **state)
{
    static const int counts[] = {1, 5, 20};
    struct backend_shape shape = random_shape(2);
    struct pair p;
    shape.hidden = 101;
    shape.intermediate = 64 * n_gpus + 13;
    shape.vocab = 64 * n_gpus - 29;
    for (int kind = BF16; kind < N_KINDS; kind++) {
        pair_new(&p, &shape, kind);
        pair_check(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
    shape.hidden = 72;
    shape.intermediate = 64 * n_gpus + 8;
    shape.n_heads = shape.n_kv_heads = n_gpus;
    shape.head_dim = 32;
    pair_new(&p, &shape, NESTED);
    pair_check(&p, counts, sizeof counts / sizeof *counts);
    pair_free(&p);
}

/* Steps of many rows of several slots: expanded weights, tiled attention, on both sides of where
 * they begin, and few rows on what they left in the cache. */
void large_chunks_agree(void **state)
{
    static const int counts[] = {129, 9, 64, 128, 1, MAX_ROWS};
    static const enum kind kinds[] = {NESTED, NESTED_LARGE, PLAIN_4BIT};
    for (int round = 0; round < 8; round += GPUS) {
        struct pair p;
        struct backend_shape shape = random_shape(round);
        shape.kv = round < 4 ? GYARU_KV_F16 : round < 6 ? GYARU_KV_I8 : GYARU_KV_F32;
        if (round == 3)
            shape.intermediate = 64 * 43; /* more than one share of rows */
        if (round == 5) {
            shape.vocab = 64 * n_gpus + 13; /* rows of weights that are no multiple of eight */
            shape.n_heads = shape.n_kv_heads = 2 * n_gpus;
        }
        pair_new(&p, &shape, round < 6 ? (int)kinds[round % 3] : -1);
        pair_check(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
}

/* More rows than one product through a library holds at once. */
void shares_agree(void **state)
{
    struct backend_shape shape = random_shape(1);
    struct pair p;
    struct backend_row *rows = allocate(MOST_ROWS * sizeof *rows);
    struct result want, got;
    int pos[8] = {0};
    shape.max_rows = MOST_ROWS;
    shape.hidden = 128;
    shape.intermediate = 192;
    shape.n_heads = 2 * shape.n_kv_heads;
    pair_new(&p, &shape, NESTED);
    int n = pair_rows(&p, rows, pos, MOST_ROWS);
    assert_true(n > 1024);
    for (int r = 0; r < n; r++)
        rows[r].logits = r < 5;
    pair_run(&p, CPU, rows, n, true, &want);
    pair_run(&p, GPU, rows, n, true, &got);
    pair_compare(&p, rows, n, &got, &want);
    result_free(&got);
    result_free(&want);
    pair_free(&p);
    free(rows);
}

/* Past one split of attention, by chunks and row by row. */
void long_contexts_agree(void **state)
{
    struct backend_shape shape = random_shape(1);
    int counts[16];
    shape.n_slots = 1;
    shape.hidden = 64;
    shape.intermediate = 64 * n_gpus;
    shape.n_kv_heads = n_gpus;
    shape.n_heads = 2 * n_gpus;
    for (int kv = GYARU_KV_F16; kv <= GYARU_KV_I8; kv++) {
        struct pair p;
        shape.kv = (enum gyaru_kv)kv;
        for (int i = 0; i < 16; i++)
            counts[i] = i < 7 ? 40 : i % 2 ? 1 : 8; /* 280 positions in chunks, then few */
        pair_new(&p, &shape, BF16);
        pair_check(&p, counts, 16);
        pair_free(&p);
    }
}

/* What the products read goes far outside fp16's range, as some of Qwen2's activations do: the
 * power of two must keep it. */
void large_activations_agree(void **state)
{
    struct gyaru_error err;
    struct backend_shape shape = random_shape(0);
    struct pair p;
    struct backend_row row = {.token = 1, .logits = true, .strength = {0, 1}};
    struct result got, want;
    pair_new(&p, &shape, NESTED);
    float *large = allocate((size_t)shape.hidden * sizeof *large);
    for (int i = 0; i < shape.hidden; i++)
        large[i] = 2e4f + 1e4f * random_float();
    for (int i = 0; i < 2; i++) {
        struct side *s = &p.side[i];
        s->b->vector_free(s->norm);
        check(s->b->vector_new(s->device, large, (size_t)shape.hidden, &s->norm, &err), &err);
    }
    pair_run(&p, CPU, &row, 1, true, &want);
    pair_run(&p, GPU, &row, 1, true, &got);
    size_t hidden = (size_t)shape.hidden;
    close_rows("large", got.taps + 2 * hidden, NULL, want.taps + 2 * hidden, NULL, 1, hidden,
               2 * FOUR_BIT);
    close_rows("larger", got.taps + 3 * hidden, NULL, want.taps + 3 * hidden, NULL, 1, hidden,
               3 * FOUR_BIT);
    result_free(&got);
    result_free(&want);
    free(large);
    pair_free(&p);
}

void plans_are_what_is_taken(void **state)
{
    struct gyaru_error err;
    struct backend_device *device;
    struct backend_memory memory;
    struct quant_source source;
    void *data = random_source(NESTED, 64, 128, &source);
    check(gpu->open(0, 1, &device, &err), &err);
    gpu->memory(device, &memory);
    assert_true(memory.available > 0 && memory.available <= memory.total);
    /* 4 bits and a byte for 64 weights, tables and alignment aside */
    assert_in_range(gpu->matrix_bytes(device, &source), 64 * 128 / 2 + 128,
                    64 * 128 / 2 + 128 + 3 * 1024);
    source.rows = source.cols = (size_t)1 << 62;
    assert_true(gpu->matrix_bytes(device, &source) == UINT64_MAX);
    gpu->close(device);
    free(data);
    assert_int_equal(gpu->open(99, 1, &device, &err), -1);
    assert_non_null(strstr(err.text, "cuda:99"));
}
