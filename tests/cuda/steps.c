/*
 * steps.c - what holds for whole steps: a row's result does not depend on the others', nor on which
 * kernels a step was made of, nor on whether it was recorded and replayed.
 */
#include "cuda/gpus.h"
#include "cuda/pair.h"
#include "cuda/tests.h"
#include "support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The rows of a step, one by one in fresh stages, give the same bits; those of a step of more than
 * eight rows, with eight others. */
void rows_do_not_depend_on_neighbours(void **state)
{
    for (int kind = 0; kind < N_KINDS; kind += GPUS) {
        struct backend_shape shape = random_shape(kind);
        struct pair together, alone;
        struct backend_row rows[MAX_ROWS], few[9];
        uint64_t seed = random_state();
        shape.n_slots = 48;
        shape.context = 8;
        if (kind == PLAIN_4BIT)
            shape.kv = GYARU_KV_I8;
        pair_new(&together, &shape, kind);
        random_seed(seed);
        pair_new(&alone, &shape, kind);
        for (int n = 3; n <= 48; n = n == 3 ? 20 : n == 20 ? 41 : 100) {
            struct result all, one;
            size_t hidden = (size_t)shape.hidden, logits = 0;
            for (int r = 0; r < n; r++) {
                rows[r] = (struct backend_row){
                    .token = random_between(0, shape.vocab - 1), .slot = r, .logits = r % 3 == 0};
                rows[r].strength[0] = rows[r].strength[1] = random_float();
            }
            pair_run(&together, GPU, rows, n, true, &all);
            for (int r = 0; r < n; r++) {
                const int n_few = n > 8 ? 9 : 1;
                for (int i = 0; i < n_few; i++)
                    few[i] = rows[(r + i) % n];
                pair_run(&alone, GPU, few, n_few, true, &one);
                for (size_t t = 0; t < 5; t++)
                    assert_memory_equal(all.taps + (t * (size_t)n + (size_t)r) * hidden,
                                        one.taps + t * (size_t)n_few * hidden,
                                        hidden * sizeof(float));
                if (rows[r].logits)
                    assert_memory_equal(all.logits + logits++ * (size_t)shape.vocab, one.logits,
                                        (size_t)shape.vocab * sizeof(float));
                result_free(&one);
            }
            result_free(&all);
        }
        pair_free(&together);
        pair_free(&alone);
    }
}

/* Rows of tiled steps, cut differently: the bits stay, whoever shares a tile. */
void tiles_do_not_depend_on_neighbours(void **state)
{
    for (int round = 0; round < 4; round += GPUS) {
        struct backend_shape shape = random_shape(round);
        struct pair together, apart;
        struct backend_row rows[MAX_ROWS];
        struct result all, part;
        uint64_t seed = random_state();
        size_t hidden = (size_t)shape.hidden;
        int pos[8] = {0};
        shape.kv = GYARU_KV_F16;
        pair_new(&together, &shape, NESTED);
        random_seed(seed);
        pair_new(&apart, &shape, NESTED);
        for (int i = 0; round == 0 && i < 5; i++) { /* long enough for several blocks */
            int n = pair_rows(&together, rows, pos, MAX_ROWS);
            pair_run(&together, GPU, rows, n, true, &all);
            pair_run(&apart, GPU, rows, n, true, &part);
            result_free(&all);
            result_free(&part);
        }
        assert_int_equal(pair_rows(&together, rows, pos, 60), 60);
        pair_run(&together, GPU, rows, 60, true, &all);
        for (int first = 0, n = 9; first < 60; first += n, n = first == 9 ? 34 : 60 - first) {
            pair_run(&apart, GPU, rows + first, n, true, &part);
            for (size_t t = 0; t < 5; t++)
                assert_memory_equal(all.taps + (t * 60 + (size_t)first) * hidden,
                                    part.taps + t * (size_t)n * hidden,
                                    (size_t)n * hidden * sizeof(float));
            result_free(&part);
        }
        result_free(&all);
        pair_free(&together);
        pair_free(&apart);
    }
}

/* The rows of a step as steps of their own, each after those before it in its slot. */
static void same_one_by_one(const struct pair *p, const struct backend_row *rows, int n,
                            const struct result *whole)
{
    size_t vocab = (size_t)p->shape.vocab, logits = 0;
    for (int r = 0; r < n; r++) {
        struct result one;
        pair_run(p, GPU, &rows[r], 1, false, &one);
        assert_memory_equal(whole->meter[r], one.meter[0], sizeof one.meter[0]);
        if (rows[r].logits)
            assert_memory_equal(whole->logits + logits++ * vocab, one.logits,
                                vocab * sizeof(float));
        result_free(&one);
    }
}

/* Steps of few rows without taps run as one kernel; with taps, as one for each operation. Both give
 * the CPU's result; the first the same bits when replayed, and whatever rows share a step. */
void whole_steps_agree(void **state)
{
    static const int counts[] = {1, 8, 3, 1, 1, 2, 5, 8, 1};
    for (int round = 0; round < N_KINDS + 5; round++) {
        struct backend_shape shape = random_shape(round);
        struct pair p;
        int pos[8] = {0};
        shape.hidden = 64 * random_between(1, 12);
        if (round == N_KINDS) { /* several groups for each warp, parts of rows */
            shape.hidden = 64;
            shape.intermediate = 64 * 130;
        } else if (round == N_KINDS + 1) {
            shape.hidden = 64 * 38;
            shape.intermediate = 64 * GPUS; /* a column block for each */
        }
        if (round == PLAIN_4BIT)
            shape.kv = GYARU_KV_I8; /* which has no such kernel: all are single kernels */
        pair_new(&p, &shape, round < N_KINDS + 3 ? round % N_KINDS : -1);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct backend_row rows[MAX_ROWS];
            struct result taps, whole, again;
            int n = pair_rows(&p, rows, pos, counts[i]);
            size_t n_logits = 0;
            for (int r = 0; r < n; r++)
                n_logits += rows[r].logits;
            double bound = 6 * (p.four_bit ? FOUR_BIT : EXACT_TYPES);
            pair_run(&p, GPU, rows, n, true, &taps);
            pair_run(&p, GPU, rows, n, false, &whole);
            pair_run(&p, GPU, rows, n, false, &again);
            assert_memory_equal(whole.meter, again.meter, (size_t)n * sizeof *taps.meter);
            assert_memory_equal(whole.logits, again.logits,
                                n_logits * (size_t)shape.vocab * sizeof *taps.logits);
            close_rows("head", whole.logits, NULL, taps.logits, NULL, n_logits, (size_t)shape.vocab,
                       bound);
            for (int r = 0; r < n; r++) {
                double length = (double)taps.meter[r][1];
                assert_true(fabs((double)whole.meter[r][1] - length) <= bound * length);
                assert_true(fabs((double)whole.meter[r][0] - (double)taps.meter[r][0]) <=
                            bound * sqrt(length * (double)shape.hidden));
            }
            if (shape.kv != GYARU_KV_I8)
                same_one_by_one(&p, rows, n, &whole);
            result_free(&again);
            result_free(&whole);
            result_free(&taps);
        }
        pair_free(&p);
    }
}

/* Without taps, what follows a product of many rows - edits, the next norm - is done with it: the
 * bits stay. */
void fused_chunks_agree(void **state)
{
    static const int counts[] = {9, 30, 63, MAX_ROWS};
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct backend_shape shape = random_shape(kind);
        struct pair p;
        int pos[8] = {0};
        pair_new(&p, &shape, kind);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct backend_row rows[MAX_ROWS];
            struct result taps, fused;
            size_t n_logits = 0;
            int n = pair_rows(&p, rows, pos, counts[i]);
            for (int r = 0; r < n; r++)
                n_logits += rows[r].logits;
            pair_run(&p, GPU, rows, n, true, &taps);
            pair_run(&p, GPU, rows, n, false, &fused);
            assert_memory_equal(fused.meter, taps.meter, (size_t)n * sizeof *taps.meter);
            assert_memory_equal(fused.logits, taps.logits,
                                n_logits * (size_t)shape.vocab * sizeof *taps.logits);
            result_free(&fused);
            result_free(&taps);
        }
        pair_free(&p);
    }
}

/* The same step again and again is replayed as a graph: new tokens, positions and strengths must
 * act, and a vector that took a freed one's place too. */
void graphs_take_new_values(void **state)
{
    struct gyaru_error err;
    struct backend_shape shape = random_shape(3);
    struct pair p;
    int pos[8] = {0};
    pair_new(&p, &shape, NESTED);
    for (int i = 0; i < 12; i++) {
        struct backend_row rows[MAX_ROWS];
        struct result got, want;
        int n = pair_rows(&p, rows, pos, 2);
        rows[0].logits = true;
        rows[1].logits = i % 2;
        pair_run(&p, CPU, rows, n, false, &want);
        pair_run(&p, GPU, rows, n, false, &got);
        close_rows("head", got.logits, NULL, want.logits, NULL, 1 + (size_t)(i % 2),
                   (size_t)shape.vocab, 4 * FOUR_BIT);
        for (int r = 0; r < n; r++)
            assert_true(fabs((double)got.meter[r][1] - (double)want.meter[r][1]) <=
                        4 * FOUR_BIT * (double)want.meter[r][1]);
        result_free(&got);
        result_free(&want);
        if (i != 7)
            continue;
        float *values = allocate((size_t)shape.hidden * sizeof *values);
        for (int c = 0; c < shape.hidden; c++)
            values[c] = 5 * random_float();
        for (int s = 0; s < 2; s++) {
            struct side *side = &p.side[s];
            side->b->vector_free(side->direction[0]);
            check(side->b->vector_new(side->device, values, (size_t)shape.hidden,
                                      &side->direction[0], &err),
                  &err);
        }
        free(values);
    }
    pair_free(&p);
}
