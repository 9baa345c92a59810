/*
 * test_generate_read.c - what is read before and after an endpoint is asked for pairs: personas,
 * and the objects in whatever a model wrote.
 */
#include "steer/generate.h"
#include "support/scratch.h"

#include "base/clock.h"

#include <gyaru.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SHIPPED "data/personas/gyaru.json"

/* ---- personas -------------------------------------------------------------------------------- */

static void the_shipped_persona_is_good(void **state)
{
    struct gyaru_error err;
    struct persona p;
    struct str why = STR_INIT;
    if (persona_open(SHIPPED, &p, &err))
        fail_msg("%s", err.text);
    assert_string_equal(p.style_key, "gyaru");
    assert_string_equal(p.plain_key, "standard");
    char *prompt = persona_prompt(&p, 2, "1. 天気\n2. 料理", "-");
    assert_null(strstr(prompt, "{topics}"));
    assert_null(strstr(prompt, "_key}"));
    assert_non_null(strstr(prompt, "\"gyaru\""));
    assert_int_equal(
        persona_check_text(&p, "雨の音ってあーし的にはチルくて好きだよ〜。", true, &why), 0);
    assert_int_equal(persona_check_text(&p, "雨の音を聞くと心が落ち着きます。", false, &why), 0);
    assert_int_equal(persona_check_text(&p, "今天天气很好，我们一起出去走走吧朋友。", false, &why),
                     -1);
    assert_non_null(strstr(why.data, "script")); /* Chinese: no kana */
    str_release(&why);
    free(prompt);
    persona_release(&p);
}

static void wrong_personas_are_refused(void **state)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"[]", "object"},
        {"{\"name\": \"x\", \"min_marker\": 2}", "'min_marker': no such key"},
        {"{\"name\": \"x\"}", "'description'"},
        {"{\"name\": \"x\", \"description\": \"d\", \"style_key\": \"a\", \"plain_key\": \"a\", "
         "\"markers\": [\"m\"], \"topics\": [\"t\"], \"prompt\": \"{topics}\"}",
         "must differ"},
        {"{\"name\": \"x\", \"description\": \"d\", \"style_key\": \"a\", \"plain_key\": \"b\", "
         "\"markers\": [], \"topics\": [\"t\"], \"prompt\": \"{topics}\"}",
         "'markers'"},
        {"{\"name\": \"x\", \"description\": \"d\", \"style_key\": \"a\", \"plain_key\": \"b\", "
         "\"markers\": [\"m\"], \"topics\": [\"t\"], \"prompt\": \"write\"}",
         "lacks {topics}"},
        {"{\"name\": \"x\", \"description\": \"d\", \"style_key\": \"a\", \"plain_key\": \"b\", "
         "\"markers\": [\"m\"], \"topics\": [\"t\"], \"prompt\": \"{topics}\", "
         "\"scripts\": {\"allowed\": [\"klingon\"]}}",
         "klingon"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gyaru_error err;
        struct persona p;
        const char *path = scratch_write("persona.json", cases[i].text, strlen(cases[i].text));
        if (!persona_open(path, &p, &err))
            fail_msg("taken: %s", cases[i].text);
        check_error(&err, GYARU_FAILED, "persona.json", cases[i].part, NULL);
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static size_t count_objects(const char *text, bool *cut)
{
    const char *const keys[] = {"a", "b"};
    json_t *found = generate_read(text, keys, 2, cut);
    assert_non_null(found);
    size_t n = json_array_size(found);
    json_decref(found);
    return n;
}

static void objects_are_found_anywhere(void **state)
{
    bool cut;
    assert_int_equal(count_objects("", &cut), 0);
    assert_false(cut);
    assert_int_equal(count_objects("{\"a\": \"}{\", \"b\": \"\\\"\"} and {\"b\": 1}", &cut), 2);
    assert_false(cut);
    assert_int_equal(count_objects("{\"c\": {\"d\": [{\"a\": 1}]}}", &cut), 1);
    assert_int_equal(count_objects("[{\"a\": 1}, {\"a\": \"half", &cut), 1);
    assert_true(cut);
    assert_int_equal(count_objects("{\"pairs\": [{\"a\": 1}, {\"b\": 2}", &cut), 2);
    assert_false(cut);
}

/* Unbalanced braces cost a bounded time each. */
static void hostile_answers_cost_little(void **state)
{
    size_t n = 4000000;
    char *text = malloc(n + 1);
    assert_non_null(text);
    memset(text, '{', n);
    text[n] = '\0';
    bool cut;
    double start = clock_seconds();
    assert_int_equal(count_objects(text, &cut), 0);
    assert_true(cut);
    assert_true(clock_seconds() - start < 5);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shipped_persona_is_good),
        cmocka_unit_test(wrong_personas_are_refused),
        cmocka_unit_test(objects_are_found_anywhere),
        cmocka_unit_test(hostile_answers_cost_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
