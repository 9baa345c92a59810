/*
 * test_voice_faults.c - a voice engine that sends nonsense, too much or nothing, that is slow or
 * not there: nobody but who asked notices.
 */
#include "base/clock.h"
#include "support/api_client.h"
#include "support/sound_client.h"
#include "support/voice_room.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HELLO "{\"input\":\"こんにちは、元気？\",\"voice\":2}"

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static long resident_kib(void)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)room.server.pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        sscanf(line, "VmHWM: %ld", &kib);
    if (file)
        fclose(file);
    return kib;
}

static void test_faults(void **state)
{
    static const struct {
        enum voicevox_fault fault;
        int status;
        const char *says;
    } faults[] = {
        {VOICEVOX_BAD_QUERY, 502, "no JSON"},   {VOICEVOX_BAD_SOUND, 502, "no WAV"},
        {VOICEVOX_CUT_SOUND, 503, "no voice"},  {VOICEVOX_500, 502, "failed (500)"},
        {VOICEVOX_CLOSED, 503, "no voice"},     {VOICEVOX_REDIRECT, 502, "failed (307)"},
        {VOICEVOX_LONG_SOUND, 502, "too much"}, {VOICEVOX_LONG_QUERY, 502, "too much"},
    };
    struct voicevox_stand_in *other = voicevox_start(0);
    snprintf(room.engine->elsewhere, sizeof room.engine->elsewhere, "%s/speakers", other->base);
    sound_expect(room.server.port, HELLO, 9);
    long before = resident_kib();
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        room.engine->fault = faults[i].fault;
        sound_expect_error(room.server.port, HELLO, faults[i].status, faults[i].says);
    }
    /* What is too long is not taken in: the limit is 16 MiB, doubled while it grows. */
    assert_true(resident_kib() - before < 80 * 1024);
    room.engine->fault = VOICEVOX_NO_SPEAKERS;
    sound_expect_error(room.server.port, "{\"input\":\"こんにちは\",\"voice\":\"ずんだもん\"}", 400,
                       "voice");
    room.engine->fault = VOICEVOX_GOOD;
    sound_expect(room.server.port, HELLO, 9);
    /* Nobody but the configured engine was asked. */
    assert_int_equal(other->n_calls, 0);
    voicevox_stop(other);
}

static void chat(void)
{
    struct ws_client *ws = ws_connect(room.server.port, NULL);
    ws_say(ws, "{\"type\":\"message\",\"content\":\"hello\"}");
    json_decref(ws_wait(ws, "token"));
    ws_say(ws, "{\"type\":\"cancel\"}");
    json_decref(ws_wait(ws, "done"));
    ws_disconnect(ws);
}

static void test_absent(void **state)
{
    struct api_answer answer;
    voicevox_leave(room.engine);
    double start = clock_seconds();
    sound_expect_error(room.server.port, HELLO, 503, "no voice engine at http://127.0.0.1:");
    api_call(room.server.port, "GET", "/voicevox/speakers", NULL, NULL, &answer);
    assert_int_equal(answer.status, 503);
    assert_non_null(strstr(answer.head, "retry-after:"));
    api_release(&answer);
    assert_true(clock_seconds() - start < 2);
    chat();
    voicevox_come_back(room.engine);
    sound_expect(room.server.port, HELLO, 9);
}

/* It takes its time: only who asked waits. */
static void test_slow(void **state)
{
    room.engine->delay_ms = 1200;
    double start = clock_seconds(), worst = 0;
    int fd = sound_begin(room.server.port, HELLO);
    for (int i = 0; i < 40; i++) {
        double before = clock_seconds();
        assert_int_equal(http_get(room.server.port, "/health", NULL), 200);
        if (clock_seconds() - before > worst)
            worst = clock_seconds() - before;
        pause_ms(10);
    }
    chat();
    /* The list of speakers overtakes what is being spoken, even if every voice is busy. */
    int busy = sound_begin(room.server.port, HELLO), waiting = sound_begin(room.server.port, HELLO);
    double before = clock_seconds();
    assert_int_equal(http_get(room.server.port, "/voicevox/speakers", NULL), 200);
    assert_true(clock_seconds() - before < 0.5);
    struct sound sound;
    sound_read(fd, &sound);
    assert_int_equal(sound.status, 200);
    assert_true(clock_seconds() - start >= 1.2);
    free(sound.all);
    close(busy);
    close(waiting);
    print_message("while it spoke, /health took %.1f ms at most\n", 1000 * worst);
    assert_true(worst < 0.1);
    room.engine->delay_ms = 10000;
    start = clock_seconds();
    sound_expect_error(room.server.port, HELLO, 504, "no answer in 2 s");
    assert_true(clock_seconds() - start < 4);
}

/* Who hangs up ends the engine's work at once, and what waits behind is taken. */
static void test_hanging_up(void **state)
{
    room.engine->delay_ms = 1500;
    int first = sound_begin(room.server.port, HELLO), second = sound_begin(room.server.port, HELLO),
        third = sound_begin(room.server.port, HELLO);
    while (voicevox_count(room.engine, VOICEVOX_SYNTHESIS) < 2)
        pause_ms(5);
    double start = clock_seconds();
    close(first);
    close(second);
    close(third);
    assert_true(voice_room_synthesis(0)->left);
    assert_true(voice_room_synthesis(1)->left);
    double left = clock_seconds() - start;
    room.engine->delay_ms = 0;
    sound_expect(room.server.port, "{\"input\":\"つぎの人です、はい。\",\"voice\":1}", 10);
    double next = clock_seconds() - start;
    print_message("the engine was left after %.0f ms, the next was heard after %.0f ms\n",
                  1000 * left, 1000 * next);
    assert_true(next < 1.0);
    /* The third never began. */
    assert_int_equal(voicevox_count(room.engine, VOICEVOX_QUERY), 3);
}

static void test_queue_is_bounded(void **state)
{
    enum { MANY = 60 };
    int fds[MANY], spoken = 0, refused = 0;
    room.engine->delay_ms = 150;
    for (int i = 0; i < MANY; i++)
        fds[i] = sound_begin(room.server.port, HELLO);
    for (int i = 0; i < MANY; i++) {
        struct sound sound;
        sound_read(fds[i], &sound);
        spoken += sound.status == 200;
        if (sound.status == 429) {
            refused++;
            assert_non_null(strstr(sound.all, "retry-after:"));
        }
        free(sound.all);
    }
    assert_int_equal(spoken + refused, MANY);
    assert_true(spoken >= 32 && refused >= 1);
    room.engine->delay_ms = 0;
    sound_expect(room.server.port, HELLO, 9);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, voice_room_begin, voice_room_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_faults),     TEST(test_absent),           TEST(test_slow),
        TEST(test_hanging_up), TEST(test_queue_is_bounded),
    };
    return cmocka_run_group_tests(tests, voice_room_start, voice_room_stop);
}
