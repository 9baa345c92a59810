/*
 * test_server_chat.c - conversations over /ws with the real program and the tiny checkpoint.
 *
 * The tiny model answers some thousand tokens a second until its context of 512 is full, so what
 * has to happen "in mid-answer" is tried until it did.
 */
#include "support/shared_server.h"
#include "support/ws_client.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define TRIES 50 /* of what must happen while an answer runs */

static int start_shared(void **state)
{
    static const char *const options[] = {"--sessions", "2", "--waiting", "4", NULL};
    return shared_server_start(options);
}

/* What one answer consisted of. */
struct heard {
    char text[16384]; /* tokens put together */
    int n_tokens, n_gauges;
    double first_strength, last_strength;
    double last_version;
    json_t *done;
};

static void hear_gauge(struct heard *heard, const json_t *message)
{
    double strength = ws_number(message, "strength");
    double value = ws_number(message, "value");
    assert_true(value >= -1.001 && value <= 1.001);
    assert_true(json_is_integer(json_object_get(message, "layer")));
    assert_non_null(json_object_get(message, "calibrated"));
    assert_non_null(json_object_get(message, "tokens_per_second"));
    assert_true(ws_number(message, "version") >= heard->last_version);
    if (!heard->n_gauges++)
        heard->first_strength = strength;
    heard->last_strength = strength;
    heard->last_version = ws_number(message, "version");
}

/* Reads to `done`. */
static void hear(struct ws_client *ws, struct heard *heard)
{
    memset(heard, 0, sizeof *heard);
    for (;;) {
        int code;
        json_t *message = ws_next(ws, &code);
        if (!message)
            fail_msg("closed with %d in mid-answer", code);
        const char *type = ws_text(message, "type");
        if (!strcmp(type, "done")) {
            heard->done = message;
            return;
        }
        if (!strcmp(type, "error"))
            fail_msg("error: %s", ws_text(message, "message"));
        if (!strcmp(type, "gauge"))
            hear_gauge(heard, message);
        if (!strcmp(type, "token")) {
            const char *content = ws_text(message, "content");
            assert_true(strlen(heard->text) + strlen(content) < sizeof heard->text);
            strcat(heard->text, content);
            heard->n_tokens++;
        }
        json_decref(message);
    }
}

/* Asks, hears, and gives the prompt's size in tokens. */
static int ask(struct ws_client *ws, const char *message, int *cached)
{
    struct heard heard;
    ws_say(ws, "%s", message);
    hear(ws, &heard);
    const json_t *timings = json_object_get(heard.done, "timings");
    int n = (int)ws_number(timings, "prompt_tokens");
    if (cached)
        *cached = (int)ws_number(timings, "cached_tokens");
    json_decref(heard.done);
    return n;
}

static void hello_describes_the_server(void **state)
{
    json_t *hello;
    struct ws_client *ws = ws_connect(shared.port, &hello);
    assert_string_equal(ws_text(hello, "model"), "tiny-model");
    assert_string_equal(ws_text(hello, "vector"), "vector");
    assert_true(ws_number(hello, "strength_min") == -10);
    assert_true(ws_number(hello, "strength_max") == 30);
    assert_true(ws_number(hello, "strength") == 5);
    assert_true(json_is_integer(json_object_get(hello, "gauge_layer")));
    assert_true(json_is_false(json_object_get(hello, "busy")));
    const char *fingerprint = ws_text(hello, "fingerprint");
    assert_true(!strcmp(fingerprint, "match") || !strcmp(fingerprint, "unverified"));
    json_decref(hello);
    ws_disconnect(ws);
}

static void chat_streams(void **state)
{
    struct heard heard;
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ws_say(ws, "{\"type\":\"message\",\"content\":\"こんにちは\"}");
    hear(ws, &heard);
    assert_string_equal(heard.text, ws_text(heard.done, "full_response"));
    assert_true(heard.n_tokens > 1);
    assert_true(heard.n_gauges >= heard.n_tokens);
    const char *reason = ws_text(heard.done, "finish_reason");
    assert_true(!strcmp(reason, "stop") || !strcmp(reason, "length"));
    const json_t *timings = json_object_get(heard.done, "timings");
    assert_true(ws_number(timings, "generated_tokens") >= heard.n_tokens);
    assert_true(ws_number(timings, "first_token_seconds") > 0);
    json_decref(heard.done);
    ws_disconnect(ws);
}

static void chat_remembers_until_reset(void **state)
{
    int cached;
    struct ws_client *ws = ws_connect(shared.port, NULL);
    /* Short answers: the context is small. */
    ws_say(ws, "{\"type\":\"message\",\"content\":\"a\",\"history\":["
               "{\"role\":\"user\",\"content\":\"hello\"},"
               "{\"role\":\"assistant\",\"content\":\"good morning\"}]}");
    struct heard heard;
    hear(ws, &heard);
    int with_history = (int)ws_number(json_object_get(heard.done, "timings"), "prompt_tokens");
    json_decref(heard.done);
    ws_say(ws, "{\"type\":\"reset\"}");
    json_decref(ws_wait(ws, "reset_done"));
    int fresh = ask(ws, "{\"type\":\"message\",\"content\":\"a\"}", &cached);
    assert_true(fresh < with_history);
    ws_disconnect(ws);
}

static void follow_up_reuses_the_cache(void **state)
{
    int cached;
    struct ws_client *ws = ws_connect(shared.port, NULL);
    int first = ask(ws, "{\"type\":\"message\",\"content\":\"abc\"}", NULL);
    /* The same question again, by resending an empty history: all but the last token is there. */
    int again = ask(ws, "{\"type\":\"message\",\"content\":\"abc\",\"history\":[]}", &cached);
    assert_int_equal(again, first);
    assert_int_equal(cached, first - 1);
    ws_disconnect(ws);
}

static void system_prompt_is_used(void **state)
{
    struct ws_client *ws = ws_connect(shared.port, NULL);
    int before = ask(ws, "{\"type\":\"message\",\"content\":\"a\",\"history\":[]}", NULL);
    ws_say(ws, "{\"type\":\"system\",\"content\":\"You are a very strict butler, and you "
               "answer everything with the greatest politeness that there is.\"}");
    json_t *message = ws_wait(ws, "system_updated");
    assert_non_null(strstr(ws_text(message, "content"), "butler"));
    json_decref(message);
    int after = ask(ws, "{\"type\":\"message\",\"content\":\"a\",\"history\":[]}", NULL);
    assert_int_not_equal(after, before);
    ws_say(ws, "{\"type\":\"system\",\"content\":null}");
    json_decref(ws_wait(ws, "system_updated"));
    assert_int_equal(ask(ws, "{\"type\":\"message\",\"content\":\"a\",\"history\":[]}", NULL),
                     before);
    ws_disconnect(ws);
}

static void old_turns_make_room(void **state)
{
    /* Far more turns than 512 tokens hold. */
    struct ws_client *ws = ws_connect(shared.port, NULL);
    char text[8192] = "{\"type\":\"message\",\"content\":\"a\",\"history\":[";
    for (int i = 0; i < 60; i++)
        sprintf(text + strlen(text), "%s{\"role\":\"%s\",\"content\":\"one two three four %d\"}",
                i ? "," : "", i % 2 ? "assistant" : "user", i);
    strcat(text, "]}");
    struct heard heard;
    ws_frame(ws, 0x81, text, strlen(text), true);
    hear(ws, &heard);
    assert_true(ws_number(heard.done, "dropped_messages") > 0);
    double prompt = ws_number(json_object_get(heard.done, "timings"), "prompt_tokens");
    /* A quarter of the room is given up at a time. */
    assert_true(prompt > 270 && prompt <= 512 * 3 / 4);
    json_decref(heard.done);
    /* One message that can never fit is an error that names the sizes, and the chat goes on. */
    memset(text, 0, sizeof text);
    strcpy(text, "{\"type\":\"message\",\"history\":[],\"content\":\"");
    for (int i = 0; i < 3000; i++)
        strcat(text, i % 2 ? "x" : "7");
    strcat(text, "\"}");
    ws_frame(ws, 0x81, text, strlen(text), true);
    json_t *error = ws_wait(ws, "error");
    assert_string_equal(ws_text(error, "code"), "failed");
    assert_string_equal(ws_text(error, "reason"), "context_full");
    assert_non_null(strstr(ws_text(error, "message"), "512"));
    json_decref(error);
    ask(ws, "{\"type\":\"message\",\"content\":\"a\"}", NULL);
    ws_disconnect(ws);
}

static void reliability_14_strength_in_mid_answer(void **state)
{
    struct ws_client *ws = ws_connect(shared.port, NULL);
    bool seen = false;
    for (int i = 0; i < TRIES && !seen; i++) {
        struct heard heard;
        ws_say(ws, "{\"type\":\"update_strength\",\"value\":3}");
        json_t *updated = ws_wait(ws, "strength_updated");
        double version = ws_number(updated, "version");
        assert_true(ws_number(updated, "value") == 3);
        json_decref(updated);
        ws_say(ws, "{\"type\":\"message\",\"content\":\"a\",\"history\":[]}");
        json_decref(ws_wait(ws, "token"));
        ws_say(ws, "{\"type\":\"update_strength\",\"value\":20.5}");
        hear(ws, &heard);
        if (heard.first_strength == 3 && heard.last_strength == 20.5) {
            assert_true(heard.last_version == version + 1);
            seen = true;
        }
        json_decref(heard.done);
    }
    assert_true(seen);
    ws_say(ws, "{\"type\":\"update_strength\",\"value\":5}");
    json_decref(ws_wait(ws, "strength_updated"));
    ws_disconnect(ws);
}

static void strength_reaches_every_page(void **state)
{
    struct ws_client *a = ws_connect(shared.port, NULL);
    struct ws_client *b = ws_connect(shared.port, NULL);
    ws_say(a, "{\"type\":\"update_strength\",\"value\":-7}");
    json_t *at_a = ws_wait(a, "strength_updated"), *at_b = ws_wait(b, "strength_updated");
    assert_true(ws_number(at_b, "value") == -7);
    assert_true(ws_number(at_a, "version") == ws_number(at_b, "version"));
    json_decref(at_a);
    json_decref(at_b);
    ws_say(a, "{\"type\":\"update_strength\",\"value\":5}");
    json_decref(ws_wait(b, "strength_updated"));
    ws_disconnect(a);
    ws_disconnect(b);
}

static void cancel_keeps_what_was_said(void **state)
{
    struct ws_client *ws = ws_connect(shared.port, NULL);
    bool seen = false;
    for (int i = 0; i < TRIES && !seen; i++) {
        ws_say(ws, "{\"type\":\"message\",\"content\":\"a\",\"history\":[]}");
        json_decref(ws_wait(ws, "token"));
        ws_say(ws, "{\"type\":\"cancel\"}");
        /* The next question may follow at once. */
        ws_say(ws, "{\"type\":\"message\",\"content\":\"b\"}");
        struct heard cancelled, next;
        hear(ws, &cancelled);
        seen = !strcmp(ws_text(cancelled.done, "finish_reason"), "cancelled");
        if (seen)
            assert_true(strlen(ws_text(cancelled.done, "full_response")) > 0);
        hear(ws, &next);
        assert_string_not_equal(ws_text(next.done, "finish_reason"), "cancelled");
        json_decref(cancelled.done);
        json_decref(next.done);
    }
    assert_true(seen);
    /* Without an answer there is nothing to cancel, and no reply. */
    ws_say(ws, "{\"type\":\"cancel\"}");
    ws_say(ws, "{\"type\":\"reset\"}");
    int code;
    json_t *message = ws_next(ws, &code);
    assert_string_equal(ws_text(message, "type"), "reset_done");
    json_decref(message);
    ws_disconnect(ws);
}

static void second_question_is_busy(void **state)
{
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ws_say(ws, "{\"type\":\"message\",\"content\":\"a\"}");
    ws_say(ws, "{\"type\":\"message\",\"content\":\"b\"}");
    json_t *error = ws_wait(ws, "error");
    assert_string_equal(ws_text(error, "code"), "busy");
    json_decref(error);
    json_decref(ws_wait(ws, "done"));
    ws_disconnect(ws);
}

static void two_chats_at_once(void **state)
{
    struct ws_client *a = ws_connect(shared.port, NULL);
    struct ws_client *b = ws_connect(shared.port, NULL);
    ws_say(a, "{\"type\":\"message\",\"content\":\"first\"}");
    ws_say(b, "{\"type\":\"message\",\"content\":\"second\"}");
    struct heard from_a, from_b;
    hear(b, &from_b);
    hear(a, &from_a);
    assert_string_equal(from_a.text, ws_text(from_a.done, "full_response"));
    assert_string_equal(from_b.text, ws_text(from_b.done, "full_response"));
    assert_string_not_equal(from_a.text, from_b.text);
    json_decref(from_a.done);
    json_decref(from_b.done);
    ws_disconnect(a);
    ws_disconnect(b);
}

static int busy_slots(int port)
{
    return (int)http_number(port, "/health", "\"slots_busy\":");
}

static void wait_until_idle(int port)
{
    for (int i = 0; i < 1000 && busy_slots(port); i++)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    assert_int_equal(busy_slots(port), 0);
}

static void disconnect_frees_the_slot(void **state)
{
    for (int i = 0; i < 20; i++) {
        struct ws_client *ws = ws_connect(shared.port, NULL);
        ws_say(ws, "{\"type\":\"message\",\"content\":\"a\"}");
        if (i % 2)
            json_decref(ws_wait(ws, "token"));
        ws_disconnect(ws);
    }
    wait_until_idle(shared.port);
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ask(ws, "{\"type\":\"message\",\"content\":\"a\"}", NULL);
    ws_disconnect(ws);
}

static void reliability_23_reset_frees_the_slot(void **state)
{
    struct ws_client *ws = ws_connect(shared.port, NULL);
    for (int i = 0; i < 20; i++) {
        ws_say(ws, "{\"type\":\"message\",\"content\":\"abcdefgh abcdefgh abcdefgh\"}");
        if (i % 2)
            json_decref(ws_wait(ws, "token"));
        ws_say(ws, "{\"type\":\"reset\"}");
        json_decref(ws_wait(ws, "reset_done"));
    }
    wait_until_idle(shared.port);
    ask(ws, "{\"type\":\"message\",\"content\":\"a\"}", NULL);
    ws_disconnect(ws);
}

static void reliability_28_queue_full(void **state)
{
    struct ws_client *ws[32];
    int n_busy = 0, n_done = 0;
    for (int i = 0; i < 32; i++)
        ws[i] = ws_connect(shared.port, NULL);
    for (int i = 0; i < 32; i++)
        ws_say(ws[i], "{\"type\":\"message\",\"content\":\"a\"}");
    for (int i = 0; i < 32; i++) {
        for (;;) {
            int code;
            json_t *message = ws_next(ws[i], &code);
            assert_non_null(message);
            bool done = !strcmp(ws_text(message, "type"), "done");
            bool error = !strcmp(ws_text(message, "type"), "error");
            if (error)
                assert_string_equal(ws_text(message, "code"), "busy");
            json_decref(message);
            n_done += done;
            n_busy += error;
            if (done || error)
                break;
        }
        ws_disconnect(ws[i]);
    }
    /* Two run, four wait; how many finish meanwhile depends on the machine. */
    assert_true(n_done >= 6);
    assert_true(n_busy >= 1);
    wait_until_idle(shared.port);
}

static void reliability_18_only_valid_utf8(void **state)
{
    /* The tiny model says bytes at random; jansson refuses a message that is not valid UTF-8. */
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ws_say(ws, "{\"type\":\"update_strength\",\"value\":30}");
    for (int i = 0; i < 5; i++) {
        struct heard heard;
        ws_say(ws, "{\"type\":\"message\",\"content\":\"😀\",\"history\":[]}");
        hear(ws, &heard);
        assert_string_equal(heard.text, ws_text(heard.done, "full_response"));
        json_decref(heard.done);
    }
    ws_say(ws, "{\"type\":\"update_strength\",\"value\":5}");
    json_decref(ws_wait(ws, "strength_updated"));
    ws_disconnect(ws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_describes_the_server),
        cmocka_unit_test(chat_streams),
        cmocka_unit_test(chat_remembers_until_reset),
        cmocka_unit_test(follow_up_reuses_the_cache),
        cmocka_unit_test(system_prompt_is_used),
        cmocka_unit_test(old_turns_make_room),
        cmocka_unit_test(reliability_14_strength_in_mid_answer),
        cmocka_unit_test(strength_reaches_every_page),
        cmocka_unit_test(cancel_keeps_what_was_said),
        cmocka_unit_test(second_question_is_busy),
        cmocka_unit_test(two_chats_at_once),
        cmocka_unit_test(disconnect_frees_the_slot),
        cmocka_unit_test(reliability_18_only_valid_utf8),
        cmocka_unit_test(reliability_23_reset_frees_the_slot),
        cmocka_unit_test(reliability_28_queue_full),
    };
    return cmocka_run_group_tests_name("server_chat", tests, start_shared, shared_server_stop);
}
