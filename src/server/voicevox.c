/* voicevox.c - see voicevox.h. */
#include "server/voicevox.h"

#include "base/http_client.h"
#include "base/json.h"
#include "base/wav.h"

#include <inttypes.h>
#include <string.h>

#define CONNECT_SECONDS 3

static unsigned no_answer(const struct voicevox *engine, enum http_client_outcome outcome,
                          struct gyaru_error *err)
{
    switch (outcome) {
    case HTTP_STOPPED:
        return 0;
    case HTTP_TIMED_OUT:
        error_set(err, GYARU_FAILED, "the voice engine at %s gave no answer in %g s", engine->base,
                  engine->timeout);
        return 504;
    case HTTP_TOO_LARGE:
        error_set(err, GYARU_FAILED, "the voice engine at %s sent too much", engine->base);
        return 502;
    default:
        error_set(err, GYARU_FAILED,
                  "there is no voice engine at %s: start VOICEVOX, or name another with "
                  "--voicevox-url",
                  engine->base);
        return 503;
    }
}

static bool is_json(const struct str *text)
{
    struct gyaru_error ignored;
    json_t *json = text->len ? json_parse(text->data, text->len, "an answer", &ignored) : NULL;
    json_decref(json);
    return json != NULL;
}

/* Is it what was asked for? */
static unsigned check(const struct voicevox *engine, const struct http_client_response *response,
                      bool sound, struct gyaru_error *err)
{
    struct gyaru_error why;
    struct wav wav;
    const struct str *body = &response->body;
    long status = response->status;
    if (status >= 400 && status < 500) {
        error_set(err, GYARU_FAILED, "the voice engine refused it (%ld)", status);
        return (unsigned)status;
    }
    if (status != 200) {
        error_set(err, GYARU_FAILED, "the voice engine at %s failed (%ld)", engine->base, status);
        return 502;
    }
    if (sound && wav_read(body->data, body->len, &wav, &why)) {
        error_set(err, GYARU_FAILED, "the voice engine at %s sent %s", engine->base, why.text);
        return 502;
    }
    if (!sound && !is_json(body)) {
        error_set(err, GYARU_FAILED, "the voice engine at %s sent no JSON", engine->base);
        return 502;
    }
    return 200;
}

unsigned voicevox_call(const struct voicevox *engine, const char *path, const char *body,
                       bool sound, struct str *out, struct gyaru_error *err)
{
    struct str url = STR_INIT;
    *out = (struct str)STR_INIT;
    str_puts(&url, engine->base);
    while (url.len && url.data[url.len - 1] == '/')
        url.data[--url.len] = '\0';
    str_puts(&url, path);
    const struct http_client_request request = {
        .url = url.data,
        .body = body,
        .timeout = engine->timeout,
        .connect_timeout = CONNECT_SECONDS,
        .direct = true,
        .limit = sound ? VOICEVOX_SOUND_BYTES : VOICEVOX_JSON_BYTES,
        .progress = engine->stopped,
        .progress_user = engine->user,
    };
    struct http_client_response response;
    enum http_client_outcome outcome =
        str_failed(&url) ? HTTP_FAILED : http_client_request(&request, &response, err);
    str_release(&url);
    if (outcome != HTTP_ANSWERED)
        return no_answer(engine, outcome, err);
    unsigned status = check(engine, &response, sound, err);
    if (status == 200 || (status < 500 && is_json(&response.body)))
        *out = response.body;
    else
        http_client_response_release(&response);
    return status;
}

/* ---- speaking ------------------------------------------------------------------------------- */

/* The engine's query with another speed; false when out of memory or it has none. */
static bool set_speed(struct str *query, double speed)
{
    struct gyaru_error ignored;
    json_t *json = json_parse(query->data, query->len, "the query", &ignored);
    const json_t *own = json_object_get(json, "speedScale");
    char *text = NULL;
    if (json_is_number(own) &&
        !json_object_set_new(json, "speedScale", json_real(json_number_value(own) * speed)))
        text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (!text)
        return false;
    str_clear(query);
    str_puts(query, text);
    free(text);
    return !str_failed(query);
}

static unsigned make_query(const struct voicevox *engine, const char *text, size_t len,
                           int64_t speaker, struct str *query, struct gyaru_error *err)
{
    struct str path = STR_INIT;
    str_puts(&path, "/audio_query?text=");
    str_url(&path, text, len);
    str_printf(&path, "&speaker=%" PRId64, speaker);
    char *asked = str_take(&path);
    if (!asked) {
        error_memory(err, len, "a query");
        return 503;
    }
    unsigned status = voicevox_call(engine, asked, "", false, query, err);
    free(asked);
    return status;
}

unsigned voicevox_say(const struct voicevox *engine, const char *text, size_t len, int64_t speaker,
                      double speed, struct str *wav, struct gyaru_error *err)
{
    struct str query;
    char path[64];
    *wav = (struct str)STR_INIT;
    unsigned status = make_query(engine, text, len, speaker, &query, err);
    if (status == 200 && speed != 1 && !set_speed(&query, speed)) {
        error_set(err, GYARU_FAILED, "the voice engine at %s sent a query without speed",
                  engine->base);
        status = 502;
    }
    if (status == 200) {
        snprintf(path, sizeof path, "/synthesis?speaker=%" PRId64, speaker);
        status = voicevox_call(engine, path, query.data, true, wav, err);
    }
    str_release(&query);
    if (status != 200)
        str_release(wav);
    return status;
}

bool voicevox_find(const json_t *speakers, const char *name, int64_t *id)
{
    size_t i, j;
    json_t *speaker, *style;
    json_array_foreach(speakers, i, speaker)
    {
        const char *who = json_string_value(json_object_get(speaker, "name"));
        size_t len = who ? strlen(who) : 0;
        if (!who || (name && strncmp(name, who, len)))
            continue;
        const char *rest = name ? name + len : "";
        json_array_foreach(json_object_get(speaker, "styles"), j, style)
        {
            const char *how = json_string_value(json_object_get(style, "name"));
            const json_t *number = json_object_get(style, "id");
            if (!json_is_integer(number) ||
                (*rest && (*rest != '/' || !how || strcmp(rest + 1, how))))
                continue;
            *id = json_integer_value(number);
            return true;
        }
    }
    return false;
}
