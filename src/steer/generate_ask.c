/*
 * generate_ask.c - see generate.h.
 *
 * What may pass by itself is tried again: no connection, time-outs, 408, 425, 429, 5xx, an answer
 * that is no chat completion. What will not (a wrong key, an unknown model) fails at once. The
 * waits double and are spread at random; a server's Retry-After is obeyed instead.
 */
#include "steer/generate.h"

#include "base/clock.h"
#include "base/http_client.h"
#include "base/json.h"
#include "base/random.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_LIMIT ((size_t)8 << 20) /* bytes */
#define WAIT_MAX     60.0              /* seconds between tries, unless the server asks for more */
#define ASKED_MAX    600.0             /* seconds that a server's Retry-After is obeyed */

enum outcome { GOOD, AGAIN, FATAL };

static bool may_pass(long status)
{
    return status == 408 || status == 425 || status == 429 || status >= 500;
}

static int stopped(struct generate_asker *a, struct gyaru_error *err)
{
    a->stopped = true;
    return error_set(err, GYARU_FAILED, "stopped");
}

/* Waits, asking ten times a second whether to stop. */
static int wait_seconds(struct generate_asker *a, double seconds, struct gyaru_error *err)
{
    const struct gyaru_generate_options *o = a->options;
    const struct timespec tenth = {0, 100000000};
    for (double end = clock_seconds() + seconds; clock_seconds() < end;) {
        if (o->progress && o->progress(o->progress_user, "generating", a->done, a->total))
            return stopped(a, err);
        nanosleep(&tenth, NULL);
    }
    return 0;
}

/* "status 401: what the server says", as far as it says something. */
static void explain(const char *url, const struct http_client_response *r, struct gyaru_error *err)
{
    struct gyaru_error ignored;
    json_t *json = r->body.len ? json_parse(r->body.data, r->body.len, url, &ignored) : NULL;
    const json_t *error = json_object_get(json, "error");
    const char *text = json_string_value(json_object_get(error, "message"));
    if (!text)
        text = json_string_value(error);
    if (!text)
        text = json_string_value(json_object_get(json, "message"));
    error_set(err, GYARU_FAILED, "%s: status %ld%s%.200s%s", url, r->status, text ? ": " : "",
              text ? text : "",
              r->status == 401 || r->status == 403 ? ": give a key with --api-key-file" : "");
    json_decref(json);
}

/* One try; GOOD: *json is the document. *wait: what the server asks for, below 0: nothing. */
static enum outcome try_once(struct generate_asker *a, const char *url, const char *body,
                             json_t **json, double *wait, struct gyaru_error *err)
{
    const struct gyaru_generate_options *o = a->options;
    const struct http_client_request request = {
        .url = url,
        .body = body,
        .bearer = o->api_key,
        .timeout = o->timeout,
        .limit = ANSWER_LIMIT,
        .progress = o->progress,
        .progress_user = o->progress_user,
        .what = "generating",
        .done = a->done,
        .total = a->total,
    };
    struct http_client_response response;
    *wait = -1;
    a->n_requests++;
    enum http_client_outcome outcome = http_client_request(&request, &response, err);
    if (outcome == HTTP_STOPPED)
        stopped(a, err);
    if (outcome != HTTP_ANSWERED)
        return outcome == HTTP_STOPPED || err->status == GYARU_NO_MEMORY ? FATAL : AGAIN;
    enum outcome result = AGAIN;
    *wait = response.retry_after;
    if (response.status != 200) {
        explain(url, &response, err);
        result = may_pass(response.status) ? AGAIN : FATAL;
    } else {
        *json = json_parse_text(response.body.len ? response.body.data : "", response.body.len, url,
                                err);
        result = *json ? GOOD : AGAIN;
    }
    http_client_response_release(&response);
    return result;
}

typedef bool accept_json(const json_t *json);

/* A document that `accept` takes, tried as often as the options allow. */
static int request_json(struct generate_asker *a, const char *url, const char *body,
                        accept_json *accept, json_t **json, struct gyaru_error *err)
{
    double pause = a->options->backoff;
    for (int tries = 0;; tries++) {
        double asked;
        enum outcome outcome = try_once(a, url, body, json, &asked, err);
        if (outcome == GOOD && accept(*json))
            return 0;
        if (outcome == GOOD) {
            json_decref(*json);
            error_set(err, GYARU_FAILED, "%s: the answer is not what an OpenAI endpoint sends",
                      url);
        }
        if (outcome == FATAL || tries >= a->options->retries)
            return -1;
        a->n_retries++;
        if (a->options->notice) {
            struct str line = STR_INIT;
            str_printf(&line, "%s; trying again", err->text);
            if (!str_failed(&line))
                a->options->notice(a->options->notice_user, line.data);
            str_release(&line);
        }
        double wait = pause * (0.5 + random_unit(&a->jitter) / 2);
        if (asked >= 0)
            wait = asked < ASKED_MAX ? asked : ASKED_MAX;
        if (wait_seconds(a, wait, err))
            return -1;
        pause = 2 * pause < WAIT_MAX ? 2 * pause : WAIT_MAX;
    }
}

/* ---- which model ---------------------------------------------------------------------------- */

static char *join_url(const char *base, const char *path)
{
    size_t len = strlen(base);
    struct str url = STR_INIT;
    while (len && base[len - 1] == '/')
        len--;
    str_append(&url, base, len);
    str_puts(&url, path);
    return str_take(&url);
}

static bool is_model_list(const json_t *json)
{
    return json_is_array(json_object_get(json, "data"));
}

/* The only model of the endpoint; if there are several, one must be named. */
static int find_model(struct generate_asker *a, struct gyaru_error *err)
{
    json_t *json;
    char *url = join_url(a->options->api_base, "/models");
    if (!url)
        return error_memory(err, 256, "a URL");
    int rc = request_json(a, url, NULL, is_model_list, &json, err);
    free(url);
    if (rc)
        return -1;
    const json_t *list = json_object_get(json, "data");
    const char *id = json_string_value(json_object_get(json_array_get(list, 0), "id"));
    if (json_array_size(list) != 1 || !id)
        rc = error_set(err, GYARU_USAGE, "%s has %zu models: name one with --model",
                       a->options->api_base, json_array_size(list));
    else if (!(a->model = strdup(id)))
        rc = error_memory(err, strlen(id), "a model's name");
    json_decref(json);
    return rc;
}

int generate_ask_open(struct generate_asker *asker, const struct gyaru_generate_options *options,
                      struct gyaru_error *err)
{
    struct generate_asker a = {.options = options};
    const char *base = options->api_base;
    struct timespec now;
    if (!base || (strncmp(base, "http://", 7) && strncmp(base, "https://", 8)))
        return error_set(err, GYARU_USAGE,
                         "give the endpoint's address: --api-base http://HOST:PORT/v1");
    if (options->api_key && strncmp(base, "https://", 8) && !http_client_is_local(base))
        return error_set(err, GYARU_USAGE,
                         "%.200s: the key would travel unencrypted: use https, or a tunnel to "
                         "127.0.0.1",
                         base);
    clock_gettime(CLOCK_REALTIME, &now);
    a.jitter = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30;
    a.url = join_url(base, "/chat/completions");
    a.model = options->model ? strdup(options->model) : NULL;
    int rc = a.url && (a.model || !options->model) ? 0 : error_memory(err, 256, "a URL");
    if (!rc && !options->model)
        rc = find_model(&a, err);
    if (rc)
        generate_ask_close(&a);
    else
        *asker = a;
    return rc;
}

void generate_ask_close(struct generate_asker *asker)
{
    free(asker->url);
    free(asker->model);
    asker->url = asker->model = NULL;
}

/* ---- a question ----------------------------------------------------------------------------- */

static const json_t *first_choice(const json_t *json)
{
    return json_array_get(json_object_get(json, "choices"), 0);
}

static const char *content_of(const json_t *json)
{
    const json_t *message = json_object_get(first_choice(json), "message");
    return json_string_value(json_object_get(message, "content"));
}

static bool is_completion(const json_t *json)
{
    return content_of(json) != NULL;
}

static char *make_body(const struct generate_asker *a, const char *system, const char *prompt,
                       size_t max_tokens)
{
    json_t *messages = json_array();
    if (*system)
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", "system", "content", system));
    json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "user", "content", prompt));
    json_t *body =
        json_pack("{s:s, s:o, s:f, s:I}", "model", a->model, "messages", messages, "temperature",
                  (double)a->options->temperature, "max_tokens", (json_int_t)max_tokens);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}

int generate_ask(struct generate_asker *a, const char *system, const char *prompt,
                 size_t max_tokens, char **answer, bool *cut, struct gyaru_error *err)
{
    json_t *json;
    char *body = make_body(a, system, prompt, max_tokens);
    if (!body)
        return error_memory(err, strlen(prompt), "a question");
    int rc = request_json(a, a->url, body, is_completion, &json, err);
    free(body);
    if (rc)
        return -1;
    const char *why = json_string_value(json_object_get(first_choice(json), "finish_reason"));
    *cut = why && !strcmp(why, "length");
    char *text = strdup(content_of(json));
    json_decref(json);
    if (!text)
        return error_memory(err, ANSWER_LIMIT, "an answer");
    *answer = text;
    return 0;
}
