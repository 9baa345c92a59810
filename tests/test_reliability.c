/*
 * test_reliability.c - faults that show only in numbers: many sliders, many idle sockets, readers
 * of a byte a second, hostile JSON against the clock. Tests are named as docs/reliability.md lists
 * them.
 *
 * Times are the best of several tries: a busy machine makes them longer, never shorter.
 */
#include "base/clock.h"
#include "support/api_client.h"
#include "support/test_server.h"
#include "support/ws_client.h"

#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define CHAT  "/v1/chat/completions"
#define TRIES 5

static const char question[] = "{\"type\":\"message\",\"content\":\"a\",\"history\":[]}";

/* Sanitizers slow everything down; the figures are for the program as it is. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 10
#else
#define SLOWER 1
#endif

static int still_healthy(const struct test_server *server)
{
    return http_get(server->port, "/health", NULL) == 200;
}

static double resident_bytes(const struct test_server *server)
{
    char path[64];
    long total, resident;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)server->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &total, &resident), 2);
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static bool readable(const struct ws_client *ws)
{
    struct pollfd poll_fd = {.fd = ws->fd, .events = POLLIN};
    return ws->len > 0 || poll(&poll_fd, 1, 0) > 0;
}

/* ---- 13: sliders ---------------------------------------------------------------------------- */

#define SLIDERS 64
#define UPDATES 1000
#define TOKENS  32 /* decoded while the storm blows, at least, on however slow a machine */

/* Strengths by version; NaN: not heard of yet. */
static double values[SLIDERS * UPDATES + 100];
static size_t n_gauges;

/* Every (version, strength) that any message names must be the same pair everywhere. */
static void note(const json_t *message)
{
    const char *type = ws_text(message, "type");
    bool gauge = !strcmp(type, "gauge");
    if (!gauge && strcmp(type, "strength_updated"))
        return;
    size_t version = (size_t)ws_number(message, "version");
    double value = ws_number(message, gauge ? "strength" : "value");
    n_gauges += gauge;
    assert_true(version < sizeof values / sizeof values[0]);
    if (isnan(values[version]))
        values[version] = value;
    if (values[version] != value)
        fail_msg("version %zu is %.9g and %.9g", version, values[version], value);
}

/* Reads one message, waiting for it; true if an answer ended. */
static bool hear(struct ws_client *ws)
{
    json_t *message = ws_next(ws, NULL);
    if (!message)
        fail_msg("a connection was closed in the storm");
    note(message);
    bool done = !strcmp(ws_text(message, "type"), "done");
    json_decref(message);
    return done;
}

/* Reads what is there; of a slider, which has no answers. */
static void drain(struct ws_client *ws)
{
    while (readable(ws))
        hear(ws);
}

/* Asks again whenever an answer ends, until so many tokens have come and nothing more is there. */
static void talk(struct ws_client *ws, size_t n_tokens)
{
    while (n_gauges < n_tokens || readable(ws)) {
        if (hear(ws))
            ws_say(ws, "%s", question);
    }
}

/* Reads until this version has arrived. */
static void settle(struct ws_client *ws, double version)
{
    double newest = 0;
    while (newest < version) {
        json_t *message = ws_wait(ws, "strength_updated");
        note(message);
        newest = ws_number(message, "version");
        json_decref(message);
    }
}

static void reliability_13_slider_storm(void **state)
{
    struct ws_client *talker, *sliders[SLIDERS];
    struct test_server server;
    test_server_start(&server, true, NULL);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        values[i] = NAN;
    json_t *hello;
    talker = ws_connect(server.port, &hello);
    double version = ws_number(hello, "version");
    json_decref(hello);
    for (int c = 0; c < SLIDERS; c++)
        sliders[c] = ws_connect(server.port, NULL);
    ws_say(talker, "%s", question);
    for (int i = 0; i < UPDATES; i++) {
        /* No two values of the storm are equal. */
        for (int c = 0; c < SLIDERS; c++)
            ws_say(sliders[c], "{\"type\":\"update_strength\",\"value\":%.9g}",
                   -10 + (c * UPDATES + i) * (40.0 / (SLIDERS * UPDATES)));
        for (int c = i % 8; c < SLIDERS; c += 8)
            drain(sliders[c]);
        talk(talker, (size_t)i * TOKENS / UPDATES);
    }
    version += SLIDERS * UPDATES;
    settle(talker, version);
    for (int c = 0; c < SLIDERS; c++) {
        settle(sliders[c], version);
        ws_disconnect(sliders[c]);
    }
    print_message("%zu tokens told their strength\n", n_gauges);
    ws_disconnect(talker);
    assert_true(still_healthy(&server));
    test_server_stop(&server);
}

/* ---- 19: JSON ------------------------------------------------------------------------------- */

static void reliability_19_within_10_ms(void **state)
{
    static char deep[100001];
    struct test_server server;
    test_server_start(&server, true, NULL);
    for (const char *c = "[9{\""; *c; c++) {
        double best = INFINITY;
        memset(deep, *c, sizeof deep - 1);
        for (int i = 0; i < TRIES; i++) {
            double start = clock_seconds();
            api_expect(server.port, CHAT, deep, 400);
            best = fmin(best, clock_seconds() - start);
        }
        if (best > 0.010 * SLOWER)
            fail_msg("100,000 times '%c': %.1f ms", *c, 1e3 * best);
    }
    test_server_stop(&server);
}

/* ---- 21: idle sockets ------------------------------------------------------------------------ */

#define IDLE     1000
#define REQUESTS 200

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The 99th of 100 requests, seconds. */
static double p99(int port)
{
    double times[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) {
        double start = clock_seconds();
        assert_int_equal(http_get(port, "/health", NULL), 200);
        times[i] = clock_seconds() - start;
    }
    qsort(times, REQUESTS, sizeof *times, by_value);
    return times[REQUESTS * 99 / 100];
}

static bool raise_file_limit(rlim_t n)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < n)
        limit.rlim_cur = limit.rlim_max < n ? limit.rlim_max : n;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur >= n;
}

static void reliability_21_idle_and_slow_senders(void **state)
{
    static int idle[IDLE];
    struct test_server server;
    if (!raise_file_limit(IDLE + 100)) {
        print_message("SKIP: no more than 1000 files may be open here\n");
        skip();
    }
    test_server_start(&server, true, (const char *const[]){"--idle-timeout", "3", NULL});
    for (int i = 0; i < IDLE; i++) {
        idle[i] = tcp_connect(server.port, 0);
        /* Every third sends half a request, which must not hold more than its share either. */
        if (i % 3 == 0)
            tcp_send(idle[i], "POST " CHAT " HTTP/1.1\r\nHo", 38);
    }
    double best = INFINITY;
    for (int i = 0; i < TRIES && best > 0.1; i++)
        best = fmin(best, p99(server.port));
    print_message("p99 beside %d idle sockets: %.2f ms\n", IDLE, 1e3 * best);
    assert_true(best < 0.1);
    for (int i = 0; i < IDLE; i++) {
        /* Slow senders go on, a byte at a time; that does not keep them. */
        if (i % 3 == 0)
            tcp_send(idle[i], "s", 1);
    }
    for (int i = 0; i < IDLE; i++) {
        assert_true(tcp_closes(idle[i], 15));
        close(idle[i]);
    }
    assert_true(still_healthy(&server));
    test_server_stop(&server);
}

/* ---- 22: slow readers ------------------------------------------------------------------------ */

#define READERS 8
#define SAMPLES 80 /* before and after */

/* One whole answer, always the same. */
static void one_answer(int port)
{
    struct api_answer answer;
    api_call(port, "POST", CHAT, NULL,
             "{\"model\":\"m\",\"temperature\":0,\"max_tokens\":400,\"stream\":true,\"messages\":[{"
             "\"role\":\"user\",\"content\":\"hello\"}]}",
             &answer);
    assert_int_equal(answer.status, 200);
    api_release(&answer);
}

/* Processor time of the server so far, seconds. What it spends on one cannot be another's; what the
 * clock says would also tell of other programs. */
static double processor_seconds(const struct test_server *server)
{
    char path[64];
    unsigned long user, system;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)server->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(
        fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system),
        2);
    fclose(file);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* Of one answer, while nobody else asks. */
static double processor_time(const struct test_server *server)
{
    double start = processor_seconds(server);
    for (int i = 0; i < SAMPLES; i++)
        one_answer(server->port);
    return (processor_seconds(server) - start) / SAMPLES;
}

static int n_connections(int port)
{
    return (int)http_metric(port, "gyaru_connections") - 1; /* without this one */
}

/* Asks for so much that the kernel's buffers are full and the answer stands still. */
static void ask_without_reading(struct ws_client *readers[READERS])
{
    for (int i = 0; i < 12; i++) {
        for (int r = 0; r < READERS; r++)
            ws_frame(readers[r], 0x81, question, sizeof question - 1, true);
        usleep(300000);
    }
}

/* What an answer costs while readers take a byte a second, until all of them were dropped, over
 * what it costs alone. */
static double cost_of_slow_readers(const struct test_server *server)
{
    struct ws_client *readers[READERS];
    double alone = processor_time(server), most = 0, before = resident_bytes(server);
    for (int i = 0; i < READERS; i++) {
        readers[i] = ws_connect_with(server->port, NULL, 2048);
        assert_int_equal(readers[i]->status, 101);
    }
    ask_without_reading(readers);
    double start = clock_seconds(), next = start, spent = processor_seconds(server), beside = 0;
    int n_open = READERS, n_answers = 0;
    while (n_open && clock_seconds() < start + 20) {
        one_answer(server->port);
        n_answers++;
        if (clock_seconds() < next)
            continue;
        next += 1;
        most = fmax(most, resident_bytes(server));
        n_open = n_connections(server->port);
        if (n_open == READERS)
            beside = (processor_seconds(server) - spent) / n_answers;
        for (int i = 0; i < READERS; i++) {
            char byte;
            recv(readers[i]->fd, &byte, 1, MSG_DONTWAIT);
        }
    }
    double seconds = clock_seconds() - start;
    alone = fmax(alone, processor_time(server));
    print_message(
        "%d of %d dropped after %.1f s; memory grew by %.2f MiB; an answer costs %.2f ms, "
        "beside them %.2f ms\n",
        READERS - n_open, READERS, seconds, (most - before) / (1 << 20), 1e3 * alone, 1e3 * beside);
    assert_int_equal(n_open, 0);
    assert_true(most - before < READERS * (1 << 20));
    assert_true(beside > 0);
    for (int i = 0; i < READERS; i++)
        ws_disconnect(readers[i]);
    return beside / alone;
}

static void reliability_22_a_byte_a_second(void **state)
{
    struct test_server server;
    double best = INFINITY;
    if (SLOWER > 1) {
        print_message("SKIP: costs are those of the program without sanitizers; "
                      "test_server_attack has slow readers with them\n");
        skip();
    }
    test_server_start(&server, true,
                      (const char *const[]){"--send-timeout", "6", "--sessions", "4", NULL});
    for (int i = 0; i < TRIES && best > 1.05; i++)
        best = fmin(best, cost_of_slow_readers(&server));
    assert_true(best < 1.05);
    assert_true(still_healthy(&server));
    test_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reliability_13_slider_storm),
        cmocka_unit_test(reliability_19_within_10_ms),
        cmocka_unit_test(reliability_21_idle_and_slow_senders),
        cmocka_unit_test(reliability_22_a_byte_a_second),
    };
    return cmocka_run_group_tests_name("reliability", tests, NULL, NULL);
}
