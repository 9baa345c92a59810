/*
 * migrate_measure.c - what a model does, before the migration and after: load, memory, speed, and
 * the butler test over the document's ladder of strengths.
 */
#include "steer/migrate.h"

#include "base/json.h"
#include "base/proc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PROMPT   50 /* tokens, as in the document */
#define ANSWER   100
#define REPEATS  3
#define SESSIONS 16
#define CONTEXT  512

/* ---- speed ------------------------------------------------------------------------------------
 */

/* `before`: answers that were given already, for the progress. */
static int answer(struct migration *m, struct gyaru_session *session, int vector, int n_tokens,
                  int before, struct gyaru_timings *timings)
{
    uint64_t done = (uint64_t)before * ANSWER;
    const struct gyaru_model_info *info = gyaru_model_info(m->model);
    int32_t ids[PROMPT];
    float strengths[GYARU_MAX_VECTORS] = {0};
    struct gyaru_request request;
    for (int i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)((int64_t)i * 7919 % info->n_tokens);
    if (vector >= 0)
        strengths[vector] = m->strengths[m->side];
    gyaru_request_init(m->model, &request);
    request.prompt = ids;
    request.n_prompt = PROMPT;
    request.max_tokens = n_tokens;
    request.sampling.temperature = 0;
    request.strengths = strengths;
    request.gauge = vector;
    request.ignore_eos = true;
    gyaru_session_reset(session);
    int rc = gyaru_session_start(session, &request, m->err);
    while (!rc && gyaru_session_busy(session)) {
        struct gyaru_event event;
        size_t n;
        rc = gyaru_step(&session, 1, &event, &n, m->err);
        if (!rc && n && event.finish == GYARU_OVERFLOW)
            rc = error_set(m->err, GYARU_FAILED, "the model's numbers overflowed at strength %g",
                           (double)m->strengths[m->side]);
        if (!rc && migrate_progress(m, "timing", done++, REPEATS * ANSWER))
            rc = error_set(m->err, GYARU_FAILED, "stopped");
    }
    gyaru_session_timings(session, timings);
    return rc;
}

static double total(const struct gyaru_timings *t)
{
    return t->first_token_seconds + t->decode_seconds;
}

static int by_total(const void *a, const void *b)
{
    double x = total(a), y = total(b);
    return (x > y) - (x < y);
}

static json_t *speed_json(const struct migration *m, int vector, const struct gyaru_timings *t,
                          double grown)
{
    const struct gyaru_model_info *info = gyaru_model_info(m->model);
    double decode = t->decode_seconds > 0 ? (double)(t->n_generated - 1) / t->decode_seconds : 0;
    return json_pack("{s:s, s:i, s:f, s:I, s:I, s:I, s:f, s:I, s:I, s:f, s:f, s:f, s:b, s:f}",
                     "device", info->device, "context", info->context, "load_seconds",
                     info->load_seconds, "weight_bytes", (json_int_t)info->weight_bytes, "kv_bytes",
                     (json_int_t)info->kv_bytes, "workspace_bytes",
                     (json_int_t)info->workspace_bytes, "resident_growth_bytes", grown,
                     "prompt_tokens", (json_int_t)t->n_prompt, "generated_tokens",
                     (json_int_t)t->n_generated, "first_token_seconds", t->first_token_seconds,
                     "answer_seconds", total(t), "decode_tokens_per_second", decode, "steered",
                     (int)(vector >= 0), "strength", (double)m->strengths[m->side]);
}

/* Opened afresh, with one session and the default context: as a person would run it. The median of
 * several answers. */
json_t *migrate_speed(struct migration *m, enum migrate_side side)
{
    struct gyaru_session *session;
    struct gyaru_timings timings[REPEATS], warm;
    int vector;
    migrate_close(m);
    double before = (double)proc_bytes(PROC_SELF, "VmRSS");
    if (migrate_open(m, side, 1, 0) || migrate_attach(m, side, &vector) ||
        gyaru_session_new(m->model, &session, m->err))
        return NULL;
    int rc = answer(m, session, vector, 2, 0, &warm);
    for (int i = 0; !rc && i < REPEATS; i++)
        rc = answer(m, session, vector, ANSWER, i, &timings[i]);
    double grown = (double)proc_bytes(PROC_SELF, "VmRSS") - before;
    gyaru_session_free(session);
    json_t *found = NULL;
    if (!rc) {
        qsort(timings, REPEATS, sizeof *timings, by_total);
        found = speed_json(m, vector, &timings[REPEATS / 2], grown);
        if (!found)
            error_memory(m->err, 1000, "a phase's report");
    }
    migrate_close(m);
    return found;
}

/* ---- quality ----------------------------------------------------------------------------------
 */

static const float ladder[] = {0, 2, 5, 8, 10, 12, 15, 20, 25};

#define RUNGS (sizeof ladder / sizeof *ladder)

/* The ladder with the side's own strength in its place; how many. */
static size_t make_ladder(float own, float out[RUNGS + 1])
{
    size_t n = 0;
    bool placed = false;
    for (size_t i = 0; i < RUNGS; i++) {
        if (!placed && own <= ladder[i]) {
            if (own < ladder[i])
                out[n++] = own;
            placed = true;
        }
        out[n++] = ladder[i];
    }
    if (!placed)
        out[n++] = own;
    return n;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The row of this strength. */
static const json_t *row_at(const json_t *report, double strength)
{
    const json_t *row;
    size_t i;
    json_array_foreach(json_object_get(report, "rows"), i,
                       row) if (fabs(json_number_value(json_object_get(row, "strength")) -
                                     strength) < 1e-5) return row;
    return NULL;
}

/* Raw meter over the answers of a row: [10%, 90%], null without a meter. */
static json_t *meter_range(const json_t *row)
{
    const json_t *answers = json_object_get(row, "answers"), *one;
    double *values = calloc(json_array_size(answers) + 1, sizeof *values);
    size_t i, n = 0;
    json_array_foreach(answers, i, one)
    {
        const json_t *cosine = json_object_get(one, "cosine");
        if (values && json_is_number(cosine))
            values[n++] = json_number_value(cosine);
    }
    json_t *out = json_null();
    if (n) {
        qsort(values, n, sizeof *values, by_value);
        out = json_pack("[f, f]", values[n / 10], values[n - 1 - n / 10]);
    }
    free(values);
    return out;
}

static json_t *quality_json(const struct migration *m, int vector, const char *text)
{
    json_t *report = json_parse_text(text, strlen(text), "the report", m->err);
    if (!report)
        return NULL;
    const json_t *row = row_at(report, vector >= 0 ? (double)m->strengths[m->side] : 0);
    return json_pack("{s:o, s:b, s:f, s:i, s:O?, s:o}", "report", report, "steered",
                     (int)(vector >= 0), "strength", (double)m->strengths[m->side], "gauge_layer",
                     vector >= 0 ? gyaru_model_gauge_layer(m->model, vector) : -1, "own", row,
                     "meter", meter_range(row));
}

json_t *migrate_quality(struct migration *m, enum migrate_side side)
{
    const struct gyaru_migrate_options *o = m->options;
    struct gyaru_measure_options options;
    float strengths[RUNGS + 1] = {0};
    char *text;
    int vector;
    if (migrate_open(m, side, SESSIONS, CONTEXT) || migrate_attach(m, side, &vector))
        return NULL;
    gyaru_measure_options_init(m->model, &options);
    options.style = o->style;
    options.system = o->system;
    options.messages = o->messages;
    options.n_messages = o->n_messages;
    options.max_tokens = o->max_tokens;
    options.strengths = strengths;
    options.n_strengths = vector >= 0 ? make_ladder(m->strengths[side], strengths) : 1;
    options.vector = vector;
    options.sampling.seed = o->seed;
    options.progress = migrate_progress;
    options.progress_user = m;
    if (gyaru_measure(m->model, &options, &text, m->err))
        return NULL;
    json_t *found = quality_json(m, vector, text);
    free(text);
    if (vector >= 0)
        gyaru_model_detach(m->model, vector);
    return found;
}
