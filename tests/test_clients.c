/*
 * test_clients.c - requests of the tools that streamers use, byte for byte as
 * tools/fixtures/record_clients.py recorded them (tests/data/clients/), answered by the rules of
 * what each tool's source parses. docs/clients.md says which versions were read.
 */
#include "base/str.h"
#include "support/api_client.h"
#include "support/scratch.h"
#include "support/shared_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int start_shared(void **state)
{
    return shared_server_start(NULL);
}

/* Sends the recorded bytes of this name. */
static void replay(const char *name, struct api_answer *answer)
{
    char path[300];
    size_t len;
    snprintf(path, sizeof path, "tests/data/clients/%s.http", name);
    uint8_t *request = scratch_read(path, &len);
    int fd = tcp_connect(shared.port, 0);
    assert_true(tcp_send(fd, request, len));
    free(request);
    api_read(fd, answer);
    close(fd);
}

/* What a schema calls "nullish": absent, null, or of the type. */
static bool nullish(const json_t *value, json_type type)
{
    return !value || json_is_null(value) || json_typeof(value) == type ||
           (type == JSON_INTEGER && json_is_real(value));
}

static json_t *delta_of(const json_t *chunk)
{
    return json_object_get(json_array_get(json_object_get(chunk, "choices"), 0), "delta");
}

/* ---- AITuberKit ----------------------------------------------------------------------------- */

/* The AI SDK drops the whole answer at the first chunk that its schema refuses. */
static void check_ai_sdk_chunk(const json_t *chunk)
{
    size_t i;
    json_t *choice;
    assert_true(nullish(json_object_get(chunk, "id"), JSON_STRING));
    assert_true(nullish(json_object_get(chunk, "created"), JSON_INTEGER));
    assert_true(nullish(json_object_get(chunk, "model"), JSON_STRING));
    assert_true(nullish(json_object_get(chunk, "usage"), JSON_OBJECT));
    assert_true(json_is_array(json_object_get(chunk, "choices")));
    json_array_foreach(json_object_get(chunk, "choices"), i, choice)
    {
        const json_t *delta = json_object_get(choice, "delta");
        const char *role = json_string_value(json_object_get(delta, "role"));
        assert_true(nullish(delta, JSON_OBJECT));
        assert_true(nullish(json_object_get(delta, "role"), JSON_STRING));
        assert_true(!role || !*role || !strcmp(role, "assistant"));
        assert_true(nullish(json_object_get(delta, "content"), JSON_STRING));
        assert_true(nullish(json_object_get(delta, "tool_calls"), JSON_ARRAY));
        assert_true(nullish(json_object_get(choice, "finish_reason"), JSON_STRING));
    }
}

static void aituberkit_local_llm(void **state)
{
    static const char *const names[] = {"aituberkit-lmstudio", "aituberkit-doubled"};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        struct api_answer answer;
        const char *finish;
        size_t i;
        json_t *chunk;
        replay(names[n], &answer);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.head, "content-type: text/event-stream\r\n"));
        json_array_foreach(answer.events, i, chunk) check_ai_sdk_chunk(chunk);
        char *text = api_chat_text(&answer, &finish);
        assert_true(strlen(text) > 0);
        assert_non_null(finish);
        free(text);
        api_release(&answer);
    }
}

static void aituberkit_custom_api(void **state)
{
    struct api_answer answer;
    struct str spoken = STR_INIT;
    size_t i;
    json_t *chunk;
    replay("aituberkit-custom-api", &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "content-type: text/event-stream\r\n"));
    json_array_foreach(answer.events, i, chunk)
    {
        /* Its converter looks for these first and would take the chunk for something else. */
        assert_null(json_object_get(chunk, "delta"));
        assert_null(json_object_get(chunk, "payload"));
        assert_null(json_object_get(delta_of(chunk), "reasoning_content"));
        const char *content = json_string_value(json_object_get(delta_of(chunk), "content"));
        str_puts(&spoken, content ? content : "");
    }
    assert_true(spoken.len > 0);
    str_release(&spoken);
    api_release(&answer);
}

/* ---- Open-LLM-VTuber --------------------------------------------------------------------------
 */

static void open_llm_vtuber(void **state)
{
    struct api_answer answer;
    size_t i;
    json_t *chunk;
    /* Started by the Ollama kind: the model is loaded. */
    replay("open-llm-vtuber-preload", &answer);
    assert_int_equal(answer.status, 200);
    api_release(&answer);
    /* Tools first: these words in the error make it go on without them. */
    replay("open-llm-vtuber-tools", &answer);
    assert_int_equal(answer.status, 400);
    assert_non_null(strstr(ws_text(json_object_get(answer.json, "error"), "message"),
                           "does not support tools"));
    api_release(&answer);
    /* Two system prompts, names and avatars beside the text, two user turns in a row, parts. */
    replay("open-llm-vtuber-chat", &answer);
    assert_int_equal(answer.status, 200);
    assert_true(answer.done);
    json_array_foreach(answer.events, i, chunk)
    {
        /* It reads choices[0] of every chunk without asking whether there is one. */
        assert_true(json_array_size(json_object_get(chunk, "choices")) > 0);
        assert_true(json_is_object(delta_of(chunk)));
        assert_true(nullish(json_object_get(delta_of(chunk), "content"), JSON_STRING));
    }
    api_release(&answer);
}

/* ---- SillyTavern ------------------------------------------------------------------------------
 */

static void sillytavern_status(void **state)
{
    struct api_answer answer;
    replay("sillytavern-models", &answer);
    assert_int_equal(answer.status, 200);
    const json_t *data = json_object_get(answer.json, "data");
    assert_true(json_is_array(data));
    assert_string_equal(ws_text(json_array_get(data, 0), "id"), "tiny-model");
    /* Express would make it take us for LM Studio. */
    assert_null(strstr(answer.head, "x-powered-by"));
    api_release(&answer);
    replay("sillytavern-props", &answer);
    assert_int_equal(answer.status, 200);
    assert_true(strlen(ws_text(answer.json, "chat_template")) > 0);
    api_release(&answer);
    replay("sillytavern-tokenize", &answer);
    assert_int_equal(answer.status, 200);
    assert_true(json_is_array(json_object_get(answer.json, "tokens")));
    api_release(&answer);
}

static void sillytavern_text_completion(void **state)
{
    struct api_answer answer;
    struct str text = STR_INIT;
    size_t i;
    json_t *event;
    replay("sillytavern-completion", &answer);
    assert_int_equal(answer.status, 200);
    assert_true(json_array_size(answer.events) > 1);
    json_array_foreach(answer.events, i, event)
    {
        /* Either of these ends the answer with a message on the screen. */
        assert_null(json_object_get(event, "error"));
        assert_null(json_object_get(event, "message"));
        assert_null(json_object_get(event, "choices"));
        str_puts(&text, ws_text(event, "content"));
    }
    static const char *const stops[] = {"\nUser:", "<|im_end|>", "<|im_start|>"};
    for (size_t s = 0; s < sizeof stops / sizeof stops[0]; s++)
        assert_null(strstr(text.data ? text.data : "", stops[s]));
    str_release(&text);
    api_release(&answer);
    replay("sillytavern-completion-whole", &answer);
    assert_int_equal(answer.status, 200);
    ws_text(answer.json, "content");
    api_release(&answer);
}

static void sillytavern_chat_completion(void **state)
{
    struct api_answer answer;
    const char *finish;
    replay("sillytavern-chat", &answer);
    assert_int_equal(answer.status, 200);
    free(api_chat_text(&answer, &finish));
    assert_non_null(finish);
    api_release(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aituberkit_local_llm),
        cmocka_unit_test(aituberkit_custom_api),
        cmocka_unit_test(open_llm_vtuber),
        cmocka_unit_test(sillytavern_status),
        cmocka_unit_test(sillytavern_text_completion),
        cmocka_unit_test(sillytavern_chat_completion),
    };
    return cmocka_run_group_tests_name("clients", tests, start_shared, shared_server_stop);
}
