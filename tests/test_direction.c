/*
 * test_direction.c - directions and their validation on synthetic activations: a planted direction
 * is found by the mean and lost by centred PCA, labels decide the sign, labels that mean nothing
 * are rejected.
 */
#include "steer/validate.h"

#include "base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HIDDEN 400
#define TRAIN  50
#define HELD   20

/* Texts of a pair share a topic; the styled one has `shift` of a unit direction added. */
struct synthetic {
    double planted[HIDDEN];
    double train[TRAIN][HIDDEN];
    double positive[HELD][HIDDEN], negative[HELD][HIDDEN];
    struct layer_data data;
};

static void make(struct synthetic *s, double shift, double noise, bool shuffle, uint64_t seed)
{
    double length = 0;
    for (size_t h = 0; h < HIDDEN; h++) {
        s->planted[h] = random_normal(&seed);
        length += s->planted[h] * s->planted[h];
    }
    for (size_t h = 0; h < HIDDEN; h++)
        s->planted[h] /= sqrt(length);
    for (size_t i = 0; i < TRAIN; i++) {
        double sign = shuffle && random_below(&seed, 2) ? -1 : 1;
        for (size_t h = 0; h < HIDDEN; h++)
            s->train[i][h] =
                sign * (shift * s->planted[h] + sqrt(2) * noise * random_normal(&seed));
    }
    for (size_t i = 0; i < HELD; i++) {
        bool swap = shuffle && random_below(&seed, 2);
        double *a = swap ? s->negative[i] : s->positive[i];
        double *b = swap ? s->positive[i] : s->negative[i];
        for (size_t h = 0; h < HIDDEN; h++) {
            double topic = random_normal(&seed);
            a[h] = topic + noise * random_normal(&seed) + shift * s->planted[h];
            b[h] = topic + noise * random_normal(&seed);
        }
    }
    s->data = (struct layer_data){s->train[0], s->positive[0], s->negative[0], TRAIN, HELD, HIDDEN};
}

static void direction_of(const struct synthetic *s, enum direction_method method, double *out)
{
    struct gyaru_error err;
    double gram[TRAIN * TRAIN], weights[TRAIN];
    double *scratch = malloc(direction_scratch(TRAIN) * sizeof *scratch);
    direction_product(s->train[0], TRAIN, s->train[0], TRAIN, HIDDEN, gram);
    if (direction_weights(method, gram, TRAIN, scratch, weights, &err))
        fail_msg("%s", err.text);
    free(scratch);
    memset(out, 0, HIDDEN * sizeof *out);
    for (size_t i = 0; i < TRAIN; i++)
        for (size_t h = 0; h < HIDDEN; h++)
            out[h] += weights[i] * s->train[i][h];
}

static double dot(const double *a, const double *b)
{
    double sum = 0;
    for (size_t h = 0; h < HIDDEN; h++)
        sum += a[h] * b[h];
    return sum;
}

static double cosine(const double *a, const double *b)
{
    return dot(a, b) / sqrt(dot(a, a) * dot(b, b));
}

static void mean_finds_what_centred_pca_loses(void **state)
{
    static struct synthetic s;
    double v[HIDDEN];
    for (uint64_t seed = 1; seed <= 5; seed++) {
        make(&s, 20, 0.3, false, seed);
        direction_of(&s, METHOD_MEAN, v);
        assert_true(cosine(v, s.planted) > 0.99);
        direction_of(&s, METHOD_PCA, v);
        assert_true(cosine(v, s.planted) > 0.99);
        direction_of(&s, METHOD_PROBE, v);
        assert_true(cosine(v, s.planted) > 0.99);
        direction_of(&s, METHOD_PCA_LAST, v);
        assert_true(fabs(cosine(v, s.planted)) < 0.2);
    }
}

static void swapped_labels_flip_the_sign(void **state)
{
    static struct synthetic s;
    make(&s, 3, 1, false, 9);
    for (int m = 0; m < DIRECTION_METHODS; m++) {
        double before[HIDDEN], after[HIDDEN];
        direction_of(&s, (enum direction_method)m, before);
        for (size_t i = 0; i < TRAIN; i++)
            for (size_t h = 0; h < HIDDEN; h++)
                s.train[i][h] = -s.train[i][h];
        direction_of(&s, (enum direction_method)m, after);
        for (size_t h = 0; h < HIDDEN; h++)
            assert_true(fabs(before[h] + after[h]) < 1e-8);
    }
}

/* The first component by the power method on the covariance itself. */
static void centred_pca_is_the_covariance_eigenvector(void **state)
{
    static struct synthetic s;
    static double centred[TRAIN][HIDDEN];
    double v[HIDDEN], u[HIDDEN], ratio, total = 0, gram[TRAIN * TRAIN];
    struct gyaru_error err;
    make(&s, 1, 1, false, 4);
    for (size_t i = 0; i < TRAIN; i++) /* one direction that stands out */
        for (size_t h = 0; h < HIDDEN; h++)
            s.train[i][h] += (i % 2 ? 10 : -8) * s.train[0][h] / 20;
    for (size_t h = 0; h < HIDDEN; h++) {
        double mean = 0;
        for (size_t i = 0; i < TRAIN; i++)
            mean += s.train[i][h] / TRAIN;
        for (size_t i = 0; i < TRAIN; i++) {
            centred[i][h] = s.train[i][h] - mean;
            total += centred[i][h] * centred[i][h];
        }
        u[h] = centred[0][h];
    }
    for (int round = 0; round < 500; round++) {
        double next[HIDDEN] = {0};
        for (size_t i = 0; i < TRAIN; i++) {
            double along = dot(centred[i], u);
            for (size_t h = 0; h < HIDDEN; h++)
                next[h] += along * centred[i][h];
        }
        double length = sqrt(dot(next, next));
        for (size_t h = 0; h < HIDDEN; h++)
            u[h] = next[h] / length;
    }
    double value = 0;
    for (size_t i = 0; i < TRAIN; i++)
        value += dot(centred[i], u) * dot(centred[i], u);
    direction_of(&s, METHOD_PCA_LAST, v);
    assert_true(fabs(sqrt(dot(v, v)) - 1) < 1e-9);
    assert_true(fabs(cosine(u, v)) > 1 - 1e-9);
    double *scratch = malloc(direction_scratch(TRAIN) * sizeof *scratch);
    direction_product(s.train[0], TRAIN, s.train[0], TRAIN, HIDDEN, gram);
    assert_int_equal(direction_explained(gram, TRAIN, scratch, &ratio, &err), 0);
    free(scratch);
    assert_true(fabs(ratio - value / total) < 1e-9);
}

/* The gradient of the probe's loss vanishes at its solution. */
static void probe_is_the_minimum(void **state)
{
    static struct synthetic s;
    double w[HIDDEN], gradient[HIDDEN] = {0}, square = 0;
    make(&s, 4, 1, false, 5);
    direction_of(&s, METHOD_PROBE, w);
    for (size_t i = 0; i < TRAIN; i++)
        square += dot(s.train[i], s.train[i]) / TRAIN;
    for (size_t i = 0; i < TRAIN; i++) {
        double p = 1 / (1 + exp(dot(s.train[i], w) / square));
        for (size_t h = 0; h < HIDDEN; h++)
            gradient[h] += 0.01 * w[h] / TRAIN - p * s.train[i][h] / TRAIN;
    }
    assert_true(sqrt(dot(gradient, gradient)) < 1e-8 * sqrt(square));
}

static void no_difference_is_no_direction(void **state)
{
    static struct synthetic s;
    struct gyaru_error err;
    double gram[TRAIN * TRAIN], weights[TRAIN], scratch[TRAIN * TRAIN + 4 * TRAIN];
    assert_true(direction_scratch(TRAIN) <= sizeof scratch / sizeof *scratch);
    direction_product(s.train[0], TRAIN, s.train[0], TRAIN, HIDDEN, gram);
    for (int m = 0; m < DIRECTION_METHODS; m++)
        assert_int_equal(
            direction_weights((enum direction_method)m, gram, TRAIN, scratch, weights, &err), -1);
    for (size_t i = 0; i < TRAIN; i++) /* all equal: a mean, but no variance */
        s.train[i][3] = 2;
    direction_product(s.train[0], TRAIN, s.train[0], TRAIN, HIDDEN, gram);
    assert_int_equal(direction_weights(METHOD_MEAN, gram, TRAIN, scratch, weights, &err), 0);
    assert_int_equal(direction_weights(METHOD_PCA_LAST, gram, TRAIN, scratch, weights, &err), -1);
    assert_non_null(strstr(err.text, "do not vary"));
}

/* ---- validation -------------------------------------------------------------------------------
 */

static struct layer_stats validate(const struct synthetic *s, enum direction_method method)
{
    struct gyaru_error err;
    struct layer_stats stats;
    struct validate_options options;
    double weights[TRAIN];
    validate_options_init(&options);
    options.method = method;
    if (validate_layer(&s->data, &options, &stats, weights, &err))
        fail_msg("%s", err.text);
    return stats;
}

static void a_clear_direction_passes(void **state)
{
    static struct synthetic s;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        make(&s, 20, 0.3, false, seed);
        struct layer_stats stats = validate(&s, METHOD_MEAN);
        assert_null(validate_fault(&stats));
        assert_true(stats.auroc > 0.99 && stats.cohens_d > 3);
        assert_true(stats.shuffled_auroc < 0.8); /* not 1, though the differences are so clear */
        assert_true(stats.misordered < 0.01);
        assert_true(fabs(stats.norm - 20) < 1);
    }
}

static void shuffled_labels_are_rejected(void **state)
{
    static struct synthetic s;
    for (uint64_t seed = 1; seed <= 10; seed++)
        for (int m = 0; m < DIRECTION_METHODS; m++) {
            make(&s, 20, 0.3, true, seed);
            struct layer_stats stats = validate(&s, (enum direction_method)m);
            assert_non_null(validate_fault(&stats));
        }
}

static void noise_is_rejected(void **state)
{
    static struct synthetic s;
    make(&s, 0, 1, false, 3);
    struct layer_stats stats = validate(&s, METHOD_MEAN);
    assert_non_null(validate_fault(&stats));
    assert_true(fabs(stats.pairwise_cosine) < 0.05);
}

static void each_limit_is_named(void **state)
{
    struct layer_stats good = {.auroc = 0.95, .split_half = 0.9, .shuffled_auroc = 0.6}, s = good;
    assert_null(validate_fault(&s));
    s.auroc = 0.89;
    assert_string_equal(validate_fault(&s), "auroc");
    s = good;
    s.auroc = NAN;
    assert_string_equal(validate_fault(&s), "auroc");
    s = good;
    s.split_half = 0.79;
    assert_string_equal(validate_fault(&s), "split_half");
    s = good;
    s.shuffled_auroc = 0.95;
    assert_string_equal(validate_fault(&s), "shuffled");
}

static void auroc_counts_pairs(void **state)
{
    double positive[] = {3, 1, 2, 2}, negative[] = {0, 2, 1, 5};
    /* 16 pairs of scores: 3 beats 3; 1 beats 1, ties 1; each 2 beats 2, ties 1 */
    assert_true(fabs(validate_auroc(positive, negative, 4) - (3 + 1.5 + 2.5 + 2.5) / 16) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mean_finds_what_centred_pca_loses),
        cmocka_unit_test(swapped_labels_flip_the_sign),
        cmocka_unit_test(centred_pca_is_the_covariance_eigenvector),
        cmocka_unit_test(probe_is_the_minimum),
        cmocka_unit_test(no_difference_is_no_direction),
        cmocka_unit_test(a_clear_direction_passes),
        cmocka_unit_test(shuffled_labels_are_rejected),
        cmocka_unit_test(noise_is_rejected),
        cmocka_unit_test(each_limit_is_named),
        cmocka_unit_test(auroc_counts_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
