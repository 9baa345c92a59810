/* test_utf8.c - the streaming decoder against an independent definition of well-formed UTF-8. */
#include "text/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FFFD "\xef\xbf\xbd"

/* The text that the bytes become, pushed in pieces of `step` bytes. */
static char *stream(const char *bytes, size_t n, size_t step)
{
    struct utf8_stream s = {{0}, 0};
    struct str out = STR_INIT;
    for (size_t i = 0; i < n; i += step) {
        utf8_stream_push(&s, (const uint8_t *)bytes + i, n - i < step ? n - i : step, &out);
        assert_true(utf8_valid(out.data ? out.data : "", out.len));
    }
    utf8_stream_finish(&s, &out);
    assert_true(utf8_valid(out.data ? out.data : "", out.len));
    return str_take(&out);
}

static void whole_characters_pass(void **state)
{
    static const char text[] = "a\xc3\xa9\xe3\x81\x82\xf0\x9f\xa7\xa0\xf4\x8f\xbf\xbf\xed\x9f\xbf!";
    for (size_t step = 1; step < sizeof text; step++) {
        char *out = stream(text, strlen(text), step);
        assert_string_equal(out, text);
        free(out);
    }
}

static void nothing_leaves_before_it_is_whole(void **state)
{
    static const char brain[] = "\xf0\x9f\xa7\xa0";
    struct utf8_stream s = {{0}, 0};
    struct str out = STR_INIT;
    for (size_t i = 0; i < 3; i++) {
        utf8_stream_push(&s, (const uint8_t *)brain + i, 1, &out);
        assert_int_equal(out.len, 0);
    }
    utf8_stream_push(&s, (const uint8_t *)brain + 3, 1, &out);
    assert_string_equal(out.data, brain);
    str_release(&out);
}

/* The Unicode Standard's tables 3-8 to 3-11, and what is left at the end. */
static void invalid_bytes_are_replaced(void **state)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", FFFD FFFD FFFD FFFD FFFD "A" FFFD FFFD "B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", FFFD FFFD FFFD FFFD "A"},
        {"\xe3\x81", FFFD},
        {"x\xf0\x9f\xa7", "x" FFFD},
        {"\x80", FFFD},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step <= strlen(cases[i].bytes); step++) {
            char *out = stream(cases[i].bytes, strlen(cases[i].bytes), step);
            assert_string_equal(out, cases[i].text);
            free(out);
        }
}

/* Decodes and compares with the ranges of Unicode scalar values. */
static bool valid_by_arithmetic(const uint8_t *b, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < n;) {
        size_t size = b[i] < 0x80       ? 1
                      : b[i] >> 5 == 6  ? 2
                      : b[i] >> 4 == 14 ? 3
                      : b[i] >> 3 == 30 ? 4
                                        : 0;
        if (size == 0 || i + size > n)
            return false;
        uint32_t c = size == 1 ? b[i] : b[i] & (0xffu >> (size + 1));
        for (size_t k = 1; k < size; k++) {
            if (b[i + k] >> 6 != 2)
                return false;
            c = c << 6 | (b[i + k] & 0x3f);
        }
        if (c < least[size] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return false;
        i += size;
    }
    return true;
}

static void validity_agrees_with_arithmetic(void **state)
{
    /* Every pair of bytes, followed by nothing, by one and by two continuation bytes. */
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++)
            for (size_t n = 2; n <= 4; n++) {
                uint8_t bytes[4] = {(uint8_t)a, (uint8_t)b, 0x80, 0xbf};
                assert_int_equal(utf8_valid((char *)bytes, n), valid_by_arithmetic(bytes, n));
            }
    unsigned seed = 1;
    for (int round = 0; round < 20000; round++) {
        static const uint8_t of_interest[] = {0x41, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2,
                                              0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff};
        uint8_t bytes[6];
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = of_interest[(seed >> 16) % sizeof of_interest];
        }
        bool valid = valid_by_arithmetic(bytes, sizeof bytes);
        assert_int_equal(utf8_valid((char *)bytes, sizeof bytes), valid);
        char *once = stream((char *)bytes, sizeof bytes, sizeof bytes);
        char *twice = stream((char *)bytes, sizeof bytes, 1);
        assert_string_equal(once, twice);
        if (valid)
            assert_memory_equal(once, bytes, sizeof bytes);
        free(once);
        free(twice);
    }
}

static void the_prefix_ends_at_the_error(void **state)
{
    assert_int_equal(utf8_valid_prefix("abc", 3), 3);
    assert_int_equal(utf8_valid_prefix("ab\xff", 3), 2);
    assert_int_equal(utf8_valid_prefix("\xe3\x81\x82\xe3\x81", 5), 3);
    assert_int_equal(utf8_valid_prefix("", 0), 0);
}

/* Accepted is what leaves no replacement behind, from any state. */
static void accepts_what_needs_no_replacement(void **state)
{
    static const uint8_t alphabet[] = {'a', 0x80, 0xbf, 0xc2, 0xe0, 0xe3, 0xed, 0xf0, 0xf4, 0xff};
    uint32_t random = 1;
    int accepted = 0;
    for (int round = 0; round < 200000; round++) {
        struct utf8_stream stream = {{0}, 0};
        struct str out = STR_INIT;
        uint8_t bytes[6];
        for (size_t i = 0; i < sizeof bytes; i++) {
            random = random * 1664525u + 1013904223u;
            bytes[i] = alphabet[(random >> 16) % sizeof alphabet];
        }
        size_t first = (random >> 8) % 3, n = 1 + (random >> 12) % 3;
        utf8_stream_push(&stream, bytes, first, &out);
        str_clear(&out);
        bool accepts = utf8_stream_accepts(&stream, bytes + first, n);
        utf8_stream_push(&stream, bytes + first, n, &out);
        assert_int_equal(accepts, !out.len || !strstr(out.data, "\xef\xbf\xbd"));
        accepted += accepts;
        str_release(&out);
    }
    assert_true(accepted > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_needs_no_replacement),
        cmocka_unit_test(whole_characters_pass),
        cmocka_unit_test(nothing_leaves_before_it_is_whole),
        cmocka_unit_test(invalid_bytes_are_replaced),
        cmocka_unit_test(validity_agrees_with_arithmetic),
        cmocka_unit_test(the_prefix_ends_at_the_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
