/*
 * test_server_long.c - answers that take far longer than every time-out of the server are not cut:
 * streamed, at once, and over a WebSocket.
 *
 * The tiny model answers in milliseconds, so its process is let run in short bursts only.
 * LONG_ANSWER (seconds, 10) says for how long; with the defaults of the time-outs
 * (TIMEOUTS=default) more than 400 show that nothing in the HTTP library cuts them either.
 */
#include "base/clock.h"
#include "support/api_client.h"
#include "support/process.h"
#include "support/test_server.h"
#include "support/ws_client.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define CHAT "/v1/chat/completions"

static double seconds_wanted(void)
{
    const char *text = getenv("LONG_ANSWER");
    return text && atof(text) > 0 ? atof(text) : 10;
}

static void expect_open(int fd, const char *which)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    char byte;
    if (poll(&poll_fd, 1, 0) > 0 && recv(fd, &byte, 1, MSG_PEEK) <= 0)
        fail_msg("the %s was cut", which);
}

/* Waits until the time is over; reads the WebSocket meanwhile, because pings want an answer. */
static void nobody_is_dropped(int stream, int at_once, struct ws_client *ws, double seconds)
{
    for (double end = clock_seconds() + seconds; clock_seconds() < end;) {
        struct pollfd poll_fd = {.fd = ws->fd, .events = POLLIN};
        expect_open(stream, "stream");
        expect_open(at_once, "answer at once");
        if (poll(&poll_fd, 1, 100) > 0) {
            json_t *message = ws_next(ws, NULL);
            if (!message)
                fail_msg("the WebSocket was cut %.1f s before the end", end - clock_seconds());
            if (!strcmp(ws_text(message, "type"), "done"))
                fail_msg("the answer ended %.1f s too early to show anything",
                         end - clock_seconds());
            json_decref(message);
        }
    }
}

static void an_answer_may_take_long(void **state)
{
    static const char body[] = "{\"model\":\"m\",\"stream\":%s,\"temperature\":2,\"top_p\":1,"
                               "\"max_tokens\":440,\"seed\":5,\"messages\":[{\"role\":\"user\","
                               "\"content\":\"hello\"}]}";
    const char *which = getenv("TIMEOUTS");
    static const char *const brief[] = {"--idle-timeout", "1", "--ping", "1", NULL};
    struct test_server server;
    struct gyaru_error error;
    struct api_answer streamed, whole;
    char text[500];
    const char *finish;
    test_server_start(&server, true, which && !strcmp(which, "default") ? NULL : brief);
    struct ws_client *ws = ws_connect(server.port, NULL);
    pid_t brake = process_slow_down(server.pid, (long)(seconds_wanted() * 20), &error);
    assert_true(brake > 0);
    snprintf(text, sizeof text, body, "true");
    int stream = api_ask(server.port, CHAT, text);
    snprintf(text, sizeof text, body, "false");
    int at_once = api_ask(server.port, CHAT, text);
    ws_say(ws, "{\"type\":\"message\",\"content\":\"hello\"}");
    double start = clock_seconds();
    nobody_is_dropped(stream, at_once, ws, seconds_wanted());
    process_speed_up(brake, server.pid);
    api_read(stream, &streamed);
    api_read(at_once, &whole);
    json_decref(ws_wait(ws, "done"));
    print_message("answers of %.1f s\n", clock_seconds() - start);
    free(api_chat_text(&streamed, &finish));
    assert_non_null(finish);
    assert_int_equal(whole.status, 200);
    api_release(&streamed);
    api_release(&whole);
    close(stream);
    close(at_once);
    ws_disconnect(ws);
    test_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_answer_may_take_long)};
    return cmocka_run_group_tests_name("server_long", tests, NULL, NULL);
}
