/*
 * test_test_server.c - starting, refusing to start, keys, signals and the scripts around them.
 */
#include "support/program.h"
#include "support/scratch.h"
#include "support/test_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define KEY "a-key-of-letters-0123"

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* `gyaru serve` with these options ends by itself, with this code, saying this in one line. */
static void expect_refusal(const char *const *options, int code, const char *part)
{
    const char *arguments[16] = {"serve"};
    size_t n = 1;
    for (; *options && n < 15; options++)
        arguments[n++] = *options;
    struct program_result result;
    program_run(&result, NULL, arguments);
    program_check_error(&result, code, part);
    program_release(&result);
}

static void health_while_loading(void **state)
{
    /* Loading is short, so one start of several has to be caught in it; none may ever answer
     * anything else. */
    int n_loading = 0;
    for (int i = 0; i < 10 && !n_loading; i++) {
        struct test_server server;
        test_server_start(&server, false, NULL);
        char *answer;
        int status;
        while ((status = http_get(server.port, "/health", &answer)) == 503) {
            assert_non_null(strstr(answer, "\"message\":\"Loading model\""));
            assert_non_null(strstr(answer, "\"type\":\"unavailable_error\""));
            n_loading++;
            free(answer);
            assert_int_equal(http_get(server.port, "/", NULL), 200);
        }
        assert_int_equal(status, 200);
        assert_non_null(strstr(answer, "\"status\":\"ok\""));
        free(answer);
        test_server_stop(&server);
    }
    if (!n_loading) {
        print_message("SKIP: the model loads too fast here to meet the server loading\n");
        skip();
    }
}

static void port_in_use(void **state)
{
    struct test_server server;
    char port[16];
    test_server_start(&server, true, NULL);
    snprintf(port, sizeof port, "%d", server.port);
    const char *const options[] = {"-m", test_model_dir(), "--port", port, NULL};
    expect_refusal(options, 1, port);
    expect_refusal(options, 1, "in use");
    expect_refusal(options, 1, "--port");
    test_server_stop(&server);
}

static void bad_options(void **state)
{
    const char *m = test_model_dir();
    expect_refusal((const char *const[]){"-m", m, "--port", "70000", NULL}, 2, "--port");
    expect_refusal((const char *const[]){"-m", m, "-s", "31", NULL}, 2, "-10 to 30");
    expect_refusal((const char *const[]){"-m", m, "-s", "nan", NULL}, 2, "--strength");
    expect_refusal((const char *const[]){"-m", m, "--nonsense", NULL}, 2, "--nonsense");
    expect_refusal((const char *const[]){"-m", m, "word", NULL}, 2, "word");
    expect_refusal((const char *const[]){"-m", m, "--host", "no.such", NULL}, 2, "no.such");
    expect_refusal((const char *const[]){"-m", "/nonexistent", "--port", "0", NULL}, 1,
                   "/nonexistent");
}

static void config_file(void **state)
{
    static const char unknown[] = "server:\n  port: 0\n  colour: pink\nmodle:\n  path: x\n";
    static const char bad[] = "generation:\n  temperature: hot\n";
    static const char broken[] = "server:\n  port: [1\n";
    const char *path = scratch_write("unknown.yaml", unknown, sizeof unknown - 1);
    struct program_result result;
    program_run(&result, NULL,
                (const char *const[]){"serve", "-c", path, "-m", "/nonexistent", NULL});
    assert_int_equal(result.code, 1);
    assert_non_null(strstr(result.err, "unknown.yaml:3: unknown key 'server.colour'"));
    assert_non_null(strstr(result.err, "unknown.yaml:4: unknown key 'modle'"));
    program_release(&result);
    path = scratch_write("bad.yaml", bad, sizeof bad - 1);
    expect_refusal((const char *const[]){"-c", path, NULL}, 2,
                   "bad.yaml:2: generation.temperature: 'hot'");
    path = scratch_write("broken.yaml", broken, sizeof broken - 1);
    expect_refusal((const char *const[]){"-c", path, NULL}, 2, "broken.yaml:");
    expect_refusal((const char *const[]){"-c", "/nonexistent.yaml", NULL}, 2, "/nonexistent.yaml");
}

static void config_names_model_and_port(void **state)
{
    char text[300];
    int len = snprintf(text, sizeof text,
                       "model:\n  path: %s\nsteering:\n  vector: %s/vector.safetensors\n"
                       "  strength: -3.5\ngeneration:\n  system_prompt: \"Be 礼儀正しい.\"\n",
                       test_model_dir(), test_model_dir());
    const char *config = scratch_write("whole.yaml", text, (size_t)len);
    struct test_server server;
    /* The command line of server_process names model and strength itself: override is order. */
    test_server_start(&server, true, (const char *const[]){"-c", config, NULL});
    json_t *hello;
    struct ws_client *ws = ws_connect(server.port, &hello);
    assert_true(ws_number(hello, "strength") == 5);
    assert_string_equal(ws_text(hello, "system"), "Be 礼儀正しい.");
    json_decref(hello);
    ws_disconnect(ws);
    test_server_stop(&server);
}

static void reliability_26_bind_needs_key(void **state)
{
    const char *m = test_model_dir();
    static const char *const hosts[] = {"0.0.0.0", "::", "192.0.2.1"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        expect_refusal((const char *const[]){"-m", m, "--host", hosts[i], NULL}, 2,
                       "--api-key-file");
    const char *empty = scratch_write("empty.key", "\n", 1);
    expect_refusal((const char *const[]){"-m", m, "--api-key-file", empty, NULL}, 2, "a key is");
    expect_refusal((const char *const[]){"-m", m, "--api-key-file", "/nonexistent", NULL}, 2,
                   "/nonexistent");
}

static void reliability_27_key(void **state)
{
    char key_file[300];
    snprintf(key_file, sizeof key_file, "%s", scratch_write("good.key", KEY "\n", strlen(KEY) + 1));
    struct test_server server;
    test_server_start(&server, true,
                      (const char *const[]){"--host", "0.0.0.0", "--api-key-file", key_file, NULL});
    static const char *const wrong[] = {NULL,
                                        "Authorization: Bearer wrong-key-0123\r\n",
                                        "Authorization: Bearer " KEY "x\r\n",
                                        "Authorization: Bearer a-key-of-letters-012\r\n",
                                        "Authorization: Basic " KEY "\r\n",
                                        "X-Api-Key: \r\n",
                                        "Cookie: gyaru_key=\r\n",
                                        "Cookie: gyaru_key=" KEY "x\r\n"};
    static const char *const paths[] = {"/", "/app.js", "/v1/models", "/v1/steering", "/nothing"};
    for (size_t w = 0; w < sizeof wrong / sizeof wrong[0]; w++) {
        for (size_t p = 0; p < sizeof paths / sizeof paths[0]; p++)
            assert_int_equal(http_get_with(server.port, paths[p], wrong[w], NULL), 401);
        assert_int_equal(http_get_with(server.port, "/health", wrong[w], NULL), 200);
        struct ws_client *ws = ws_connect_with(server.port, wrong[w], 0);
        assert_int_equal(ws->status, 401);
        ws_disconnect(ws);
    }
    static const char *const right[] = {"Authorization: Bearer " KEY "\r\n",
                                        "X-Api-Key: " KEY "\r\n", "Cookie: gyaru_key=" KEY "\r\n",
                                        "Cookie: a=b; gyaru_key=" KEY "; c=d\r\n"};
    for (size_t r = 0; r < sizeof right / sizeof right[0]; r++) {
        assert_int_equal(http_get_with(server.port, "/v1/models", right[r], NULL), 200);
        struct ws_client *ws = ws_connect_with(server.port, right[r], 0);
        assert_int_equal(ws->status, 101);
        ws_disconnect(ws);
    }
    /* A browser is given the key in the address once and keeps it as a cookie. */
    char *answer;
    assert_int_equal(http_get(server.port, "/?key=" KEY, &answer), 200);
    assert_non_null(strstr(answer, "set-cookie: gyaru_key=" KEY "; HttpOnly; SameSite=Strict"));
    free(answer);
    assert_int_equal(http_get(server.port, "/?key=wrong-key", NULL), 401);
    test_server_stop(&server);
}

/* A server with running answers on some connections. */
static void start_busy(struct test_server *server, struct ws_client *ws[4])
{
    test_server_start(server, true, (const char *const[]){"--sessions", "2", NULL});
    for (int i = 0; i < 4; i++) {
        ws[i] = ws_connect(server->port, NULL);
        ws_say(ws[i], "{\"type\":\"message\",\"content\":\"a\"}");
    }
}

static void reliability_29_sigterm_under_load(void **state)
{
    struct test_server server;
    struct ws_client *ws[4];
    start_busy(&server, ws);
    json_decref(ws_wait(ws[0], "token"));
    kill(server.pid, SIGTERM);
    /* What ran is said to its end, then the connections close as "going away". */
    json_decref(ws_wait(ws[0], "done"));
    for (int i = 0; i < 4; i++)
        assert_int_equal(ws_close_code(ws[i]), 1001);
    assert_int_equal(test_server_wait(&server, 10), 0);
    for (int i = 0; i < 4; i++)
        ws_disconnect(ws[i]);
}

static void reliability_29_no_drain(void **state)
{
    struct test_server server;
    test_server_start(&server, true, (const char *const[]){"--drain", "0", NULL});
    struct ws_client *ws = ws_connect(server.port, NULL);
    ws_say(ws, "{\"type\":\"message\",\"content\":\"a\"}");
    kill(server.pid, SIGINT);
    assert_int_equal(test_server_wait(&server, 10), 0);
    ws_disconnect(ws);
}

#define ASKERS 24

static void reliability_29_second_signal(void **state)
{
    /* One session and many who wait for it keep the drain going for seconds. */
    static struct ws_client *ws[ASKERS];
    struct test_server server;
    test_server_start(&server, true,
                      (const char *const[]){"--drain", "600", "--sessions", "1", NULL});
    for (int i = 0; i < ASKERS; i++) {
        ws[i] = ws_connect(server.port, NULL);
        ws_say(ws[i], "{\"type\":\"message\",\"content\":\"a\"}");
    }
    json_decref(ws_wait(ws[0], "token"));
    kill(server.pid, SIGTERM);
    pause_ms(50);
    kill(server.pid, SIGTERM);
    assert_int_equal(test_server_wait(&server, 5), 128 + SIGTERM);
    for (int i = 0; i < ASKERS; i++)
        ws_disconnect(ws[i]);
}

static void stops_while_loading(void **state)
{
    for (int i = 0; i < 5; i++) {
        struct test_server server;
        test_server_start(&server, false, NULL);
        kill(server.pid, SIGTERM);
        assert_int_equal(test_server_wait(&server, 10), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health_while_loading),
        cmocka_unit_test(port_in_use),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(config_file),
        cmocka_unit_test(config_names_model_and_port),
        cmocka_unit_test(reliability_26_bind_needs_key),
        cmocka_unit_test(reliability_27_key),
        cmocka_unit_test(reliability_29_sigterm_under_load),
        cmocka_unit_test(reliability_29_no_drain),
        cmocka_unit_test(reliability_29_second_signal),
        cmocka_unit_test(stops_while_loading),
    };
    return cmocka_run_group_tests_name("server_process", tests, NULL, NULL);
}
