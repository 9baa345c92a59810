/*
 * voice_api.c - POST /v1/audio/speech, and /voicevox/... which passes on what a page may not ask
 * the engine itself: it refuses foreign origins.
 */
#include "server/voice_api.h"

#include "base/json.h"
#include "server/api.h"
#include "talk/sentence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX    4096 /* characters, as OpenAI's */
#define ARGUMENT_MAX 8192 /* bytes */
#define SPEED_MIN    0.25
#define SPEED_MAX    4.0

/* A connection that waits for its job. */
struct voice_wait {
    struct server *server;
    struct conn *conn;
    struct lws *wsi;
    struct voice_wait *next;
    struct voice_job *job;
};

/* ---- waiting -------------------------------------------------------------------------------- */

static int no_engine(struct conn *conn, struct lws *wsi)
{
    return http_error(conn, wsi, 404, "not_found_error",
                      "this server has no voice: it was started with --voicevox-url none");
}

/* Takes over the request. */
static int begin(struct server *server, struct conn *conn, struct lws *wsi,
                 struct voice_request *request)
{
    struct voice_wait *wait = calloc(1, sizeof *wait);
    struct voice_job *job = wait ? voice_submit(server->voice, request) : NULL;
    if (!job) {
        voice_request_release(request);
        free(wait);
        return http_error(conn, wsi, 429, "rate_limit_error",
                          "too much waits to be spoken; try again in a moment");
    }
    http_forget_body(server, conn);
    *wait = (struct voice_wait){server, conn, wsi, server->voice_waits, job};
    server->voice_waits = wait;
    conn->voice = wait;
    /* The engine has time-outs of its own. */
    lws_set_timeout(wsi, NO_PENDING_TIMEOUT, 0);
    return 0;
}

void voice_close(struct conn *conn)
{
    struct voice_wait *wait = conn->voice;
    struct voice_wait **link = &wait->server->voice_waits;
    while (*link != wait)
        link = &(*link)->next;
    *link = wait->next;
    conn->voice = NULL;
    voice_job_cancel(wait->job);
    voice_job_unref(wait->job);
    free(wait);
}

static const char *type_of(unsigned status)
{
    return status < 500                     ? "invalid_request_error"
           : status == 503 || status == 504 ? "unavailable_error"
                                            : "server_error";
}

int voice_writeable(struct conn *conn)
{
    struct voice_wait *wait = conn->voice;
    struct lws *wsi = wait->wsi;
    struct voice_job *job = wait->job;
    if (!voice_job_done(job))
        return 0;
    struct str body = job->body;
    struct gyaru_error error = job->error;
    unsigned status = job->status ? job->status : 503;
    bool sound = status == 200 && (job->request.text || job->request.sound);
    if (!job->status)
        error_set(&error, GYARU_FAILED, "Shutting down");
    job->body = (struct str)STR_INIT;
    lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, wait->server->options.send_seconds);
    voice_close(conn);
    if (!body.len) {
        str_release(&body);
        return http_error(conn, wsi, status, type_of(status), error.text);
    }
    return http_answer(conn, wsi,
                       (struct http_answer){.status = status,
                                            .type = sound ? "audio/wav" : "application/json",
                                            .body = (const unsigned char *)body.data,
                                            .len = body.len,
                                            .owned = body.data});
}

void voice_notify_all(struct server *server)
{
    for (struct voice_wait *wait = server->voice_waits; wait; wait = wait->next) {
        if (voice_job_done(wait->job))
            lws_callback_on_writable(wait->wsi);
    }
}

size_t voice_go_away(struct server *server, bool now)
{
    size_t n = 0;
    for (struct voice_wait *wait = server->voice_waits; wait; wait = wait->next, n++) {
        if (now)
            voice_job_cancel(wait->job);
    }
    return n;
}

/* ---- POST /v1/audio/speech ------------------------------------------------------------------ */

static int refuse(struct gyaru_error *err, const char *field, const char *expected)
{
    return error_set(err, GYARU_USAGE, "%s: expected %s", field, expected);
}

/* OpenAI's own voices mean: whoever speaks here. */
static bool is_openai_voice(const char *name)
{
    static const char *const names[] = {"default", "alloy", "ash",     "ballad", "cedar",
                                        "coral",   "echo",  "fable",   "marin",  "nova",
                                        "onyx",    "sage",  "shimmer", "verse"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(name, names[i]))
            return true;
    }
    return false;
}

static int read_voice(const json_t *voice, struct voice_request *request, struct gyaru_error *err)
{
    char number[24];
    if (!voice || json_is_null(voice))
        return 0;
    const char *name = json_string_value(voice);
    if (json_is_integer(voice) && json_integer_value(voice) >= 0) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(voice));
        name = number;
    }
    if (!name || !*name || strlen(name) > 200)
        return refuse(err, "voice", "the number of a style, or the name of a speaker");
    if (is_openai_voice(name))
        return 0;
    request->voice = strdup(name);
    return request->voice ? 0 : error_memory(err, strlen(name), "the request");
}

/* What is spoken of the text, sentence by sentence. */
static int read_input(const json_t *input, struct voice_request *request, struct gyaru_error *err)
{
    struct sentences sentences;
    struct sentence sentence;
    struct str spoken = STR_INIT;
    size_t n = 0;
    const char *text = json_string_value(input);
    for (const char *p = text; p && *p; p++)
        n += ((unsigned char)*p & 0xc0) != 0x80;
    if (!n || n > INPUT_MAX)
        return refuse(err, "input", "a text of 1 to 4096 characters");
    sentences_init(&sentences);
    sentences_feed(&sentences, text, strlen(text));
    while (sentences_next(&sentences, true, &sentence)) {
        if (sentence.spoken.len) {
            str_append(&spoken, sentence.spoken.data, sentence.spoken.len);
            str_putc(&spoken, '\n');
        }
        sentence_release(&sentence);
    }
    sentences_release(&sentences);
    if (!spoken.len) {
        str_release(&spoken);
        return refuse(err, "input", "something that can be said");
    }
    request->text = str_take(&spoken);
    return request->text ? 0 : error_memory(err, n, "the request");
}

static int read_request(const json_t *body, struct voice_request *request, struct gyaru_error *err)
{
    const json_t *format = json_object_get(body, "response_format");
    const json_t *stream = json_object_get(body, "stream_format");
    const json_t *speed = json_object_get(body, "speed");
    *request = (struct voice_request){.speed = 1};
    if (!json_is_object(body))
        return error_set(err, GYARU_USAGE, "the request: expected an object");
    if (format && !json_is_null(format) &&
        (!json_is_string(format) || strcmp(json_string_value(format), "wav")))
        return refuse(err, "response_format", "wav, the only format there is");
    if (stream && !json_is_null(stream) &&
        (!json_is_string(stream) || strcmp(json_string_value(stream), "audio")))
        return refuse(err, "stream_format", "audio, the only one there is");
    if (speed && !json_is_null(speed)) {
        request->speed = json_is_number(speed) ? json_number_value(speed) : NAN;
        if (!(request->speed >= SPEED_MIN && request->speed <= SPEED_MAX))
            return refuse(err, "speed", "a number from 0.25 to 4");
    }
    return read_voice(json_object_get(body, "voice"), request, err) ||
                   read_input(json_object_get(body, "input"), request, err)
               ? -1
               : 0;
}

int api_speech(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct gyaru_error error;
    struct voice_request request;
    if (!voice_enabled(server->voice))
        return no_engine(conn, wsi);
    json_t *body = api_body(conn, &error);
    int rc = body ? read_request(body, &request, &error) : -1;
    json_decref(body);
    if (!rc)
        return begin(server, conn, wsi, &request);
    if (body)
        voice_request_release(&request);
    return api_refuse(conn, wsi, &error);
}

/* ---- /voicevox/... -------------------------------------------------------------------------- */

static const char *const arguments[] = {
    "text",         "speaker", "enable_katakana_english", "enable_interrogative_upspeak",
    "core_version", NULL};

static bool is_known(const char *argument, size_t name)
{
    for (size_t i = 0; arguments[i]; i++) {
        if (strlen(arguments[i]) == name && !memcmp(arguments[i], argument, name))
            return true;
    }
    return false;
}

static bool is_text(const char *value, size_t len)
{
    json_t *text = memchr(value, '\0', len) ? NULL : json_stringn(value, len);
    json_decref(text);
    return text != NULL;
}

/* Appends "?name=value&..." of the arguments that the engine knows; -1: one of them is no text. */
static int add_arguments(struct lws *wsi, struct str *path)
{
    char before = '?', *argument = malloc(ARGUMENT_MAX);
    bool good = argument != NULL;
    for (int i = 0, len; good; i++) {
        len = lws_hdr_copy_fragment(wsi, argument, ARGUMENT_MAX, WSI_TOKEN_HTTP_URI_ARGS, i);
        if (len == -1) /* there are no more */
            break;
        size_t name = len < 0 ? 0 : strcspn(argument, "=");
        good = len >= 0 && is_text(argument, (size_t)len);
        if (!good || !argument[name] || !is_known(argument, name))
            continue;
        str_putc(path, before);
        str_append(path, argument, name + 1);
        str_url(path, argument + name + 1, (size_t)len - name - 1);
        before = '&';
    }
    free(argument);
    return good && !str_failed(path) ? 0 : -1;
}

/* Passes the request on to this path; `body` NULL: GET. */
static int forward(struct server *server, struct conn *conn, struct lws *wsi, const char *to,
                   const char *body, bool sound)
{
    struct str path = STR_INIT;
    if (!voice_enabled(server->voice))
        return no_engine(conn, wsi);
    str_puts(&path, to);
    if (add_arguments(wsi, &path)) {
        str_release(&path);
        return http_error(conn, wsi, 400, "invalid_request_error",
                          "the arguments must be UTF-8 and not too long");
    }
    struct voice_request request = {.path = str_take(&path),
                                    .body = body ? strdup(body) : NULL,
                                    .sound = sound,
                                    .lookup = !body};
    if (!request.path || (body && !request.body)) {
        voice_request_release(&request);
        return http_error(conn, wsi, 503, "unavailable_error", "out of memory; try again");
    }
    return begin(server, conn, wsi, &request);
}

int api_voice_speakers(struct server *server, struct conn *conn, struct lws *wsi)
{
    return forward(server, conn, wsi, "/speakers", NULL, false);
}

int api_voice_version(struct server *server, struct conn *conn, struct lws *wsi)
{
    return forward(server, conn, wsi, "/version", NULL, false);
}

int api_voice_query(struct server *server, struct conn *conn, struct lws *wsi)
{
    return forward(server, conn, wsi, "/audio_query", "", false);
}

int api_voice_synthesis(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct gyaru_error error;
    json_t *json = api_body(conn, &error);
    json_decref(json);
    if (!json)
        return api_refuse(conn, wsi, &error);
    /* As it came: the engine reads its own words back. */
    return forward(server, conn, wsi, "/synthesis", conn->exchange.request.data, true);
}
