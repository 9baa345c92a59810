/*
 * test_openai_attack.c - the API under bad input, bad clients and load. Tests are named by the
 * faults that the project lists; after each /health still answers 200.
 */
#include "base/clock.h"
#include "base/str.h"
#include "support/api_client.h"
#include "support/scratch.h"
#include "support/shared_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define CHAT  "/v1/chat/completions"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"
#define KEY   "a-key-of-letters-0123"
#define CROWD 300 /* requests of some 25 ms each */

static int start_shared(void **state)
{
    static const char *const options[] = {
        "--sessions", "1", "--waiting", "1000", "--per-address", "1000", "--ping", "1", NULL};
    return shared_server_start(options);
}

static double live_strength(void)
{
    struct api_answer answer;
    api_call(shared.port, "GET", "/v1/steering", NULL, NULL, &answer);
    double strength = ws_number(answer.json, "strength");
    api_release(&answer);
    return strength;
}

/* Waits until no slot is busy and nothing waits. */
static void expect_idle(int port)
{
    char *answer = NULL;
    for (double end = clock_seconds() + 10; clock_seconds() < end;) {
        free(answer);
        assert_int_equal(http_get(port, "/health", &answer), 200);
        if (strstr(answer, "\"slots_busy\":0") && strstr(answer, "\"waiting\":0"))
            break;
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
    assert_non_null(strstr(answer, "\"slots_busy\":0"));
    assert_non_null(strstr(answer, "\"waiting\":0"));
    free(answer);
}

/* ---- what a request says ---- */

static void reliability_12_bad_strength(void **state)
{
    static const char *const values[] = {"\"15\"", "NaN",    "Infinity", "1e38", "1e999", "-1e999",
                                         "30.001", "-10.01", "true",     "[15]", "{}"};
    char body[300];
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        snprintf(body, sizeof body, "{\"steering\":{\"strength\":%s}," HELLO "}", values[i]);
        api_expect(shared.port, CHAT, body, 400);
    }
    assert_true(live_strength() == 5);
}

static void reliability_17_bad_text(void **state)
{
    static const char *const texts[] = {
        "\\ud800",  "\\udc00\\ud800", "a\\u0000b",        "\xff",
        "\xc0\x80", "\xed\xa0\x80",   "\xf4\x90\x80\x80", "\xe3\x81"};
    char body[300];
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
                 texts[i]);
        api_expect(shared.port, CHAT, body, 400);
        snprintf(body, sizeof body, "{\"prompt\":\"%s\"}", texts[i]);
        api_expect(shared.port, "/completion", body, 400);
        snprintf(body, sizeof body, "{\"content\":\"%s\"}", texts[i]);
        api_expect(shared.port, "/tokenize", body, 400);
    }
}

static void reliability_18_only_valid_utf8_leaves(void **state)
{
    /* Whatever the limit cuts: api_read() refuses what is no UTF-8, in every single event. */
    char body[300];
    for (int n = 1; n <= 30; n++) {
        struct api_answer answer;
        snprintf(body, sizeof body,
                 "{\"model\":\"m\",\"stream\":true,\"temperature\":2,\"seed\":%d,\"max_tokens\":%"
                 "d," HELLO "}",
                 n, n);
        api_call(shared.port, "POST", CHAT, NULL, body, &answer);
        assert_true(answer.done);
        api_release(&answer);
    }
}

static void reliability_19_bad_json(void **state)
{
    static char deep[100001];
    static const char *const texts[] = {"",
                                        " ",
                                        "{",
                                        "[]",
                                        "1",
                                        "null",
                                        "{\"messages\":1e99999}",
                                        "{" HELLO "," HELLO "}",
                                        "{" HELLO "} trailing",
                                        "{\"seed\":99999999999999999999999," HELLO "}",
                                        "{\"max_tokens\":1e300," HELLO "}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        api_expect(shared.port, CHAT, texts[i], 400);
    double start = clock_seconds();
    for (const char *c = "[9{\""; *c; c++) {
        memset(deep, *c, sizeof deep - 1);
        api_expect(shared.port, CHAT, deep, 400);
    }
    assert_true(clock_seconds() - start < 1); /* 10 ms each where nothing else runs */
}

static void reliability_20_bad_bodies(void **state)
{
    static const struct {
        const char *request;
        int status;
    } bad[] = {
        {"POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
         "Content-Length: 134217728\r\n\r\n{",
         413},
        {"POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
         "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
         "Content-Length: -5\r\n\r\n",
         400},
        {"POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
         "Content-Length: 2\r\n\r\n{}",
         403},
        {"POST " CHAT " HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\n"
         "Content-Length: 2\r\n\r\n{}",
         403},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int status = http_raw(shared.port, bad[i].request, strlen(bad[i].request), NULL);
        if (status != bad[i].status && !(status == 0 && bad[i].status == 400))
            fail_msg("%d instead of %d: %s", status, bad[i].status, bad[i].request);
    }
    /* Many bodies that are begun and never end: past 32 MiB together the rest is closed, and others
     * are served all the same. */
    static int begun[80];
    static char part[600000];
    static const char head[] = "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                               "application/json\r\nContent-Length: 1000000\r\n\r\n";
    int closed = 0;
    memset(part, ' ', sizeof part);
    for (int i = 0; i < 80; i++) {
        begun[i] = tcp_connect(shared.port, 0);
        tcp_send(begun[i], head, sizeof head - 1);
        tcp_send(begun[i], part, sizeof part);
    }
    api_expect(shared.port, "/tokenize", "{\"content\":\"a\"}", 200);
    /* It reads them in its own time. */
    for (double end = clock_seconds() + 20; closed < 20 && clock_seconds() < end;) {
        for (int i = 0; i < 80; i++) {
            if (begun[i] >= 0 && tcp_closes(begun[i], 0.005)) {
                close(begun[i]);
                begun[i] = -1;
                closed++;
            }
        }
    }
    assert_in_range(closed, 20, 40);
    for (int i = 0; i < 80; i++) {
        if (begun[i] >= 0)
            close(begun[i]);
    }
    api_expect(shared.port, CHAT, "{\"max_tokens\":1," HELLO "}", 200);
}

static void reliability_30_vectors_by_name_only(void **state)
{
    static const char *const names[] = {"\"../vector\"",     "\"vector.safetensors\"",
                                        "\"./vector\"",      "\"tests/data/tiny-model/vector\"",
                                        "\"/etc/passwd\"",   "\"vector%00\"",
                                        "\"vector\\u0000\"", "\"\"",
                                        "\"Vector\"",        "5",
                                        "[\"vector\"]"};
    char body[300];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct api_answer answer;
        snprintf(body, sizeof body, "{\"steering\":{\"vector\":%s,\"strength\":1}," HELLO "}",
                 names[i]);
        api_expect(shared.port, CHAT, body, 400);
        snprintf(body, sizeof body, "{\"vector\":%s,\"strength\":1}", names[i]);
        api_call(shared.port, "PUT", "/v1/steering", NULL, body, &answer);
        assert_int_equal(answer.status, 400);
        api_release(&answer);
    }
    assert_true(live_strength() == 5);
}

/* ---- clients that leave ---- */

static void reliability_23_reset_anywhere(void **state)
{
    struct linger reset = {1, 0};
    for (int i = 0; i < 60; i++) {
        int fd = api_ask(shared.port, CHAT,
                         i % 2 ? "{\"model\":\"m\",\"stream\":true,\"temperature\":0," HELLO "}"
                               : "{\"model\":\"m\",\"temperature\":0," HELLO "}");
        nanosleep(&(struct timespec){0, i * 500000}, NULL);
        if (i % 3)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    expect_idle(shared.port);
    api_expect(shared.port, CHAT, "{\"max_tokens\":2," HELLO "}", 200);
}

static void pings_while_waiting_and_cancelled_when_left(void **state)
{
    static const char long_answer[] = "{\"model\":\"m\",\"temperature\":0," HELLO "}";
    static int crowd[CROWD];
    for (int i = 0; i < CROWD; i++)
        crowd[i] = api_ask(shared.port, CHAT, long_answer);
    int fd =
        api_ask(shared.port, CHAT, "{\"model\":\"m\",\"stream\":true,\"max_tokens\":3," HELLO "}");
    double start = clock_seconds();
    nanosleep(&(struct timespec){2, 500000000}, NULL);
    for (int i = 0; i < CROWD; i++)
        close(crowd[i]);
    struct api_answer answer;
    const char *finish;
    api_read(fd, &answer);
    close(fd);
    /* 300 answers of 480 tokens would have taken longer: those who left are not answered. */
    print_message("%d pings, answered after %.2f s\n", answer.comments, clock_seconds() - start);
    assert_in_range(answer.comments, 1, 20);
    free(api_chat_text(&answer, &finish));
    api_release(&answer);
    expect_idle(shared.port);
}

static void a_second_request_into_an_answer(void **state)
{
    static const char body[] = "{\"model\":\"m\",\"stream\":true,\"temperature\":0," HELLO "}";
    static const char second[] = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (int i = 0; i < 20; i++) {
        int fd = api_ask(shared.port, CHAT, body);
        nanosleep(&(struct timespec){0, i * 500000}, NULL);
        tcp_send(fd, second, sizeof second - 1);
        /* Answered after the first, or closed: not into the middle, and not without end. */
        double start = clock_seconds();
        assert_int_equal(http_get(shared.port, "/health", NULL), 200);
        assert_true(clock_seconds() - start < 5);
        close(fd);
    }
    expect_idle(shared.port);
}

/* ---- keys ---- */

static void reliability_27_key_on_every_route(void **state)
{
    static const struct {
        const char *method, *path, *body;
    } routes[] = {
        {"POST", CHAT, "{\"max_tokens\":1," HELLO "}"},
        {"POST", "/chat/completions", "{\"max_tokens\":1," HELLO "}"},
        {"POST", "/v1/chat/completions/chat/completions", "{\"max_tokens\":1," HELLO "}"},
        {"POST", "/v1/chat/completions/v1/chat/completions", "{\"max_tokens\":1," HELLO "}"},
        {"GET", "/v1/models", NULL},
        {"GET", "/v1/models/tiny-model", NULL},
        {"GET", "/v1/steering", NULL},
        {"PUT", "/v1/steering", "{\"strength\":5}"},
        {"GET", "/v1/vectors", NULL},
        {"POST", "/tokenize", "{\"content\":\"a\"}"},
        {"POST", "/detokenize", "{\"tokens\":[1]}"},
        {"GET", "/props", NULL},
        {"GET", "/metrics", NULL},
        {"POST", "/completion", "{\"prompt\":\"a\",\"n_predict\":1}"},
        {"POST", "/api/chat", "{\"model\":\"m\"}"},
    };
    static const struct {
        const char *header;
        int status;
    } keys[] = {{NULL, 401},
                {"Authorization: Bearer wrong\r\n", 401},
                {"Authorization: Bearer " KEY "x\r\n", 401},
                {"Authorization: Basic " KEY "\r\n", 401},
                {"X-Api-Key: \r\n", 401},
                {"Authorization: Bearer " KEY "\r\n", 200},
                {"X-Api-Key: " KEY "\r\n", 200}};
    char key_file[300];
    snprintf(key_file, sizeof key_file, "%s", scratch_write("key", KEY "\n", sizeof KEY));
    const char *const options[] = {"--api-key-file", key_file, "--allow-origin", "http://a.example",
                                   NULL};
    struct test_server server;
    struct api_answer answer;
    test_server_start(&server, true, options);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            api_call(server.port, routes[i].method, routes[i].path, keys[k].header, routes[i].body,
                     &answer);
            if (answer.status != keys[k].status)
                fail_msg("%s with %s: %d", routes[i].path, keys[k].header, answer.status);
            if (answer.status == 401)
                assert_string_equal(ws_text(json_object_get(answer.json, "error"), "type"),
                                    "authentication_error");
            api_release(&answer);
        }
    }
    assert_int_equal(http_get(server.port, "/health", NULL), 200);
    /* Browsers ask first without the key. */
    api_call(server.port, "OPTIONS", CHAT, "Origin: http://a.example\r\n", NULL, &answer);
    assert_int_equal(answer.status, 204);
    api_release(&answer);
    test_server_stop(&server);
}

/* ---- too many ---- */

/* More requests at once than the `n` that fit: some get through, the rest is told to come later. */
static void overfill(const char *const *options, int n)
{
    static const char long_answer[] = "{\"model\":\"m\",\"temperature\":0," HELLO "}";
    struct test_server server;
    test_server_start(&server, true, options);
    int fds[16];
    /* Stopped, it answers nothing meanwhile; the kernel keeps what is sent. */
    kill(server.pid, SIGSTOP);
    for (int i = 0; i < n + 4; i++)
        fds[i] = api_ask(server.port, CHAT, long_answer);
    kill(server.pid, SIGCONT);
    int refused = 0;
    for (int i = 0; i < n + 4; i++) {
        struct api_answer answer;
        api_read(fds[i], &answer);
        if (answer.status == 429)
            assert_non_null(strstr(answer.head, "retry-after: "));
        else
            assert_int_equal(answer.status, 200);
        refused += answer.status == 429;
        api_release(&answer);
        close(fds[i]);
    }
    assert_in_range(refused, 1, 4);
    expect_idle(server.port);
    api_expect(server.port, CHAT, "{\"max_tokens\":1," HELLO "}", 200);
    test_server_stop(&server);
}

static void reliability_28_queue_full(void **state)
{
    static const char *const options[] = {"--sessions", "1", "--waiting", "1", NULL};
    overfill(options, 2);
}

static void reliability_28_too_many_from_one_address(void **state)
{
    static const char *const options[] = {"--per-address", "2", NULL};
    overfill(options, 2);
}

static void reliability_29_drains_streams(void **state)
{
    struct test_server server;
    struct api_answer answer;
    const char *finish;
    test_server_start(&server, true, NULL);
    int fd =
        api_ask(server.port, CHAT, "{\"model\":\"m\",\"stream\":true,\"temperature\":0," HELLO "}");
    char first;
    assert_int_equal(recv(fd, &first, 1, MSG_PEEK), 1);
    kill(server.pid, SIGTERM);
    api_read(fd, &answer);
    free(api_chat_text(&answer, &finish));
    assert_non_null(finish);
    api_release(&answer);
    close(fd);
    assert_int_equal(test_server_wait(&server, 20), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED_TEST(reliability_12_bad_strength),
        SHARED_TEST(reliability_17_bad_text),
        SHARED_TEST(reliability_18_only_valid_utf8_leaves),
        SHARED_TEST(reliability_19_bad_json),
        SHARED_TEST(reliability_20_bad_bodies),
        SHARED_TEST(reliability_30_vectors_by_name_only),
        SHARED_TEST(reliability_23_reset_anywhere),
        SHARED_TEST(pings_while_waiting_and_cancelled_when_left),
        SHARED_TEST(a_second_request_into_an_answer),
        SHARED_TEST(reliability_27_key_on_every_route),
        SHARED_TEST(reliability_28_queue_full),
        SHARED_TEST(reliability_28_too_many_from_one_address),
        SHARED_TEST(reliability_29_drains_streams),
    };
    return cmocka_run_group_tests_name("openai_attack", tests, start_shared, shared_server_stop);
}
