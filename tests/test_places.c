/*
 * test_places.c - which vectors are attached where: kept while they can be, never taken from a
 * running answer, refused without a trace.
 */
#include "server/log.h"
#include "server/places.h"
#include "support/scratch.h"
#include "support/test_server.h"
#include "support/vector_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NAMES 6

static struct gyaru_error err;
static struct gyaru_model *model;
static const struct log_options quiet = {.level = LOG_LEVEL_ERROR};
static struct shelf shelf;
static struct places places;

static int setup(void **state)
{
    static char folder[300];
    struct gyaru_model_options options;
    struct shelf_sources sources = {.folder = folder, .log = &quiet};
    snprintf(folder, sizeof folder, "%s", scratch_path(VECTOR_FOLDER));
    vector_folder_make();
    for (unsigned i = 0; i < NAMES; i++) {
        const char name[] = {(char)('a' + (int)i), '\0'};
        vector_folder_write(name, 64, vector_folder_fingerprint(), i);
    }
    gyaru_model_options_init(&options);
    options.threads = 1;
    if (gyaru_model_open(test_model_dir(), &options, &model, &err) ||
        shelf_open(&shelf, model, &sources, &err))
        fail_msg("%s", err.text);
    assert_int_equal(shelf.n, NAMES);
    places = (struct places){.model = model};
    return 0;
}

static int teardown(void **state)
{
    places_release(&places);
    shelf_close(&shelf);
    gyaru_model_close(model);
    return 0;
}

/* "ab2" is a and b, b at layer 2 alone; strengths 1, 2, ... */
static struct steer_mix mix_of(const char *text)
{
    struct steer_mix mix = {0};
    for (; *text; text++) {
        const char name[] = {*text, '\0'};
        struct steer_part part = {shelf_ref(shelf_find(&shelf, name)), (float)(mix.n + 1), false,
                                  -1, -1};
        if (text[1] == '1' || text[1] == '2')
            part.layer_first = part.layer_last = *++text - '0';
        if (mix_add(&mix, part, &err))
            fail_msg("%s", err.text);
    }
    return mix;
}

static enum claim_result claim(const char *text, unsigned busy, struct claim *out)
{
    struct steer_mix mix = mix_of(text);
    enum claim_result result = places_claim(&places, &mix, busy, out, &err);
    if (result == CLAIM_FAILED)
        fail_msg("%s", err.text);
    mix_release(&mix);
    return result;
}

/* Names and layers of what is attached, place by place; '-': nothing. */
static void assert_attached(const char *expected)
{
    char now[20] = "";
    for (int i = 0; i < GYARU_MAX_VECTORS; i++) {
        const struct place *place = &places.places[i];
        strcat(now, place->vector ? place->vector->name : "-");
        if (place->vector && place->layer_first >= 0)
            strcat(now, place->layer_first == 1 ? "1" : "2");
    }
    assert_string_equal(now, expected);
}

static void what_is_attached_stays(void **state)
{
    struct claim first, again;
    assert_int_equal(claim("ab", 0, &first), CLAIM_DONE);
    assert_attached("ab--");
    assert_int_equal(first.used, 3);
    assert_int_equal(first.gauge, first.index[0]);
    assert_int_equal(first.gauge_layer, 2);
    assert_int_equal(claim("ba", 0, &again), CLAIM_DONE);
    assert_attached("ab--");
    assert_int_equal(again.index[0], first.index[1]);
    assert_int_equal(again.index[1], first.index[0]);
    assert_int_equal(claim("b2", 0, &again), CLAIM_DONE);
    assert_attached("abb2-");
    assert_int_equal(claim("", 0, &again), CLAIM_DONE);
    assert_true(!again.used && again.gauge == -1);
    assert_attached("abb2-");
}

static void the_longest_unused_goes(void **state)
{
    struct claim c;
    assert_int_equal(claim("abcd", 0, &c), CLAIM_DONE);
    assert_int_equal(claim("a", 0, &c), CLAIM_DONE);
    assert_int_equal(claim("cd", 0, &c), CLAIM_DONE);
    assert_int_equal(claim("e", 0, &c), CLAIM_DONE);
    assert_attached("aecd");
    /* The parts of one mix do not take each other's places. */
    assert_int_equal(claim("fa", 0, &c), CLAIM_DONE);
    assert_attached("aefd");
    assert_int_equal(claim("bcde", 0, &c), CLAIM_DONE);
    assert_int_equal(c.used, 15);
    assert_attached("becd");
}

static void what_runs_is_left_alone(void **state)
{
    struct claim running, other;
    assert_int_equal(claim("abc", 0, &running), CLAIM_DONE);
    assert_int_equal(claim("de", running.used, &other), CLAIM_WAIT);
    assert_attached("abc-");
    assert_int_equal(claim("d", running.used, &other), CLAIM_DONE);
    assert_attached("abcd");
    /* Sharing is no taking. */
    assert_int_equal(claim("ca", running.used | other.used, &other), CLAIM_DONE);
    assert_int_equal(claim("a1", 15, &other), CLAIM_WAIT);
    assert_attached("abcd");
    assert_int_equal(claim("de", running.used & ~2u, &other), CLAIM_DONE);
    assert_attached("aecd");
}

static void strengths_go_by_place(void **state)
{
    struct claim c;
    float strengths[GYARU_MAX_VECTORS];
    assert_int_equal(claim("ab", 0, &c), CLAIM_DONE);
    struct steer_mix mix = mix_of("ba");
    mix.parts[1].follows = true;
    assert_int_equal(places_claim(&places, &mix, 0, &c, &err), CLAIM_DONE);
    places_strengths(&mix, &c, 7.5f, strengths);
    assert_true(strengths[c.index[0]] == 1 && strengths[c.index[1]] == 7.5f);
    float sum = 0;
    for (int i = 0; i < GYARU_MAX_VECTORS; i++)
        sum += strengths[i];
    assert_true(sum == 8.5f);
    mix_release(&mix);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_attached_stays),
        TEST(the_longest_unused_goes),
        TEST(what_runs_is_left_alone),
        TEST(strengths_go_by_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
