/*
 * test_measure.c - answers to many messages: the same however they are batched, judged and counted
 * without loss. On the tiny model, whose words are random.
 */
#include "support/program.h"
#include "support/reference.h"
#include "support/scratch.h"
#include "support/test_vector.h"

#include "steer/measure.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TINY     "tests/data/tiny-model"
#define MESSAGES 7
#define TOKENS   12

static const char style_json[] = "{\"signature\": \"a\", \"markers\": [\"a\", \"e\"],"
                                 " \"polite\": \"[a-m]$\", \"expected\": \"[ -~]*\"}";

static const char *const messages[MESSAGES] = {"こんにちは", "Hello", "雨だね",    "what?",
                                               "ラーメン",   "x",     "もう寝るよ"};

static struct gyaru_error err;
static struct gyaru_model *model;
static int vector;
static struct text_style *style;
static const char *style_path;

static void check(int rc)
{
    if (rc)
        fail_msg("%s", err.text);
}

static int open_all(void **state)
{
    struct gyaru_model_options options;
    gyaru_model_options_init(&options);
    options.sessions = 4;
    options.threads = 1; /* waiting for each other takes longer than the work */
    check(gyaru_model_open(TINY, &options, &model, &err));
    vector = test_vector_attach(model, TINY "/vector.safetensors", NULL);
    style_path = strdup(scratch_write("style.json", style_json, strlen(style_json)));
    check(text_style_open(style_path, &style, &err));
    return 0;
}

static int close_all(void **state)
{
    text_style_close(style);
    gyaru_model_close(model);
    free((char *)style_path);
    return 0;
}

static struct measure_plan make_plan(int batch, float strength)
{
    struct measure_plan plan = {.model = model,
                                .style = style,
                                .system = "Be brief.",
                                .messages = messages,
                                .n_messages = MESSAGES,
                                .vector = vector,
                                .strength = strength,
                                .max_tokens = TOKENS,
                                .batch = batch};
    gyaru_sampling_init(model, &plan.sampling);
    plan.sampling.temperature = 1;
    plan.sampling.seed = 3;
    return plan;
}

static struct measure_set answer(int batch, float strength)
{
    struct measure_plan plan = make_plan(batch, strength);
    struct measure_set set;
    check(measure_run(&plan, &set, &err));
    return set;
}

static bool same(const struct measure_set *a, const struct measure_set *b)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct measure_answer *x = &a->answers[i], *y = &b->answers[i];
        if (x->n_tokens != y->n_tokens || x->len != y->len || memcmp(x->text, y->text, x->len) ||
            memcmp(x->ids, y->ids, x->n_tokens * sizeof *x->ids))
            return false;
    }
    return a->n == b->n && a->n_tokens == b->n_tokens;
}

static void batches_do_not_change_answers(void **state)
{
    struct measure_set one = answer(1, 6);
    for (int batch = 0; batch <= 4; batch++) {
        struct measure_set many = answer(batch, 6);
        assert_true(same(&one, &many));
        for (size_t i = 0; i < one.n; i++)
            assert_true(one.answers[i].cosine == many.answers[i].cosine); /* to the last bit */
        measure_set_release(&many);
    }
    measure_set_release(&one);
}

static void messages_and_seeds_have_streams_of_their_own(void **state)
{
    struct measure_plan plan = make_plan(0, 0);
    const char *const equal[] = {"same", "same"};
    struct measure_set set, other;
    plan.messages = equal;
    plan.n_messages = 2;
    check(measure_run(&plan, &set, &err));
    assert_true(set.answers[0].len != set.answers[1].len ||
                memcmp(set.answers[0].text, set.answers[1].text, set.answers[0].len));
    plan.sampling.seed = 4;
    check(measure_run(&plan, &other, &err));
    assert_false(same(&set, &other));
    measure_set_release(&set);
    measure_set_release(&other);
}

static void strength_acts_and_zero_does_not(void **state)
{
    struct measure_plan plan = make_plan(0, 0);
    struct measure_set none, zero = answer(0, 0), strong = answer(0, 20);
    plan.vector = -1;
    check(measure_run(&plan, &none, &err));
    assert_true(same(&none, &zero));
    assert_false(same(&none, &strong));
    assert_true(isnan(none.answers[0].cosine));
    assert_false(isnan(zero.answers[0].cosine));
    measure_set_release(&none);
    measure_set_release(&zero);
    measure_set_release(&strong);
}

static void figures_add_up(void **state)
{
    struct measure_set set = answer(0, 0);
    struct measure_figures f;
    double sum = 0, markers = 0, tokens = 0;
    check(measure_figures(&set, &f, &err));
    for (int i = 0; i < TEXT_FAULTS; i++)
        sum += f.faults[i];
    assert_float_equal(sum, 1, 1e-9);
    assert_float_equal(f.garbled, 1 - f.faults[TEXT_FINE], 1e-9);
    for (size_t i = 0; i < set.n; i++) {
        const struct measure_answer *a = &set.answers[i];
        assert_true(a->n_tokens <= TOKENS);
        assert_true((a->finish == GYARU_STOP) == (a->judged.fault != TEXT_NO_END));
        markers += a->judged.marker;
        tokens += (double)a->n_tokens;
    }
    assert_float_equal(f.marker, markers / MESSAGES, 1e-9);
    assert_float_equal(f.length, tokens / MESSAGES, 1e-9);
    assert_true(f.tokens_per_second > 0);
    measure_set_release(&set);
}

static int stop_at_second_call(void *user, const char *what, uint64_t done, uint64_t total)
{
    return ++*(int *)user == 2;
}

static void an_interruption_gives_the_sessions_back(void **state)
{
    struct measure_plan plan = make_plan(0, 0);
    struct measure_set set;
    struct gyaru_session *sessions[4];
    int calls = 0;
    plan.progress = stop_at_second_call;
    plan.progress_user = &calls;
    assert_int_equal(measure_run(&plan, &set, &err), -1);
    check_error(&err, GYARU_FAILED, "interrupted", NULL);
    for (int i = 0; i < 4; i++)
        check(gyaru_session_new(model, &sessions[i], &err));
    for (int i = 0; i < 4; i++)
        gyaru_session_free(sessions[i]);
}

static void refuses_impossible_plans(void **state)
{
    struct measure_plan plan = make_plan(0, 3);
    struct measure_set set;
    plan.vector = -1;
    assert_int_equal(measure_run(&plan, &set, &err), -1);
    check_error(&err, GYARU_USAGE, "needs a vector", NULL);
    plan = make_plan(0, 0);
    plan.max_tokens = 0;
    assert_int_equal(measure_run(&plan, &set, &err), -1);
    check_error(&err, GYARU_USAGE, "tokens", NULL);
}

/* ---- the report ------------------------------------------------------------------------------ */

static void the_report_is_reproducible(void **state)
{
    const float strengths[] = {0, 12};
    struct gyaru_measure_options options;
    char *report;
    gyaru_measure_options_init(model, &options);
    options.style = style_path;
    options.messages = messages;
    options.n_messages = MESSAGES;
    options.strengths = strengths;
    options.n_strengths = 2;
    options.vector = vector;
    options.max_tokens = TOKENS;
    check(gyaru_measure(model, &options, &report, &err));
    json_t *root = json_loads(report, 0, NULL);
    const json_t *rows = json_object_get(root, "rows");
    assert_int_equal(json_array_size(rows), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_float_equal(json_number_value(json_object_get(row, "strength")),
                           (double)strengths[i], 0);
        assert_int_equal(json_array_size(json_object_get(row, "answers")), MESSAGES);
    }
    json_decref(root);
    free(report);
    options.style = "/nonexistent.json";
    assert_int_equal(gyaru_measure(model, &options, &report, &err), -1);
    check_error(&err, GYARU_FAILED, "/nonexistent.json", NULL);
}

static void bounds_name_what_is_missed(void **state)
{
    static const char good[] =
        "{\"rows\": [{\"strength\": 0, \"signature\": 0.02, \"polite\": 0.95},"
        "{\"strength\": 12, \"marker\": 0.8, \"garbled\": 0.05},"
        "{\"strength\": 25, \"garbled\": 0.9}]}";
    static const char bad[] =
        "{\"rows\": [{\"strength\": 0, \"signature\": 0.03, \"polite\": 0.99},"
        "{\"strength\": 12, \"marker\": 0.79, \"garbled\": 0.05}]}";
    assert_int_equal(gyaru_measure_require(good, &err), 0);
    assert_int_equal(gyaru_measure_require(bad, &err), -1);
    check_error(&err, GYARU_FAILED, "strength 0: signature 3% (at most 2%)",
                "strength 12: marker 79% (at least 80%)", "strength 25: garbled not measured",
                NULL);
    assert_null(strstr(err.text, "polite"));
    assert_int_equal(gyaru_measure_require("{", &err), -1);
}

/* ---- the command ----------------------------------------------------------------------------- */

static void the_command_measures(void **state)
{
    struct program_result r;
    const char *file = scratch_write("messages.txt", "hello\n\nこんにちは\n", 24);
    const char *const arguments[] = {
        "measure",    "-m",          TINY,       "-v",        TINY "/vector.safetensors",
        "--messages", file,          "--system", "Be brief.", "--style",
        style_path,   "--strengths", "0,5",      "-n",        "6",
        "--json",     NULL};
    program_run(&r, NULL, arguments);
    if (r.code)
        fail_msg("%s", r.err);
    json_t *root = json_loads(r.out, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_object_get(root, "messages")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "rows")), 2);
    json_decref(root);
    program_release(&r);

    const char *const table[] = {
        "measure",    "-m",          TINY,       "-v",        TINY "/vector.safetensors",
        "--messages", file,          "--system", "Be brief.", "--style",
        style_path,   "--strengths", "0,5",      "-n",        "6",
        "--require",  NULL};
    program_run(&r, NULL, table);
    assert_int_equal(r.code, 1); /* random words are no butler's */
    assert_non_null(strstr(r.out, "strength"));
    assert_non_null(strstr(r.err, "gyaru measure: missed: strength 0: "));
    program_release(&r);

    program_run(&r, NULL, (const char *const[]){"measure", "-m", TINY, "--strengths", "0,x", NULL});
    program_check_error(&r, 2, "--strengths");
    program_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_do_not_change_answers),
        cmocka_unit_test(messages_and_seeds_have_streams_of_their_own),
        cmocka_unit_test(strength_acts_and_zero_does_not),
        cmocka_unit_test(figures_add_up),
        cmocka_unit_test(an_interruption_gives_the_sessions_back),
        cmocka_unit_test(refuses_impossible_plans),
        cmocka_unit_test(the_report_is_reproducible),
        cmocka_unit_test(bounds_name_what_is_missed),
        cmocka_unit_test(the_command_measures),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
