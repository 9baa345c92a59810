/* ws_json.c - see ws_json.h. */
#include "server/ws_json.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

/* ---- what the server says ------------------------------------------------------------------- */

/* The main vector and the mix. */
static void add_steering(json_t *json, struct steering *steering)
{
    struct steer_mix mix;
    if (!json)
        return;
    steering_copy(steering, &mix);
    const struct shelf_vector *vector = mix.n ? mix.parts[0].vector : NULL;
    json_object_set_new(json, "vectors", mix_json(&mix));
    json_object_set_new(json, "vector", vector ? json_string(vector->name) : json_null());
    json_object_set_new(json, "fingerprint",
                        vector ? json_string(vector->reason ? "unverified" : "match")
                               : json_null());
    json_object_set_new(json, "gauge_layer",
                        vector ? json_integer(vector->gauge_layer) : json_null());
    mix_release(&mix);
}

/* What an answer gets whose message says nothing else. */
static json_t *sampling_json(const struct server *server, const struct gyaru_sampling *s)
{
    return json_pack("{s:f,s:f,s:i,s:f,s:f,s:i}", "temperature", (double)s->temperature, "top_p",
                     (double)s->top_p, "top_k", s->top_k, "min_p", (double)s->min_p,
                     "repeat_penalty", (double)s->repeat_penalty, "max_tokens",
                     server->options.max_tokens);
}

json_t *ws_hello_json(struct server *server, const char *system, uint64_t *version)
{
    const struct engine_info *info = engine_info(server->engine);
    struct steering_value live = steering_get(&server->steering);
    struct engine_counts counts = engine_counts(server->engine);
    *version = live.version;
    json_t *json = json_pack(
        "{s:s,s:s,s:s,s:s,s:i,s:f,s:I,s:f,s:f,s:b,s:I,s:s?}", "type", "hello", "server",
        "gyaru " GYARU_VERSION, "model", info->model_name, "device", info->device, "context",
        info->context, "strength", (double)live.strength, "version", (json_int_t)live.version,
        "strength_min", (double)GYARU_STRENGTH_MIN, "strength_max", (double)GYARU_STRENGTH_MAX,
        "busy", counts.running >= counts.slots, "max_message_bytes",
        (json_int_t)server->options.message_bytes, "system", system);
    if (json)
        json_object_set_new(json, "sampling", sampling_json(server, &info->sampling));
    add_steering(json, &server->steering);
    return json;
}

json_t *ws_strength_json(struct server *server, uint64_t *version)
{
    struct steering_value live = steering_get(&server->steering);
    *version = live.version;
    json_t *json = json_pack("{s:s,s:f,s:I}", "type", "strength_updated", "value",
                             (double)live.strength, "version", (json_int_t)live.version);
    add_steering(json, &server->steering);
    return json;
}

json_t *ws_gauge_json(const struct job_event *event)
{
    double rate = event->tokens_per_second > 0 ? (double)event->tokens_per_second : NAN;
    return json_pack("{s:s,s:f,s:o,s:i,s:f,s:I,s:o}", "type", "gauge", "value",
                     (double)event->cosine, "calibrated", json_finite((double)event->gauge),
                     "layer", event->layer, "strength", (double)event->strength, "version",
                     (json_int_t)event->version, "tokens_per_second", json_finite(rate));
}

static json_t *timings_json(const struct gyaru_timings *t)
{
    double rate = t->n_generated > 1 && t->decode_seconds > 0
                      ? (double)t->n_generated / t->decode_seconds
                      : NAN;
    return json_pack("{s:I,s:I,s:I,s:o,s:o,s:o,s:o}", "prompt_tokens", (json_int_t)t->n_prompt,
                     "cached_tokens", (json_int_t)t->n_cached, "generated_tokens",
                     (json_int_t)t->n_generated, "prefill_seconds", json_finite(t->prefill_seconds),
                     "decode_seconds", json_finite(t->decode_seconds), "first_token_seconds",
                     json_finite(t->first_token_seconds), "tokens_per_second", json_finite(rate));
}

json_t *ws_done_json(const struct str *answer, const char *reason, size_t dropped,
                     const struct gyaru_timings *t)
{
    json_t *json = json_pack("{s:s,s:s%,s:s,s:I}", "type", "done", "full_response",
                             answer->data ? answer->data : "", answer->len, "finish_reason", reason,
                             "dropped_messages", (json_int_t)dropped);
    if (json && t)
        json_object_set_new(json, "timings", timings_json(t));
    return json;
}

/* ---- what the client sends ------------------------------------------------------------------ */

bool ws_history_valid(const json_t *history)
{
    size_t i;
    json_t *turn;
    if (!json_is_array(history))
        return false;
    json_array_foreach(history, i, turn)
    {
        const char *role = json_string_value(json_object_get(turn, "role"));
        if (!role || (strcmp(role, "user") && strcmp(role, "assistant")) ||
            !json_is_string(json_object_get(turn, "content")))
            return false;
    }
    return true;
}

int ws_history_take(struct conversation *conversation, const json_t *history)
{
    size_t i;
    json_t *turn;
    conversation_clear(conversation);
    json_array_foreach(history, i, turn)
    {
        const json_t *content = json_object_get(turn, "content");
        bool assistant = !strcmp(json_string_value(json_object_get(turn, "role")), "assistant");
        if (conversation_add(conversation, assistant, json_string_value(content),
                             json_string_length(content)))
            return -1;
    }
    return 0;
}
