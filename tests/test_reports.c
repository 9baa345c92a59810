/*
 * test_reports.c - what the server shows besides vectors: reports, which can do nothing, and the
 * system prompts of personas.
 */
#include "support/vector_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void reports_are_shown_and_cannot_act(void **state)
{
    struct api_answer answer;
    vector_server_call("GET", "/v1/reports", NULL, &answer);
    assert_int_equal(answer.status, 200);
    const json_t *data = json_object_get(answer.json, "data");
    assert_int_equal(json_array_size(data), 2);
    const json_t *tune = json_array_get(data, 0);
    assert_string_equal(ws_text(tune, "id"), "tune");
    assert_string_equal(ws_text(tune, "vector"), "soft");
    assert_string_equal(ws_text(json_array_get(data, 1), "id"), "migrate-1/migrate");
    assert_true(json_is_null(json_object_get(json_array_get(data, 1), "vector")));
    api_release(&answer);
    vector_server_call("GET", "/v1/reports/migrate-1/migrate", NULL, &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "<title>r</title>"));
    assert_non_null(strstr(answer.head, "default-src 'none'"));
    assert_non_null(strstr(answer.head, "sandbox"));
    assert_null(strstr(answer.head, "default-src 'self'"));
    assert_null(strstr(answer.head, "script-src"));
    api_release(&answer);
}

static void reports_lead_nowhere_else(void **state)
{
    static const struct {
        const char *path;
        int status;
    } cases[] = {
        {"/v1/reports/extract", 404}, /* a link */
        {"/v1/reports/out/tune", 404},    {"/v1/reports/none/tune", 404},
        {"/v1/reports/secret", 400},      {"/v1/reports/tune.html", 400},
        {"/v1/reports/..%2ftune", 400},   {"/v1/reports/%2e%2e%2ftune", 400},
        {"/v1/reports/.git/tune", 400},   {"/v1/reports/a/b/tune", 400},
        {"/v1/reports/%2fetc/tune", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status = http_get(vector_server.port, cases[i].path, NULL);
        /* libwebsockets itself refuses some of them. */
        if (status != cases[i].status && (status < 400 || status > 404))
            fail_msg("%s: %d", cases[i].path, status);
    }
}

static void personas_come_from_the_data(void **state)
{
    struct api_answer answer;
    vector_server_call("GET", "/v1/personas", NULL, &answer);
    assert_int_equal(answer.status, 200);
    const json_t *data = json_object_get(answer.json, "data");
    assert_int_equal(json_array_size(data), 2);
    assert_string_equal(ws_text(json_array_get(data, 0), "id"), "butler");
    assert_non_null(strstr(ws_text(json_array_get(data, 0), "system"), "執事"));
    assert_string_equal(ws_text(json_array_get(data, 1), "id"), "gyaru");
    api_release(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        VECTOR_SERVER_TEST(reports_are_shown_and_cannot_act),
        VECTOR_SERVER_TEST(reports_lead_nowhere_else),
        VECTOR_SERVER_TEST(personas_come_from_the_data),
    };
    return cmocka_run_group_tests(tests, vector_server_start, vector_server_stop);
}
