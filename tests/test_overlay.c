/*
 * test_overlay.c - what viewers of the overlay get: meter, strength and captions of whatever the
 * server says, the same for all of them, with nobody waiting for the slow ones.
 */
#include "base/clock.h"
#include "support/api_client.h"
#include "support/shared_server.h"
#include "support/ws_client.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL   "models/rinne-lite"
#define PATH    "/overlay/ws"
#define VIEWERS 50
#define FRAMES  4000

static int start_shared(void **state)
{
    static const char *const options[] = {"-m",     MODEL, "-v",     MODEL "/gyaru.safetensors",
                                          "-s",     "12",  "--temp", "0",
                                          "--ping", "1",   NULL};
    return shared_server_start(options);
}

/* ---- viewers -------------------------------------------------------------------------------- */

static struct ws_client *watch_with(int receive_buffer, json_t **first)
{
    struct ws_client *ws = ws_connect_path(shared.port, PATH, NULL, receive_buffer);
    assert_int_equal(ws->status, 101);
    json_t *state = ws_wait(ws, "overlay");
    if (first)
        *first = state;
    else
        json_decref(state);
    return ws;
}

static struct ws_client *watch(void)
{
    return watch_with(0, NULL);
}

/* *answer: the number of the newest answer so far. */
static struct ws_client *watch_answers(double *answer)
{
    json_t *first;
    struct ws_client *ws = watch_with(0, &first);
    *answer = ws_number(first, "answer");
    json_decref(first);
    return ws;
}

static bool flag(const json_t *state, const char *key)
{
    const json_t *value = json_object_get(state, key);
    assert_true(json_is_boolean(value));
    return json_is_true(value);
}

/* The next state in which `key` has this value (caller frees). */
static json_t *wait_number(struct ws_client *ws, const char *key, double value)
{
    for (;;) {
        json_t *state = ws_wait(ws, "overlay");
        if (ws_number(state, key) == value)
            return state;
        json_decref(state);
    }
}

/* The state after the end of the answer that follows number `after` (caller frees). */
static json_t *wait_answered(struct ws_client *ws, double after)
{
    for (;;) {
        json_t *state = ws_wait(ws, "overlay");
        if (ws_number(state, "answer") > after && !flag(state, "answering"))
            return state;
        json_decref(state);
    }
}

/* An answer over the API; its text (caller frees). */
static char *ask(const char *question, const char *more)
{
    char body[512];
    struct api_answer answer;
    snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}",
             question, more);
    api_call(shared.port, "POST", "/v1/chat/completions", NULL, body, &answer);
    assert_int_equal(answer.status, 200);
    const json_t *choice = json_array_get(json_object_get(answer.json, "choices"), 0);
    char *text = strdup(ws_text(json_object_get(choice, "message"), "content"));
    api_release(&answer);
    return text;
}

/* ---- one viewer ----------------------------------------------------------------------------- */

static void test_begins_with_the_present(void **state)
{
    json_t *now;
    shared_server_steer(7.5);
    struct ws_client *ws = watch_with(0, &now);
    assert_string_equal(ws_text(now, "state"), "ready");
    assert_true(ws_number(now, "strength") == 7.5);
    assert_true(ws_number(now, "strength_min") == -10);
    assert_true(ws_number(now, "strength_max") == 30);
    assert_false(flag(now, "answering"));
    assert_false(flag(now, "speaking"));
    json_decref(now);
    shared_server_steer(12);
    json_decref(wait_number(ws, "strength", 12));
    struct ws_client *page = ws_connect(shared.port, NULL);
    ws_say(page, "{\"type\":\"update_strength\",\"value\":13}");
    json_decref(wait_number(ws, "strength", 13));
    ws_disconnect(page);
    ws_disconnect(ws);
    shared_server_steer(12);
}

/* Whoever asks, here a tool over the API: the meter moves, the caption is the sentence that is
 * being decoded. */
static void test_follows_an_answer(void **state)
{
    double before;
    struct ws_client *ws = watch_answers(&before);
    char *text = ask("週末は何するの？", ",\"max_tokens\":60");
    json_t *last = wait_answered(ws, before);
    assert_non_null(strstr(text, ws_text(last, "caption")));
    assert_int_not_equal(ws_text(last, "caption")[0], '\0');
    assert_in_range(ws_number(last, "value") * 1000 + 1000, 0, 2000);
    assert_true(json_is_number(json_object_get(last, "calibrated")));
    json_decref(last);
    free(text);
    /* Its own strength is shown while it runs. Not directly after another state: an answer that
     * is over before the next one is due leaves no trace. */
    bool shown = false;
    for (int i = 1; i < 20 && !shown; i++) {
        nanosleep(&(struct timespec){0, 50000000}, NULL);
        free(ask("自己紹介して", ",\"steering\":{\"strength\":3}"));
        for (bool ended = false; !ended;) {
            json_t *now = ws_wait(ws, "overlay");
            shown = shown || ws_number(now, "strength") == 3;
            ended = ws_number(now, "answer") > before + i && !flag(now, "answering");
            if (ended)
                assert_true(ws_number(now, "strength") == 12);
            json_decref(now);
        }
    }
    assert_true(shown);
    ws_disconnect(ws);
}

/* ---- what a page speaks --------------------------------------------------------------------- */

/* Asks; the sentences of the answer as they come (caller frees). */
static json_t *ask_spoken(struct ws_client *page, const char *question)
{
    json_t *sentences = json_array(), *message;
    ws_say(page, "{\"type\":\"message\",\"content\":\"%s\"}", question);
    for (;;) {
        int code;
        message = ws_next(page, &code);
        assert_non_null(message);
        const char *type = ws_text(message, "type");
        if (!strcmp(type, "sentence"))
            json_array_append(sentences, message);
        bool done = !strcmp(type, "done");
        json_decref(message);
        if (done)
            return sentences;
    }
}

static void test_caption_is_what_is_played(void **state)
{
    double before;
    struct ws_client *ws = watch_answers(&before), *page = ws_connect(shared.port, NULL);
    ws_say(page, "{\"type\":\"voice\",\"on\":true}");
    json_t *told = ws_wait(page, "voice_updated");
    assert_true(flag(told, "on"));
    json_decref(told);
    json_t *sentences = ask_spoken(page, "最近どう？");
    size_t n = json_array_size(sentences), i;
    json_t *sentence;
    assert_true(n > 0);
    /* Decoded, but not yet heard. */
    json_t *now = wait_answered(ws, before);
    assert_string_equal(ws_text(now, "caption"), "");
    assert_false(flag(now, "speaking"));
    json_decref(now);
    json_array_foreach(sentences, i, sentence)
    {
        assert_int_equal((int)ws_number(sentence, "index"), (int)i);
        assert_int_not_equal(ws_text(sentence, "speech")[0], '\0');
        ws_say(page, "{\"type\":\"playing\",\"index\":%zu}", i);
        now = ws_wait(ws, "overlay");
        assert_true(flag(now, "speaking"));
        assert_string_equal(ws_text(now, "caption"), ws_text(sentence, "text"));
        json_decref(now);
    }
    ws_say(page, "{\"type\":\"playing\",\"index\":null}");
    now = ws_wait(ws, "overlay");
    assert_false(flag(now, "speaking"));
    assert_string_equal(ws_text(now, "caption"), ws_text(json_array_get(sentences, n - 1), "text"));
    json_decref(now);
    json_decref(sentences);

    /* No caption but those that were said. */
    static const char *const wrong[] = {"99", "-1", "\"text\"", "0.5", "{}"};
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ws_say(page, "{\"type\":\"playing\",\"index\":%s}", wrong[i]);
        json_t *error = ws_wait(page, "error");
        assert_string_equal(ws_text(error, "code"), "invalid");
        json_decref(error);
    }
    /* Who goes away in mid-sentence leaves no caption that speaks for ever. */
    ws_say(page, "{\"type\":\"playing\",\"index\":0}");
    now = ws_wait(ws, "overlay");
    assert_true(flag(now, "speaking"));
    json_decref(now);
    ws_disconnect(page);
    now = ws_wait(ws, "overlay");
    assert_false(flag(now, "speaking"));
    json_decref(now);
    ws_disconnect(ws);
}

static void test_voice_off_shows_what_is_decoded(void **state)
{
    double before;
    struct ws_client *ws = watch_answers(&before), *page = ws_connect(shared.port, NULL);
    ws_say(page, "{\"type\":\"voice\",\"on\":true}");
    ws_say(page, "{\"type\":\"voice\",\"on\":false}");
    ws_say(page, "{\"type\":\"voice\",\"on\":1}");
    json_decref(ws_wait(page, "error"));
    json_t *sentences = ask_spoken(page, "最近どう？");
    assert_int_equal(json_array_size(sentences), 0);
    json_t *now = wait_answered(ws, before);
    assert_int_not_equal(ws_text(now, "caption")[0], '\0');
    json_decref(now);
    json_decref(sentences);
    ws_disconnect(page);
    ws_disconnect(ws);
}

/* ---- many viewers --------------------------------------------------------------------------- */

/* All states up to the one with this strength, as one text (caller frees). */
static char *transcript(struct ws_client *ws, double until)
{
    json_t *all = json_array();
    bool end = false;
    while (!end) {
        json_t *state = ws_wait(ws, "overlay");
        end = ws_number(state, "strength") == until;
        json_array_append_new(all, state);
    }
    char *text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    return text;
}

static void test_fifty_viewers_get_the_same(void **state)
{
    struct ws_client *viewers[VIEWERS];
    json_t *first;
    double seq = -1;
    shared_server_steer(12);
    /* Nothing is under way any more. */
    nanosleep(&(struct timespec){0, 200000000}, NULL);
    for (int i = 0; i < VIEWERS; i++) {
        viewers[i] = watch_with(0, &first);
        assert_true(seq < 0 || ws_number(first, "seq") == seq);
        seq = ws_number(first, "seq");
        json_decref(first);
    }
    free(ask("自己紹介して", ""));
    free(ask("好きな食べ物は？", ""));
    shared_server_steer(-9.5);
    char *want = transcript(viewers[0], -9.5);
    for (int i = 1; i < VIEWERS; i++) {
        char *got = transcript(viewers[i], -9.5);
        assert_string_equal(got, want);
        free(got);
    }
    free(want);
    for (int i = 0; i < VIEWERS; i++)
        ws_disconnect(viewers[i]);
    shared_server_steer(12);
}

/* Counts consecutive states until the strength; fails at a gap. */
static int count_states(struct ws_client *ws, double until, double *last)
{
    int n = 0;
    double seq = 0;
    for (bool end = false; !end; n++) {
        json_t *state = ws_wait(ws, "overlay");
        double next = ws_number(state, "seq");
        assert_true(n == 0 || next == seq + 1);
        seq = next;
        end = ws_number(state, "strength") == until;
        json_decref(state);
    }
    *last = seq;
    return n;
}

/* One that reads nothing for seconds: it loses states, not its connection; a chat and another
 * viewer go on as if it were not there. */
static void test_slow_viewer_loses_only_its_own(void **state)
{
    struct ws_client *slow = watch_with(2048, NULL), *quick = watch();
    struct ws_client *page = ws_connect(shared.port, NULL);
    double dropped = http_metric(shared.port, "gyaru_overlay_dropped_total");
    assert_true(http_metric(shared.port, "gyaru_overlay_viewers") >= 2);
    double end = clock_seconds() + 60, worst = 0;
    for (int i = 0; http_metric(shared.port, "gyaru_overlay_dropped_total") < dropped + 20; i++) {
        assert_true(clock_seconds() < end);
        for (int j = 0; j < 10; j++) {
            double before = clock_seconds();
            ws_say(page, "{\"type\":\"update_strength\",\"value\":%g}", (i * 10 + j) % 250 / 10.0);
            json_decref(ws_wait(page, "strength_updated"));
            if (clock_seconds() - before > worst)
                worst = clock_seconds() - before;
            nanosleep(&(struct timespec){0, 15000000}, NULL);
        }
    }
    free(ask("こんにちは", ""));
    ws_say(page, "{\"type\":\"update_strength\",\"value\":29.5}");
    double last, seq = 0;
    int seen = count_states(quick, 29.5, &last), got = 0, gaps = 0;
    for (bool over = false; !over; got++) {
        json_t *now = ws_wait(slow, "overlay");
        double next = ws_number(now, "seq");
        assert_true(next > seq);
        gaps += got && next != seq + 1;
        seq = next;
        over = ws_number(now, "strength") == 29.5;
        json_decref(now);
    }
    print_message("the quick viewer saw %d states, the slow one %d of them; a chat waited %.0f ms "
                  "at most\n",
                  seen, got, 1000 * worst);
    assert_true(gaps > 0 && got < seen);
    assert_true(seq == last);
    /* Its connection lives on. */
    shared_server_steer(12);
    json_decref(wait_number(slow, "strength", 12));
    ws_disconnect(slow);
    ws_disconnect(quick);
    ws_disconnect(page);
}

/* Many states in little time are merged: 30 a second is what OBS shows. */
static void test_states_are_few(void **state)
{
    struct ws_client *ws = watch(), *page = ws_connect(shared.port, NULL);
    double start = clock_seconds(), last;
    for (int i = 0; i < 1000; i++)
        ws_say(page, "{\"type\":\"update_strength\",\"value\":%g}", i % 100 / 10.0);
    ws_say(page, "{\"type\":\"update_strength\",\"value\":21.5}");
    int n = count_states(ws, 21.5, &last);
    double seconds = clock_seconds() - start;
    assert_true(n <= 3 + (int)(seconds * 31));
    ws_disconnect(page);
    ws_disconnect(ws);
    shared_server_steer(12);
}

/* ---- who may watch -------------------------------------------------------------------------- */

static void test_doors(void **state)
{
    char *answer;
    assert_int_equal(http_get(shared.port, "/overlay", &answer), 200);
    assert_non_null(strstr(answer, "text/html"));
    assert_non_null(strstr(answer, "overlay.js"));
    free(answer);
    assert_int_equal(http_get(shared.port, PATH, NULL), 426);
    struct ws_client *ws = ws_connect_path(shared.port, PATH, "Origin: http://evil.example\r\n", 0);
    assert_int_equal(ws->status, 403);
    ws_disconnect(ws);
    ws = ws_connect_path(shared.port, "/overlay/other", NULL, 0);
    assert_int_equal(ws->status, 404);
    ws_disconnect(ws);
    /* An overlay has nothing to say; the others stay. */
    struct ws_client *other = watch();
    ws = watch();
    ws_say(ws, "{\"type\":\"message\",\"content\":\"hello\"}");
    ws_close_code(ws);
    ws_disconnect(ws);
    shared_server_steer(11);
    json_decref(wait_number(other, "strength", 11));
    shared_server_steer(12);
    ws_disconnect(other);
}

static void test_key(void **state)
{
    struct test_server server;
    static const char *const options[] = {NULL};
    setenv("GYARU_API_KEY", "a-key-of-the-test", 1);
    test_server_start(&server, true, options);
    unsetenv("GYARU_API_KEY");
    struct ws_client *ws = ws_connect_path(server.port, PATH, NULL, 0);
    assert_int_equal(ws->status, 401);
    ws_disconnect(ws);
    assert_int_equal(http_get(server.port, "/overlay", NULL), 401);
    ws = ws_connect_path(server.port, PATH, "Cookie: gyaru_key=a-key-of-the-test\r\n", 0);
    assert_int_equal(ws->status, 101);
    /* The address in OBS carries the key; the page comes back to itself with its settings. */
    char *answer;
    assert_int_equal(http_get(server.port,
                              "/overlay?scale=1.5&key=a-key-of-the-test&lang=%22%3e%3cscript%3e",
                              &answer),
                     200);
    assert_non_null(strstr(answer, "set-cookie: gyaru_key=a-key-of-the-test"));
    assert_non_null(strstr(answer, "url=/overlay?scale=1.5&amp;lang=%22%3E%3Cscript%3E\""));
    free(answer);
    /* A server that stops says so. */
    test_server_stop(&server);
    assert_int_equal(ws_close_code(ws), 1001);
    ws_disconnect(ws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED_TEST(test_begins_with_the_present),
        SHARED_TEST(test_follows_an_answer),
        SHARED_TEST(test_caption_is_what_is_played),
        SHARED_TEST(test_voice_off_shows_what_is_decoded),
        SHARED_TEST(test_fifty_viewers_get_the_same),
        SHARED_TEST(test_slow_viewer_loses_only_its_own),
        SHARED_TEST(test_states_are_few),
        SHARED_TEST(test_doors),
        cmocka_unit_test(test_key),
    };
    return cmocka_run_group_tests(tests, start_shared, shared_server_stop);
}
