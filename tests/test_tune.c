/*
 * test_tune.c - tuning: divergences, the rules of safety and choice, vectors made on the way, and
 * whole runs on the tiny model, whose words are random: what counts are the invariants.
 */
#include "support/program.h"
#include "support/scratch.h"
#include "support/test_vector.h"

#include "base/file.h"
#include "steer/tune_choice.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY   "tests/data/tiny-model"
#define VECTOR TINY "/vector.safetensors"
#define PAIRS  "tests/data/extract/pairs.json"

static struct gyaru_error err;
static struct gyaru_model *model;
static int vector;

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
    options.context = 256;
    options.threads = 1; /* waiting for each other takes longer than the work */
    check(gyaru_model_open(TINY, &options, &model, &err));
    vector = test_vector_attach(model, VECTOR, NULL);
    return 0;
}

static int close_all(void **state)
{
    gyaru_model_close(model);
    return 0;
}

/* ---- divergence ------------------------------------------------------------------------------ */

static struct passage passage_new(const char *message, const char *answer)
{
    struct passage p;
    check(passage_encode(model, "Be brief.", message, answer, "a text", &p, &err));
    assert_true(p.first > 0 && p.first < p.n);
    return p;
}

static struct passage_reading read_alone(const struct passage *p, float strength, float *kl)
{
    struct passage_reader reader;
    struct passage_reading reading;
    check(passage_reader_init(&reader, model, vector, strength, &err));
    check(passage_read(&reader, p, kl, &reading, &err));
    return reading;
}

static void no_strength_no_divergence(void **state)
{
    struct passage p = passage_new("トピック: 天気", "雨の音を聞くと心が落ち着きます。");
    float kl[128];
    struct passage_reading r = read_alone(&p, 0, kl);
    for (size_t i = 0; i < p.n - p.first; i++)
        assert_true(kl[i] == 0.0f); /* exactly */
    assert_true(r.base_nll == r.steered_nll);
    r = read_alone(&p, 8, kl);
    double sum = 0;
    for (size_t i = 0; i < p.n - p.first; i++) {
        assert_true(kl[i] >= 0);
        sum += (double)kl[i];
    }
    assert_true(sum > 0);
    assert_true(fabs(r.base_nll - r.steered_nll) > 0);
    passage_release(&p);
}

/* Mean NLL of the answer by the other way there is. */
static double nll_by_eval(const struct passage *p, float strength)
{
    float strengths[GYARU_MAX_VECTORS] = {0};
    double nll[256], sum = 0;
    strengths[vector] = strength;
    struct gyaru_eval eval = {
        .ids = p->ids, .n = p->n, .strengths = strengths, .gauge = -1, .nll = nll};
    check(gyaru_model_eval(model, &eval, &err));
    for (size_t i = p->first - 1; i + 1 < p->n; i++)
        sum += nll[i];
    return sum / (double)(p->n - p->first);
}

static void readings_agree_with_eval(void **state)
{
    struct passage p = passage_new("Hello", "a fairly long answer that needs more than one chunk "
                                            "of sixteen positions to be read, 雨の音を聞く");
    float kl[256];
    double nll;
    struct passage_reading r = read_alone(&p, 7, kl);
    assert_true(p.n - p.first > 16);
    assert_float_equal(r.base_nll, nll_by_eval(&p, 0), 1e-9);
    assert_float_equal(r.steered_nll, nll_by_eval(&p, 7), 1e-9);
    check(passage_nll(model, &p, &nll, &err));
    assert_float_equal(nll, r.base_nll, 1e-9);
    passage_release(&p);
}

static void what_was_read_before_does_not_matter(void **state)
{
    struct passage a = passage_new("Hello", "first answer"), b = passage_new("Hello", "second");
    struct passage c = passage_new("Hallo", "first answer");
    const struct passage *const order[] = {&a, &b, &a, &c, &b};
    struct passage_reader reader;
    float kl[64], alone[64];
    check(passage_reader_init(&reader, model, vector, 5, &err));
    for (size_t i = 0; i < 5; i++) {
        struct passage_reading shared;
        check(passage_read(&reader, order[i], kl, &shared, &err));
        struct passage_reading fresh = read_alone(order[i], 5, alone);
        reader.n_held = 0; /* the slots were used by another reader */
        assert_true(shared.steered_nll == fresh.steered_nll);
        assert_memory_equal(kl, alone, (order[i]->n - order[i]->first) * sizeof *kl);
        check(passage_read(&reader, order[i], kl, &shared, &err));
        assert_true(shared.steered_nll == fresh.steered_nll);
    }
    passage_release(&a);
    passage_release(&b);
    passage_release(&c);
}

static void too_long_a_text_is_named(void **state)
{
    char text[2048];
    struct passage p;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(passage_encode(model, NULL, "Hi", text, "pairs.json:7", &p, &err), -1);
    check_error(&err, GYARU_FAILED, "pairs.json:7", "256", NULL);
}

/* ---- vectors made on the way ------------------------------------------------------------------
 */

static void vectors_scale_with_their_meters(void **state)
{
    struct tuning t = {.journal = {.fd = -1}};
    struct gyaru_vector *scaled, *random, *again;
    const struct vector_meter meter = {3, -1, 10};
    uint64_t seed = 5;
    check(gyaru_vector_open(VECTOR, &t.vector, &err));
    int first = t.vector->info.layer_min, last = t.vector->info.layer_max;
    check(vector_set_meter(t.vector, last, &meter, &err));
    check(vector_set_metadata(t.vector, "method", "mean", &err));
    check(tune_make_vector(&t, last, last, 2.5, NULL, &scaled, &err));
    assert_int_equal(scaled->info.n_directions, 1);
    assert_string_equal(vector_metadata(scaled, "method"), "mean");
    assert_float_equal(vector_norm(scaled, last), 2.5 * vector_norm(t.vector, last), 1e-5);
    assert_float_equal(vector_meter(scaled, last)->m_plus, 7.5, 1e-6);
    assert_float_equal(vector_meter(scaled, last)->m_minus, -2.5, 1e-6);
    assert_float_equal(vector_meter(scaled, last)->residual_norm, 10, 0);

    check(tune_make_vector(&t, first, last, 1, &seed, &random, &err));
    check(tune_make_vector(&t, first, last, 1, &seed, &again, &err));
    assert_int_equal(seed, 5);
    for (int l = first; l <= last; l++) {
        const float *a = vector_direction(t.vector, l), *b = vector_direction(random, l);
        double dot = 0, length = vector_norm(t.vector, l);
        if (!a)
            continue;
        assert_float_equal(vector_norm(random, l), length, 1e-4 * length);
        assert_memory_equal(b, vector_direction(again, l), 64 * sizeof *b);
        for (int h = 0; h < 64; h++)
            dot += (double)a[h] * (double)b[h];
        assert_true(fabs(dot) < 0.6 * length * length); /* 0.125 is the standard deviation */
    }
    gyaru_vector_close(scaled);
    gyaru_vector_close(random);
    gyaru_vector_close(again);
    gyaru_vector_close(t.vector);
}

/* Chosen at 8 and rescaled to 12: the same shift, under another name. */
static void the_chosen_strength_is_written(void **state)
{
    struct tune_point points[] = {{.strength = 5}, {.strength = 8}};
    struct tune_candidate c = {.name = "all", .factor = 1.5, .points = points, .n_points = 2};
    struct gyaru_tune_options options;
    struct gyaru_vector *before, *after;
    const char *out = scratch_path("tuned.safetensors");
    gyaru_tune_options_init(&options);
    check(gyaru_vector_open(VECTOR, &before, &err));
    c.first = before->info.layer_min;
    c.last = before->info.layer_max;
    struct tuning t = {.options = &options,
                       .out = out,
                       .vector = before,
                       .candidates = &c,
                       .n_candidates = 1,
                       .best_point = 1,
                       .max_strength = 10};
    for (int rescale = 0; rescale <= 12; rescale += 12) {
        options.rescale = rescale;
        check(tune_write(&t, &err));
        check(gyaru_vector_open(out, &after, &err));
        double strength = rescale ? 12 : 8;
        assert_float_equal((double)after->info.recommended_strength, strength, 1e-5);
        assert_float_equal((double)after->info.max_strength, strength * 10 / 8, 1e-5);
        for (int l = c.first; l <= c.last; l++)
            assert_float_equal(strength * vector_norm(after, l), 8 * 1.5 * vector_norm(before, l),
                               1e-4);
        gyaru_vector_close(after);
    }
    /* As it is, to the last bit, where nothing was scaled. */
    c.factor = 1;
    options.rescale = 0;
    check(tune_write(&t, &err));
    check(gyaru_vector_open(out, &after, &err));
    assert_memory_equal(vector_direction(before, c.last), vector_direction(after, c.last),
                        64 * sizeof(float));
    gyaru_vector_close(after);
    gyaru_vector_close(before);
}

/* ---- rules ------------------------------------------------------------------------------------
 */

static struct tune_point point(float strength, float marker, float kl)
{
    struct tune_point p = {.strength = strength, .read = true, .answered = true};
    p.figures[FIGURE_MARKER] = marker;
    p.figures[FIGURE_KL_P95] = kl;
    p.figures[FIGURE_NLL] = 2;
    p.figures[FIGURE_REPETITION] = 0.01f;
    return p;
}

static void unsafe_strengths_say_why(void **state)
{
    static const struct {
        enum tune_figure figure;
        float safe, unsafe;
        const char *part;
    } cases[] = {
        {FIGURE_WRONG, 0.20f, 0.21f, "wrong way 21%"},
        {FIGURE_INVALID, 0.0f, 0.01f, "invalid UTF-8 1%"},
        {FIGURE_SCRIPT, 0.02f, 0.03f, "unexpected script 3%"},
        {FIGURE_GARBLED, 0.05f, 0.06f, "garbled 6%"},
        {FIGURE_REPETITION, 0.08f, 0.09f, "repetition 9% (8 at most)"},
        {FIGURE_NLL, 2.5f, 2.6f, "NLL 2.6 (2.5 at most)"},
        {FIGURE_NLL, 2.5f, NAN, "NLL"},
    };
    struct tune_point base = point(0, 0, 0);
    base.figures[FIGURE_REPETITION] = 0.04f;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tune_point p = point(8, 1, 1);
        p.figures[cases[i].figure] = cases[i].safe;
        tune_judge(&base, &p);
        assert_string_equal(p.fault, "");
        p.figures[cases[i].figure] = cases[i].unsafe;
        tune_judge(&base, &p);
        if (!strstr(p.fault, cases[i].part))
            fail_msg("'%s' is not in '%s'", cases[i].part, p.fault);
    }
}

static void ties_take_the_lowest_divergence(void **state)
{
    struct tune_point points[] = {point(2, 0.1f, 0.1f), point(5, 0.90f, 1), point(8, 0.92f, 2),
                                  point(10, 0.7f, 3), point(12, 1.0f, 9)};
    struct tune_point others[] = {point(5, 0.91f, 0.5f)};
    struct tune_candidate candidates[] = {{.name = "all", .points = points, .n_points = 5},
                                          {.name = "window", .points = others, .n_points = 1}};
    struct gyaru_vector v = {.info = {.name = "v"}};
    struct tuning t = {.base = point(0, 0, 0),
                       .vector = &v,
                       .candidates = candidates,
                       .n_candidates = 2,
                       .search = {.n_messages = 50},
                       .best = -1};
    snprintf(points[4].fault, sizeof points[4].fault, "NLL");
    check(tune_choose(&t, &err));
    assert_int_equal(t.best, 1); /* 0.91 is one answer below 0.92 */
    assert_int_equal(t.best_point, 0);
    others[0].figures[FIGURE_MARKER] = 0.89f;
    t.best = -1;
    check(tune_choose(&t, &err));
    assert_int_equal(t.best, 0);
    assert_int_equal(t.best_point, 1); /* and so is 0.90 of 50, but not 0.89 */
}

static void nothing_safe_is_said(void **state)
{
    struct tune_point points[] = {point(2, 0.04f, 0.1f), point(5, 1, 1)};
    struct tune_candidate c = {.name = "all", .points = points, .n_points = 2};
    struct gyaru_vector v = {.info = {.name = "v"}};
    struct tuning t = {.base = point(0, 0.02f, 0),
                       .vector = &v,
                       .candidates = &c,
                       .n_candidates = 1,
                       .search = {.n_messages = 50},
                       .best = -1};
    snprintf(points[1].fault, sizeof points[1].fault, "NLL 9 (2 at most)");
    assert_int_equal(tune_choose(&t, &err), -1); /* 4% is not above 2% by more than chance */
    check_error(&err, GYARU_FAILED, "no safe strength", "4%", "2%", NULL);
    assert_int_equal(t.best, -1);
    snprintf(points[0].fault, sizeof points[0].fault, "garbled 50%% (5 at most)");
    assert_int_equal(tune_choose(&t, &err), -1);
    check_error(&err, GYARU_FAILED, "no safe strength", "damage at 2", "garbled 50%", NULL);
}

/* Damage on unseen messages: the next lower strength that was safe, and the reason is kept. */
static void damage_in_confirmation_steps_down(void **state)
{
    struct tune_point points[] = {point(2, 0.3f, 0.1f), point(4, 0.5f, 0.2f), point(5, 0.6f, 0.3f),
                                  point(8, 0.9f, 0.5f), point(10, 0.9f, 0.9f)};
    struct tune_candidate all = {.points = points, .n_points = 5};
    struct gyaru_vector v = {.info = {.name = "v"}};
    struct tuning t = {
        .vector = &v, .candidates = &all, .n_candidates = 1, .best = 0, .best_point = 3};
    snprintf(points[2].fault, sizeof points[2].fault, "NLL 9 (2 at most)");
    t.controls[CONTROL_STEERED] = point(8, 0.8f, 0.5f);
    snprintf(t.controls[CONTROL_STEERED].fault, sizeof t.controls[0].fault, "garbled 20%%");
    check(tune_step_down(&t, &err));
    assert_int_equal(t.best_point, 1); /* 5 was not safe before */
    assert_string_equal(points[3].fault, "unseen messages: garbled 20%");
    assert_string_equal(points[4].fault, "");
    t.controls[CONTROL_STEERED].strength = 4;
    check(tune_step_down(&t, &err));
    assert_int_equal(t.best_point, 0);
    t.controls[CONTROL_STEERED].strength = 2;
    assert_int_equal(tune_step_down(&t, &err), -1);
    check_error(&err, GYARU_FAILED, "no safe strength", "strength 2 of 'v'", "garbled 20%", NULL);
    assert_int_equal(t.n_rejected, 3);
    assert_true(t.rejected[0].strength == 8 && t.rejected[2].strength == 2);
}

/* It does not go on for ever. */
static void confirmation_gives_up(void **state)
{
    struct tune_point points[9];
    for (int i = 0; i < 9; i++)
        points[i] = point((float)(i + 1), 0.9f, 0.1f);
    struct tune_candidate all = {.points = points, .n_points = 9};
    struct gyaru_vector v = {.info = {.name = "v"}};
    struct tuning t = {
        .vector = &v, .candidates = &all, .n_candidates = 1, .best = 0, .best_point = 8};
    t.controls[CONTROL_STEERED] = point(9, 0.8f, 0.5f);
    snprintf(t.controls[CONTROL_STEERED].fault, sizeof t.controls[0].fault, "NLL 3");
    for (int i = 1; i < TUNE_TRIES; i++)
        check(tune_step_down(&t, &err));
    assert_int_equal(tune_step_down(&t, &err), -1);
    assert_int_equal(t.n_rejected, TUNE_TRIES);
}

static void an_effect_must_beat_chance(void **state)
{
    struct tuning t = {.confirm = {.n_messages = 50}};
    t.controls[CONTROL_STEERED] = point(8, 0.9f, 1);
    t.controls[CONTROL_RANDOM] = point(8, 0.1f, 1);
    assert_true(tune_beats(&t, CONTROL_STEERED, CONTROL_RANDOM));
    assert_false(tune_beats(&t, CONTROL_RANDOM, CONTROL_STEERED));
    t.controls[CONTROL_RANDOM] = point(8, 0.85f, 1);
    assert_false(tune_beats(&t, CONTROL_STEERED, CONTROL_RANDOM));
    t.controls[CONTROL_RANDOM] = point(8, 0.9f, 1);
    assert_false(tune_beats(&t, CONTROL_STEERED, CONTROL_RANDOM));
}

/* ---- whole runs -------------------------------------------------------------------------------
 */

static const char *const messages[] = {"hello", "雨だね",   "what?", "ラーメン",
                                       "x",     "眠いなあ", "1+1",   "旅行"};
static const float ladder[] = {-4, 0, 4, 12, 30};

struct stop {
    int calls, at; /* at 0: never */
};

static int count_calls(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct stop *stop = user;
    assert_true(done <= total);
    return ++stop->calls == stop->at;
}

static const char *style_file(const char *marker)
{
    char json[200];
    int n = snprintf(json, sizeof json, "{\"markers\": [\"%s\"]}", marker);
    return scratch_write("style.json", json, (size_t)n);
}

static char *tune(const char *out, struct stop *stop, const char *marker, int *rc)
{
    struct gyaru_tune_options options;
    char *report;
    gyaru_tune_options_init(&options);
    options.dataset = PAIRS;
    options.style = style_file(marker);
    options.system = "Be brief.";
    options.messages = messages;
    options.n_messages = 8;
    options.ladder = ladder;
    options.n_ladder = 5;
    options.max_pairs = 2;
    options.max_tokens = 6;
    options.kl_budget = 0.05;
    options.progress = count_calls;
    options.progress_user = stop;
    *rc = gyaru_tune(model, VECTOR, out, &options, &report, &err);
    return report;
}

/* The report without what may differ between two runs. */
static json_t *comparable(const char *report)
{
    json_t *root = json_loads(report, 0, NULL);
    assert_non_null(root);
    json_object_del(root, "seconds");
    json_object_del(root, "resumed_measurements");
    json_object_del(root, "output");
    json_object_del(json_object_get(root, "model"), "device");
    return root;
}

static double number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        fail_msg("%s is no number", key);
    return json_number_value(value);
}

static void budgets_are_kept(void **state)
{
    struct stop never = {0, 0};
    int rc;
    const char *out = scratch_path("budget.safetensors");
    char *report = tune(out, &never, "@@", &rc), *html;
    assert_int_equal(rc, -1); /* nobody says @@ */
    check_error(&err, GYARU_FAILED, "no safe strength", NULL);
    assert_false(file_exists(out));
    json_t *root = comparable(report);
    const json_t *candidates = json_object_get(root, "candidates"), *c, *p;
    assert_true(json_array_size(candidates) > 1);
    size_t i, k;
    json_array_foreach(candidates, i, c)
    {
        double best = json_number_value(json_object_get(c, "budget_strength"));
        bool found = best <= 0;
        json_array_foreach(json_object_get(c, "points"), k, p)
        {
            double strength = number_at(p, "strength"), kl = number_at(p, "kl_p95");
            if (strength == 0)
                assert_true(kl == 0 && number_at(p, "gain") == 0); /* exactly */
            if (strength == best) {
                assert_true(kl <= 0.05);
                found = true;
            }
        }
        assert_true(found);
    }
    check(gyaru_tune_html(report, "en", &html, &err));
    assert_non_null(strstr(html, "No safe strength"));
    free(html);
    json_decref(root);
    free(report);
}

static void a_stopped_run_goes_on_to_the_same_end(void **state)
{
    struct stop never = {0, 0};
    int rc;
    char *whole = tune(scratch_path("whole.safetensors"), &never, "e", &rc);
    int whole_rc = rc;
    json_t *expected = comparable(whole);
    assert_true(never.calls > 40);
    for (int at = 7; at < never.calls; at += never.calls / 4) {
        const char *out = scratch_path("stopped.safetensors");
        struct stop stop = {0, at}, again = {0, 0};
        char *report = tune(out, &stop, "e", &rc);
        assert_int_equal(rc, -1);
        check_error(&err, GYARU_FAILED, "interrupted", ".tune-journal", NULL);
        assert_false(file_exists(out));
        free(report);
        report = tune(out, &again, "e", &rc);
        assert_int_equal(rc, whole_rc);
        assert_true(again.calls < never.calls);
        json_t *resumed = comparable(report);
        assert_true(json_equal(resumed, expected));
        json_decref(resumed);
        free(report);
        unlink(out);
        char journal[300];
        snprintf(journal, sizeof journal, "%s.tune-journal", out);
        unlink(journal);
    }
    json_decref(expected);
    free(whole);
}

static void refuses_what_cannot_be_tuned(void **state)
{
    struct gyaru_tune_options options;
    char *report;
    gyaru_tune_options_init(&options);
    options.dataset = PAIRS;
    options.style = style_file("e");
    options.messages = messages;
    options.n_messages = 8;
    assert_int_equal(gyaru_tune(model, VECTOR, "/tmp/x.gguf", &options, &report, &err), -1);
    check_error(&err, GYARU_USAGE, "/tmp/x.gguf", ".safetensors", NULL);
    assert_null(report);
    options.n_messages = 2;
    assert_int_equal(
        gyaru_tune(model, VECTOR, scratch_path("x.safetensors"), &options, &report, &err), -1);
    check_error(&err, GYARU_FAILED, "too few", NULL);
    const float unsorted[] = {5, 2};
    options.ladder = unsorted;
    options.n_ladder = 2;
    assert_int_equal(
        gyaru_tune(model, VECTOR, scratch_path("x.safetensors"), &options, &report, &err), -1);
    check_error(&err, GYARU_USAGE, "ascend", NULL);
}

static void the_command_wants_a_vector_and_pairs(void **state)
{
    struct program_result r;
    program_run(&r, NULL, (const char *const[]){"tune", "-m", TINY, NULL});
    program_check_error(&r, GYARU_USAGE, "-v FILE -d PAIRS");
    program_release(&r);
    program_run(&r, NULL,
                (const char *const[]){"tune", "-v", VECTOR, "-d", PAIRS, "--ladder", "2,x", NULL});
    program_check_error(&r, GYARU_USAGE, "--ladder");
    program_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_strength_no_divergence),
        cmocka_unit_test(readings_agree_with_eval),
        cmocka_unit_test(what_was_read_before_does_not_matter),
        cmocka_unit_test(too_long_a_text_is_named),
        cmocka_unit_test(vectors_scale_with_their_meters),
        cmocka_unit_test(the_chosen_strength_is_written),
        cmocka_unit_test(unsafe_strengths_say_why),
        cmocka_unit_test(ties_take_the_lowest_divergence),
        cmocka_unit_test(nothing_safe_is_said),
        cmocka_unit_test(damage_in_confirmation_steps_down),
        cmocka_unit_test(confirmation_gives_up),
        cmocka_unit_test(an_effect_must_beat_chance),
        cmocka_unit_test(budgets_are_kept),
        cmocka_unit_test(a_stopped_run_goes_on_to_the_same_end),
        cmocka_unit_test(refuses_what_cannot_be_tuned),
        cmocka_unit_test(the_command_wants_a_vector_and_pairs),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
