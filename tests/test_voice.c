/*
 * test_voice.c - the voice engine behind the server: what is asked of it and what comes of it,
 * beside answers and at the server's end. The engine is a stand-in (support/voicevox.h) that
 * refuses whatever the real one would refuse. test_voice_faults.c lets it fail.
 */
#include "base/clock.h"
#include "support/api_client.h"
#include "support/sound_client.h"
#include "support/voice_room.h"
#include "support/ws_client.h"

#include <pthread.h>
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

#define MODEL "models/rinne-base"
#define HELLO "{\"input\":\"こんにちは、元気？\",\"voice\":2}"

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* ---- POST /v1/audio/speech ------------------------------------------------------------------ */

static void test_speech(void **state)
{
    sound_expect(room.server.port,
                 "{\"model\":\"tts-1\",\"input\":\"こんにちは、元気？\",\"voice\":\"alloy\"}", 9);
    /* The engine's first style, asked for once. */
    assert_int_equal(voicevox_count(room.engine, VOICEVOX_SPEAKERS), 1);
    assert_string_equal(voice_room_query(0)->text, "こんにちは、元気？");
    assert_int_equal(voice_room_query(0)->speaker, VOICEVOX_FIRST);
    assert_int_equal(voice_room_synthesis(0)->status, 200);
    assert_int_equal(voice_room_synthesis(0)->speaker, VOICEVOX_FIRST);
    sound_expect(room.server.port, "{\"input\":\"もう一度いうね。\",\"response_format\":\"wav\"}",
                 8);
    assert_int_equal(voicevox_count(room.engine, VOICEVOX_SPEAKERS), 1);
}

static void test_voices(void **state)
{
    static const struct {
        const char *voice;
        int speaker;
    } voices[] = {{"2", 2},
                  {"\"2\"", 2},
                  {"1", 1},
                  {"\"四国めたん\"", 2},
                  {"\"ずんだもん\"", 3},
                  {"\"ずんだもん/あまあま\"", 1},
                  {"null", 3}};
    char body[200];
    for (int i = 0; i < (int)(sizeof voices / sizeof voices[0]); i++) {
        snprintf(body, sizeof body, "{\"input\":\"だれの声かな？\",\"voice\":%s}", voices[i].voice);
        sound_expect(room.server.port, body, 7);
        assert_int_equal(voice_room_synthesis(i)->speaker, voices[i].speaker);
        assert_int_equal(voice_room_query(i)->speaker, voices[i].speaker);
    }
    sound_expect_error(room.server.port, "{\"input\":\"だれ？\",\"voice\":\"ずんだもん/ない\"}",
                       400, "/voicevox/speakers");
    sound_expect_error(room.server.port, "{\"input\":\"だれ？\",\"voice\":\"ずん\"}", 400, "voice");
    sound_expect_error(room.server.port, "{\"input\":\"だれ？\",\"voice\":99}", 404, "refused");
}

static void test_speed(void **state)
{
    struct sound sound;
    sound_speak(room.server.port, "{\"input\":\"はやくちことば。\",\"speed\":2}", &sound);
    assert_int_equal(sound.status, 200);
    assert_float_equal(sound.seconds, VOICEVOX_CHAR * 8 / 2, 0.001);
    free(sound.all);
    assert_int_equal(voice_room_synthesis(0)->status, 200);
    assert_float_equal(voice_room_synthesis(0)->speed, 2, 1e-6);
    sound_expect(room.server.port, "{\"input\":\"ふつうのことば。\",\"speed\":1.0}", 8);
    assert_float_equal(voice_room_synthesis(1)->speed, 1, 0);
}

/* A long text goes sentence by sentence; the sound is whole. */
static void test_sentences(void **state)
{
    room.engine->delay_ms = 20; /* long enough for another to overtake */
    sound_expect(room.server.port,
                 "{\"input\":\"[happy]まず最初の文です。つぎは https://example.com/x の文です！"
                 "\\n```\\ncode();\\n```\\n最後の文です🎉\"}",
                 9 + 13 + 6);
    assert_string_equal(voice_room_query(0)->text, "まず最初の文です。");
    assert_string_equal(voice_room_query(1)->text, "つぎは リンク の文です！");
    assert_string_equal(voice_room_query(2)->text, "最後の文です");
    /* In order, one after the other. */
    assert_true(voice_room_synthesis(0)->made <= voice_room_query(1)->begin);
    assert_true(voice_room_synthesis(1)->made <= voice_room_query(2)->begin);
}

static void test_bad_requests(void **state)
{
    static const struct {
        const char *body, *says;
    } bad[] = {
        {"{}", "input"},
        {"{\"input\":\"\"}", "input"},
        {"{\"input\":5}", "input"},
        {"{\"input\":null}", "input"},
        {"{\"input\":\"🎉🎉\"}", "can be said"},
        {"{\"input\":\"あ\",\"response_format\":\"mp3\"}", "wav"},
        {"{\"input\":\"あ\",\"response_format\":\"opus\"}", "wav"},
        {"{\"input\":\"あ\",\"response_format\":1}", "wav"},
        {"{\"input\":\"あ\",\"stream_format\":\"sse\"}", "stream_format"},
        {"{\"input\":\"あ\",\"speed\":0}", "speed"},
        {"{\"input\":\"あ\",\"speed\":5}", "speed"},
        {"{\"input\":\"あ\",\"speed\":\"1\"}", "speed"},
        {"{\"input\":\"あ\",\"voice\":{}}", "voice"},
        {"{\"input\":\"あ\",\"voice\":-1}", "voice"},
        {"{\"input\":\"あ\",\"voice\":\"\"}", "voice"},
        {"[]", "object"},
        {"nonsense", "the request"},
        {"{\"input\":\"\xff\"}", "the request"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        sound_expect_error(room.server.port, bad[i].body, 400, bad[i].says);
    char *body = malloc(4097 * 3 + 20);
    strcpy(body, "{\"input\":\"");
    for (int i = 0; i < 4097; i++)
        memcpy(body + 10 + 3 * i, "あ", 3);
    strcpy(body + 10 + 3 * 4097, "\"}");
    sound_expect_error(room.server.port, body, 400, "4096");
    free(body);
    assert_int_equal(room.engine->n_calls, 0);
}

/* ---- /voicevox/... -------------------------------------------------------------------------- */

static void test_passes_calls_on(void **state)
{
    struct sound got;
    struct api_answer answer;
    api_call(room.server.port, "GET", "/voicevox/speakers", NULL, NULL, &answer);
    assert_int_equal(answer.status, 200);
    assert_string_equal(ws_text(json_array_get(answer.json, 0), "name"), "ずんだもん");
    assert_int_equal(json_array_size(answer.json), 2);
    api_release(&answer);
    api_call(room.server.port, "GET", "/voicevox/version", NULL, NULL, &answer);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.body, "\"0.21.1\"");
    api_release(&answer);

    /* However clients announce that there is no body; with the page's own origin. */
    static const char *const headers[] = {
        "", "Content-Length: 0\r\n", "Content-Length: 0\r\nContent-Type: text/plain\r\n",
        "Content-Length: 2\r\nContent-Type: application/json\r\n"};
    char *made = NULL;
    for (int i = 0; i < 4; i++) {
        char all[300];
        snprintf(all, sizeof all, "%sOrigin: http://127.0.0.1:%d\r\n", headers[i],
                 room.server.port);
        /* %E3%81%82: あ; + and %2B, & and %26 differ. */
        sound_read(sound_send(room.server.port, "POST",
                              "/voicevox/audio_query?speaker=2&text="
                              "%E3%81%82%261%2B1%3D2%3F%23%25%20end&key=secret",
                              all, i == 3 ? "{}" : ""),
                   &got);
        if (got.status != 200)
            fail_msg("%s%s", headers[i], got.all);
        assert_non_null(strstr(got.all, "content-type: application/json\r\n"));
        assert_string_equal(voice_room_query(i)->text, "あ&1+1=2?#% end");
        assert_int_equal(voice_room_query(i)->speaker, 2);
        free(made);
        made = strdup((char *)got.bytes);
        free(got.all);
    }
    char length[100];
    snprintf(length, sizeof length, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
             strlen(made));
    sound_read(sound_send(room.server.port, "POST", "/voicevox/synthesis?speaker=2", length, made),
               &got);
    assert_int_equal(got.status, 200);
    assert_float_equal(got.seconds, VOICEVOX_CHAR * 14, 0.001);
    assert_string_equal(voice_room_synthesis(0)->text, "あ&1+1=2?#% end");
    free(got.all);
    free(made);
}

static void test_passes_refusals_on(void **state)
{
    struct sound got;
    char *answer;
    sound_read(sound_send(room.server.port, "POST", "/voicevox/audio_query?text=a", "", ""), &got);
    if (got.status != 422)
        fail_msg("%s", got.all);
    assert_non_null(strstr((char *)got.bytes, "field required"));
    free(got.all);
    sound_read(
        sound_send(room.server.port, "POST", "/voicevox/audio_query?text=a&speaker=77", "", ""),
        &got);
    assert_int_equal(got.status, 404);
    free(got.all);
    static const char other[] = "Content-Type: application/json\r\nContent-Length: 18\r\n";
    sound_read(sound_send(room.server.port, "POST", "/voicevox/synthesis?speaker=2", other,
                          "{\"speedScale\":1.5}"),
               &got);
    assert_int_equal(got.status, 422);
    free(got.all);
    int calls = room.engine->n_calls;
    /* Not passed on at all. */
    static const char bad[] = "Content-Type: application/json\r\nContent-Length: 3\r\n";
    sound_read(sound_send(room.server.port, "POST", "/voicevox/synthesis?speaker=2", bad, "{{{"),
               &got);
    assert_int_equal(got.status, 400);
    free(got.all);
    sound_read(
        sound_send(room.server.port, "POST", "/voicevox/audio_query?text=%ff%fe&speaker=1", "", ""),
        &got);
    assert_int_equal(got.status, 400);
    free(got.all);
    sound_read(sound_send(room.server.port, "POST", "/voicevox/audio_query?text=a&speaker=1",
                          "Origin: http://evil.example\r\n", ""),
               &got);
    assert_int_equal(got.status, 403);
    free(got.all);
    assert_int_equal(http_get(room.server.port, "/voicevox/../version", NULL), 404);
    assert_int_equal(http_get(room.server.port, "/voicevox/engine_manifest", NULL), 404);
    assert_int_equal(http_get(room.server.port, "/voicevox/audio_query?text=a&speaker=1", &answer),
                     405);
    free(answer);
    assert_int_equal(room.engine->n_calls, calls);
}

/* ---- beside an answer ----------------------------------------------------------------------- */

struct speaking {
    char body[2048];
    struct sound sound;
};

static void *speak_main(void *arg)
{
    struct speaking *s = arg;
    sound_speak(room.server.port, s->body, &s->sound);
    return NULL;
}

/* One answer, its first sentence spoken as soon as it comes. When its second sentence and its end
 * came, in seconds of the clock; false if it had only one. */
static bool speak_an_answer(struct ws_client *ws, double *second, double *done)
{
    struct speaking first = {.sound = {.status = 0}};
    pthread_t thread;
    int n = 0;
    *second = *done = 0;
    ws_say(ws, "{\"type\":\"message\",\"content\":\"自己紹介して\"}");
    while (!*done) {
        int code;
        json_t *message = ws_next(ws, &code);
        assert_non_null(message);
        const char *type = ws_text(message, "type");
        if (!strcmp(type, "sentence") && ws_text(message, "speech")[0] && n++ == 0) {
            char *text = json_dumps(json_object_get(message, "speech"), JSON_ENCODE_ANY);
            snprintf(first.body, sizeof first.body, "{\"input\":%s,\"voice\":2}", text);
            free(text);
            assert_int_equal(pthread_create(&thread, NULL, speak_main, &first), 0);
        } else if (!strcmp(type, "sentence") && n == 2 && !*second) {
            *second = clock_seconds();
        } else if (!strcmp(type, "done")) {
            *done = clock_seconds();
        }
        json_decref(message);
    }
    assert_true(n >= 1);
    pthread_join(thread, NULL);
    assert_int_equal(first.sound.status, 200);
    free(first.sound.all);
    return *second > 0;
}

/* The first sentence is synthesised while the second is decoded. On a crowded machine it may come
 * too late in one answer, hardly in all of them. */
static void test_overlaps_decoding(void **state)
{
    struct test_server server;
    const char *const options[] = {"-m",     MODEL, "-v", MODEL "/gyaru.safetensors", "-s", "0",
                                   "--temp", "0",   NULL};
    setenv("VOICEVOX_URL", room.engine->base, 1);
    test_server_start(&server, true, options);
    unsetenv("VOICEVOX_URL");
    struct ws_client *ws = ws_connect(server.port, NULL);
    bool overlapped = false;
    ws_say(ws, "{\"type\":\"voice\",\"on\":true}");
    json_decref(ws_wait(ws, "voice_updated"));
    for (int i = 0; i < 30 && !overlapped; i++) {
        double second, done;
        voicevox_reset(room.engine);
        bool two = speak_an_answer(ws, &second, &done);
        overlapped = two && voice_room_synthesis(0)->end < second;
        if (overlapped)
            print_message("the first sentence was synthesised %.0f ms before the second was "
                          "decoded, and %.0f ms before the answer's end\n",
                          1000 * (second - voice_room_synthesis(0)->end),
                          1000 * (done - voice_room_synthesis(0)->end));
    }
    assert_true(overlapped);
    ws_disconnect(ws);
    test_server_stop(&server);
}

/* The sentences together are the answer, in order, tokens first. */
static void test_sentences_of_an_answer(void **state)
{
    struct ws_client *ws = ws_connect(room.server.port, NULL);
    char *shown = calloc(1, 1 << 16), *seen = calloc(1, 1 << 16);
    int n = 0;
    ws_say(ws, "{\"type\":\"voice\",\"on\":true}");
    for (int turn = 0; turn < 2; turn++) {
        ws_say(ws, "{\"type\":\"message\",\"content\":\"hello\"}");
        n = 0;
        for (bool done = false; !done;) {
            int code;
            json_t *message = ws_next(ws, &code);
            assert_non_null(message);
            const char *type = ws_text(message, "type");
            if (!strcmp(type, "token"))
                strcat(seen, ws_text(message, "content"));
            if (!strcmp(type, "sentence")) {
                /* Each answer counts from 0. */
                assert_int_equal((int)ws_number(message, "index"), n++);
                strcat(shown, ws_text(message, "text"));
            }
            done = !strcmp(type, "done");
            json_decref(message);
        }
        assert_true(n >= 1);
    }
    assert_true(strlen(shown) > strlen(seen) / 2);
    free(shown);
    free(seen);
    ws_disconnect(ws);
}

/* ---- the server's life ---------------------------------------------------------------------- */

static void test_stop_while_speaking(void **state)
{
    struct test_server server;
    const char *const options[] = {"--voicevox-url", room.engine->base, "--drain", "1", NULL};
    struct sound sound;
    test_server_start(&server, true, options);
    room.engine->delay_ms = 8000;
    int fd = sound_begin(server.port, HELLO);
    while (!voicevox_count(room.engine, VOICEVOX_SYNTHESIS))
        pause_ms(5);
    double start = clock_seconds();
    kill(server.pid, SIGTERM);
    assert_int_equal(test_server_wait(&server, 10), 0);
    assert_true(clock_seconds() - start < 4);
    sound_read(fd, &sound);
    assert_int_equal(sound.status, 503);
    free(sound.all);
    assert_true(voice_room_synthesis(0)->left);
}

static void test_no_voice(void **state)
{
    struct test_server server;
    const char *const options[] = {"--voicevox-url", "none", NULL};
    struct api_answer answer;
    test_server_start(&server, true, options);
    api_call(server.port, "GET", "/voicevox/speakers", NULL, NULL, &answer);
    assert_int_equal(answer.status, 404);
    assert_non_null(strstr(answer.body, "--voicevox-url none"));
    api_release(&answer);
    assert_int_equal(http_get(server.port, "/metrics", NULL), 200);
    test_server_stop(&server);

    /* The environment names the engine; the command line goes before it. */
    setenv("VOICEVOX_URL", room.engine->base, 1);
    test_server_start(&server, true, NULL);
    unsetenv("VOICEVOX_URL");
    assert_int_equal(http_get(server.port, "/voicevox/speakers", NULL), 200);
    test_server_stop(&server);
}

static void test_bad_addresses(void **state)
{
    static const char *const bad[] = {"ftp://127.0.0.1",
                                      "file:///etc/passwd",
                                      "127.0.0.1:50021",
                                      "http://user:pass@127.0.0.1",
                                      "http://127.0.0.1/?a=b",
                                      "http://127.0.0.1/#c",
                                      "http://127.0.0.1:99999",
                                      "",
                                      "http://"};
    char command[600];
    const char *build = getenv("BUILD");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(command, sizeof command,
                 "%s/gyaru serve -m %s --port 0 --voicevox-url '%s' 2>/dev/null",
                 build && *build ? build : "build", test_model_dir(), bad[i]);
        int status = system(command);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 2)
            fail_msg("'%s' is taken for an address", bad[i]);
    }
}

static void test_key(void **state)
{
    struct test_server server;
    const char *const options[] = {"--voicevox-url", room.engine->base, NULL};
    setenv("GYARU_API_KEY", "a-key-of-the-test", 1);
    test_server_start(&server, true, options);
    unsetenv("GYARU_API_KEY");
    assert_int_equal(http_get(server.port, "/voicevox/speakers", NULL), 401);
    assert_int_equal(http_get(server.port, "/voicevox/version", NULL), 401);
    api_expect(server.port, SOUND_SPEECH, HELLO, 401);
    api_expect(server.port, "/voicevox/audio_query?text=a&speaker=1", "{}", 401);
    api_expect(server.port, "/voicevox/synthesis?speaker=1", "{}", 401);
    assert_int_equal(room.engine->n_calls, 0);
    test_server_stop(&server);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, voice_room_begin, voice_room_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_speech),
        TEST(test_voices),
        TEST(test_speed),
        TEST(test_sentences),
        TEST(test_bad_requests),
        TEST(test_passes_calls_on),
        TEST(test_passes_refusals_on),
        TEST(test_overlaps_decoding),
        TEST(test_sentences_of_an_answer),
        TEST(test_stop_while_speaking),
        TEST(test_no_voice),
        TEST(test_bad_addresses),
        TEST(test_key),
    };
    return cmocka_run_group_tests(tests, voice_room_start, voice_room_stop);
}
