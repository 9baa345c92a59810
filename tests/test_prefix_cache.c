/*
 * test_prefix_cache.c - conversations find their KV cache: over the API, where the client sends
 * everything again, after a cancelled answer, and when the oldest turns no longer fit. What is
 * reused never shows in the answer.
 */
#include "base/str.h"
#include "support/api_client.h"
#include "support/test_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHAT "/v1/chat/completions"

struct turn {
    size_t n_prompt, n_cached;
    char *text;     /* owned */
    json_t *gauges; /* owned: the meter of each token, to the last bit */
};

static void turn_release(struct turn *turn)
{
    free(turn->text);
    json_decref(turn->gauges);
}

/* Asks with all messages so far and keeps the answer among them if `keep`. */
static void ask(int port, json_t *messages, double strength, bool keep, struct turn *turn)
{
    struct api_answer answer;
    json_t *body = json_pack("{s:s,s:O,s:i,s:i,s:f,s:b,s:{s:f}}", "model", "m", "messages",
                             messages, "max_tokens", 12, "seed", 7, "temperature", 0.9, "gauge", 1,
                             "steering", "strength", strength);
    char *text = json_dumps(body, JSON_COMPACT);
    api_call(port, "POST", CHAT, NULL, text, &answer);
    assert_int_equal(answer.status, 200);
    const json_t *usage = json_object_get(answer.json, "usage");
    const json_t *message =
        json_object_get(json_array_get(json_object_get(answer.json, "choices"), 0), "message");
    *turn = (struct turn){.n_prompt = (size_t)ws_number(usage, "prompt_tokens"),
                          .n_cached = (size_t)ws_number(
                              json_object_get(usage, "prompt_tokens_details"), "cached_tokens"),
                          .text = strdup(ws_text(message, "content")),
                          .gauges = json_incref(json_object_get(answer.json, "gauge"))};
    if (keep)
        json_array_append_new(messages,
                              json_pack("{s:s,s:s}", "role", "assistant", "content", turn->text));
    api_release(&answer);
    json_decref(body);
    free(text);
}

static void say(json_t *messages, const char *role, const char *content)
{
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", role, "content", content));
}

#define CHATS 3
#define TURNS 3

static void clients_that_send_everything_again(void **state)
{
    struct test_server server;
    json_t *messages[CHATS];
    size_t before[CHATS];
    struct turn turn;
    char text[64];
    test_server_start(&server, true, (const char *const[]){"--sessions", "4", NULL});
    for (int c = 0; c < CHATS; c++)
        messages[c] = json_array();
    /* The same beginning in all of them, and turns that take turns. */
    for (int t = 0; t < TURNS; t++) {
        for (int c = 0; c < CHATS; c++) {
            if (t == 0)
                say(messages[c], "system", "Be kind.");
            snprintf(text, sizeof text, "%d is what viewer number %d asks", 7 * c + t, c);
            say(messages[c], "user", text);
            ask(server.port, messages[c], 5, true, &turn);
            if (t > 0 && turn.n_cached < before[c])
                fail_msg("viewer %d, turn %d: %zu of %zu tokens cached, not %zu", c, t,
                         turn.n_cached, turn.n_prompt, before[c]);
            before[c] = turn.n_prompt - 1;
            turn_release(&turn);
        }
    }
    for (int c = 0; c < CHATS; c++)
        json_decref(messages[c]);
    test_server_stop(&server);
}

static void reuse_does_not_show(void **state)
{
    struct test_server warm, cold;
    struct turn first, second, again, fresh;
    json_t *messages = json_array();
    test_server_start(&warm, true, (const char *const[]){"--sessions", "2", NULL});
    say(messages, "user", "a first question of some length, to be read once");
    ask(warm.port, messages, 6, true, &first);
    say(messages, "user", "and the next one");
    ask(warm.port, messages, 6, false, &second);
    ask(warm.port, messages, 6, false, &again);
    test_server_stop(&warm);
    test_server_start(&cold, true, (const char *const[]){"--sessions", "1", NULL});
    ask(cold.port, messages, 6, false, &fresh);
    test_server_stop(&cold);
    assert_int_equal(fresh.n_cached, 0);
    assert_true(second.n_cached >= first.n_prompt - 1);
    assert_int_equal(again.n_cached, again.n_prompt - 1);
    assert_string_equal(second.text, fresh.text);
    assert_string_equal(again.text, fresh.text);
    assert_true(json_array_size(fresh.gauges) > 1);
    assert_true(json_equal(second.gauges, fresh.gauges));
    assert_true(json_equal(again.gauges, fresh.gauges));
    turn_release(&first);
    turn_release(&second);
    turn_release(&again);
    turn_release(&fresh);
    json_decref(messages);
}

static void another_strength_shares_nothing(void **state)
{
    struct test_server server;
    struct turn turn;
    json_t *messages = json_array();
    test_server_start(&server, true, (const char *const[]){"--sessions", "2", NULL});
    say(messages, "user", "the same question at two strengths");
    for (int i = 0; i < 4; i++) {
        ask(server.port, messages, i % 2 ? 0 : 20, false, &turn);
        /* Each strength keeps a slot of its own. */
        assert_int_equal(turn.n_cached, i < 2 ? 0 : turn.n_prompt - 1);
        turn_release(&turn);
    }
    json_decref(messages);
    test_server_stop(&server);
}

/* The timings of the next `done`. */
static void wait_done(struct ws_client *ws, size_t *n_prompt, size_t *n_cached)
{
    json_t *done = ws_wait(ws, "done");
    const json_t *timings = json_object_get(done, "timings");
    *n_prompt = (size_t)ws_number(timings, "prompt_tokens");
    *n_cached = (size_t)ws_number(timings, "cached_tokens");
    json_decref(done);
}

static void a_cancelled_answer_keeps_its_slot(void **state)
{
    struct test_server server;
    size_t n_prompt, n_cached;
    test_server_start(&server, true, (const char *const[]){"--sessions", "2", NULL});
    struct ws_client *ws = ws_connect(server.port, NULL);
    for (int i = 0; i < 10; i++) {
        ws_say(ws, "{\"type\":\"reset\"}");
        ws_say(ws, "{\"type\":\"message\",\"content\":\"%d questions before this one\"}", i);
        json_decref(ws_wait(ws, "token"));
        ws_say(ws, "{\"type\":\"cancel\"}");
        ws_say(ws, "{\"type\":\"message\",\"content\":\"no, wait\"}");
        json_decref(ws_wait(ws, "done")); /* of the cancelled one */
        wait_done(ws, &n_prompt, &n_cached);
        if (n_cached < 10)
            fail_msg("%zu of %zu tokens cached", n_cached, n_prompt);
    }
    ws_disconnect(ws);
    test_server_stop(&server);
}

#define QUESTIONS 60

static void a_full_context_keeps_its_beginning(void **state)
{
    struct test_server server;
    int n_full = 0, n_found = 0;
    test_server_start(&server, true,
                      (const char *const[]){"--sessions", "2", "--max-tokens", "16", NULL});
    struct ws_client *ws = ws_connect(server.port, NULL);
    for (int i = 0; i < QUESTIONS; i++) {
        size_t n_prompt, n_cached;
        ws_say(ws, "{\"type\":\"message\",\"content\":\"question number %d\"}", i);
        wait_done(ws, &n_prompt, &n_cached);
        if (n_prompt > 340) { /* of 512; from here on, turns are left out */
            n_full++;
            n_found += n_cached * 2 > n_prompt;
        }
    }
    print_message("%d of %d questions of a full context found it\n", n_found, n_full);
    assert_true(n_full > 10);
    assert_true(n_found * 2 > n_full);
    ws_disconnect(ws);
    test_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_that_send_everything_again),
        cmocka_unit_test(reuse_does_not_show),
        cmocka_unit_test(another_strength_shares_nothing),
        cmocka_unit_test(a_cancelled_answer_keeps_its_slot),
        cmocka_unit_test(a_full_context_keeps_its_beginning),
    };
    return cmocka_run_group_tests_name("prefix_cache", tests, NULL, NULL);
}
