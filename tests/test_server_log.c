/*
 * test_server_log.c - the log: one line per event that machines can read, at the level that was
 * asked for, and nothing of what people say unless that was asked for too.
 */
#include "support/api_client.h"
#include "support/program.h"
#include "support/scratch.h"
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

#define SECRET "a line\\nof \\\"private\\\" words"
#define KEY    "a-key-of-letters-0123"

/* Asks over the API and a WebSocket, is refused once, and gives the log of it all (caller frees).
 */
static char *log_of(const char *const *options)
{
    struct test_server server;
    struct api_answer answer;
    test_server_start(&server, true, options);
    api_call(server.port, "POST", "/v1/chat/completions?key=" KEY, NULL,
             "{\"max_tokens\":4,\"messages\":[{\"role\":\"user\",\"content\":\"" SECRET "\"}]}",
             &answer);
    assert_int_equal(answer.status, 200);
    api_release(&answer);
    struct ws_client *ws = ws_connect(server.port, NULL);
    ws_say(ws, "{\"type\":\"message\",\"content\":\"" SECRET "\"}");
    json_decref(ws_wait(ws, "done"));
    ws_disconnect(ws);
    assert_int_equal(http_get(server.port, "/nothing", NULL), 404);
    test_server_stop(&server);
    size_t len;
    uint8_t *text = scratch_read(server.log, &len);
    text = realloc(text, len + 1);
    text[len] = '\0';
    return (char *)text;
}

/* How many lines tell of this event; every line must be a JSON object with the usual fields. */
static int count_json(const char *log, const char *event)
{
    int n = 0;
    for (const char *line = log; *line;) {
        size_t len = strcspn(line, "\n");
        assert_true(line[len] == '\n');
        json_t *json = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
        if (!json)
            fail_msg("no JSON: %.*s", (int)len, line);
        const char *time = ws_text(json, "time");
        assert_int_equal(strlen(time), strlen("2026-01-09T12:00:00.123Z"));
        assert_true(strlen(ws_text(json, "level")) > 0);
        n += !strcmp(ws_text(json, "event"), event);
        if (!strcmp(ws_text(json, "event"), "answer"))
            assert_true(ws_number(json, "generated_tokens") > 0);
        json_decref(json);
        line += len + 1;
    }
    return n;
}

static void json_lines(void **state)
{
    char *log = log_of((const char *const[]){"--log-format", "json", "--log-level", "debug", NULL});
    assert_int_equal(count_json(log, "listening"), 1);
    assert_int_equal(count_json(log, "ready"), 1);
    assert_int_equal(count_json(log, "answer"), 2);
    assert_int_equal(count_json(log, "stopping"), 1);
    assert_int_equal(count_json(log, "stopped"), 1);
    assert_true(count_json(log, "request") >= 3);
    assert_non_null(strstr(log, "\"status\":404"));
    assert_non_null(strstr(log, "\"path\":\"/nothing\""));
    assert_null(strstr(log, "private"));
    assert_null(strstr(log, KEY));
    free(log);
}

static void text_lines(void **state)
{
    char *log = log_of(NULL);
    assert_non_null(strstr(log, " info listening url=http://127.0.0.1:"));
    assert_non_null(strstr(log, " info ready model=tiny-model "));
    assert_non_null(strstr(log, " info answer finish="));
    assert_null(strstr(log, " request "));
    assert_null(strstr(log, "private"));
    free(log);
}

static void content_only_when_asked(void **state)
{
    char *log = log_of((const char *const[]){"--log-content", NULL});
    assert_non_null(strstr(log, " question=\"a line\\nof \\\"private\\\" words\" answer="));
    free(log);
    log = log_of((const char *const[]){"--log-content", "--log-format", "json", NULL});
    assert_int_equal(count_json(log, "answer"), 2);
    assert_non_null(
        strstr(log, "\"question\":\"a line\\nof \\\"private\\\" words\",\"answer\":\""));
    free(log);
}

static void quiet(void **state)
{
    char *log = log_of((const char *const[]){"--log-level", "error", NULL});
    assert_string_equal(log, "");
    free(log);
}

static void bad_options(void **state)
{
    static const char *const bad[][2] = {
        {"--log-level", "loud"}, {"--log-format", "xml"}, {"--log-level", ""}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct program_result result;
        program_run(
            &result, NULL,
            (const char *const[]){"serve", "-m", test_model_dir(), bad[i][0], bad[i][1], NULL});
        program_check_error(&result, 2, bad[i][0]);
        program_release(&result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_lines),
        cmocka_unit_test(text_lines),
        cmocka_unit_test(content_only_when_asked),
        cmocka_unit_test(quiet),
        cmocka_unit_test(bad_options),
    };
    return cmocka_run_group_tests_name("server_log", tests, NULL, NULL);
}
