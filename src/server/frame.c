/* frame.c - see frame.h. */
#include "server/frame.h"

#include "base/json.h"

#include <math.h>

json_t *frame_error(unsigned status, const char *type, const char *message)
{
    return json_pack("{s:i,s:s,s:s}", "code", (int)status, "message", message, "type", type);
}

json_t *frame_gauge(const struct frame *frame, const struct job_event *meter)
{
    if (!meter || !isfinite(meter->cosine))
        return json_null();
    return json_pack("{s:f,s:o,s:i,s:f}", "value", (double)meter->cosine, "calibrated",
                     json_finite((double)meter->gauge), "layer", meter->layer, "strength",
                     (double)meter->strength);
}

/* ---- counts and times ----------------------------------------------------------------------- */

static json_t *usage_of(const struct job *job)
{
    const struct gyaru_timings *t = &job->end.timings;
    return json_pack("{s:I,s:I,s:I,s:{s:I}}", "prompt_tokens", (json_int_t)t->n_prompt,
                     "completion_tokens", (json_int_t)t->n_generated, "total_tokens",
                     (json_int_t)(t->n_prompt + t->n_generated), "prompt_tokens_details",
                     "cached_tokens", (json_int_t)t->n_cached);
}

static double per_second(size_t n, double seconds)
{
    return n && seconds > 0 ? (double)n / seconds : NAN;
}

/* Under the names that llama.cpp gave them, which its clients show. */
static json_t *timings_of(const struct job *job)
{
    const struct gyaru_timings *t = &job->end.timings;
    size_t computed = t->n_prompt - t->n_cached;
    return json_pack("{s:I,s:I,s:f,s:o,s:I,s:f,s:o}", "cache_n", (json_int_t)t->n_cached,
                     "prompt_n", (json_int_t)computed, "prompt_ms", t->prefill_seconds * 1e3,
                     "prompt_per_second", json_finite(per_second(computed, t->prefill_seconds)),
                     "predicted_n", (json_int_t)t->n_generated, "predicted_ms",
                     t->decode_seconds * 1e3, "predicted_per_second",
                     json_finite(per_second(t->n_generated, t->decode_seconds)));
}

/* ---- chats ---------------------------------------------------------------------------------- */

static const char *finish_reason(const struct job *job)
{
    return job->end.finish == GYARU_LENGTH ? "length" : "stop";
}

/* What stands around the choices (taken over), the same in every chunk. */
static json_t *chat(const struct frame *frame, const char *object, json_t *choices)
{
    json_t *json = choices ? json_pack("{s:s,s:s,s:I,s:s,s:o}", "id", frame->id, "object", object,
                                       "created", (json_int_t)frame->created, "model",
                                       frame->info->model_name, "choices", choices)
                           : NULL;
    if (json)
        json_object_set_new(json, "system_fingerprint",
                            json_sprintf("gyaru-%.12s", frame->info->fingerprint));
    return json;
}

/* One chunk; `delta` is taken over, reason NULL while the answer goes on. */
static json_t *chunk(const struct frame *frame, json_t *delta, const char *reason)
{
    if (!delta)
        return NULL;
    return chat(frame, "chat.completion.chunk",
                json_pack("[{s:i,s:o,s:n,s:s?}]", "index", 0, "delta", delta, "logprobs",
                          "finish_reason", reason));
}

static json_t *with_gauge(const struct frame *frame, json_t *json, const struct job_event *meter)
{
    if (json && frame->gauge)
        json_object_set_new(json, "gauge", frame_gauge(frame, meter));
    return json;
}

json_t *frame_role(const struct frame *frame)
{
    json_t *delta = json_pack("{s:s,s:n}", "role", "assistant", "content");
    return with_gauge(frame, chunk(frame, delta, NULL), NULL);
}

json_t *frame_usage(const struct frame *frame, const struct job *job)
{
    json_t *json = chat(frame, "chat.completion.chunk", json_array());
    if (json)
        json_object_set_new(json, "usage", usage_of(job));
    return json;
}

/* ---- llama.cpp's completion ----------------------------------------------------------------- */

static json_t *completion_end(const struct frame *frame, const char *text, size_t len,
                              const struct job *job)
{
    const struct gyaru_timings *t = &job->end.timings;
    return json_pack("{s:i,s:s%,s:b,s:i,s:s,s:I,s:I,s:I,s:b,s:s,s:s,s:o}", "index", 0, "content",
                     text, len, "stop", 1, "id_slot", -1, "model", frame->info->model_name,
                     "tokens_predicted", (json_int_t)t->n_generated, "tokens_evaluated",
                     (json_int_t)t->n_prompt, "tokens_cached", (json_int_t)t->n_cached, "truncated",
                     0, "stop_type", job->end.finish == GYARU_LENGTH ? "limit" : "eos",
                     "stopping_word", "", "timings", timings_of(job));
}

/* ---- either --------------------------------------------------------------------------------- */

json_t *frame_text(const struct frame *frame, const char *text, size_t len,
                   const struct job_event *meter)
{
    json_t *json = frame->style == FRAME_COMPLETION
                       ? json_pack("{s:i,s:s%,s:b}", "index", 0, "content", text, len, "stop", 0)
                       : chunk(frame, json_pack("{s:s%}", "content", text, len), NULL);
    return with_gauge(frame, json, meter);
}

json_t *frame_end(const struct frame *frame, const struct job *job, const struct job_event *meter)
{
    if (frame->style == FRAME_COMPLETION)
        return with_gauge(frame, completion_end(frame, "", 0, job), meter);
    json_t *json = chunk(frame, json_object(), finish_reason(job));
    if (json)
        json_object_set_new(json, "timings", timings_of(job));
    return with_gauge(frame, json, meter);
}

json_t *frame_whole(const struct frame *frame, const char *text, size_t len, const struct job *job,
                    json_t *gauges)
{
    json_t *json = frame->style == FRAME_COMPLETION
                       ? completion_end(frame, text, len, job)
                       : chat(frame, "chat.completion",
                              json_pack("[{s:i,s:{s:s,s:s%,s:n},s:n,s:s}]", "index", 0, "message",
                                        "role", "assistant", "content", text, len, "refusal",
                                        "logprobs", "finish_reason", finish_reason(job)));
    if (json && frame->style == FRAME_CHAT) {
        json_object_set_new(json, "usage", usage_of(job));
        json_object_set_new(json, "timings", timings_of(job));
    }
    if (json && gauges)
        json_object_set(json, "gauge", gauges);
    json_decref(gauges);
    return json;
}
