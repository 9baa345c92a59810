/* figures.c - see figures.h. */
#include "cli/figures.h"

#include "base/clock.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAMS      8
#define MAX_RUNS     99
#define DECODE       48 /* tokens of a decode run */
#define SHORT        64 /* context of a decode run that is not about context */
#define CHAT_CONTEXT 0  /* what the model supports, at most 4096 */
#define LONG_CONTEXT 8448
#define MANY_CONTEXT 256  /* of each of STREAMS */
#define CACHED       1000 /* positions that are there before a short turn */
#define TURN         30   /* new tokens of a short turn */

struct bench {
    struct figures_source *source;
    struct figures *out;
    struct gyaru_model *model;
    struct gyaru_session *sessions[STREAMS];
    int n_sessions;
    int32_t ids[LONG_CONTEXT];
    float strengths[GYARU_MAX_VECTORS];
    int gauge;
    double read, copy; /* bytes/s, 0: not known */
    struct gyaru_error *err;
};

__attribute__((format(printf, 5, 6))) static void
add(struct bench *b, const char *key, double value, const char *unit, const char *what, ...)
{
    va_list args;
    if (b->out->n == FIGURES_MAX)
        return;
    struct figure *f = &b->out->list[b->out->n++];
    *f = (struct figure){.unit = unit, .value = value};
    snprintf(f->key, sizeof f->key, "%s", key);
    va_start(args, what);
    vsnprintf(f->what, sizeof f->what, what, args);
    va_end(args);
}

/* To the figure that was added last. */
__attribute__((format(printf, 2, 3))) static void note(struct bench *b, const char *format, ...)
{
    va_list args;
    struct figure *f = &b->out->list[b->out->n - 1];
    va_start(args, format);
    vsnprintf(f->note, sizeof f->note, format, args);
    va_end(args);
}

/* Does `only` name it: its part, or how its key begins? */
static bool names(const char *only, const char *part, const char *key)
{
    return !strcmp(only, part) || !strncmp(key, only, strlen(only));
}

static bool wanted(const struct bench *b, const char *part, const char *key)
{
    return !b->source->only || names(b->source->only, part, key);
}

/* ---- one run --------------------------------------------------------------------------------- */

struct timing {
    double first, rest; /* seconds to the first token of the last stream, and from there on */
    size_t tokens;      /* of all streams after that */
};

struct task {
    int streams, prompt, tokens;
    bool cold; /* nothing that the caches hold is reused */
};

static int begin(struct bench *b, const struct task *t)
{
    for (int i = 0; i < t->streams; i++) {
        struct gyaru_request request;
        gyaru_request_init(b->model, &request);
        request.prompt = b->ids;
        request.n_prompt = (size_t)t->prompt;
        request.max_tokens = t->tokens;
        request.sampling.temperature = 0;
        request.sampling.repeat_penalty = 1;
        request.ignore_eos = request.any_id = true;
        request.strengths = b->strengths;
        request.gauge = b->gauge;
        if (t->cold)
            gyaru_session_reset(b->sessions[i]);
        if (gyaru_session_start(b->sessions[i], &request, b->err))
            return -1;
    }
    return 0;
}

static bool busy(const struct bench *b, int streams)
{
    for (int i = 0; i < streams; i++)
        if (gyaru_session_busy(b->sessions[i]))
            return true;
    return false;
}

static int answer(struct bench *b, const struct task *t, struct timing *out)
{
    struct gyaru_event events[STREAMS];
    int begun = 0;
    *out = (struct timing){0};
    if (begin(b, t))
        return -1;
    double start = clock_seconds(), first = 0;
    while (busy(b, t->streams)) {
        size_t n_events;
        if (b->source->stop())
            return error_set(b->err, GYARU_FAILED, "stopped");
        if (gyaru_step(b->sessions, (size_t)t->streams, events, &n_events, b->err))
            return -1;
        for (size_t e = 0; e < n_events; e++) {
            if (events[e].finish == GYARU_OVERFLOW)
                return error_set(b->err, GYARU_FAILED, "the model's numbers overflowed");
            out->tokens += events[e].token >= 0 && begun >= t->streams;
            begun += events[e].token >= 0;
        }
        if (begun >= t->streams && first <= 0)
            first = clock_seconds();
    }
    out->first = first - start;
    out->rest = clock_seconds() - first;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum kind { FIRST, TOTAL, RATE, PREFILL };

static double value_of(enum kind kind, const struct task *task, const struct timing *t)
{
    switch (kind) {
    case FIRST:
        return t->first;
    case TOTAL:
        return t->first + t->rest;
    case PREFILL:
        return t->first > 0 ? task->prompt / t->first : 0;
    case RATE:
        break;
    }
    return t->rest > 0 ? (double)t->tokens / t->rest : 0;
}

static double middle(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return values[n / 2];
}

static int measure(struct bench *b, enum kind kind, const struct task *task, double *out)
{
    double values[MAX_RUNS] = {0};
    int runs = b->source->runs;
    for (int run = runs > 1 ? -1 : 0; run < runs; run++) {
        struct timing t;
        if (answer(b, task, &t))
            return -1;
        if (run >= 0)
            values[run] = value_of(kind, task, &t);
    }
    *out = middle(values, runs);
    return 0;
}

/* A short turn: the prefix is cached, TURN ids are new. */
static int cached_turn(struct bench *b, int cached, double *out)
{
    double values[MAX_RUNS] = {0};
    for (int run = 0; run < b->source->runs; run++) {
        struct timing t;
        if (answer(b, &(struct task){1, cached, 2, true}, &t))
            return -1;
        int32_t kept = b->ids[cached]; /* the token that the answer put there differs, too */
        b->ids[cached] = (kept + 1 + run) % gyaru_model_info(b->model)->n_tokens;
        int rc = answer(b, &(struct task){1, cached + TURN, 1, false}, &t);
        b->ids[cached] = kept;
        if (rc)
            return -1;
        values[run] = t.first;
    }
    *out = middle(values, b->source->runs);
    return 0;
}

/* ---- groups of figures ----------------------------------------------------------------------- */

static void close_model(struct bench *b)
{
    for (int i = 0; i < b->n_sessions; i++)
        gyaru_session_free(b->sessions[i]);
    b->n_sessions = 0;
    if (b->model)
        gyaru_model_close(b->model);
    b->model = NULL;
}

static int open_model(struct bench *b, int sessions, int context)
{
    if (b->source->open(b->source->user, sessions, context, &b->model, b->err))
        return -1;
    const struct gyaru_model_info *info = gyaru_model_info(b->model);
    for (int i = 0; i < LONG_CONTEXT; i++)
        b->ids[i] = (int32_t)((int64_t)i * 7919 % info->n_tokens);
    while (b->n_sessions < sessions) {
        if (gyaru_session_new(b->model, &b->sessions[b->n_sessions], b->err))
            return -1;
        b->n_sessions++;
    }
    return 0;
}

static bool fits(const struct bench *b, int positions)
{
    return positions <= gyaru_model_info(b->model)->context;
}

static void add_memory(struct bench *b)
{
    const struct gyaru_model_info *info = gyaru_model_info(b->model);
    const double gib = 1u << 30;
    add(b, "load_seconds", info->load_seconds, "s", "loading");
    add(b, "planned_gib",
        (double)(info->weight_bytes + info->kv_bytes + info->workspace_bytes) / gib, "GiB",
        "memory, planned");
    note(b, "weights %.2f, KV %.2f (%d positions), workspace %.2f%s",
         (double)info->weight_bytes / gib, (double)info->kv_bytes / gib, info->context,
         (double)info->workspace_bytes / gib, info->devices > 1 ? ", on each GPU" : "");
    add(b, "taken_gib", (double)info->used_bytes / gib, "GiB", "memory, taken by loading");
    add(b, "in_use_gib", (double)info->in_use_bytes / gib, "GiB", "memory, in use");
    note(b, "%s", info->on_gpu ? "of the GPU, by all and the driver" : "by this process");
    if (info->host_bytes)
        add(b, "host_gib", (double)info->host_bytes / gib, "GiB", "embedding in host memory");
}

static int add_bandwidth(struct bench *b)
{
    if (gyaru_model_bandwidth(b->model, &b->read, &b->copy, b->err))
        return -1;
    if (b->read <= 0)
        return 0;
    add(b, "read_gb_per_s", b->read / 1e9, "GB/s", "memory, reading");
    add(b, "copy_gb_per_s", b->copy / 1e9, "GB/s", "memory, copying (both ways)");
    return 0;
}

/* Which model a figure is taken from. */
enum opened { CHAT, LONG, MANY };

static const struct {
    enum opened opened;
    const char *key, *part, *what, *unit;
    enum kind kind;
    struct task task;
} specs[] = {
    {CHAT, "decode_64", "decode", "decode, context 64", "tok/s", RATE, {1, SHORT, DECODE, false}},
    {CHAT,
     "decode_2048",
     "decode",
     "decode, context 2048",
     "tok/s",
     RATE,
     {1, 2048, DECODE, false}},
    {CHAT,
     "answer_50_100_seconds",
     "decode",
     "50 tokens in, 100 out",
     "s",
     TOTAL,
     {1, 50, 100, true}},
    {CHAT, "first_token_cold_16", "prefill", "first token, 16 new", "s", FIRST, {1, 16, 1, true}},
    {CHAT, "first_token_cold_30", "prefill", "first token, 30 new", "s", FIRST, {1, 30, 1, true}},
    {CHAT, "first_token_cold_60", "prefill", "first token, 60 new", "s", FIRST, {1, 60, 1, true}},
    {CHAT, "prefill_64", "prefill", "prefill, 64 tokens", "tok/s", PREFILL, {1, 64, 1, true}},
    {CHAT, "prefill_128", "prefill", "prefill, 128 tokens", "tok/s", PREFILL, {1, 128, 1, true}},
    {CHAT, "prefill_256", "prefill", "prefill, 256 tokens", "tok/s", PREFILL, {1, 256, 1, true}},
    {CHAT, "prefill_512", "prefill", "prefill, 512 tokens", "tok/s", PREFILL, {1, 512, 1, true}},
    {CHAT, "prefill_2048", "prefill", "prefill, 2048 tokens", "tok/s", PREFILL, {1, 2048, 1, true}},
    {LONG,
     "decode_8192",
     "decode",
     "decode, context 8192",
     "tok/s",
     RATE,
     {1, 8192, DECODE, false}},
    {LONG, "prefill_8192", "prefill", "prefill, 8192 tokens", "tok/s", PREFILL, {1, 8192, 1, true}},
    {MANY, "streams_1", "streams", "decode, 1 stream", "tok/s", RATE, {1, SHORT, DECODE, false}},
    {MANY,
     "streams_2",
     "streams",
     "decode, 2 streams together",
     "tok/s",
     RATE,
     {2, SHORT, DECODE, false}},
    {MANY,
     "streams_4",
     "streams",
     "decode, 4 streams together",
     "tok/s",
     RATE,
     {4, SHORT, DECODE, false}},
    {MANY,
     "streams_8",
     "streams",
     "decode, 8 streams together",
     "tok/s",
     RATE,
     {8, SHORT, DECODE, false}},
};
#define N_SPECS (sizeof specs / sizeof *specs)

bool figures_known(const char *only)
{
    for (size_t i = 0; i < N_SPECS; i++)
        if (names(only, specs[i].part, specs[i].key))
            return true;
    return names(only, "steering", "steered_tokens_per_second") ||
           names(only, "prefill", "first_token_cached_30");
}

static bool any_wanted(const struct bench *b, enum opened opened)
{
    for (size_t i = 0; i < N_SPECS; i++)
        if (specs[i].opened == opened && wanted(b, specs[i].part, specs[i].key))
            return true;
    return false;
}

/* A token reads all weights once, and the cache up to there. */
static void note_share(struct bench *b, int context, double rate)
{
    const struct gyaru_model_info *info = gyaru_model_info(b->model);
    double cache = (double)info->kv_bytes / info->context * (context + DECODE / 2.0);
    double bytes = (double)info->token_bytes + cache;
    if (b->copy <= 0)
        return;
    note(b, "%.3f GB a token: %.1f%% of copying, %.1f%% of reading", bytes / 1e9,
         100 * bytes * rate / b->copy, 100 * bytes * rate / b->read);
    add(b,
        context == SHORT  ? "copy_share_64"
        : context == 2048 ? "copy_share_2048"
                          : "copy_share_8192",
        (double)info->token_bytes * rate / b->copy, "", "  weights alone, share of copying");
}

static int add_specs(struct bench *b, enum opened opened)
{
    double one = 0;
    for (size_t i = 0; i < N_SPECS; i++) {
        const struct task *t = &specs[i].task;
        double value;
        if (specs[i].opened != opened || !wanted(b, specs[i].part, specs[i].key) ||
            !fits(b, t->prompt + t->tokens))
            continue;
        if (measure(b, specs[i].kind, t, &value))
            return -1;
        add(b, specs[i].key, value, specs[i].unit, "%s", specs[i].what);
        if (opened == MANY && t->streams == 1)
            one = value;
        else if (opened == MANY && one > 0)
            note(b, "%.2f times one", value / one);
        else if (specs[i].kind == RATE)
            note_share(b, t->prompt, value);
    }
    return 0;
}

static int add_cached_turn(struct bench *b)
{
    double seconds;
    int cached = gyaru_model_info(b->model)->context - TURN - 1;
    cached = cached < CACHED ? cached : CACHED;
    if (!wanted(b, "prefill", "first_token_cached_30"))
        return 0;
    if (cached_turn(b, cached, &seconds))
        return -1;
    add(b, "first_token_cached_30", seconds, "s", "first token, %d new, %d cached", TURN, cached);
    return 0;
}

/* Attached at strength 0, then at work with its meter; both against the same decode without. */
static int add_steering(struct bench *b)
{
    const struct task task = {1, SHORT, DECODE, false};
    double plain, idle, steered;
    int index;
    if (!wanted(b, "steering", "steered_tokens_per_second") || !fits(b, SHORT + DECODE))
        return 0;
    if (measure(b, RATE, &task, &plain) || gyaru_model_attach_random(b->model, &index, b->err) ||
        measure(b, RATE, &task, &idle))
        return -1;
    b->strengths[index] = 6;
    b->gauge = index;
    int rc = measure(b, RATE, &task, &steered);
    b->strengths[index] = 0;
    b->gauge = -1;
    gyaru_model_detach(b->model, index);
    if (rc)
        return -1;
    add(b, "attached_tokens_per_second", idle, "tok/s", "decode, vector at strength 0");
    note(b, "%+.2f%%", 100 * (idle / plain - 1));
    add(b, "steered_tokens_per_second", steered, "tok/s", "decode, steered and metered");
    note(b, "%+.2f%%", 100 * (steered / plain - 1));
    return 0;
}

/* ---- all ------------------------------------------------------------------------------------- */

static int chat(struct bench *b)
{
    struct figures_source *s = b->source;
    if (open_model(b, 1, CHAT_CONTEXT))
        return -1;
    snprintf(s->title, sizeof s->title, "%.60s on %.90s", gyaru_model_info(b->model)->name,
             gyaru_model_info(b->model)->device);
    add_memory(b);
    return add_bandwidth(b) || add_specs(b, CHAT) || add_cached_turn(b) || add_steering(b) ? -1 : 0;
}

static int long_context(struct bench *b)
{
    return open_model(b, 1, LONG_CONTEXT) || add_specs(b, LONG) ? -1 : 0;
}

static int streams(struct bench *b)
{
    return open_model(b, STREAMS, MANY_CONTEXT) || add_specs(b, MANY) ? -1 : 0;
}

static int measure_all(struct bench *b)
{
    if (chat(b))
        return -1;
    close_model(b);
    for (enum opened o = LONG; o <= MANY; o++) {
        if (!any_wanted(b, o))
            continue;
        int rc = o == LONG ? long_context(b) : streams(b);
        bool opened = b->model != NULL;
        close_model(b);
        if (rc && (opened || b->source->stop()))
            return -1;
        if (rc) { /* these ask for more than there may be */
            add(b, "", NAN, "", "%s", o == LONG ? "8k context" : "8 streams");
            note(b, "left out: %s", b->err->text);
        }
    }
    return 0;
}

int figures_measure(struct figures_source *source, struct figures *out, struct gyaru_error *err)
{
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return error_memory(err, sizeof *b, "the benchmark");
    b->source = source;
    b->out = out;
    b->gauge = -1;
    b->err = err;
    out->n = 0;
    int rc = measure_all(b);
    close_model(b);
    free(b);
    return rc;
}
