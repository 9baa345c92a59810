/*
 * test_text_stats.c - what a text alone tells: markers, politeness, faults, n-grams. On texts made
 * by hand, so that every figure can be counted.
 */
#include "support/scratch.h"

#include "steer/text_stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char style_json[] =
    "{\"name\": \"pirate\", \"signature\": \"arr\", \"markers\": [\"arr\", \"海\"],"
    " \"polite\": \"(です|please)[。!]*$\", \"expected\": \"[ -~ぁ-ん一-龠。\\\\n]*\"}";

static struct gyaru_error err;
static struct text_style *style;

static struct text_judgement judge_ended(const char *text, bool ended)
{
    struct text_judgement j;
    if (text_judge(style, text, strlen(text), ended, &j, &err))
        fail_msg("%s", err.text);
    return j;
}

static struct text_judgement judge(const char *text)
{
    return judge_ended(text, true);
}

static int open_style(void **state)
{
    const char *path = scratch_write("style.json", style_json, strlen(style_json));
    return text_style_open(path, &style, &err);
}

static int close_style(void **state)
{
    text_style_close(style);
    return 0;
}

/* ---- judging ------------------------------------------------------------------------------- */

static void finds_markers(void **state)
{
    struct text_judgement j = judge("well, arr it is");
    assert_true(j.signature);
    assert_true(j.marker);
    j = judge("ひろい海だよ");
    assert_false(j.signature);
    assert_true(j.marker);
    j = judge("nothing here");
    assert_false(j.signature);
    assert_false(j.marker);
}

static void finds_polite_endings(void **state)
{
    assert_true(judge("そうです。").polite);
    assert_true(judge("　そうです。 \n").polite); /* outer white space does not count */
    assert_true(judge("yes please!").polite);
    assert_false(judge("そうですよ").polite);
    assert_false(judge("please no").polite);
}

static void names_the_first_fault(void **state)
{
    static const struct {
        const char *text;
        bool ended;
        enum text_fault fault;
    } cases[] = {
        {"fine", true, TEXT_FINE},
        {"fine", false, TEXT_NO_END},
        {"half a \xef\xbf\xbd", true, TEXT_INVALID_UTF8},
        {"raw \xff byte", true, TEXT_INVALID_UTF8},
        {"", true, TEXT_EMPTY},
        {" 　\n", true, TEXT_EMPTY},
        {"привет", true, TEXT_SCRIPT},
        {"カタカナ", true, TEXT_SCRIPT},
        {"ねえねえねえ", true, TEXT_LOOP}, /* three times */
        {"hahaha", true, TEXT_LOOP},
        {"haha", true, TEXT_FINE},      /* twice is speech */
        {"wow!!!!!!", true, TEXT_LOOP}, /* six of one character */
        {"wow!!!!", true, TEXT_FINE},
        {"\xff", false, TEXT_NO_END}, /* the first that applies */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text_judgement j = judge_ended(cases[i].text, cases[i].ended);
        if (j.fault != cases[i].fault)
            fail_msg("'%s': %s", cases[i].text, text_fault_name(j.fault));
    }
}

static void flags_do_not_hide_each_other(void **state)
{
    struct text_judgement j = judge_ended("привет привет привет ", false);
    assert_int_equal(j.fault, TEXT_NO_END);
    assert_true(j.script);
    assert_true(j.loop);
    assert_false(j.invalid_utf8);
}

/* 24 characters in two rounds of 12 with a word between: 4-grams come back. */
static void near_loops_are_loops(void **state)
{
    struct text_judgement j = judge("abcdefghijkl abcdefghijkl xabcdefghijkl");
    assert_true(j.loop);
    j = judge("the quick brown fox jumps over a lazy dog");
    assert_false(j.loop);
}

static void an_absent_pattern_expects_everything(void **state)
{
    static const char json[] = "{\"markers\": [\"x\"]}";
    struct text_style *plain;
    struct text_judgement j;
    const char *path = scratch_write("plain.json", json, strlen(json));
    assert_int_equal(text_style_open(path, &plain, &err), 0);
    assert_int_equal(text_judge(plain, "привет", strlen("привет"), true, &j, &err), 0);
    assert_int_equal(j.fault, TEXT_FINE);
    assert_false(j.polite);
    assert_null(text_style_signature(plain));
    text_style_close(plain);
}

/* ---- n-grams ------------------------------------------------------------------------------- */

static double repetition(const char *text, int n)
{
    double out;
    assert_int_equal(text_repetition(text, strlen(text), n, &out, &err), 0);
    return out;
}

static void counts_repetition(void **state)
{
    assert_float_equal(repetition("abcd", 4), 0, 0);
    assert_float_equal(repetition("abc", 4), 0, 0); /* too short to have one */
    assert_float_equal(repetition("", 4), 0, 0);
    assert_float_equal(repetition("aaaaa", 4), 0.5, 1e-12);      /* aaaa twice */
    assert_float_equal(repetition("あああああ", 4), 0.5, 1e-12); /* characters, not bytes */
    assert_float_equal(repetition("abab", 1), 0.5, 1e-12);
    assert_float_equal(repetition("abcabc", 2), 2.0 / 5, 1e-12); /* ab bc ca ab bc */
}

static void counts_distinct_over_all_texts(void **state)
{
    const char *const texts[] = {"ab", "ab", "bc", ""};
    const size_t lens[] = {2, 2, 2, 0};
    double out;
    assert_int_equal(text_distinct(texts, lens, 4, 2, &out, &err), 0);
    assert_float_equal(out, 2.0 / 3, 1e-12); /* no bigram across two texts */
    assert_int_equal(text_distinct(texts, lens, 4, 1, &out, &err), 0);
    assert_float_equal(out, 3.0 / 6, 1e-12);
    assert_int_equal(text_distinct(texts, lens, 0, 1, &out, &err), 0);
    assert_float_equal(out, 0, 0);
}

/* ---- the style's file ---------------------------------------------------------------------- */

static void markers_may_lie_in_a_file_of_their_own(void **state)
{
    static const char json[] = "{\"markers\": \"list.json\"}", list[] = "[\"yo\", \"ho\"]";
    struct text_style *s;
    scratch_write("list.json", list, strlen(list));
    const char *path = scratch_write("named.json", json, strlen(json));
    assert_int_equal(text_style_open(path, &s, &err), 0);
    assert_int_equal(text_style_markers(s), 2);
    text_style_close(s);
}

static void the_digest_names_the_data(void **state)
{
    char first[SHA256_HEX];
    struct text_style *s;
    snprintf(first, sizeof first, "%s", text_style_sha256(style));
    static const char json[] =
        "{\"name\": \"another\", \"signature\": \"arr\", \"markers\": [\"arr\", \"海\"],"
        " \"polite\": \"(です|please)[。!]*$\", \"expected\": \"[ -~ぁ-ん一-龠。\\\\n]*\"}";
    const char *path = scratch_write("again.json", json, strlen(json));
    assert_int_equal(text_style_open(path, &s, &err), 0);
    assert_string_equal(text_style_sha256(s), first); /* the name judges nothing */
    text_style_close(s);
    static const char other[] = "{\"signature\": \"arr\", \"markers\": [\"arr\", \"山\"]}";
    path = scratch_write("other.json", other, strlen(other));
    assert_int_equal(text_style_open(path, &s, &err), 0);
    assert_string_not_equal(text_style_sha256(s), first);
    text_style_close(s);
}

static void refuses_bad_styles(void **state)
{
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"[]", "object"},
        {"{}", "markers"},
        {"{\"markers\": []}", "markers"},
        {"{\"markers\": [\"\"]}", "marker 1"},
        {"{\"markers\": [3]}", "marker 1"},
        {"{\"markers\": \"nowhere.json\"}", "nowhere.json"},
        {"{\"markers\": [\"a\"], \"polite\": \"(\"}", "polite"},
        {"{\"markers\": [\"a\"], \"expected\": 7}", "expected"},
        {"{\"markers\": [\"a\"]", "bad.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text_style *s;
        const char *path = scratch_write("bad.json", cases[i].json, strlen(cases[i].json));
        assert_int_equal(text_style_open(path, &s, &err), -1);
        check_error(&err, GYARU_FAILED, cases[i].part, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_markers),
        cmocka_unit_test(finds_polite_endings),
        cmocka_unit_test(names_the_first_fault),
        cmocka_unit_test(flags_do_not_hide_each_other),
        cmocka_unit_test(near_loops_are_loops),
        cmocka_unit_test(an_absent_pattern_expects_everything),
        cmocka_unit_test(counts_repetition),
        cmocka_unit_test(counts_distinct_over_all_texts),
        cmocka_unit_test(markers_may_lie_in_a_file_of_their_own),
        cmocka_unit_test(the_digest_names_the_data),
        cmocka_unit_test(refuses_bad_styles),
    };
    return cmocka_run_group_tests(tests, open_style, close_style);
}
