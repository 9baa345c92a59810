/*
 * test_openai.c - the OpenAI-compatible API, and steering by it. What clients need beside it:
 * test_openai_clients.c.
 */
#include "base/str.h"
#include "support/api_client.h"
#include "support/shared_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHAT  "/v1/chat/completions"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

static int start_shared(void **state)
{
    static const char *const options[] = {"--ping", "1", "--max-tokens", "64", NULL};
    return shared_server_start(options);
}

static const json_t *choice_of(const struct api_answer *answer)
{
    return json_array_get(json_object_get(answer->json, "choices"), 0);
}

/* ---- the OpenAI API ---- */

static void chat_whole(void **state)
{
    struct api_answer answer;
    shared_server_post(CHAT, "{\"model\":\"any\",\"max_tokens\":7,\"stop\":null," HELLO "}",
                       &answer);
    api_whole_text(&answer);
    const json_t *usage = json_object_get(answer.json, "usage");
    double prompt = ws_number(usage, "prompt_tokens"), made = ws_number(usage, "completion_tokens");
    assert_true(prompt > 0 && made > 0 && made <= 7);
    assert_true(ws_number(usage, "total_tokens") == prompt + made);
    assert_string_equal(ws_text(choice_of(&answer), "finish_reason"),
                        made == 7 ? "length" : "stop");
    assert_string_equal(ws_text(answer.json, "model"), "tiny-model");
    api_release(&answer);
}

static void chat_streamed_says_the_same(void **state)
{
    static const char fields[] =
        "\"temperature\":0.8,\"seed\":7,\"max_completion_tokens\":20," HELLO;
    char body[500];
    struct api_answer whole, streamed;
    const char *finish;
    snprintf(body, sizeof body, "{\"model\":\"m\",%s}", fields);
    shared_server_post(CHAT, body, &whole);
    snprintf(body, sizeof body,
             "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},%s}",
             fields);
    shared_server_post(CHAT, body, &streamed);
    assert_int_equal(streamed.status, 200);
    char *text = api_chat_text(&streamed, &finish);
    assert_string_equal(text, api_whole_text(&whole));
    assert_string_equal(finish, ws_text(choice_of(&whole), "finish_reason"));
    const json_t *last = json_array_get(streamed.events, json_array_size(streamed.events) - 1);
    assert_int_equal(json_array_size(json_object_get(last, "choices")), 0);
    assert_true(ws_number(json_object_get(last, "usage"), "completion_tokens") ==
                ws_number(json_object_get(whole.json, "usage"), "completion_tokens"));
    free(text);
    api_release(&whole);
    api_release(&streamed);
}

static void usage_only_when_asked(void **state)
{
    struct api_answer answer;
    const char *finish;
    shared_server_post(CHAT, "{\"model\":\"m\",\"stream\":true,\"max_tokens\":3," HELLO "}",
                       &answer);
    free(api_chat_text(&answer, &finish));
    size_t i;
    json_t *chunk;
    json_array_foreach(answer.events, i, chunk)
    {
        assert_null(json_object_get(chunk, "usage"));
        assert_null(json_object_get(chunk, "gauge"));
    }
    api_release(&answer);
}

static void content_parts_and_roles(void **state)
{
    struct api_answer parts, plain;
    shared_server_post(
        CHAT,
        "{\"model\":\"m\",\"temperature\":0,\"max_tokens\":9,\"messages\":[{\"role\":\"developer\","
        "\"content\":\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"he\"},"
        "{\"type\":\"text\",\"text\":\"llo\"}]}]}",
        &parts);
    shared_server_post(
        CHAT,
        "{\"model\":\"m\",\"temperature\":0,\"max_tokens\":9,\"messages\":[{\"role\":\"system\","
        "\"content\":\"s\"},{\"role\":\"user\",\"content\":\"hello\",\"name\":\"x\"}]}",
        &plain);
    assert_string_equal(api_whole_text(&parts), api_whole_text(&plain));
    api_release(&parts);
    api_release(&plain);
}

static void stop_strings_end_the_answer(void **state)
{
    struct api_answer all, cut;
    char body[1000];
    static const char fields[] = "\"model\":\"m\",\"temperature\":0,\"max_tokens\":40," HELLO;
    snprintf(body, sizeof body, "{%s}", fields);
    shared_server_post(CHAT, body, &all);
    const char *text = api_whole_text(&all);
    /* The third character of the answer, whatever it is. */
    const char *p = text;
    for (int i = 0; i < 2 && *p; i++)
        for (p++; (*p & 0xc0) == 0x80; p++)
            ;
    size_t len = 1;
    while ((p[len] & 0xc0) == 0x80)
        len++;
    json_t *stop = json_stringn(p, len);
    char *quoted = json_dumps(stop, JSON_ENCODE_ANY);
    snprintf(body, sizeof body, "{\"stop\":[%s,\"never said\"],%s}", quoted, fields);
    shared_server_post(CHAT, body, &cut);
    char first[8] = "";
    memcpy(first, p, len);
    size_t expected = (size_t)(strstr(text, first) - text);
    assert_int_equal(strlen(api_whole_text(&cut)), expected);
    assert_int_equal(strncmp(api_whole_text(&cut), text, expected), 0);
    assert_string_equal(ws_text(choice_of(&cut), "finish_reason"), "stop");
    free(quoted);
    json_decref(stop);
    api_release(&all);
    api_release(&cut);
}

static void seed_gives_the_same_again(void **state)
{
    static const char body[] =
        "{\"model\":\"m\",\"seed\":3,\"temperature\":1,\"max_tokens\":20," HELLO "}";
    struct api_answer one, two, other;
    shared_server_post(CHAT, body, &one);
    shared_server_post(CHAT, body, &two);
    shared_server_post(
        CHAT, "{\"model\":\"m\",\"seed\":4,\"temperature\":1,\"max_tokens\":20," HELLO "}", &other);
    assert_string_equal(api_whole_text(&one), api_whole_text(&two));
    assert_string_not_equal(api_whole_text(&one), api_whole_text(&other));
    api_release(&one);
    api_release(&two);
    api_release(&other);
}

static void refusals_say_what_is_wrong(void **state)
{
    static const struct {
        const char *body, *part;
    } bad[] = {
        {"{}", "messages"},
        {"[]", "object"},
        {"nonsense", "JSON"},
        {"{\"messages\":[]}", "messages"},
        {"{\"messages\":\"hi\"}", "messages"},
        {"{\"messages\":[1]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "text only"},
        {"{\"n\":2," HELLO "}", "n:"},
        {"{\"temperature\":-1," HELLO "}", "temperature"},
        {"{\"temperature\":\"1\"," HELLO "}", "temperature"},
        {"{\"top_p\":2," HELLO "}", "top_p"},
        {"{\"top_k\":1.5," HELLO "}", "top_k"},
        {"{\"max_tokens\":0," HELLO "}", "max_tokens"},
        {"{\"max_tokens\":\"5\"," HELLO "}", "max_tokens"},
        {"{\"seed\":1.5," HELLO "}", "seed"},
        {"{\"stop\":5," HELLO "}", "stop"},
        {"{\"stop\":[5]," HELLO "}", "stop"},
        {"{\"stream\":\"yes\"," HELLO "}", "stream"},
        {"{\"response_format\":{\"type\":\"json_object\"}," HELLO "}", "response_format"},
        {"{\"tools\":[{\"type\":\"function\"}]," HELLO "}", "does not support tools"},
        {"{\"steering\":5," HELLO "}", "steering"},
        {"{\"steering\":{\"layers\":\"7-9\"}," HELLO "}", "steering: layers: 'vector' has"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *message = api_expect(shared.port, CHAT, bad[i].body, 400);
        if (!strstr(message, bad[i].part))
            fail_msg("'%s' lacks '%s'", message, bad[i].part);
    }
    static const char *const good[] = {
        "{\"tools\":[],\"max_tokens\":1," HELLO "}",
        "{\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"none\",\"max_tokens\":1," HELLO "}",
        "{\"response_format\":{\"type\":\"text\"},\"max_tokens\":1," HELLO "}",
        "{\"n\":1,\"frequency_penalty\":0.5,\"presence_penalty\":-2,\"user\":\"u\","
        "\"logit_bias\":{},\"max_tokens\":1," HELLO "}",
        "{\"temperature\":null,\"seed\":null,\"stop\":[],\"stream\":false,\"top_k\":-1,"
        "\"max_tokens\":1," HELLO "}",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        api_expect(shared.port, CHAT, good[i], 200);
}

static void too_long_is_said(void **state)
{
    struct str body = STR_INIT;
    str_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 3000; i++)
        str_puts(&body, "word ");
    str_puts(&body, "\"}],\"stream\":true}");
    /* Before the first token, so with a status of its own although a stream was asked for. */
    assert_non_null(strstr(api_expect(shared.port, CHAT, body.data, 400), "too long"));
    str_release(&body);
}

static void old_turns_make_room(void **state)
{
    struct str body = STR_INIT;
    str_puts(&body, "{\"max_tokens\":2,\"messages\":[{\"role\":\"system\",\"content\":\"s\"}");
    for (int i = 0; i < 2000; i++)
        str_printf(&body, ",{\"role\":\"%s\",\"content\":\"%s\"}", i % 2 ? "assistant" : "user",
                   "some words that were said a long time ago");
    str_puts(&body, ",{\"role\":\"user\",\"content\":\"hello\"}]}");
    api_expect(shared.port, CHAT, body.data, 200);
    str_release(&body);
}

static void models_are_named(void **state)
{
    struct api_answer answer;
    api_call(shared.port, "GET", "/v1/models", NULL, NULL, &answer);
    assert_string_equal(ws_text(answer.json, "object"), "list");
    const json_t *model = json_array_get(json_object_get(answer.json, "data"), 0);
    assert_string_equal(ws_text(model, "id"), "tiny-model");
    assert_string_equal(ws_text(model, "object"), "model");
    assert_true(ws_number(model, "created") > 1.6e9);
    assert_true(strlen(ws_text(model, "owned_by")) > 0);
    api_release(&answer);
    assert_int_equal(http_get(shared.port, "/v1/models/tiny-model", NULL), 200);
    assert_int_equal(http_get(shared.port, "/v1/models/other", NULL), 404);
}

static void methods_are_checked(void **state)
{
    assert_int_equal(http_get(shared.port, CHAT, NULL), 405);
    struct api_answer answer;
    shared_server_post("/v1/models", "{}", &answer);
    assert_int_equal(answer.status, 405);
    api_release(&answer);
    assert_int_equal(http_get(shared.port, "/v1/nothing", NULL), 404);
}

/* ---- steering ---- */

/* The strengths that the tokens of a streamed answer were made with: all must be `expected`. */
static void check_strength(const char *steering, double expected)
{
    char body[500];
    struct api_answer answer;
    const char *finish;
    snprintf(body, sizeof body,
             "{\"model\":\"m\",\"stream\":true,\"gauge\":true,\"max_tokens\":5%s," HELLO "}",
             steering);
    shared_server_post(CHAT, body, &answer);
    free(api_chat_text(&answer, &finish));
    size_t i, n = 0;
    json_t *chunk;
    json_array_foreach(answer.events, i, chunk)
    {
        const json_t *gauge = json_object_get(chunk, "gauge");
        assert_non_null(gauge);
        if (json_is_null(gauge))
            continue;
        n++;
        assert_true(ws_number(gauge, "strength") == expected);
        assert_true(ws_number(gauge, "value") >= -1 && ws_number(gauge, "value") <= 1);
        assert_true(ws_number(gauge, "layer") >= 0);
    }
    assert_true(n >= 1);
    api_release(&answer);
}

static void own_strength_beside_the_live_one(void **state)
{
    shared_server_steer(8);
    check_strength("", 8);
    check_strength(",\"steering\":{\"strength\":-2.5}", -2.5);
    check_strength(",\"steering\":{\"strength\":3,\"vector\":\"vector\"}", 3);
    check_strength(",\"steering\":{\"vector\":\"vector\"}", 8);
    check_strength(",\"steering\":{}", 8);
    /* Nobody's own strength became the server's. */
    struct api_answer answer;
    api_call(shared.port, "GET", "/v1/steering", NULL, NULL, &answer);
    assert_true(ws_number(answer.json, "strength") == 8);
    api_release(&answer);
    shared_server_steer(5);
}

static void own_strength_changes_the_text(void **state)
{
    struct api_answer none, much, live;
    static const char format[] = "{\"model\":\"m\",\"temperature\":0,\"max_tokens\":24,"
                                 "\"steering\":{\"strength\":%d}," HELLO "}";
    char body[300];
    snprintf(body, sizeof body, format, 0);
    shared_server_post(CHAT, body, &none);
    snprintf(body, sizeof body, format, 30);
    shared_server_post(CHAT, body, &much);
    assert_string_not_equal(api_whole_text(&none), api_whole_text(&much));
    /* What one request sets is what the slider would set. */
    shared_server_steer(30);
    shared_server_post(CHAT, "{\"model\":\"m\",\"temperature\":0,\"max_tokens\":24," HELLO "}",
                       &live);
    assert_string_equal(api_whole_text(&live), api_whole_text(&much));
    shared_server_steer(5);
    api_release(&none);
    api_release(&much);
    api_release(&live);
}

static void gauge_of_a_whole_answer(void **state)
{
    struct api_answer answer;
    shared_server_post(CHAT, "{\"model\":\"m\",\"gauge\":true,\"max_tokens\":6," HELLO "}",
                       &answer);
    api_whole_text(&answer);
    const json_t *gauges = json_object_get(answer.json, "gauge");
    size_t n = json_array_size(gauges);
    assert_in_range(n, 1, 6);
    assert_true(ws_number(json_array_get(gauges, 0), "strength") == 5);
    api_release(&answer);
}

static void vectors_are_names(void **state)
{
    struct api_answer answer;
    api_call(shared.port, "GET", "/v1/vectors", NULL, NULL, &answer);
    assert_int_equal(answer.status, 200);
    const json_t *data = json_object_get(answer.json, "data");
    assert_int_equal(json_array_size(data), 1);
    assert_string_equal(ws_text(json_array_get(data, 0), "id"), "vector");
    assert_null(strstr(answer.body, "safetensors"));
    assert_null(strstr(answer.body, "tests/"));
    api_release(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED_TEST(chat_whole),
        SHARED_TEST(chat_streamed_says_the_same),
        SHARED_TEST(usage_only_when_asked),
        SHARED_TEST(content_parts_and_roles),
        SHARED_TEST(stop_strings_end_the_answer),
        SHARED_TEST(seed_gives_the_same_again),
        SHARED_TEST(refusals_say_what_is_wrong),
        SHARED_TEST(too_long_is_said),
        SHARED_TEST(old_turns_make_room),
        SHARED_TEST(models_are_named),
        SHARED_TEST(methods_are_checked),
        SHARED_TEST(own_strength_beside_the_live_one),
        SHARED_TEST(own_strength_changes_the_text),
        SHARED_TEST(gauge_of_a_whole_answer),
        SHARED_TEST(vectors_are_names),
    };
    return cmocka_run_group_tests_name("openai", tests, start_shared, shared_server_stop);
}
