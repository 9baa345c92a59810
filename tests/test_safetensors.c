/*
 * test_safetensors.c - a safetensors file is read as it was written, or refused: cut at any byte,
 * overlapping, with holes, doubled keys, impossible sizes.
 */
#include "format/safetensors.h"
#include "support/scratch.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA "tests/data/vector/expected.safetensors"

/* A file of header text and n_data bytes. */
static const char *make_file(const char *header, size_t n_data)
{
    uint8_t bytes[4096] = {0};
    size_t len = strlen(header);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)len >> (8 * i));
    memcpy(bytes + 8, header, len);
    return scratch_write("made.safetensors", bytes, 8 + len + n_data);
}

static void refused(const char *header, size_t n_data, const char *cause)
{
    struct safetensors *file = NULL;
    struct gyaru_error err = {0};
    const char *path = make_file(header, n_data);
    if (!safetensors_open(path, &file, &err))
        fail_msg("accepted: %s", header);
    assert_null(file);
    check_error(&err, GYARU_FAILED, path, cause, NULL);
}

static void accepted(const char *header, size_t n_data, size_t n_tensors)
{
    struct safetensors *file;
    struct gyaru_error err = {0};
    if (safetensors_open(make_file(header, n_data), &file, &err))
        fail_msg("refused: %s", err.text);
    assert_int_equal(safetensors_count(file), n_tensors);
    safetensors_close(file);
}

static void reads_a_real_file(void **state)
{
    struct safetensors *file;
    struct gyaru_error err;
    assert_int_equal(safetensors_open(DATA, &file, &err), 0);
    assert_int_equal(safetensors_count(file), 2);
    const struct tensor *t = safetensors_find(file, "vectors");
    assert_non_null(t);
    assert_int_equal(t->dtype, DTYPE_F16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 3);
    assert_int_equal(t->dims[1], 192);
    assert_int_equal(t->size, 3 * 192 * 2);
    assert_int_equal(tensor_count(t), 3 * 192);
    assert_null(safetensors_find(file, "vector"));
    assert_null(safetensors_find(file, "vectors2"));
    assert_null(safetensors_metadata(file, "format"));
    safetensors_close(file);
}

static void accepts_what_the_format_allows(void **state)
{
    accepted("{}", 0, 0);
    accepted("{}       ", 0, 0);
    accepted("{\"__metadata__\":{}}", 0, 0);
    accepted("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1);
    accepted("{\"z\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
             "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
             "\"y\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[0,0]}}",
             4, 3);
}

static void refuses_bad_headers(void **state)
{
    refused("", 0, "'{'");
    refused(" {}", 0, "'{'");
    refused("[]", 0, "'{'");
    refused("{", 0, "JSON");
    refused("{}x", 0, "JSON");
    refused("{\"a\":1}", 0, "'a'");
    refused("{\"\xff\":{}}", 0, "JSON");
    refused("{\"a\\u0000\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "JSON");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, "duplicate");
    refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            "duplicate");
    refused("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__");
    refused("{\"__metadata__\":[]}", 0, "__metadata__");
}

static void refuses_bad_tensors(void **state)
{
    refused("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "F8_E4M3");
    refused("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype");
    refused("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype");
    refused("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "shape");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}}", 1, "keys");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "shape");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1, "shape");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]}}", 1, "shape");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.0]}}", 1, "offsets");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, "offsets");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "offsets");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,0]}}", 1, "offsets");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, "2 bytes");
}

static void refuses_impossible_sizes(void **state)
{
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775808],\"data_offsets\":[0,1]}}", 1,
            "integer");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807],\"data_offsets\":[0,1]}}", 1,
            "too large");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
            0, "too large");
    /* 2^62 elements of 4 bytes wrap to 0. */
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
            "too large");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[100],\"data_offsets\":[0,100]}}", 99, "cut short");
}

static void refuses_overlap_and_holes(void **state)
{
    const char *form = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%d,%d]},"
                       "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%d,%d]}}";
    const struct {
        int a, b;
        size_t n_data;
        const char *cause;
    } cases[] = {{0, 3, 7, "overlap"}, {0, 0, 4, "overlap"},  {0, 5, 9, "hole"},
                 {1, 5, 9, "hole"},    {5, 0, 9, "hole"},     {0, 4, 9, "account"},
                 {4, 0, 8, NULL},      {0, 4, 7, "cut short"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[256];
        int a = cases[i].a, b = cases[i].b;
        snprintf(header, sizeof header, form, a, a + 4, b, b + 4);
        if (cases[i].cause)
            refused(header, cases[i].n_data, cases[i].cause);
        else
            accepted(header, cases[i].n_data, 2);
    }
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
            "\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}",
            4, "overlap");
}

static void refuses_every_truncation(void **state)
{
    size_t len, points = 1000;
    uint8_t *bytes = scratch_read(DATA, &len);
    size_t header = 8 + (bytes[0] | (size_t)bytes[1] << 8);
    struct gyaru_error err;
    struct safetensors *file;
    assert_true(header < len);
    for (size_t i = 0; i < header + points; i++) {
        size_t cut = i < header ? i : header + (i - header) * (len - header) / points;
        const char *path = scratch_write("cut.safetensors", bytes, cut);
        if (!safetensors_open(path, &file, &err))
            fail_msg("accepted when cut at %zu of %zu", cut, len);
        check_error(&err, GYARU_FAILED, path, NULL);
    }
    /* One byte too many is no better. */
    bytes[len] = 0;
    assert_int_equal(
        safetensors_open(scratch_write("cut.safetensors", bytes, len + 1), &file, &err), -1);
    free(bytes);
}

static void hostile_lengths_cost_no_memory(void **state)
{
    const uint64_t lengths[] = {
        UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63, 100000001, 100000000, 65, 64};
    size_t before = mallinfo2().uordblks, arena = mallinfo2().arena + mallinfo2().hblkhd;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t bytes[72] = {0};
        struct safetensors *file;
        struct gyaru_error err;
        memcpy(bytes, &lengths[i], 8);
        memset(bytes + 8, '{', 64);
        const char *path = scratch_write("long.safetensors", bytes, sizeof bytes);
        assert_int_equal(safetensors_open(path, &file, &err), -1);
        check_error(&err, GYARU_FAILED, path, i < 6 ? "header of" : "JSON", NULL);
    }
    assert_true(mallinfo2().uordblks < before + 65536);
    assert_true(mallinfo2().arena + mallinfo2().hblkhd < arena + (1 << 20));
}

/* Sixteen megabytes of empty objects: refused before they become gigabytes. */
static void crowded_headers_cost_no_memory(void **state)
{
    size_t len = (size_t)16 << 20, before = mallinfo2().arena + mallinfo2().hblkhd;
    uint8_t *bytes = calloc(1, len + 8);
    struct safetensors *file;
    struct gyaru_error err;
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(len >> (8 * i));
    for (size_t i = 0; i < len; i++)
        bytes[8 + i] = (uint8_t)(i < 5 ? "{\"\":["[i] : "{},"[(i - 5) % 3]);
    const char *path = scratch_write("crowded.safetensors", bytes, len + 8);
    free(bytes);
    assert_int_equal(safetensors_open(path, &file, &err), -1);
    check_error(&err, GYARU_FAILED, path, "values", NULL);
    assert_true(mallinfo2().arena + mallinfo2().hblkhd < before + (1 << 20));
}

static void names_the_missing_file(void **state)
{
    struct safetensors *file;
    struct gyaru_error err;
    assert_int_equal(safetensors_open("/nonexistent\n/x", &file, &err), -1);
    check_error(&err, GYARU_FAILED, "/nonexistent", "No such file", NULL);
    assert_int_equal(safetensors_open("/dev/zero", &file, &err), -1);
    check_error(&err, GYARU_FAILED, "/dev/zero", "regular", NULL);
}

static void writes_what_it_reads(void **state)
{
    const float a[6] = {1, 2, 3, 4, 5, 6};
    const uint8_t b[3] = {7, 8, 9};
    const uint64_t a_dims[] = {2, 3}, b_dims[] = {3, 1}, z_dims[] = {0};
    const struct tensor tensors[] = {
        {"a \"quoted\"", DTYPE_F32, 2, a_dims, (const uint8_t *)a, sizeof a},
        {"b", DTYPE_U8, 2, b_dims, b, sizeof b},
        {"z", DTYPE_BF16, 1, z_dims, b, 0},
    };
    const struct safetensors_pair metadata[] = {{"note", "あーし\n"}, {"", ""}};
    const char *path = scratch_path("written.safetensors");
    struct safetensors *file;
    struct gyaru_error err;
    assert_int_equal(safetensors_write(path, tensors, 3, metadata, 2, &err), 0);
    assert_int_equal(safetensors_open(path, &file, &err), 0);
    assert_int_equal(safetensors_count(file), 3);
    assert_string_equal(safetensors_metadata(file, "note"), "あーし\n");
    assert_int_equal(safetensors_metadata_count(file), 2);
    for (size_t i = 0; i < 3; i++) {
        const struct tensor *t = safetensors_find(file, tensors[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->size, tensors[i].size);
        assert_memory_equal(t->dims, tensors[i].dims, t->n_dims * sizeof *t->dims);
        assert_memory_equal(t->data, tensors[i].data, t->size);
    }
    safetensors_close(file);
}

static void failed_writes_leave_the_old_file(void **state)
{
    const float a[1] = {1};
    const uint64_t dims[] = {1}, wrong[] = {2};
    struct tensor tensors[] = {{"a", DTYPE_F32, 1, dims, (const uint8_t *)a, sizeof a},
                               {"a", DTYPE_F32, 1, dims, (const uint8_t *)a, sizeof a}};
    const char *path = scratch_write("old.safetensors", "old", 3);
    struct gyaru_error err;
    assert_int_equal(safetensors_write(path, tensors, 2, NULL, 0, &err), -1);
    check_error(&err, GYARU_FAILED, path, "'a'", "taken", NULL);
    tensors[1] = (struct tensor){"b", DTYPE_F32, 1, wrong, (const uint8_t *)a, sizeof a};
    assert_int_equal(safetensors_write(path, tensors, 2, NULL, 0, &err), -1);
    check_error(&err, GYARU_FAILED, path, "'b'", "shape", NULL);
    size_t len;
    uint8_t *bytes = scratch_read(path, &len);
    assert_int_equal(len, 3);
    assert_memory_equal(bytes, "old", 3);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_real_file),
        cmocka_unit_test(accepts_what_the_format_allows),
        cmocka_unit_test(refuses_bad_headers),
        cmocka_unit_test(refuses_bad_tensors),
        cmocka_unit_test(refuses_impossible_sizes),
        cmocka_unit_test(refuses_overlap_and_holes),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(hostile_lengths_cost_no_memory),
        cmocka_unit_test(crowded_headers_cost_no_memory),
        cmocka_unit_test(names_the_missing_file),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(failed_writes_leave_the_old_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
