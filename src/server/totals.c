/* totals.c - what /metrics and the log say of answers; see engine.h. */
#include "server/engine.h"

#include "server/log.h"

#include <math.h>

const double engine_first_bounds[ENGINE_FIRST_BUCKETS] = {0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 60};

void totals_add_answer(struct engine_totals *totals, const struct job_end *end)
{
    uint64_t *how = end->failed                      ? &totals->failed
                    : end->finish == GYARU_CANCELLED ? &totals->cancelled
                    : end->finish == GYARU_LENGTH    ? &totals->cut
                                                     : &totals->stopped;
    ++*how;
    totals->prompt_tokens += end->timings.n_prompt;
    totals->cached_tokens += end->timings.n_cached;
    totals->generated_tokens += end->timings.n_generated;
    totals->prefill_seconds += end->timings.prefill_seconds;
    totals->decode_seconds += end->timings.decode_seconds;
}

void totals_add_token(struct engine_totals *totals, const struct job_event *event, double waited)
{
    totals->cosine = event->cosine;
    totals->gauge = event->gauge;
    if (waited < 0)
        return;
    int i = 0;
    while (i < ENGINE_FIRST_BUCKETS && waited > engine_first_bounds[i])
        i++;
    totals->first_counts[i]++;
    totals->first_seconds += waited;
}

void engine_log_answer(const struct log_options *log, const struct job *job, double seconds,
                       const char *text)
{
    static const char *const names[] = {
        [GYARU_STOP] = "stop", [GYARU_LENGTH] = "length", [GYARU_CANCELLED] = "cancelled"};
    const struct job_end *end = &job->end;
    const struct gyaru_timings *t = &end->timings;
    if (log->level < LOG_LEVEL_INFO && !end->failed)
        return;
    json_t *fields = json_pack("{s:s,s:I,s:I,s:I,s:f,s:f}", "finish",
                               end->failed ? "failed" : names[end->finish], "prompt_tokens",
                               (json_int_t)t->n_prompt, "cached_tokens", (json_int_t)t->n_cached,
                               "generated_tokens", (json_int_t)t->n_generated,
                               "first_token_seconds", t->first_token_seconds, "seconds", seconds);
    if (fields && end->failed)
        json_object_set_new(fields, "error", json_string(end->error.text));
    if (fields && log->content) {
        const char *question = job->options.prompt;
        if (job->n_messages)
            question = job->messages[job->n_messages - 1].content;
        json_object_set_new(fields, "question", json_string(question ? question : ""));
        json_object_set_new(fields, "answer", json_string(text ? text : ""));
    }
    log_event(log, end->failed ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "answer", fields);
}
