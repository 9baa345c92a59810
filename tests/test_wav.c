/*
 * test_wav.c - sounds that an engine sent: read, joined, and refused where they are none.
 */
#include "base/wav.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* 8 samples of 16 bits, 24 kHz, with a chunk of odd length before the sound. */
static const unsigned char file[] = {
    'R', 'I', 'F', 'F', 62, 0, 0,    0,    'W', 'A', 'V',  'E',  'f', 'm', 't', ' ', 16, 0,
    0,   0,   1,   0,   1,  0, 0xc0, 0x5d, 0,   0,   0x80, 0xbb, 0,   0,   2,   0,   16, 0,
    'L', 'I', 'S', 'T', 3,  0, 0,    0,    'a', 'b', 'c',  0,    'd', 'a', 't', 'a', 16, 0,
    0,   0,   1,   0,   2,  0, 3,    0,    4,   0,   5,    0,    6,   0,   7,   0,   8,  0};

static void test_read(void **state)
{
    struct gyaru_error err;
    struct wav wav;
    assert_int_equal(wav_read(file, sizeof file, &wav, &err), 0);
    assert_int_equal(wav.channels, 1);
    assert_int_equal(wav.rate, 24000);
    assert_int_equal(wav.bits, 16);
    assert_int_equal(wav.len, 16);
    assert_int_equal(wav.data[0], 1);
    assert_float_equal(wav_seconds(&wav), 8.0 / 24000, 1e-9);
}

/* Copies of exactly the length, so that a sanitizer sees every byte too many. */
static int read_copy(const void *bytes, size_t len, struct wav *wav)
{
    struct gyaru_error err;
    char *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    int rc = wav_read(copy, len, wav, &err);
    if (!rc)
        assert_true(wav->len <= len);
    free(copy);
    return rc;
}

static void test_cut_at_each_byte(void **state)
{
    struct wav wav;
    size_t head = sizeof file - 16;
    for (size_t len = 0; len < sizeof file; len++) {
        int rc = read_copy(file, len, &wav);
        assert_int_equal(rc, len < head ? -1 : 0);
        if (!rc)
            assert_int_equal(wav.len, (len - head) / 2 * 2);
    }
}

static void test_every_byte_changed(void **state)
{
    struct wav wav;
    unsigned char bad[sizeof file];
    for (size_t i = 0; i < sizeof file; i++) {
        for (int value = 0; value < 256; value++) {
            memcpy(bad, file, sizeof file);
            bad[i] = (unsigned char)value;
            read_copy(bad, sizeof bad, &wav);
        }
    }
    assert_int_equal(read_copy("<html>no sound at all, but a page</html>", 40, &wav), -1);
}

static void test_join(void **state)
{
    struct gyaru_error err;
    struct wav wav, joined, other;
    struct str out = STR_INIT;
    assert_int_equal(wav_read(file, sizeof file, &wav, &err), 0);
    assert_int_equal(wav_append(&out, &wav, &err), 0);
    assert_int_equal(wav_append(&out, &wav, &err), 0);
    assert_int_equal(wav_read(out.data, out.len, &joined, &err), 0);
    assert_int_equal(out.len, 44 + 32);
    assert_int_equal(joined.len, 32);
    assert_memory_equal(joined.data, wav.data, 16);
    assert_memory_equal(joined.data + 16, wav.data, 16);
    other = wav;
    other.rate = 48000;
    assert_int_equal(wav_append(&out, &other, &err), -1);
    assert_non_null(strstr(err.text, "format"));
    str_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_cut_at_each_byte),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
