/*
 * test_gguf.c - GGUF control vectors: read and written byte for byte as llama.cpp's tools do, and
 * refused when counts, lengths or types are not what they should be.
 */
#include "format/gguf.h"
#include "support/scratch.h"

#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA "tests/data/vector/vectors.gguf"

/* A file under construction. */
static uint8_t bytes[4096];
static size_t n_bytes;

static void put(uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[n_bytes++] = (uint8_t)(value >> (8 * i));
}

static void put_string(const char *text)
{
    put(strlen(text), 8);
    memcpy(bytes + n_bytes, text, strlen(text));
    n_bytes += strlen(text);
}

static void begin(uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    memcpy(bytes, "GGUF", 4);
    n_bytes = 4;
    put(version, 4);
    put(n_tensors, 8);
    put(n_keys, 8);
}

static void key_string(const char *key, const char *value)
{
    put_string(key);
    put(8, 4);
    put_string(value);
}

static void tensor(const char *name, uint32_t n_dims, uint64_t n, uint32_t type, uint64_t offset)
{
    put_string(name);
    put(n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put(i ? 1 : n, 8);
    put(type, 4);
    put(offset, 8);
}

/* Padding, then `n` tensors of eight floats, all 1. */
static void data(size_t n)
{
    while (n_bytes % 32)
        put(0, 1);
    for (size_t i = 0; i < 8 * n; i++)
        put(0x3f800000, 4);
}

static const char *finish(void)
{
    return scratch_write("made.gguf", bytes, n_bytes);
}

static void refused(const char *cause)
{
    struct gguf_vector v = {0};
    struct gyaru_error err = {0};
    const char *path = finish();
    if (!gguf_vector_read(path, &v, &err))
        fail_msg("accepted, expected: %s", cause);
    assert_null(v.directions);
    check_error(&err, GYARU_FAILED, path, cause, NULL);
}

static void accepted(size_t n_directions)
{
    struct gguf_vector v;
    struct gyaru_error err;
    if (gguf_vector_read(finish(), &v, &err))
        fail_msg("%s", err.text);
    assert_int_equal(v.n_directions, n_directions);
    assert_int_equal(v.n, 8);
    assert_true(v.directions[0].values[7] == 1.0f);
    gguf_vector_release(&v);
}

static void begin_good(uint64_t n_tensors)
{
    begin(3, n_tensors, 1);
    key_string("general.architecture", "controlvector");
}

static void reads_a_real_file(void **state)
{
    struct gguf_vector v;
    struct gyaru_error err;
    assert_int_equal(gguf_vector_read(DATA, &v, &err), 0);
    assert_string_equal(v.model_hint, "qwen2");
    assert_int_equal(v.layer_count, 4);
    assert_int_equal(v.n, 192);
    assert_int_equal(v.n_directions, 3);
    for (int i = 0; i < 3; i++) {
        double sum = 0;
        assert_int_equal(v.directions[i].layer, i + 1);
        for (size_t k = 0; k < v.n; k++)
            sum += (double)v.directions[i].values[k] * (double)v.directions[i].values[k];
        assert_true(fabs(sum - 1) < 1e-3);
    }
    gguf_vector_release(&v);
}

static void writes_the_same_bytes(void **state)
{
    struct gguf_vector v;
    struct gyaru_error err;
    size_t len, len2;
    const char *path = scratch_path("copy.gguf");
    assert_int_equal(gguf_vector_read(DATA, &v, &err), 0);
    assert_int_equal(gguf_vector_write(path, &v, &err), 0);
    gguf_vector_release(&v);
    uint8_t *a = scratch_read(DATA, &len), *b = scratch_read(path, &len2);
    assert_int_equal(len, len2);
    assert_memory_equal(a, b, len);
    free(a);
    free(b);
}

static void refuses_every_truncation(void **state)
{
    size_t len;
    uint8_t *whole = scratch_read(DATA, &len);
    for (size_t cut = 0; cut < len; cut++) {
        struct gguf_vector v;
        struct gyaru_error err;
        const char *path = scratch_write("cut.gguf", whole, cut);
        if (!gguf_vector_read(path, &v, &err))
            fail_msg("accepted when cut at %zu of %zu", cut, len);
        check_error(&err, GYARU_FAILED, path, NULL);
    }
    free(whole);
}

static void accepts_variants(void **state)
{
    begin(2, 2, 6); /* version 2, foreign keys of all kinds, i32 count, dims padded with ones */
    key_string("general.architecture", "controlvector");
    put_string("controlvector.layer_count");
    put(5, 4);
    put(3, 4);
    put_string("x.array");
    put(9, 4), put(5, 4), put(3, 8), put(0, 4), put(0, 4), put(0, 4);
    put_string("x.strings");
    put(9, 4), put(8, 4), put(2, 8), put_string("a"), put_string("");
    put_string("x.double");
    put(12, 4), put(0, 8);
    put_string("general.alignment");
    put(4, 4), put(64, 4);
    tensor("direction.12", 1, 8, 0, 0);
    tensor("direction.3", 3, 8, 0, 64);
    while (n_bytes % 64)
        put(0, 1);
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < 16; i++)
            put(0x3f800000, 4);
    }
    accepted(2);
}

static void refuses_bad_headers(void **state)
{
    begin_good(1);
    bytes[0] = 'g';
    refused("not a GGUF");
    begin(1, 1, 1);
    refused("version 1");
    begin(0x03000000, 1, 1);
    refused("version");
    begin(3, 1, 0);
    tensor("direction.1", 1, 8, 0, 0);
    data(1);
    refused("general.architecture");
    begin(3, 1, 1);
    key_string("general.architecture", "llama");
    tensor("direction.1", 1, 8, 0, 0);
    data(1);
    refused("'llama'");
    begin(3, 1, 2);
    key_string("general.architecture", "controlvector");
    key_string("general.architecture", "controlvector");
    refused("twice");
    begin(3, 1, 2);
    key_string("general.architecture", "controlvector");
    key_string("controlvector.layer_count", "4");
    refused("wrong type");
    begin(3, 1, 2);
    key_string("general.architecture", "controlvector");
    put_string("controlvector.layer_count");
    put(5, 4), put(0xffffffff, 4);
    refused("negative");
    begin(3, 1, 2);
    key_string("general.architecture", "controlvector");
    put_string("controlvector.model_hint");
    put(8, 4), put(2, 8), put('q', 2);
    refused("NUL");
    for (int i = 0; i < 2; i++) {
        begin(3, 1, 2);
        key_string("general.architecture", "controlvector");
        put_string("general.alignment");
        put(4, 4), put(i ? 24 : 0, 4);
        refused("power of two");
    }
}

static void refuses_bad_tensors(void **state)
{
    const struct {
        const char *name;
        uint32_t n_dims;
        uint64_t n;
        uint32_t type;
        uint64_t offset;
        const char *cause;
    } cases[] = {
        {"direction.0", 1, 8, 0, 0, "from 1"},
        {"direction.-1", 1, 8, 0, 0, "from 1"},
        {"direction.01", 1, 8, 0, 0, "from 1"},
        {"direction.1x", 1, 8, 0, 0, "from 1"},
        {"direction.", 1, 8, 0, 0, "no direction.N"},
        {"direction.99999999999999999999", 1, 8, 0, 0, "no direction.N"},
        {"output.weight", 1, 8, 0, 0, "output.weight"},
        {"direction.1", 0, 8, 0, 0, "dimensions"},
        {"direction.1", 5, 8, 0, 0, "dimensions"},
        {"direction.1", 1, 0, 0, 0, "elements"},
        {"direction.1", 1, (uint64_t)1 << 62, 0, 0, "elements"},
        {"direction.1", 1, 9, 0, 0, "cut short"},
        {"direction.1", 1, 8, 1, 0, "not F32"},
        {"direction.1", 1, 8, 0, 32, "offset"},
        {"direction.1", 1, 8, 0, UINT64_MAX - 31, "offset"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin_good(1);
        tensor(cases[i].name, cases[i].n_dims, cases[i].n, cases[i].type, cases[i].offset);
        data(1);
        refused(cases[i].cause);
    }
    begin_good(2);
    tensor("direction.1", 1, 8, 0, 0);
    tensor("direction.1", 1, 8, 0, 32);
    data(2);
    refused("twice");
    begin_good(2);
    tensor("direction.1", 1, 8, 0, 0);
    tensor("direction.2", 1, 7, 0, 32);
    data(2);
    refused("7 elements");
    begin_good(1);
    put_string("direction.1");
    put(2, 4), put(4, 8), put(2, 8), put(0, 4), put(0, 8);
    data(1);
    refused("more than one dimension");
    begin_good(1);
    tensor("direction.1", 1, 8, 0, 0);
    data(2);
    refused("after the last");
    begin_good(1);
    tensor("direction.1", 1, 8, 0, 0);
    data(1);
    accepted(1);
}

static void hostile_counts_cost_no_memory(void **state)
{
    const uint64_t huge[] = {(uint64_t)1 << 62, UINT64_MAX, 4097, 1000000};
    size_t before = mallinfo2().arena + mallinfo2().hblkhd;
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        begin_good(huge[i]);
        data(1);
        refused("announced");
        begin(3, 1, huge[i]);
        key_string("general.architecture", "controlvector");
        refused("byte");
        begin(3, 1, 1);
        put(huge[i], 8);
        refused("cut short");
        begin(3, 1, 1);
        put_string("x");
        put(8, 4), put(huge[i], 8);
        refused("cut short");
        for (uint32_t type = 0; type <= 12; type++) {
            begin(3, 1, 1);
            put_string("x");
            put(9, 4), put(type, 4), put(huge[i], 8);
            refused(type == 9 ? "array of arrays" : "cut short");
        }
        begin(3, 1, 1);
        put_string("x");
        put(13, 4), put(0, 8);
        refused("unknown type");
    }
    assert_true(mallinfo2().arena + mallinfo2().hblkhd < before + (1 << 20));
}

static void refuses_to_write_nonsense(void **state)
{
    float values[2] = {1, 2};
    struct gguf_direction d[2] = {{0, values}, {3, values}};
    struct gguf_vector v = {.n = 2, .directions = d, .n_directions = 2};
    struct gyaru_error err;
    const char *path = scratch_path("no.gguf");
    assert_int_equal(gguf_vector_write(path, &v, &err), -1);
    check_error(&err, GYARU_FAILED, path, "direction.0", NULL);
    d[0].layer = 3;
    assert_int_equal(gguf_vector_write(path, &v, &err), -1);
    check_error(&err, GYARU_FAILED, path, "twice", NULL);
    v.n_directions = 0;
    assert_int_equal(gguf_vector_write(path, &v, &err), -1);
    check_error(&err, GYARU_FAILED, path, "no direction", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_real_file),
        cmocka_unit_test(writes_the_same_bytes),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(accepts_variants),
        cmocka_unit_test(refuses_bad_headers),
        cmocka_unit_test(refuses_bad_tensors),
        cmocka_unit_test(hostile_counts_cost_no_memory),
        cmocka_unit_test(refuses_to_write_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
