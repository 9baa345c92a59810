/*
 * test_tokenizer.c - ids and texts as the reference gives them, round trips, speed. Which files are
 * read, and which refused: test_tokenizer_files.c.
 */
#include "base/clock.h"
#include "base/str.h"
#include "support/random.h"
#include "support/text_dir.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Generous: a loaded machine under sanitizers. Measured without them: 0.02 to 0.7 s. */
#define SECONDS_PER_MEGABYTE 3.0

static int open_reference(void **state)
{
    *state = text_dir_open(REFERENCE_TOKENIZER);
    return 0;
}

static int close_reference(void **state)
{
    gyaru_tokenizer_close(*state);
    return 0;
}

/* ---- against the reference ---------------------------------------------------------------- */

static void check_encode(const struct gyaru_tokenizer *t, const json_t *text,
                         const json_t *expected, size_t i)
{
    struct gyaru_error err;
    int32_t *ids;
    size_t n;
    if (gyaru_tokenize(t, json_string_value(text), json_string_length(text), true, &ids, &n, &err))
        fail_msg("case %zu: %s", i, err.text);
    bool same = n == json_array_size(expected);
    for (size_t k = 0; same && k < n; k++)
        same = ids[k] == json_integer_value(json_array_get(expected, k));
    free(ids);
    if (!same)
        fail_msg("case %zu: '%s' gives other ids", i, json_string_value(text));
}

static void check_decode(const struct gyaru_tokenizer *t, const json_t *list,
                         const json_t *expected, size_t i)
{
    struct gyaru_error err;
    int32_t *ids = calloc(json_array_size(list) + 1, sizeof *ids);
    char *text;
    size_t len;
    for (size_t k = 0; k < json_array_size(list); k++)
        ids[k] = (int32_t)json_integer_value(json_array_get(list, k));
    if (gyaru_detokenize(t, ids, json_array_size(list), &text, &len, &err))
        fail_msg("case %zu: %s", i, err.text);
    if (len != json_string_length(expected) || memcmp(text, json_string_value(expected), len) != 0)
        fail_msg("case %zu: decodes to '%s'", i, text);
    free(text);
    free(ids);
}

static size_t check_cases(const struct gyaru_tokenizer *t, const char *path)
{
    json_t *cases = text_dir_json(path);
    size_t n = json_array_size(cases);
    for (size_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(cases, i), *ids = json_object_get(c, "ids");
        if (json_object_get(c, "text"))
            check_encode(t, json_object_get(c, "text"), ids, i);
        check_decode(t, ids, json_object_get(c, "decoded"), i);
    }
    json_decref(cases);
    return n;
}

static void reference_cases(void **state)
{
    assert_true(check_cases(*state, REFERENCE_TOKENIZER "/cases.json") > 400);
}

static void qwen_cases(void **state)
{
    char cases[4096];
    const char *path = shared_file("reference/qwen2.5-tokenizer-cases.json");
    if (!path)
        skip();
    snprintf(cases, sizeof cases, "%s", path);
    double start = clock_seconds();
    struct gyaru_tokenizer *t = text_dir_open(shared_file("reference/qwen2.5-tokenizer"));
    printf("opening Qwen2.5's tokenizer: %.0f ms\n", 1e3 * (clock_seconds() - start));
    assert_int_equal(gyaru_tokenizer_size(t), 151665);
    assert_int_equal(check_cases(t, cases), 437);
    gyaru_tokenizer_close(t);
}

/* ---- what the interface promises ---------------------------------------------------------- */

static void special_text_is_ordinary_unless_asked_for(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    static const char text[] = "a<|im_end|>b";
    int32_t end = tokenizer_find_added(t, "<|im_end|>"), *ids;
    size_t n, len;
    char *back;
    struct gyaru_error err;
    assert_true(end >= 0 && tokenizer_is_special(t, end));
    assert_int_equal(gyaru_tokenize(t, text, strlen(text), true, &ids, &n, &err), 0);
    assert_int_equal(n, 3);
    assert_int_equal(ids[1], end);
    free(ids);
    assert_int_equal(gyaru_tokenize(t, text, strlen(text), false, &ids, &n, &err), 0);
    for (size_t i = 0; i < n; i++)
        assert_false(tokenizer_is_special(t, ids[i]));
    assert_int_equal(gyaru_detokenize(t, ids, n, &back, &len, &err), 0);
    assert_string_equal(back, text);
    free(ids);
    free(back);
}

static void invalid_text_is_an_error_with_its_place(void **state)
{
    struct gyaru_error err;
    int32_t *ids = NULL;
    size_t n = 77;
    assert_int_equal(gyaru_tokenize(*state, "abc\xe3\x81", 5, false, &ids, &n, &err), -1);
    assert_non_null(strstr(err.text, "byte 3"));
    assert_null(ids);
    assert_int_equal(n, 77);
    assert_int_equal(gyaru_tokenize(*state, "\xed\xa0\x80", 3, false, &ids, &n, &err), -1);
}

static void unknown_ids_are_errors(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    const int32_t wrong[] = {-1, INT32_MIN, INT32_MAX, gyaru_tokenizer_size(t)};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct gyaru_error err;
        const uint8_t *bytes;
        char *text;
        size_t n;
        assert_int_equal(tokenizer_bytes(t, wrong[i], &bytes, &n), -1);
        assert_false(tokenizer_is_special(t, wrong[i]));
        const int32_t ids[] = {1, wrong[i]};
        assert_int_equal(gyaru_detokenize(t, ids, 2, &text, &n, &err), -1);
        assert_non_null(strstr(err.text, "ids[1]"));
    }
    assert_int_equal(tokenizer_find_added(t, "<|im_end|"), -1);
    assert_int_equal(tokenizer_find_added(t, "<|im_end|>x"), -1);
    assert_int_equal(tokenizer_find_added(t, ""), -1);
}

/* Any bytes, made valid and normal by a first round trip, come back as they are. */
static void random_text_comes_back(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    random_seed(42);
    for (int round = 0; round < 3000; round++) {
        uint8_t bytes[64];
        size_t n = random_bits() % (sizeof bytes + 1);
        int kind = (int)(random_bits() % 3);
        for (size_t i = 0; i < n; i++) {
            static const uint8_t of_interest[] = "\xe3\x81\x82\xcc\x80\xcc\x96 \n'sA<|";
            uint32_t r = random_bits();
            bytes[i] = (uint8_t)(kind == 0 ? r % 0x80 : kind == 1 ? r : of_interest[r % 14]);
        }
        struct utf8_stream stream = {{0}, 0};
        struct str text = STR_INIT;
        utf8_stream_push(&stream, bytes, n, &text);
        utf8_stream_finish(&stream, &text);
        char *first = NULL, *second = NULL;
        size_t first_len, second_len, n_ids;
        int32_t *ids;
        struct gyaru_error err;
        bool special = round % 2;
        const char *from = text.data ? text.data : "";
        assert_int_equal(gyaru_tokenize(t, from, text.len, special, &ids, &n_ids, &err), 0);
        assert_int_equal(gyaru_detokenize(t, ids, n_ids, &first, &first_len, &err), 0);
        if (kind == 0) { /* ASCII is its own normal form */
            assert_int_equal(first_len, n);
            assert_memory_equal(first, bytes, n);
        }
        free(ids);
        assert_int_equal(gyaru_tokenize(t, first, first_len, special, &ids, &n_ids, &err), 0);
        assert_int_equal(gyaru_detokenize(t, ids, n_ids, &second, &second_len, &err), 0);
        assert_int_equal(first_len, second_len);
        assert_memory_equal(first, second, first_len);
        free(ids);
        free(first);
        free(second);
        str_release(&text);
    }
}

static void every_token_has_its_bytes(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    for (int32_t id = 0; id < gyaru_tokenizer_size(t); id++) {
        const uint8_t *bytes;
        size_t n;
        assert_int_equal(tokenizer_bytes(t, id, &bytes, &n), 0);
        assert_true(n > 0);
    }
}

/* ---- speed -------------------------------------------------------------------------------- */

static void check_megabyte(const struct gyaru_tokenizer *t, const char *name, const char *text,
                           size_t len)
{
    struct gyaru_error err;
    int32_t *ids;
    size_t n;
    double start = clock_seconds();
    if (gyaru_tokenize(t, text, len, true, &ids, &n, &err))
        fail_msg("%s: %s", name, err.text);
    double seconds = clock_seconds() - start;
    printf("%s: %zu bytes, %zu ids, %.0f ms\n", name, len, n, 1e3 * seconds);
    assert_true(n > 0);
    free(ids);
    if (seconds > SECONDS_PER_MEGABYTE)
        fail_msg("%s: %.1f s", name, seconds);
}

static void a_megabyte_takes_no_time(void **state)
{
    static const char *const units[] = {"Hello world, this is text. ",
                                        "あーし、マジでテンション上がってるんだけど！",
                                        "a",
                                        " ",
                                        "\n",
                                        "! ",
                                        "'",
                                        " \n",
                                        "\xcc\x80\xcc\x96",
                                        "각",
                                        "<|im_",
                                        "<|im_end|>",
                                        "\xf0\x9f\x91\xa9\xe2\x80\x8d"};
    const size_t size = 1 << 20;
    char *text = malloc(size);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t unit = strlen(units[i]), len = 0;
        for (; len + unit <= size; len += unit)
            memcpy(text + len, units[i], unit);
        check_megabyte(*state, units[i], text, len);
    }
    random_seed(1);
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + random_bits() % 26);
    check_megabyte(*state, "one random word", text, size);
    memset(text, ' ', size);
    text[size - 1] = 'x';
    check_megabyte(*state, "spaces before a letter", text, size);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_cases),
        cmocka_unit_test(qwen_cases),
        cmocka_unit_test(special_text_is_ordinary_unless_asked_for),
        cmocka_unit_test(invalid_text_is_an_error_with_its_place),
        cmocka_unit_test(unknown_ids_are_errors),
        cmocka_unit_test(random_text_comes_back),
        cmocka_unit_test(every_token_has_its_bytes),
        cmocka_unit_test(a_megabyte_takes_no_time),
    };
    return cmocka_run_group_tests(tests, open_reference, close_reference);
}
