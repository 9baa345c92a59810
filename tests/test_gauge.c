/*
 * test_gauge.c - the calibrated gauge: it reads the text and not the injection, at any strength,
 * and says nothing where it could not keep that.
 */
#include "model/model.h"
#include "steer/dataset.h"
#include "steer/passage.h"
#include "steer/vector.h"
#include "support/scratch.h"
#include "support/test_vector.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TINY  "tests/data/tiny-model"
#define N     24 /* tokens of the tiny model's text */
#define EVERY 12 /* of the pairs, this many are passed over */
#define MOST  512

static struct gyaru_error err;
static const float strengths[] = {0, 8, -10, 25};
#define STRENGTHS (sizeof strengths / sizeof *strengths)

static void check(int rc)
{
    if (rc)
        fail_msg("%s", err.text);
}

static struct gyaru_model *open_model(const char *dir)
{
    struct gyaru_model_options options;
    struct gyaru_model *model;
    gyaru_model_options_init(&options);
    options.sessions = 1;
    options.threads = 1;
    options.context = MOST;
    check(gyaru_model_open(dir, &options, &model, &err));
    return model;
}

/* Directions at layers first..last of the tiny model, with class means at each, as a file. */
static const char *make_vector(const char *name, enum vector_hook hook, int first, int last)
{
    struct gyaru_vector *v;
    float direction[64];
    char *warning;
    check(vector_new(64, hook, &v, &err));
    for (int l = first; l <= last; l++) {
        const struct vector_meter meter = {3, -1, 10};
        for (int i = 0; i < 64; i++)
            direction[i] = 0.05f * (float)((i * 37 + l * 11) % 17 - 8);
        check(vector_set_direction(v, l, direction, &err));
        check(vector_set_meter(v, l, &meter, &err));
    }
    const char *path = scratch_path(name);
    check(vector_save(v, path, &warning, &err));
    free(warning);
    gyaru_vector_close(v);
    return path;
}

static int attach(struct gyaru_model *model, const char *path, int first, int last)
{
    struct gyaru_attach_options options;
    gyaru_attach_options_init(&options);
    options.layer_first = first;
    options.layer_last = last;
    return test_vector_attach(model, path, &options);
}

struct reading {
    float cosine[N], gauge[N];
};

/* Of one text, at the strengths of the attached vectors 0 and 1. */
static struct reading read_tiny(struct gyaru_model *model, int index, float first, float second)
{
    struct reading reading;
    int32_t ids[N];
    const float at[GYARU_MAX_VECTORS] = {first, second};
    for (int i = 0; i < N; i++)
        ids[i] = (i * 7919 + 5) % 1270;
    struct gyaru_eval e = {.ids = ids,
                           .n = N,
                           .strengths = at,
                           .gauge = index,
                           .cosine = reading.cosine,
                           .calibrated = reading.gauge};
    check(gyaru_model_eval(model, &e, &err));
    return reading;
}

static void assert_same_gauge(const struct reading *a, const struct reading *b)
{
    bool cosine_moved = false;
    for (int i = 0; i < N; i++) {
        assert_true(isfinite(a->gauge[i]));
        assert_float_equal(a->gauge[i], b->gauge[i], 1e-4);
        cosine_moved = cosine_moved || fabsf(a->cosine[i] - b->cosine[i]) > 0.05f;
    }
    assert_true(cosine_moved);
}

static void assert_no_gauge(const struct reading *a)
{
    for (int i = 0; i < N; i++) {
        assert_true(isfinite(a->cosine[i]));
        assert_true(isnan(a->gauge[i]));
    }
}

/* Layers above the lowest answer to what was injected below them; there the meter is read, and it
 * moves. */
static void strength_does_not_move_it(void **state)
{
    struct gyaru_model *model = open_model(TINY);
    const char *path = make_vector("post.safetensors", HOOK_RESID_POST, 0, 2);
    for (int first = 0; first < 3; first++) {
        int index = attach(model, path, first, 2);
        struct reading none = read_tiny(model, index, 0, 0);
        for (size_t i = 1; i < STRENGTHS; i++) {
            struct reading steered = read_tiny(model, index, strengths[i], 0);
            assert_same_gauge(&none, &steered);
        }
        gyaru_model_detach(model, index);
    }
    gyaru_model_close(model);
}

/* h . v on the scale of the class means: without steering that is all of it. */
static void it_is_the_projection(void **state)
{
    struct gyaru_model *model = open_model(TINY);
    const char *path = make_vector("post.safetensors", HOOK_RESID_POST, 0, 2);
    int index = attach(model, path, -1, -1);
    size_t points = (size_t)gyaru_model_info(model)->n_layers + 1;
    float *hidden = malloc(points * 64 * sizeof *hidden), gauge;
    assert_non_null(hidden);
    const int32_t id = 17;
    struct gyaru_eval e = {
        .ids = &id, .n = 1, .gauge = index, .calibrated = &gauge, .hidden = hidden};
    check(gyaru_model_eval(model, &e, &err));
    double sum = 0;
    for (int i = 0; i < 64; i++)
        sum += (double)hidden[64 + i] * (double)model->attached[index].edit.directions[0][i];
    assert_float_equal((double)gauge, (sum + 1) / 4, 1e-4);
    free(hidden);
    gyaru_model_close(model);
}

static void another_vector(void **state)
{
    struct gyaru_model *model = open_model(TINY);
    int index = attach(model, make_vector("a.safetensors", HOOK_RESID_POST, 1, 2), -1, -1);
    struct reading none = read_tiny(model, index, 0, 0);

    /* On the same layer and above it is taken out as exactly. */
    int other = attach(model, make_vector("b.safetensors", HOOK_RESID_POST, 1, 2), -1, -1);
    struct reading mixed = read_tiny(model, index, 5, -7);
    assert_same_gauge(&none, &mixed);
    gyaru_model_detach(model, other);

    /* Below it cannot be, but only while it acts. */
    other = attach(model, make_vector("c.safetensors", HOOK_RESID_POST, 0, 0), -1, -1);
    mixed = read_tiny(model, index, 5, 0.5f);
    assert_no_gauge(&mixed);
    mixed = read_tiny(model, index, 5, 0);
    assert_same_gauge(&none, &mixed);
    gyaru_model_detach(model, other);

    /* Nor at the input of the same layer. */
    attach(model, make_vector("d.safetensors", HOOK_RESID_PRE, 1, 1), -1, -1);
    mixed = read_tiny(model, index, 5, 0.5f);
    assert_no_gauge(&mixed);
    gyaru_model_close(model);
}

static void no_gauge_at_inputs(void **state)
{
    struct gyaru_model *model = open_model(TINY);
    int index = attach(model, make_vector("pre.safetensors", HOOK_RESID_PRE, 1, 2), -1, -1);
    struct reading none = read_tiny(model, index, 0, 0);
    assert_no_gauge(&none);
    gyaru_model_detach(model, index);
    index = attach(model, TINY "/vector.safetensors", -1, -1); /* has no class means either */
    none = read_tiny(model, index, 0, 0);
    assert_no_gauge(&none);
    gyaru_model_close(model);
}

/* ---- the bundled models -----------------------------------------------------------------------
 */

/* Mean gauge over an answer's own tokens. */
static double read_answer(struct gyaru_model *model, int index, const char *text, float strength)
{
    struct passage p;
    float at[GYARU_MAX_VECTORS] = {0}, gauge[MOST];
    double sum = 0;
    at[index] = strength;
    check(passage_encode(model, "あなたは厳格な執事です。丁寧な言葉で答えてください。",
                         "こんにちは", text, "a text", &p, &err));
    struct gyaru_eval e = {
        .ids = p.ids, .n = p.n, .strengths = at, .gauge = index, .calibrated = gauge};
    check(gyaru_model_eval(model, &e, &err));
    for (size_t i = p.first; i < p.n; i++)
        sum += (double)gauge[i];
    double n = (double)(p.n - p.first);
    passage_release(&p);
    return sum / n;
}

/* Plain and styled texts, read while the model is pushed: 0 and 1 on the average, the same at every
 * strength, and a gyaru's text never reads less than the plain text of its pair. */
static void reads_texts(const char *dir, const char *path)
{
    const struct dataset_keys keys = {"topic", "gyaru", "standard"};
    struct gyaru_model *model = open_model(dir);
    struct dataset pairs;
    int index = attach(model, path, -1, -1);
    check(dataset_open("data/gyaru_pairs.json", &keys, &pairs, &err));
    double sums[2] = {0};
    int n = 0;
    for (size_t i = 0; i < pairs.n; i += EVERY, n++) {
        double plain = read_answer(model, index, pairs.pairs[i].negative, 0);
        double styled = read_answer(model, index, pairs.pairs[i].positive, 0);
        assert_true(styled > plain);
        for (size_t s = 1; s < STRENGTHS; s++) {
            assert_float_equal(read_answer(model, index, pairs.pairs[i].negative, strengths[s]),
                               plain, 2e-3);
            assert_float_equal(read_answer(model, index, pairs.pairs[i].positive, strengths[s]),
                               styled, 2e-3);
        }
        sums[0] += plain;
        sums[1] += styled;
    }
    print_message("%s: plain %.2f, styled %.2f\n", dir, sums[0] / n, sums[1] / n);
    assert_true(sums[0] / n < 0.4);
    assert_true(sums[1] / n > 0.6);
    dataset_release(&pairs);
    gyaru_model_close(model);
}

static void base_reads_texts(void **state)
{
    reads_texts("models/rinne-base", "models/rinne-base/gyaru.safetensors");
}

static void lite_reads_texts(void **state)
{
    reads_texts("models/rinne-lite", "models/rinne-lite/gyaru.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strength_does_not_move_it),
        cmocka_unit_test(it_is_the_projection),
        cmocka_unit_test(another_vector),
        cmocka_unit_test(no_gauge_at_inputs),
        cmocka_unit_test(base_reads_texts),
        cmocka_unit_test(lite_reads_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
