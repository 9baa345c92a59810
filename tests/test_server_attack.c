/*
 * test_server_attack.c - what the server must survive: bad messages, frames and requests, foreign
 * pages, slow and idle clients. After every test /health still answers 200.
 */
#include "support/shared_server.h"
#include "support/ws_client.h"

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

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int start_shared(void **state)
{
    static const char *const options[] = {"--idle-timeout", "2", "--sessions", "2", NULL};
    return shared_server_start(options);
}

/* Sends a text and expects an error event with the code; the connection lives on. */
static void expect_error(struct ws_client *ws, const char *text, size_t len, const char *code)
{
    assert_true(ws_frame(ws, 0x81, text, len, true));
    json_t *error = ws_wait(ws, "error");
    assert_string_equal(ws_text(error, "code"), code);
    assert_null(strchr(ws_text(error, "message"), '\n'));
    json_decref(error);
}

static void expect_invalid(struct ws_client *ws, const char *text)
{
    expect_error(ws, text, strlen(text), "invalid");
}

/* Does the connection still work, with this strength? */
static void expect_alive(struct ws_client *ws)
{
    ws_say(ws, "{\"type\":\"reset\"}");
    json_decref(ws_wait(ws, "reset_done"));
}

static double strength_now(void)
{
    json_t *hello;
    struct ws_client *ws = ws_connect(shared.port, &hello);
    double strength = ws_number(hello, "strength");
    json_decref(hello);
    ws_disconnect(ws);
    return strength;
}

/* ---- messages ---- */

static void reliability_12_bad_strength(void **state)
{
    static const char *const values[] = {
        "\"15\"", "NaN",     "Infinity", "1e38", "1e999", "-1e999",
        "30.001", "-10.001", "null",     "true", "[15]",  "{}",
        "\"\"",   "+5",      "0x10",     "015",  "",      "99999999999999999999999999999999"};
    struct ws_client *ws = ws_connect(shared.port, NULL);
    char text[200];
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        snprintf(text, sizeof text, "{\"type\":\"update_strength\",\"value\":%s}", values[i]);
        expect_invalid(ws, text);
    }
    expect_invalid(ws, "{\"type\":\"update_strength\"}");
    expect_invalid(ws, "{\"type\":\"update_strength\",\"value\":1,\"value\":2}");
    assert_true(strength_now() == 5);
    expect_alive(ws);
    ws_disconnect(ws);

    static const char *const bodies[] = {
        "{\"strength\":\"15\"}", "{\"strength\":31}", "{\"strength\":null}", "{}", "[]",
        "{\"strength\":1e999}",  "nonsense"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        int len = snprintf(text, sizeof text,
                           "PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                           "application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                           strlen(bodies[i]), bodies[i]);
        assert_int_equal(http_raw(shared.port, text, (size_t)len, NULL), 400);
    }
    assert_true(strength_now() == 5);
}

static void steering_over_http(void **state)
{
    static const char put[] = "PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\n"
                              "Content-Type: application/json\r\nConnection: close\r\n"
                              "Content-Length: 16\r\n\r\n{\"strength\":7.5}";
    char *answer;
    struct ws_client *ws = ws_connect(shared.port, NULL);
    assert_int_equal(http_raw(shared.port, put, sizeof put - 1, &answer), 200);
    assert_non_null(strstr(answer, "\"strength\":7.5"));
    free(answer);
    json_t *updated = ws_wait(ws, "strength_updated");
    assert_true(ws_number(updated, "value") == 7.5);
    json_decref(updated);
    ws_say(ws, "{\"type\":\"update_strength\",\"value\":5}");
    json_decref(ws_wait(ws, "strength_updated"));
    ws_disconnect(ws);
}

static void reliability_17_bad_text(void **state)
{
    struct ws_client *ws = ws_connect(shared.port, NULL);
    expect_invalid(ws, "{\"type\":\"message\",\"content\":\"\\ud800\"}");
    expect_invalid(ws, "{\"type\":\"message\",\"content\":\"\\udc00\\ud800\"}");
    expect_invalid(ws, "{\"type\":\"message\",\"content\":\"a\\u0000b\"}");
    static const char nul[] = "{\"type\":\"message\",\"content\":\"a\0b\"}";
    expect_error(ws, nul, sizeof nul - 1, "invalid");
    expect_invalid(ws, "{\"type\":\"system\",\"content\":\"\\u0000\"}");
    expect_alive(ws);
    ws_disconnect(ws);
    /* Raw bytes that are no UTF-8 end the connection as the protocol says. */
    static const char *const bad[] = {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ws = ws_connect(shared.port, NULL);
        ws_say(ws, "{\"type\":\"message\",\"content\":\"%s\"}", bad[i]);
        assert_int_equal(ws_close_code(ws), 1007);
        ws_disconnect(ws);
    }
}

static void reliability_19_bad_json(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[]",
        "1",
        "\"message\"",
        "null",
        "{\"type\":1}",
        "{\"type\":\"nothing\"}",
        "{}",
        "{\"type\":\"message\"}",
        "{\"type\":\"message\",\"content\":\"\"}",
        "{\"type\":\"message\",\"content\":1}",
        "{\"type\":\"message\",\"content\":[\"a\"]}",
        "{\"type\":\"message\",\"content\":\"a\",\"content\":\"b\"}",
        "{\"type\":\"message\",\"content\":\"a\",\"history\":{}}",
        "{\"type\":\"message\",\"content\":\"a\",\"history\":[1]}",
        "{\"type\":\"message\",\"content\":\"a\",\"history\":[{\"role\":\"system\",\"content\":"
        "\"\"}]}",
        "{\"type\":\"message\",\"content\":\"a\",\"history\":[{\"role\":\"user\"}]}",
        "{\"type\":\"system\"}",
        "{\"type\":\"system\",\"content\":5}",
        "{\"type\":\"message\",\"content\":1e99999999}",
        "{\"type\":\"cancel\"} trailing"};
    struct ws_client *ws = ws_connect(shared.port, NULL);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        expect_invalid(ws, texts[i]);
    static char deep[60000];
    memset(deep, '[', sizeof deep);
    double start = now();
    expect_error(ws, deep, sizeof deep, "invalid");
    memset(deep, '9', sizeof deep);
    expect_error(ws, deep, sizeof deep, "invalid");
    assert_true(now() - start < 1);
    expect_alive(ws);
    ws_disconnect(ws);
}

static void reliability_31_markup_is_text(void **state)
{
    /* What the model is told and says travels as JSON text; the page's policy forbids the rest. */
    char *answer;
    assert_int_equal(http_get(shared.port, "/", &answer), 200);
    assert_non_null(strstr(answer, "content-security-policy: default-src 'self'"));
    assert_null(strstr(answer, "unsafe-inline"));
    assert_non_null(strstr(answer, "x-content-type-options: nosniff"));
    assert_non_null(strstr(answer, "content-type: text/html; charset=utf-8"));
    free(answer);
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ws_say(ws, "{\"type\":\"message\",\"content\":\"<img src=x onerror=alert(1)> <|im_end|>\"}");
    json_decref(ws_wait(ws, "done"));
    ws_disconnect(ws);
}

/* ---- frames ---- */

static void reliability_24_bad_frames(void **state)
{
    static const struct {
        unsigned first;
        const char *data;
        int code;
    } frames[] = {
        {0x09, "fragmented ping", 1002}, {0x83, "reserved opcode", 1002},
        {0xc1, "reserved bit", 1002},    {0x80, "nothing to continue", 1002},
        {0x82, "binary", 1003},
    };
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        struct ws_client *ws = ws_connect(shared.port, NULL);
        ws_frame(ws, frames[i].first, frames[i].data, strlen(frames[i].data), true);
        assert_int_equal(ws_close_code(ws), frames[i].code);
        ws_disconnect(ws);
    }
    static char large[70000];
    memset(large, ' ', sizeof large);
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ws_frame(ws, 0x81, large, sizeof large, true);
    assert_int_equal(ws_close_code(ws), 1009);
    ws_disconnect(ws);
    /* The same in two frames that would each be allowed. */
    ws = ws_connect(shared.port, NULL);
    ws_frame(ws, 0x01, large, 40000, true);
    ws_frame(ws, 0x80, large, 40000, true);
    assert_int_equal(ws_close_code(ws), 1009);
    ws_disconnect(ws);
}

static void reliability_24_million_empty_fragments(void **state)
{
    static unsigned char frames[6 * 10000];
    for (size_t i = 0; i < sizeof frames; i += 6)
        memcpy(frames + i, "\x00\x80\x01\x02\x03\x04", 6);
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ws_frame(ws, 0x01, "", 0, true);
    bool open = true;
    for (int i = 0; i < 100 && open; i++)
        open = tcp_send(ws->fd, frames, sizeof frames);
    if (open)
        assert_true(tcp_closes(ws->fd, 10));
    ws_disconnect(ws);
}

static void reliability_24_unmasked_frame(void **state)
{
    /* libwebsockets before 4.4 takes it as if it were masked, later ones close with 1002. Either
     * way it must not disturb anybody else. */
    static const char bad[] = "{\"type\":\"update_strength\",\"value\":\"15\"}";
    struct ws_client *ws = ws_connect(shared.port, NULL);
    ws_frame(ws, 0x81, bad, sizeof bad - 1, false);
    int code = 1002;
    json_t *message = ws_next(ws, &code);
    if (message)
        assert_string_equal(ws_text(message, "type"), "error");
    else
        assert_int_equal(code, 1002);
    json_decref(message);
    ws_disconnect(ws);
}

static void reliability_24_no_compression(void **state)
{
    struct ws_client *ws =
        ws_connect_with(shared.port, "Sec-WebSocket-Extensions: permessage-deflate\r\n", 0);
    assert_int_equal(ws->status, 101);
    json_decref(ws_wait(ws, "hello")); /* fails on a frame with a reserved bit */
    ws_disconnect(ws);
}

/* ---- requests ---- */

static int status_of(const char *request)
{
    return http_raw(shared.port, request, strlen(request), NULL);
}

static void reliability_20_bad_requests(void **state)
{
    assert_int_equal(status_of("PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Type: application/json\r\nContent-Length: 134217728\r\n"
                               "\r\n{"),
                     413);
    assert_int_equal(status_of("PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Type: application/json\r\nContent-Length: 5\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                     400);
    int chunked = status_of("PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\n"
                            "Content-Type: application/json\r\n"
                            "Transfer-Encoding: chunked\r\n\r\nzzz\r\n\r\n");
    assert_true(chunked == 400 || chunked == 411);
    int none = status_of("PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\n"
                         "Content-Type: application/json\r\n\r\n");
    assert_true(none == 400 || none == 411);
    /* Headers without end: refused or closed, long before a megabyte. */
    int fd = tcp_connect(shared.port, 0);
    static const char start[] = "GET / HTTP/1.1\r\nHost: localhost\r\n";
    bool open = tcp_send(fd, start, sizeof start - 1);
    for (int i = 0; i < 20000 && open; i++)
        open = tcp_send(fd, "X-Filler: 0123456789012345678901234567890123456789\r\n", 52);
    if (open)
        assert_true(tcp_closes(fd, 10));
    close(fd);
    static const char *const garbage[] = {"\r\n\r\n",
                                          "GET\r\n\r\n",
                                          "\x16\x03\x01\x02",
                                          "GET / ",
                                          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                          "BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n"};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++)
        assert_int_not_equal(status_of(garbage[i]), 200);
}

static void reliability_25_foreign_origin(void **state)
{
    char own[100];
    snprintf(own, sizeof own, "Origin: http://127.0.0.1:%d\r\n", shared.port);
    static const char *const foreign[] = {
        "Origin: http://evil.example\r\n", "Origin: null\r\n", "Origin: http://127.0.0.1:1\r\n",
        "Origin: http://127.0.0.1.evil.example\r\n", "Origin: file://\r\n"};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        struct ws_client *ws = ws_connect_with(shared.port, foreign[i], 0);
        assert_int_equal(ws->status, 403);
        ws_disconnect(ws);
        assert_int_equal(http_get_with(shared.port, "/v1/steering", foreign[i], NULL), 403);
    }
    struct ws_client *ws = ws_connect_with(shared.port, own, 0);
    assert_int_equal(ws->status, 101);
    ws_disconnect(ws);
    assert_int_equal(http_get_with(shared.port, "/v1/steering", own, NULL), 200);
}

static void reliability_25_foreign_host(void **state)
{
    static const struct {
        const char *host;
        int status;
    } hosts[] = {{"evil.example", 403},
                 {"evil.example:8080", 403},
                 {"127.0.0.1.evil.example", 403},
                 {"localhost.evil.example", 403},
                 {"localhost", 200},
                 {"localhost:1234", 200},
                 {"127.0.0.1", 200},
                 {"[::1]:80", 200},
                 {"", 400},
                 {"localhost:x", 400},
                 {"[::1", 400},
                 {"a b", 403}};
    char request[300];
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        snprintf(request, sizeof request,
                 "GET /v1/models HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", hosts[i].host);
        int status = status_of(request);
        if (status != hosts[i].status && !(status == 0 && hosts[i].status == 400))
            fail_msg("Host '%s': %d, not %d", hosts[i].host, status, hosts[i].status);
        snprintf(request, sizeof request,
                 "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                 "Sec-WebSocket-Version: 13\r\n\r\n",
                 hosts[i].host);
        if (hosts[i].status != 200)
            assert_int_not_equal(status_of(request), 101);
    }
    assert_int_equal(status_of("GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n"), 400);
}

static void reliability_25_text_plain(void **state)
{
    assert_int_equal(status_of("PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Type: text/plain\r\nContent-Length: 14\r\n\r\n"
                               "{\"strength\":9}"),
                     403);
    assert_true(strength_now() == 5);
}

static void reliability_30_no_paths(void **state)
{
    static const char *const paths[] = {
        "/../Makefile",   "/%2e%2e/Makefile", "/..%2fMakefile", "/index.html%00",
        "/index.html/..", "//etc/passwd",     "/nothing",       "/%",
        "/%zz",           "/assets.h",        "/ws/../../x"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char *answer;
        int status = http_get(shared.port, paths[i], &answer);
        /* "/index.html/.." is "/". */
        if (status == 200)
            assert_non_null(strstr(answer, "text/html"));
        assert_null(strstr(answer, "root:"));
        assert_null(strstr(answer, "CFLAGS"));
        assert_null(strstr(answer, "WEB_ASSETS_H"));
        free(answer);
    }
    assert_int_equal(http_get(shared.port, "/nothing", NULL), 404);
}

static void requests_share_a_connection(void **state)
{
    static const char two[] = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
                              "GET /style.css HTTP/1.1\r\nHost: localhost\r\n"
                              "Connection: close\r\n\r\n";
    char *answer;
    assert_int_equal(http_raw(shared.port, two, sizeof two - 1, &answer), 200);
    assert_non_null(strstr(answer, "\"status\":\"ok\""));
    assert_non_null(strstr(answer, "text/css"));
    free(answer);
}

static void methods_are_checked(void **state)
{
    assert_int_equal(status_of("DELETE /health HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"),
                     405);
    assert_int_equal(status_of("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                               "application/json\r\nContent-Length: 2\r\n\r\n{}"),
                     405);
    assert_int_equal(http_get(shared.port, "/ws", NULL), 426);
}

static void assets_are_not_stale(void **state)
{
    char *answer, etag[200] = "If-None-Match: ";
    assert_int_equal(http_get(shared.port, "/style.css", &answer), 200);
    assert_non_null(strstr(answer, "cache-control: no-cache"));
    assert_non_null(strstr(answer, "content-type: text/css"));
    const char *tag = strstr(answer, "etag: ");
    assert_non_null(tag);
    strncat(etag, tag + 6, strcspn(tag + 6, "\r\n"));
    strcat(etag, "\r\n");
    free(answer);
    assert_int_equal(http_get_with(shared.port, "/style.css", etag, &answer), 304);
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    free(answer);
    assert_int_equal(http_get_with(shared.port, "/style.css", "If-None-Match: \"0\"\r\n", NULL),
                     200);
}

/* ---- clients that waste time ---- */

#define IDLE 400

static void reliability_21_idle_sockets(void **state)
{
    static int idle[IDLE];
    double slowest = 0;
    for (int i = 0; i < IDLE; i++) {
        idle[i] = tcp_connect(shared.port, 0);
        /* Every third sends half a request, which must not hold more than its share either. */
        if (i % 3 == 0)
            tcp_send(idle[i], "GET / HTTP/1.1\r\nHo", 18);
    }
    for (int i = 0; i < 50; i++) {
        double start = now();
        assert_int_equal(http_get(shared.port, "/health", NULL), 200);
        if (now() - start > slowest)
            slowest = now() - start;
    }
    /* The figure is 100 ms on an idle machine; this one may be busy. */
    assert_true(slowest < 1);
    for (int i = 0; i < IDLE; i++) {
        assert_true(tcp_closes(idle[i], 15));
        close(idle[i]);
    }
}

static void reliability_22_slow_reader(void **state)
{
    static const char *const options[] = {"--send-timeout", "1", "--sessions", "2", NULL};
    struct test_server server;
    test_server_start(&server, true, options);
    struct ws_client *slow = ws_connect_with(server.port, NULL, 2048);
    assert_int_equal(slow->status, 101);
    /* It asks for hello after hello without reading, until the kernel's buffers are full. */
    for (int i = 0; i < 20000; i++) {
        if (!ws_frame(slow, 0x81, "{\"type\":\"system\",\"content\":null}", 32, true))
            break;
    }
    assert_true(tcp_closes(slow->fd, 10));
    ws_disconnect(slow);
    struct ws_client *other = ws_connect(server.port, NULL);
    ws_say(other, "{\"type\":\"message\",\"content\":\"a\"}");
    json_decref(ws_wait(other, "token"));
    ws_disconnect(other);
    test_server_stop(&server);
}

static void reliability_22_bounded_ring(void **state)
{
    /* It asks again and again and never reads. Once the kernel's buffers are full, the ring runs
     * over: the answer is cancelled, the connection dropped, the slot free. */
    static const char *const options[] = {"--ring", "16", "--sessions", "1", NULL};
    static const char question[] = "{\"type\":\"message\",\"content\":\"a\",\"history\":[]}";
    struct test_server server;
    test_server_start(&server, true, options);
    struct ws_client *ws = ws_connect_with(server.port, NULL, 2048);
    bool dropped = false;
    for (int i = 0; i < 400 && !dropped; i++) {
        dropped = !ws_frame(ws, 0x81, question, sizeof question - 1, true);
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    assert_true(dropped);
    ws_disconnect(ws);
    char *answer = NULL;
    for (int i = 0; i < 200; i++) {
        free(answer);
        assert_int_equal(http_get(server.port, "/health", &answer), 200);
        if (strstr(answer, "\"slots_busy\":0"))
            break;
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    assert_non_null(strstr(answer, "\"slots_busy\":0"));
    free(answer);
    test_server_stop(&server);
}

static void connections_are_limited(void **state)
{
    static const char *const options[] = {"--connections", "20", NULL};
    struct test_server server;
    test_server_start(&server, true, options);
    /* Twice, because a count that forgets to go down shows only later. */
    for (int round = 0; round < 2; round++) {
        struct ws_client *ws[20];
        for (int i = 0; i < 20; i++)
            ws[i] = ws_connect(server.port, NULL);
        assert_int_equal(http_get(server.port, "/health", NULL), 503);
        for (int i = 0; i < 20; i++)
            ws_disconnect(ws[i]);
        test_server_wait_ready(&server, 10);
        for (int i = 0; i < 30; i++)
            assert_int_equal(http_get(server.port, "/nothing", NULL), 404);
    }
    test_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED_TEST(reliability_12_bad_strength),
        SHARED_TEST(steering_over_http),
        SHARED_TEST(reliability_17_bad_text),
        SHARED_TEST(reliability_19_bad_json),
        SHARED_TEST(reliability_20_bad_requests),
        SHARED_TEST(reliability_21_idle_sockets),
        SHARED_TEST(reliability_22_slow_reader),
        SHARED_TEST(reliability_22_bounded_ring),
        SHARED_TEST(connections_are_limited),
        SHARED_TEST(reliability_24_bad_frames),
        SHARED_TEST(reliability_24_million_empty_fragments),
        SHARED_TEST(reliability_24_unmasked_frame),
        SHARED_TEST(reliability_24_no_compression),
        SHARED_TEST(reliability_25_foreign_origin),
        SHARED_TEST(reliability_25_foreign_host),
        SHARED_TEST(reliability_25_text_plain),
        SHARED_TEST(reliability_30_no_paths),
        SHARED_TEST(reliability_31_markup_is_text),
        SHARED_TEST(requests_share_a_connection),
        SHARED_TEST(methods_are_checked),
        SHARED_TEST(assets_are_not_stale),
    };
    return cmocka_run_group_tests_name("server_attack", tests, start_shared, shared_server_stop);
}
