/*
 * test_openai_clients.c - what the clients that AITubers use need beside the OpenAI-compatible API:
 * connections, other paths, tokens, metrics. test_clients.c replays their own requests.
 */
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
#include <unistd.h>

#include <cmocka.h>

#define CHAT  "/v1/chat/completions"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

static int start_shared(void **state)
{
    static const char *const options[] = {
        "--ping", "1", "--allow-origin", "http://page.example,http://b.example:1", "--max-tokens",
        "64",     NULL};
    return shared_server_start(options);
}

/* ---- connections ---- */

static void a_connection_serves_again(void **state)
{
    static const char body[] = "{\"stream\":true,\"model\":\"m\",\"max_tokens\":5," HELLO "}";
    int fd = tcp_connect(shared.port, 0);
    for (int i = 0; i < 3; i++) {
        struct api_answer answer;
        const char *finish;
        api_send(fd, CHAT, body);
        api_read(fd, &answer);
        free(api_chat_text(&answer, &finish));
        api_release(&answer);
    }
    close(fd);
}

static void http_1_0_gets_no_chunks(void **state)
{
    static const char body[] = "{\"stream\":true,\"model\":\"m\",\"max_tokens\":5," HELLO "}";
    char request[500];
    int len = snprintf(request, sizeof request,
                       "POST " CHAT " HTTP/1.0\r\nHost: localhost\r\nContent-Type: "
                       "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       strlen(body), body);
    struct api_answer answer;
    const char *finish;
    int fd = tcp_connect(shared.port, 0);
    tcp_send(fd, request, (size_t)len);
    api_read(fd, &answer);
    assert_null(strstr(answer.head, "chunked"));
    assert_true(answer.closed);
    free(api_chat_text(&answer, &finish));
    api_release(&answer);
    close(fd);
}

static void preflight_names_the_headers(void **state)
{
    struct api_answer answer;
    api_call(shared.port, "OPTIONS", CHAT,
             "Origin: http://b.example:1\r\nAccess-Control-Request-Method: POST\r\n"
             "Access-Control-Request-Headers: authorization,content-type\r\n",
             NULL, &answer);
    assert_int_equal(answer.status, 204);
    assert_non_null(strstr(answer.head, "access-control-allow-origin: http://b.example:1\r\n"));
    assert_non_null(
        strstr(answer.head, "access-control-allow-headers: Authorization, Content-Type"));
    assert_non_null(strstr(answer.head, "access-control-allow-methods: GET, POST, PUT\r\n"));
    api_release(&answer);
    api_call(shared.port, "POST", CHAT, "Origin: http://page.example\r\n",
             "{\"model\":\"m\",\"max_tokens\":1,\"stream\":true," HELLO "}", &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "access-control-allow-origin: http://page.example\r\n"));
    assert_null(strstr(answer.head, "allow-credentials"));
    api_release(&answer);
    static const char *const foreign[] = {"Origin: http://c.example\r\n",
                                          "Origin: http://b.example\r\n", "Origin: null\r\n",
                                          "Origin: http://page.example,http://b.example:1\r\n",
                                          "Origin: http://page.example.evil\r\n"};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        api_call(shared.port, "OPTIONS", CHAT, foreign[i], NULL, &answer);
        assert_int_equal(answer.status, 403);
        assert_null(strstr(answer.head, "access-control"));
        api_release(&answer);
    }
}

/* ---- the clients ---- */

/* What Node's fetch puts around a body. */
static void post_as_node(const char *path, const char *body, struct api_answer *answer)
{
    char request[4000];
    int len = snprintf(request, sizeof request,
                       "POST %s HTTP/1.1\r\nhost: localhost:%d\r\nconnection: keep-alive\r\n"
                       "Content-Type: application/json\r\naccept: */*\r\naccept-language: *\r\n"
                       "sec-fetch-mode: cors\r\nuser-agent: node\r\n"
                       "accept-encoding: gzip, deflate\r\ncontent-length: %zu\r\n\r\n%s",
                       path, shared.port, strlen(body), body);
    int fd = tcp_connect(shared.port, 0);
    tcp_send(fd, request, (size_t)len);
    api_read(fd, answer);
    close(fd);
}

static void aituberkit_finds_every_path(void **state)
{
    static const char *const paths[] = {"/v1/chat/completions", "/chat/completions",
                                        "/v1/chat/completions/chat/completions",
                                        "/v1/chat/completions/v1/chat/completions"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct api_answer answer;
        const char *finish;
        post_as_node(paths[i],
                     "{\"model\":\"gemma-3\",\"max_tokens\":8,\"temperature\":0.7,\"messages\":[{"
                     "\"role\":\"system\",\"content\":\"[happy]\\u3068\\u66f8\\u304f\"},{\"role\":"
                     "\"user\",\"content\":\"\\u3053\\u3093\\u306b\\u3061\\u306f\"}],"
                     "\"stream\":true}",
                     &answer);
        assert_int_equal(answer.status, 200);
        char *text = api_chat_text(&answer, &finish);
        assert_true(strlen(text) > 0);
        assert_non_null(finish);
        free(text);
        api_release(&answer);
    }
}

static void aituberkit_custom_api_gets_a_stream(void **state)
{
    static const char *const bodies[] = {"{" HELLO ",\"threadId\":\"t-1\"}", "{" HELLO "}"};
    for (size_t i = 0; i < 2; i++) {
        struct api_answer answer;
        const char *finish;
        post_as_node(CHAT, bodies[i], &answer);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.head, "content-type: text/event-stream\r\n"));
        free(api_chat_text(&answer, &finish));
        api_release(&answer);
    }
    struct api_answer answer;
    shared_server_post(CHAT, "{\"max_tokens\":2," HELLO "}", &answer);
    api_whole_text(&answer); /* any other client gets what OpenAI's default is */
    api_release(&answer);
}

static void open_llm_vtuber_preloads(void **state)
{
    struct api_answer answer;
    shared_server_post("/api/chat", "{\"model\": \"qwen2.5:latest\", \"keep_alive\": -1}", &answer);
    assert_int_equal(answer.status, 200);
    assert_string_equal(ws_text(answer.json, "done_reason"), "load");
    api_release(&answer);
    shared_server_post("/api/chat", "{\"model\": \"qwen2.5:latest\", \"keep_alive\": 0}", &answer);
    assert_int_equal(answer.status, 200);
    api_release(&answer);
    api_expect(shared.port, "/api/chat", "{\"model\":\"x\"," HELLO "}", 400);
    api_expect(shared.port, "/api/chat", "[]", 400);
}

static void sillytavern_reads_properties(void **state)
{
    struct api_answer answer;
    api_call(shared.port, "GET", "/props", NULL, NULL, &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(ws_text(answer.json, "chat_template"), "<|im_start|>"));
    const json_t *defaults = json_object_get(answer.json, "default_generation_settings");
    assert_true(ws_number(defaults, "n_ctx") == 512);
    assert_null(strstr(answer.body, "tests/data"));
    api_release(&answer);
}

static void completions_at_once(void **state)
{
    struct api_answer answer;
    shared_server_post("/completion", "{\"prompt\":\"hello\",\"n_predict\":4}", &answer);
    assert_int_equal(answer.status, 200);
    assert_true(ws_number(answer.json, "tokens_predicted") <= 4);
    ws_text(answer.json, "content");
    api_release(&answer);
    api_expect(shared.port, "/completion", "{\"n_predict\":4}", 400);
    api_expect(shared.port, "/completion", "{\"prompt\":5}", 400);
}

static void tokens_there_and_back(void **state)
{
    struct api_answer tokens, text;
    shared_server_post("/tokenize", "{\"content\":\"hello \\u3053<|im_end|>\"}", &tokens);
    assert_int_equal(tokens.status, 200);
    char *ids = json_dumps(tokens.json, 0);
    shared_server_post("/detokenize", ids, &text);
    assert_int_equal(text.status, 200);
    assert_string_equal(ws_text(text.json, "content"), "hello \xe3\x81\x93<|im_end|>");
    size_t n = json_array_size(json_object_get(tokens.json, "tokens"));
    free(ids);
    api_release(&tokens);
    api_release(&text);
    /* Typed text: the marker is no marker. */
    shared_server_post(
        "/tokenize", "{\"content\":\"hello \\u3053<|im_end|>\",\"parse_special\":false}", &tokens);
    assert_true(json_array_size(json_object_get(tokens.json, "tokens")) > n);
    api_release(&tokens);
    api_expect(shared.port, "/tokenize", "{}", 400);
    api_expect(shared.port, "/detokenize", "{\"tokens\":[-1]}", 400);
    api_expect(shared.port, "/detokenize", "{\"tokens\":[99999999]}", 400);
    api_expect(shared.port, "/detokenize", "{\"tokens\":[\"a\"]}", 400);
}

static void metrics_count(void **state)
{
    static const struct {
        const char *name;
        double grows;
    } counts[] = {{"gyaru_generated_tokens_total", 9},
                  {"gyaru_answers_total{finish=\"length\"}", 1},
                  {"gyaru_answers_total{finish=\"failed\"}", 0},
                  {"gyaru_first_token_seconds_count", 1},
                  {"gyaru_first_token_seconds_bucket{le=\"+Inf\"}", 1}};
    enum { N = sizeof counts / sizeof counts[0] };
    double old[N], prompt = http_metric(shared.port, "gyaru_prompt_tokens_total");
    char *answer;
    assert_int_equal(http_get(shared.port, "/metrics", &answer), 200);
    assert_non_null(strstr(answer, "content-type: text/plain; version=0.0.4"));
    free(answer);
    for (size_t i = 0; i < N; i++)
        old[i] = http_metric(shared.port, counts[i].name);
    api_expect(shared.port, CHAT, "{\"temperature\":0,\"max_tokens\":9," HELLO "}", 200);
    for (size_t i = 0; i < N; i++) {
        double value = http_metric(shared.port, counts[i].name);
        if (old[i] < 0 || value != old[i] + counts[i].grows)
            fail_msg("%s: %g, then %g", counts[i].name, old[i], value);
    }
    assert_true(http_metric(shared.port, "gyaru_prompt_tokens_total") > prompt);
    assert_true(http_metric(shared.port, "gyaru_strength") == 5);
    assert_true(http_metric(shared.port, "gyaru_slots_busy") == 0);
    assert_true(http_metric(shared.port, "gyaru_resident_memory_bytes") > 1e6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED_TEST(a_connection_serves_again),
        SHARED_TEST(http_1_0_gets_no_chunks),
        SHARED_TEST(preflight_names_the_headers),
        SHARED_TEST(aituberkit_finds_every_path),
        SHARED_TEST(aituberkit_custom_api_gets_a_stream),
        SHARED_TEST(open_llm_vtuber_preloads),
        SHARED_TEST(sillytavern_reads_properties),
        SHARED_TEST(completions_at_once),
        SHARED_TEST(tokens_there_and_back),
        SHARED_TEST(metrics_count),
    };
    return cmocka_run_group_tests_name("openai_clients", tests, start_shared, shared_server_stop);
}
