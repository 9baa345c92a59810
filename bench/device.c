/*
 * device.c - the figures that a GPU is judged by, one JSON document per shape: decode at several
 * contexts, a question of 50 with an answer of 100, steering and meter on and off, several streams,
 * prefill, a short turn on a cached prefix, loading and memory.
 *
 *     make build/bench/device && build/bench/device SHAPE [DEVICE]
 *
 * Random NF4 weights in real shapes (gyaru bench --shape). Each figure is a median of RUNS.
 */
#include "base/clock.h"
#include "model/model.h"
#include "steer/vector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT 8448
#define STREAMS 8
#define RUNS    5
#define DECODE  48 /* tokens of a decode run */

static struct gyaru_error err;

static void check(int rc)
{
    if (rc) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

static struct gyaru_model *model;
static struct gyaru_session *sessions[STREAMS];
static int32_t *ids; /* [CONTEXT] */
static float strengths[GYARU_MAX_VECTORS];

struct timing {
    double first, rest; /* seconds to the first token of the last stream, and from there on */
    size_t tokens;      /* of all streams after that */
};

/* n streams answer `n_prompt` ids each with `n_tokens`; what their caches hold is reused unless
 * `cold`. */
static struct timing answer(int n, int n_prompt, int n_tokens, bool cold, int gauge)
{
    struct timing t = {0};
    struct gyaru_event events[STREAMS];
    int begun = 0;
    for (int i = 0; i < n; i++) {
        struct gyaru_request request;
        gyaru_request_init(model, &request);
        request.prompt = ids;
        request.n_prompt = (size_t)n_prompt;
        request.max_tokens = n_tokens;
        request.sampling.temperature = 0;
        request.ignore_eos = request.any_id = true;
        request.strengths = strengths;
        request.gauge = gauge;
        if (cold)
            gyaru_session_reset(sessions[i]);
        check(gyaru_session_start(sessions[i], &request, &err));
    }
    double start = clock_seconds(), first = 0;
    for (;;) {
        bool busy = false;
        for (int i = 0; i < n; i++)
            busy = busy || gyaru_session_busy(sessions[i]);
        if (!busy)
            break;
        size_t n_events;
        check(gyaru_step(sessions, (size_t)n, events, &n_events, &err));
        for (size_t e = 0; e < n_events; e++)
            if (events[e].token >= 0) {
                t.tokens += begun >= n;
                begun++;
            }
        if (begun >= n && first == 0)
            first = clock_seconds();
    }
    t.first = first - start;
    t.rest = clock_seconds() - first;
    return t;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum figure { FIRST, TOTAL, RATE };

/* The median over runs, after one that is not counted. */
static double measure(enum figure figure, int n, int n_prompt, int n_tokens, bool cold, int gauge)
{
    double values[RUNS];
    for (int run = -1; run < RUNS; run++) {
        struct timing t = answer(n, n_prompt, n_tokens, cold, gauge);
        double value = figure == FIRST   ? t.first
                       : figure == TOTAL ? t.first + t.rest
                                         : (double)t.tokens / t.rest;
        if (run >= 0)
            values[run] = value;
    }
    qsort(values, RUNS, sizeof *values, by_value);
    return values[RUNS / 2];
}

/* A short turn: the prefix is cached, thirty ids are new. */
static double cached_turn(void)
{
    double values[RUNS];
    for (int run = 0; run < RUNS; run++) {
        answer(1, 1000, 2, true, -1);
        int32_t kept = ids[1000];
        ids[1000] = kept + 1 + run; /* the token that the answer put there differs too */
        values[run] = answer(1, 1030, 1, false, -1).first;
        ids[1000] = kept;
    }
    qsort(values, RUNS, sizeof *values, by_value);
    return values[RUNS / 2];
}

/* A direction for half of the layers, as the document has it, and a meter. */
static void attach(void)
{
    const struct gyaru_model_info *info = gyaru_model_info(model);
    struct gyaru_vector *vector;
    struct gyaru_attach_options options;
    float *direction = malloc((size_t)info->hidden_size * sizeof *direction);
    char *warning;
    int index;
    if (!direction)
        exit(1);
    check(vector_new(info->hidden_size, HOOK_RESID_POST, &vector, &err));
    for (int l = info->layer_first; l <= info->layer_last; l++) {
        for (int i = 0; i < info->hidden_size; i++)
            direction[i] = (float)((i * 7919 + l) % 101 - 50) * 1e-4f;
        check(vector_set_direction(vector, l, direction, &err));
    }
    gyaru_attach_options_init(&options);
    options.gauge_layer = info->visualise_layer;
    options.force = true;
    check(gyaru_model_attach(model, vector, &options, &index, &warning, &err));
    free(warning);
    free(direction);
    gyaru_vector_close(vector);
}

int main(int argc, char **argv)
{
    struct gyaru_model_options options;
    struct backend_memory memory;
    if (argc < 2) {
        fprintf(stderr, "usage: device SHAPE [DEVICE]\n");
        return 2;
    }
    gyaru_model_options_init(&options);
    options.device = argc > 2 ? argv[2] : "cuda";
    options.context = CONTEXT;
    options.sessions = STREAMS;
    options.chunk = 512;
    check(gyaru_model_open_random(argv[1], &options, &model, &err));
    const struct gyaru_model_info *info = gyaru_model_info(model);
    ids = malloc((CONTEXT + 1) * sizeof *ids);
    if (!ids)
        return 1;
    for (int i = 0; i <= CONTEXT; i++)
        ids[i] = (int32_t)((int64_t)i * 7919 % 151000);
    for (int i = 0; i < STREAMS; i++)
        check(gyaru_session_new(model, &sessions[i], &err));

    printf("{\"shape\": \"%s\", \"device\": \"%s\", \"load_seconds\": %.3f", argv[1], info->device,
           info->load_seconds);
    printf(", \"bytes_per_token\": %llu", (unsigned long long)info->token_bytes);
    model->backend->memory(model->device, &memory);
    printf(", \"planned_bytes\": %llu, \"device_bytes_in_use\": %llu",
           (unsigned long long)(info->weight_bytes + info->kv_bytes + info->workspace_bytes),
           (unsigned long long)(memory.total - memory.available));
    static const int contexts[] = {64, 2048, 8192}, prefills[] = {128, 512, 2048};
    for (int i = 0; i < 3; i++)
        printf(", \"decode_%d\": %.2f", contexts[i],
               measure(RATE, 1, contexts[i], DECODE, false, -1));
    printf(", \"answer_50_100_seconds\": %.4f", measure(TOTAL, 1, 50, 100, true, -1));
    for (int i = 0; i < 3; i++)
        printf(", \"prefill_%d\": %.1f", prefills[i],
               prefills[i] / measure(FIRST, 1, prefills[i], 1, true, -1));
    printf(", \"first_token_cold_30\": %.5f", measure(FIRST, 1, 30, 1, true, -1));
    printf(", \"first_token_cached_30\": %.5f", cached_turn());
    for (int n = 2; n <= STREAMS; n *= 2)
        printf(", \"streams_%d\": %.2f", n, measure(RATE, n, 64, DECODE, false, -1));
    fflush(stdout);
    attach();
    printf(", \"attached_idle\": %.2f", measure(RATE, 1, 64, DECODE, false, -1));
    strengths[0] = 6;
    printf(", \"steered_metered\": %.2f}\n", measure(RATE, 1, 64, DECODE, false, 0));
    for (int i = 0; i < STREAMS; i++)
        gyaru_session_free(sessions[i]);
    gyaru_model_close(model);
    free(ids);
    return 0;
}
