/*
 * ask.c - see ask.h. Numbers, stop strings and steering; the messages are ask_messages.c.
 */
#include "server/ask_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STOPS_MAX 16

int ask_refuse(struct gyaru_error *err, const char *field, const char *expected)
{
    return error_set(err, GYARU_USAGE, "%s: expected %s", field, expected);
}

/* A field that is there and not null. */
static const json_t *given(const json_t *body, const char *field)
{
    const json_t *value = json_object_get(body, field);
    return json_is_null(value) ? NULL : value;
}

/* ---- numbers -------------------------------------------------------------------------------- */

static int number(const json_t *body, const char *field, double min, double max, float *out,
                  bool *any, struct gyaru_error *err)
{
    const json_t *value = given(body, field);
    if (!value)
        return 0;
    double x = json_number_value(value);
    if (!json_is_number(value) || !(x >= min) || !(x <= max))
        return error_reason(err, GYARU_USAGE, REASON_SAMPLING,
                            "%s: expected a number from %g to %g", field, min, max);
    *out = (float)x;
    *any = true;
    return 0;
}

/* A whole number, also one that a client's language wrote as 5.0. */
static int whole(const json_t *body, const char *field, double min, double max, double *out,
                 bool *any, struct gyaru_error *err)
{
    const json_t *value = given(body, field);
    if (!value)
        return 0;
    double x = json_number_value(value);
    if (!json_is_number(value) || !(x >= min) || !(x <= max) || x != floor(x))
        return error_reason(err, GYARU_USAGE, REASON_SAMPLING,
                            "%s: expected a whole number from %.0f to %.0f", field, min, max);
    *out = x;
    *any = true;
    return 0;
}

static int flag(const json_t *body, const char *field, bool *out, struct gyaru_error *err)
{
    const json_t *value = given(body, field);
    if (!value)
        return 0;
    if (!json_is_boolean(value))
        return ask_refuse(err, field, "true or false");
    *out = json_is_true(value);
    return 0;
}

/* Negative counts and seeds are how llama.cpp's clients say "no limit" and "any". */
static int read_sampling(struct job_options *options, const struct engine_info *info,
                         const json_t *body, struct gyaru_error *err)
{
    struct gyaru_sampling *s = &options->sampling;
    float unused;
    bool ignored, *any = &options->has_sampling, has_seed = false;
    double top_k = 0, seed = 0;
    bool has_top_k = false;
    *s = info->sampling;
    if (number(body, "temperature", 0, 5, &s->temperature, any, err) ||
        number(body, "top_p", 0, 1, &s->top_p, any, err) ||
        number(body, "min_p", 0, 1, &s->min_p, any, err) ||
        number(body, "repetition_penalty", 0.01, 10, &s->repeat_penalty, any, err) ||
        number(body, "repeat_penalty", 0.01, 10, &s->repeat_penalty, any, err) ||
        number(body, "frequency_penalty", -2, 2, &unused, &ignored, err) ||
        number(body, "presence_penalty", -2, 2, &unused, &ignored, err) ||
        whole(body, "top_k", -1, 1e9, &top_k, &has_top_k, err) ||
        whole(body, "seed", -9223372036854775808.0, 9223372036854775807.0, &seed, &has_seed, err))
        return -1;
    if (has_top_k) {
        s->top_k = top_k > 0 ? (int)top_k : 0;
        *any = true;
    }
    if (has_seed && seed >= 0) {
        const json_t *value = json_object_get(body, "seed");
        s->seed = json_is_integer(value) ? (uint64_t)json_integer_value(value) : (uint64_t)seed;
        options->has_seed = options->has_sampling = true;
    }
    return 0;
}

int ask_max_tokens(struct ask *ask, const char *const *fields, const json_t *body,
                   struct gyaru_error *err)
{
    for (; *fields; fields++) {
        bool any = false;
        double n = 0;
        if (whole(body, *fields, -1, 2147483647, &n, &any, err))
            return -1;
        if (any && n == 0)
            return ask_refuse(err, *fields, "1 or more, or -1 for what the context leaves");
        if (any) {
            ask->max_tokens = n > 0 ? (int)n : 0;
            return 0;
        }
    }
    return 0;
}

/* ---- stop strings --------------------------------------------------------------------------- */

static int read_stop(struct job_options *options, const json_t *body, struct gyaru_error *err)
{
    const json_t *stop = given(body, "stop");
    if (!stop || (json_is_array(stop) && !json_array_size(stop)))
        return 0;
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    if (n > STOPS_MAX)
        return error_set(err, GYARU_USAGE, "stop: %zu strings, but at most %d", n, STOPS_MAX);
    options->stop = calloc(n, sizeof *options->stop);
    if (!options->stop)
        return error_memory(err, n * sizeof *options->stop, "the stop strings");
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_is_array(stop) ? json_array_get(stop, i) : stop;
        if (!json_is_string(text))
            return ask_refuse(err, "stop", "a string, or a list of strings");
        if (!json_string_length(text))
            continue;
        options->stop[options->n_stop] = strdup(json_string_value(text));
        if (!options->stop[options->n_stop])
            return error_memory(err, json_string_length(text), "a stop string");
        options->n_stop++;
    }
    return 0;
}

/* ---- steering ------------------------------------------------------------------------------- */

static int read_steering(struct job_options *options, const struct ask_rules *rules,
                         const json_t *body, struct gyaru_error *err)
{
    const json_t *steering = given(body, "steering");
    if (!steering)
        return 0;
    if (steering_read_request(rules->live, rules->shelf, steering, &options->mix, &options->steers,
                              err))
        return error_prefix(err, "steering");
    return 0;
}

/* ---- both kinds of request ------------------------------------------------------------------ */

int ask_common(struct ask *ask, const struct ask_rules *rules, const json_t *body,
               struct gyaru_error *err)
{
    ask->stream = rules->stream;
    ask->max_tokens = rules->max_tokens;
    if (!json_is_object(body))
        return error_set(err, GYARU_USAGE, "the request must be a JSON object");
    const json_t *n = given(body, "n");
    if (n && (!json_is_integer(n) || json_integer_value(n) != 1))
        return ask_refuse(err, "n", "1: there is one answer to a request");
    return flag(body, "stream", &ask->stream, err) || flag(body, "gauge", &ask->gauge, err) ||
                   read_sampling(&ask->options, rules->info, body, err) ||
                   read_stop(&ask->options, body, err) ||
                   read_steering(&ask->options, rules, body, err)
               ? -1
               : 0;
}

int ask_options(struct ask *ask, const struct ask_rules *rules, const json_t *sampling,
                const json_t *body, struct gyaru_error *err)
{
    static const char *const counts[] = {"max_tokens", NULL};
    *ask = (struct ask){.max_tokens = rules->max_tokens};
    int rc = 0;
    if (sampling && !json_is_object(sampling))
        rc = ask_refuse(err, "sampling", "an object");
    if (!rc && sampling &&
        (read_sampling(&ask->options, rules->info, sampling, err) ||
         ask_max_tokens(ask, counts, sampling, err)))
        rc = error_prefix(err, "sampling");
    if (!rc)
        rc = read_steering(&ask->options, rules, body, err);
    if (rc)
        ask_release(ask);
    return rc;
}

int ask_completion(struct ask *ask, const struct ask_rules *rules, const json_t *body,
                   struct gyaru_error *err)
{
    static const char *const counts[] = {"n_predict", "max_tokens", NULL};
    *ask = (struct ask){0};
    const json_t *prompt = json_object_get(body, "prompt");
    int rc = ask_common(ask, rules, body, err);
    if (!rc)
        rc = ask_max_tokens(ask, counts, body, err);
    if (!rc && (!json_is_string(prompt) || !json_string_length(prompt)))
        rc = ask_refuse(err, "prompt", "a text");
    if (!rc) {
        ask->options.prompt = strdup(json_string_value(prompt));
        if (!ask->options.prompt)
            rc = error_memory(err, json_string_length(prompt), "the prompt");
    }
    if (rc)
        ask_release(ask);
    return rc;
}

void ask_release(struct ask *ask)
{
    messages_free(ask->messages, ask->n_messages);
    job_options_release(&ask->options);
    *ask = (struct ask){0};
}
