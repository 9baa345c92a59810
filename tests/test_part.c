/*
 * test_part.c - parts of matrices hold the values of the whole, to the last bit, wherever they are
 * cut; and together all of them.
 */
#include "quant/part.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

static void put_floats(uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = (float)random_bits() / (float)(1u << 31);
        memcpy(to + 4 * i, &value, 4);
    }
}

/* Arrays exactly as large as the format has them, each in an allocation of its own. */
struct whole {
    struct quant_source source;
    void *arrays[3];
};

static void whole_new(struct whole *w, enum quant_type type, size_t rows, size_t cols, size_t block,
                      size_t nested)
{
    size_t n = rows * cols, bytes = type == QUANT_F32 ? 4 * n : type == QUANT_4BIT ? n / 2 : 2 * n;
    size_t blocks = type == QUANT_4BIT ? (n + block - 1) / block : 0;
    uint8_t *data = allocate(bytes), *absmax = allocate(4 * blocks), *scales = allocate(4 * blocks);
    w->source = (struct quant_source){
        .type = type, .rows = rows, .cols = cols, .data = data, .block_size = block};
    w->arrays[0] = data;
    w->arrays[1] = absmax;
    w->arrays[2] = scales;
    for (size_t i = 0; i < bytes; i++) /* no exponent of all ones */
        data[i] = (uint8_t)random_bits() & (type == QUANT_4BIT ? 0xff : 0xbb);
    for (int i = 0; i < 16; i++)
        w->source.map[i] = (float)(i - 8) / 8;
    for (int i = 0; i < 256; i++)
        w->source.nested_map[i] = (float)random_bits() / (float)(1u << 31);
    w->source.nested_offset = 0.25f;
    w->source.absmax = absmax;
    put_floats(scales, blocks);
    if (nested) {
        for (size_t i = 0; i < blocks; i++)
            absmax[i] = (uint8_t)random_bits();
        w->source.nested_absmax = scales;
        w->source.nested_block_size = nested;
    } else
        put_floats(absmax, blocks);
}

static void whole_free(struct whole *w)
{
    for (int i = 0; i < 3; i++)
        free(w->arrays[i]);
}

/* All parts, side by side or one under the other, are the whole. */
static void check_parts(struct whole *w, enum quant_cut cut, size_t unit, int parts)
{
    struct quant_source *s = &w->source;
    struct gyaru_error err;
    float *want = allocate(s->cols * sizeof *want), *got = allocate(s->cols * sizeof *got);
    size_t next = 0;
    s->cut = cut;
    s->unit = unit;
    for (int p = 0; p < parts; p++) {
        struct quant_span span =
            quant_share(cut == QUANT_BY_ROWS ? s->rows : s->cols, unit, p, parts);
        struct quant_source plan = quant_part_describe(s, p, parts);
        struct quant_part part;
        assert_int_equal(span.first, next);
        assert_int_equal(span.first % unit, 0);
        next += span.n;
        if (quant_part_new(s, p, parts, &part, &err))
            fail_msg("%s", err.text);
        bool by_rows = cut == QUANT_BY_ROWS;
        assert_int_equal(part.source.rows, by_rows ? span.n : s->rows);
        assert_int_equal(part.source.cols, by_rows ? s->cols : span.n);
        assert_int_equal(plan.type, part.source.type);
        assert_int_equal(plan.rows * plan.cols, part.source.rows * part.source.cols);
        assert_int_equal(plan.block_size, part.source.block_size);
        assert_int_equal(plan.nested_block_size, part.source.nested_block_size);
        for (size_t r = 0; r < part.source.rows; r++) {
            quant_row(s, by_rows ? span.first + r : r, want);
            quant_row(&part.source, r, got);
            assert_memory_equal(got, want + (by_rows ? 0 : span.first),
                                part.source.cols * sizeof *got);
        }
        quant_part_release(&part);
    }
    assert_int_equal(next, cut == QUANT_BY_ROWS ? s->rows : s->cols);
    free(want);
    free(got);
}

static void parts_are_the_whole(void **state)
{
    static const enum quant_type types[] = {QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_4BIT};
    static const size_t blocks[] = {64, 128, 32}, nested[] = {0, 256, 4, 3};
    for (int round = 0; round < 400; round++) {
        struct whole w;
        int parts = 2 + (int)(random_bits() % 3);
        size_t unit = round % 3 ? 64 : 8 << round % 4;
        size_t rows = unit * (size_t)parts + random_bits() % 200;
        size_t cols = unit * (size_t)parts + 2 * (random_bits() % 150);
        if (round % 2) { /* whole groups */
            rows = rows / 64 * 64 + 64;
            cols = cols / 64 * 64 + 64;
        }
        whole_new(&w, types[round % 4], rows, cols, blocks[round / 4 % 3], nested[round / 12 % 4]);
        check_parts(&w, round / 2 % 2 ? QUANT_BY_ROWS : QUANT_BY_COLUMNS, unit, parts);
        whole_free(&w);
    }
}

/* Of odd numbers of columns, a row may begin in mid-byte. */
static void odd_rows_are_right(void **state)
{
    struct whole w;
    whole_new(&w, QUANT_4BIT, 10, 33, 64, 0);
    check_parts(&w, QUANT_BY_ROWS, 1, 3);
    check_parts(&w, QUANT_BY_COLUMNS, 1, 2);
    whole_free(&w);
}

/* What a real model's matrices cost in scales: nested ones stay nested. */
static void real_shapes_stay_four_bit(void **state)
{
    static const struct {
        size_t rows, cols, unit;
        enum quant_cut cut;
        size_t nested; /* blocks of 64 under one scale */
    } cases[] = {
        {1024, 5120, 128, QUANT_BY_ROWS, 256},  /* k of a 14B */
        {13824, 5120, 64, QUANT_BY_ROWS, 256},  /* gate */
        {5120, 5120, 640, QUANT_BY_COLUMNS, 8}, /* o */
        {5120, 13824, 64, QUANT_BY_COLUMNS, 4}, /* down */
        {3584, 18944, 64, QUANT_BY_COLUMNS, 4}, /* of a 7B */
        {5120, 27648, 64, QUANT_BY_COLUMNS, 8}, /* of a 32B */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const uint8_t none[4];
        struct quant_source s = {.type = QUANT_4BIT,
                                 .rows = cases[i].rows,
                                 .cols = cases[i].cols,
                                 .cut = cases[i].cut,
                                 .unit = cases[i].unit,
                                 .block_size = 64,
                                 .nested_absmax = none,
                                 .nested_block_size = 256};
        struct quant_source part = quant_part_describe(&s, 1, 2);
        assert_int_equal(part.type, QUANT_4BIT);
        assert_int_equal(part.rows * part.cols, s.rows * s.cols / 2);
        assert_int_equal(part.block_size, 64);
        assert_int_equal(part.nested_block_size, cases[i].nested);
    }
}

static void too_small_is_said(void **state)
{
    struct gyaru_error err;
    struct whole w;
    struct quant_part part;
    whole_new(&w, QUANT_F32, 63, 8, 0, 0);
    w.source.cut = QUANT_BY_ROWS;
    w.source.unit = 64;
    assert_int_equal(quant_share(63, 64, 0, 2).n, 0);
    assert_int_equal(quant_part_new(&w.source, 0, 2, &part, &err), -1);
    assert_non_null(strstr(err.text, "63 x 8"));
    whole_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_whole),
        cmocka_unit_test(odd_rows_are_right),
        cmocka_unit_test(real_shapes_stay_four_bit),
        cmocka_unit_test(too_small_is_said),
    };
    random_seed(3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
