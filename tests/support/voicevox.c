/* voicevox.c - see voicevox.h. */
#include "voicevox.h"

#include "base/clock.h"
#include "base/str.h"
#include "support/stand_in.h"

#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include <cmocka.h>

#define RATE       24000
#define LONG_BYTES ((size_t)64 << 20)

static const char speakers[] =
    "[{\"name\":\"ずんだもん\",\"speaker_uuid\":\"388f246b-8c41-4ac1-8e2d-5d79f3ff56d9\","
    "\"styles\":[{\"name\":\"ノーマル\",\"id\":3,\"type\":\"talk\"},"
    "{\"name\":\"あまあま\",\"id\":1,\"type\":\"talk\"}],\"version\":\"0.15.3\","
    "\"supported_features\":{\"permitted_synthesis_morphing\":\"SELF_ONLY\"}},"
    "{\"name\":\"四国めたん\",\"speaker_uuid\":\"7ffcb7ce-00ec-4bdc-82cd-45a8889e43ff\","
    "\"styles\":[{\"name\":\"ノーマル\",\"id\":2,\"type\":\"talk\"}],\"version\":\"0.15.3\","
    "\"supported_features\":{\"permitted_synthesis_morphing\":\"SELF_ONLY\"}}]";

/* ---- answers -------------------------------------------------------------------------------- */

static int answer(int fd, int status, const char *type, const void *body, size_t len)
{
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %zu\r\n"
                     "connection: close\r\n\r\n",
                     status, type, len);
    stand_in_send(fd, head, (size_t)n);
    stand_in_send(fd, body, len);
    return status;
}

static int answer_text(int fd, int status, const char *json)
{
    return answer(fd, status, "application/json", json, strlen(json));
}

/* As FastAPI says it. */
static int missing(int fd, const char *where, const char *name)
{
    char text[200];
    snprintf(text, sizeof text,
             "{\"detail\":[{\"loc\":[\"%s\",\"%s\"],\"msg\":\"field required\","
             "\"type\":\"value_error.missing\"}]}",
             where, name);
    return answer_text(fd, 422, text);
}

/* What the engine makes of a text (caller frees). */
static char *make_query(const char *text, int speaker)
{
    json_t *kana = json_string(text);
    char *quoted = kana ? json_dumps(kana, JSON_ENCODE_ANY) : NULL;
    struct str query = STR_INIT;
    json_decref(kana);
    str_printf(&query,
               "{\"accent_phrases\":[{\"moras\":[{\"text\":\"ア\",\"consonant\":null,"
               "\"consonant_length\":null,\"vowel\":\"a\",\"vowel_length\":0.12%d,"
               "\"pitch\":5.5391688}],\"accent\":1,\"pause_mora\":null,"
               "\"is_interrogative\":false}],\"speedScale\":1.0,\"pitchScale\":0.0,"
               "\"intonationScale\":1.0,\"volumeScale\":1.0,\"prePhonemeLength\":0.1,"
               "\"postPhonemeLength\":0.1,\"pauseLength\":null,\"pauseLengthScale\":1.0,"
               "\"outputSamplingRate\":24000,\"outputStereo\":false,\"kana\":%s}",
               speaker, quoted ? quoted : "null");
    free(quoted);
    return str_take(&query);
}

static void put(unsigned char *p, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(value >> (8 * i));
}

/* A tone of this many seconds. */
static int answer_tone(int fd, double seconds, bool cut)
{
    size_t n = (size_t)(seconds * RATE), len = 44 + 2 * n;
    unsigned char *wav = calloc(1, len);
    memcpy(wav, "RIFF....WAVEfmt ", 16);
    put(wav + 4, (uint32_t)(len - 8), 4);
    put(wav + 16, 16, 4);
    put(wav + 20, 1, 2);
    put(wav + 22, 1, 2);
    put(wav + 24, RATE, 4);
    put(wav + 28, 2 * RATE, 4);
    put(wav + 32, 2, 2);
    put(wav + 34, 16, 2);
    memcpy(wav + 36, "data", 4);
    put(wav + 40, (uint32_t)(2 * n), 4);
    for (size_t i = 0; i < n; i++)
        put(wav + 44 + 2 * i, (uint32_t)(int16_t)(8000 * sin((double)i * 0.115)), 2);
    if (cut) {
        char head[128];
        int h = snprintf(
            head, sizeof head,
            "HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: %zu\r\n\r\n", len);
        stand_in_send(fd, head, (size_t)h);
        stand_in_send(fd, wav, len / 2);
    } else {
        answer(fd, 200, "audio/wav", wav, len);
    }
    free(wav);
    return 200;
}

/* Begins as it should and does not end. */
static int answer_long(int fd, const char *type, const char *begin, size_t len)
{
    char head[200], *block = calloc(1, 65536);
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n\r\n", type);
    stand_in_send(fd, head, (size_t)n);
    stand_in_send(fd, begin, len);
    memset(block, ' ', 65536);
    for (size_t sent = 0; sent < LONG_BYTES; sent += 65536)
        stand_in_send(fd, block, 65536);
    free(block);
    return 200;
}

/* ---- requests ------------------------------------------------------------------------------- */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 87 : -1;
}

/* The decoded argument; false if it is missing. */
static bool argument(const char *query, const char *name, char *out, size_t size)
{
    size_t len = strlen(name), n = 0;
    while (query && (strncmp(query, name, len) || query[len] != '='))
        query = strchr(query, '&') ? strchr(query, '&') + 1 : NULL;
    if (!query)
        return false;
    for (query += len + 1; *query && *query != '&' && *query != ' ' && n + 1 < size; query++) {
        if (*query == '%' && hex(query[1]) >= 0 && hex(query[2]) >= 0) {
            out[n++] = (char)(hex(query[1]) << 4 | hex(query[2]));
            query += 2;
        } else {
            out[n++] = *query == '+' ? ' ' : *query;
        }
    }
    out[n] = '\0';
    return true;
}

static bool is_speaker(int speaker)
{
    return speaker >= 1 && speaker <= 3;
}

/* Waits; true if the caller went away meanwhile. */
static bool wait_or_leave(int fd, int ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return ms > 0 && poll(&poll_fd, 1, ms) > 0;
}

static int on_query(struct voicevox_stand_in *v, struct voicevox_call *call, int fd,
                    const char *query)
{
    char number[32];
    if (!argument(query, "text", call->text, sizeof call->text))
        return missing(fd, "query", "text");
    if (!argument(query, "speaker", number, sizeof number))
        return missing(fd, "query", "speaker");
    call->speaker = atoi(number);
    if (!is_speaker(call->speaker))
        return answer_text(fd, 404, "{\"detail\":\"該当する話者が見つかりません\"}");
    if (v->fault == VOICEVOX_BAD_QUERY)
        return answer(fd, 200, "text/html", "<html>hello</html>", 18);
    if (v->fault == VOICEVOX_LONG_QUERY)
        return answer_long(fd, "application/json", "{\"a\":1}", 7);
    char *text = make_query(call->text, call->speaker);
    int status = answer_text(fd, 200, text);
    free(text);
    return status;
}

/* Is it a query of ours, with another speed at most? */
static bool is_own_query(struct voicevox_call *call, const char *body)
{
    json_t *json = json_loads(body, JSON_REJECT_DUPLICATES, NULL);
    const char *kana = json_string_value(json_object_get(json, "kana"));
    char *made = kana ? make_query(kana, call->speaker) : NULL;
    snprintf(call->text, sizeof call->text, "%s", kana ? kana : "");
    call->speed = json_number_value(json_object_get(json, "speedScale"));
    bool own = made && !strcmp(made, body);
    if (made && !own && call->speed != 1) {
        json_t *want = json_loads(made, 0, NULL);
        json_object_set(want, "speedScale", json_object_get(json, "speedScale"));
        own = json_equal(want, json);
        json_decref(want);
    }
    free(made);
    json_decref(json);
    return own;
}

static int on_synthesis(struct voicevox_stand_in *v, struct voicevox_call *call, int fd,
                        const char *query, const char *body)
{
    char number[32];
    if (!argument(query, "speaker", number, sizeof number))
        return missing(fd, "query", "speaker");
    call->speaker = atoi(number);
    if (!is_speaker(call->speaker))
        return answer_text(fd, 404, "{\"detail\":\"該当する話者が見つかりません\"}");
    if (!is_own_query(call, body))
        return missing(fd, "body", "accent_phrases");
    call->left = wait_or_leave(fd, v->delay_ms);
    if (call->left)
        return 0;
    if (v->fault == VOICEVOX_BAD_SOUND)
        return answer(fd, 200, "audio/wav", "RIFF but nothing else", 21);
    if (v->fault == VOICEVOX_LONG_SOUND)
        return answer_long(fd, "audio/wav", "RIFF", 4);
    size_t n = 0;
    for (const char *p = call->text; *p; p++)
        n += ((unsigned char)*p & 0xc0) != 0x80;
    call->made = clock_seconds();
    return answer_tone(fd, VOICEVOX_CHAR * (double)n / call->speed, v->fault == VOICEVOX_CUT_SOUND);
}

static bool is_call(const char *request, const char *method, const char *path)
{
    size_t m = strlen(method), p = strlen(path);
    return !strncmp(request, method, m) && request[m] == ' ' &&
           !strncmp(request + m + 1, path, p) && strchr(" ?", request[m + 1 + p]);
}

static int dispatch(struct voicevox_stand_in *v, struct voicevox_call *call, int fd, char *request,
                    const char *body)
{
    static const struct {
        const char *path, *method;
    } calls[] = {[VOICEVOX_VERSION] = {"/version", "GET"},
                 [VOICEVOX_SPEAKERS] = {"/speakers", "GET"},
                 [VOICEVOX_QUERY] = {"/audio_query", "POST"},
                 [VOICEVOX_SYNTHESIS] = {"/synthesis", "POST"}};
    const char *path = strchr(request, ' ');
    size_t i = 0;
    while (i < 4 && (!path || strncmp(path + 1, calls[i].path, strlen(calls[i].path))))
        i++;
    if (i == 4)
        return answer_text(fd, 404, "{\"detail\":\"Not Found\"}");
    call->kind = (enum voicevox_kind)i;
    call->begin = clock_seconds();
    if (!is_call(request, calls[i].method, calls[i].path))
        return answer_text(fd, 405, "{\"detail\":\"Method Not Allowed\"}");
    if (strcasestr(request, "\r\nOrigin:"))
        return answer_text(fd, 403, "{\"detail\":\"Origin not allowed\"}");
    if (v->fault == VOICEVOX_500)
        return answer(fd, 500, "text/plain", "Internal Server Error", 21);
    if (v->fault == VOICEVOX_CLOSED)
        return 0;
    if (v->fault == VOICEVOX_REDIRECT) {
        char head[300];
        int n = snprintf(head, sizeof head,
                         "HTTP/1.1 307 X\r\nlocation: %s\r\ncontent-length: 0\r\n"
                         "connection: close\r\n\r\n",
                         v->elsewhere);
        stand_in_send(fd, head, (size_t)n);
        return 307;
    }
    char *arguments = strchr(path + 1, '?');
    char *end = strstr(path, " HTTP/1");
    if (end)
        *end = '\0';
    const char *query = arguments && arguments < end ? arguments + 1 : NULL;
    if (i == VOICEVOX_VERSION)
        return answer_text(fd, 200, "\"0.21.1\"");
    if (i == VOICEVOX_SPEAKERS)
        return answer_text(fd, 200, v->fault == VOICEVOX_NO_SPEAKERS ? "[]" : speakers);
    if (i == VOICEVOX_QUERY)
        return on_query(v, call, fd, query);
    return on_synthesis(v, call, fd, query, body);
}

/* ---- the process ---------------------------------------------------------------------------- */

static void serve_one(struct voicevox_stand_in *v, int n, int fd)
{
    struct voicevox_call *call = &v->calls[n];
    char *buffer = malloc(STAND_IN_REQUEST + 1);
    char *body = buffer ? stand_in_read(fd, buffer) : NULL;
    if (body) {
        char *request = strdup(buffer);
        call->status = dispatch(v, call, fd, request, body);
        free(request);
    }
    call->end = clock_seconds();
    free(buffer);
}

static void serve(void *state, int listener)
{
    struct voicevox_stand_in *v = state;
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 || v->n_calls >= VOICEVOX_CALLS)
            _exit(1);
        int n = v->n_calls;
        memset(&v->calls[n], 0, sizeof v->calls[n]);
        v->n_calls = n + 1;
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            serve_one(v, n, fd);
            close(fd);
            _exit(0);
        }
        close(fd);
    }
}

void voicevox_come_back(struct voicevox_stand_in *v)
{
    v->pid = stand_in_start(&v->port, serve, v);
}

struct voicevox_stand_in *voicevox_start(int port)
{
    struct voicevox_stand_in *v = stand_in_share(sizeof *v);
    v->port = port;
    voicevox_come_back(v);
    snprintf(v->base, sizeof v->base, "http://127.0.0.1:%d", v->port);
    return v;
}

void voicevox_leave(struct voicevox_stand_in *v)
{
    stand_in_end(v->pid);
}

void voicevox_stop(struct voicevox_stand_in *v)
{
    voicevox_leave(v);
    munmap(v, sizeof *v);
}

void voicevox_reset(struct voicevox_stand_in *v)
{
    v->fault = VOICEVOX_GOOD;
    v->delay_ms = 0;
    v->n_calls = 0;
}

int voicevox_count(const struct voicevox_stand_in *v, enum voicevox_kind kind)
{
    int n = 0;
    for (int i = 0; i < v->n_calls; i++)
        n += v->calls[i].begin > 0 && v->calls[i].kind == kind;
    return n;
}

const struct voicevox_call *voicevox_nth(const struct voicevox_stand_in *v, enum voicevox_kind kind,
                                         int n)
{
    double deadline = clock_seconds() + 10;
    while (clock_seconds() < deadline) {
        int seen = 0;
        for (int i = 0; i < v->n_calls; i++) {
            const struct voicevox_call *call = &v->calls[i];
            if (call->begin > 0 && call->kind == kind && seen++ == n && call->end > 0)
                return call;
        }
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
    fail_msg("a call of the engine did not come, or did not end");
    return NULL;
}
