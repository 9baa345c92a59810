/*
 * open.c - opens and closes a model: read, plan, refuse what does not fit, load.
 */
#include "model/open.h"

#include "base/clock.h"
#include "model/sampler.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CONTEXT 4096
#define MOST_CHUNK      4096
#define LEAST_CHUNK     128 /* of those that are chosen here */

void gyaru_model_options_init(struct gyaru_model_options *options)
{
    *options = (struct gyaru_model_options){.device = "auto", .sessions = 1, .kv = GYARU_KV_AUTO};
}

const char *gyaru_kv_name(enum gyaru_kv kv)
{
    static const char *const names[] = {[GYARU_KV_AUTO] = "auto",
                                        [GYARU_KV_F16] = "f16",
                                        [GYARU_KV_F32] = "f32",
                                        [GYARU_KV_I8] = "int8"};
    return names[kv];
}

static int check_options(const struct gyaru_model_options *o, struct gyaru_error *err)
{
    if (o->sessions < 1 || o->sessions > 64)
        return error_set(err, GYARU_USAGE, "sessions: %d: expected 1..64", o->sessions);
    if (o->chunk < 0 || o->chunk > MOST_CHUNK)
        return error_set(err, GYARU_USAGE, "chunk: %d: expected 0..%d rows", o->chunk, MOST_CHUNK);
    if (o->threads < 0 || o->threads > 1024)
        return error_set(err, GYARU_USAGE, "threads: %d: expected 0..1024", o->threads);
    if (o->context < 0 || o->context > 1 << 20)
        return error_set(err, GYARU_USAGE, "context: %d: expected 0..1048576 positions",
                         o->context);
    return 0;
}

/* How many positions a session gets: as asked, else what the model supports up to the default. */
static int choose_context(const struct model_config *c, const struct gyaru_model_options *o,
                          int *out, struct gyaru_error *err)
{
    if (o->context > c->max_position)
        return error_set(err, GYARU_USAGE, "context: %d: the model supports at most %d positions",
                         o->context, c->max_position);
    int most = c->max_position < DEFAULT_CONTEXT ? c->max_position : DEFAULT_CONTEXT;
    *out = o->context ? o->context : most;
    return 0;
}

/* As many rows per step as asked for, else what suits the backend, fewer where memory is short: a
 * row more than all contexts hold is never used. */
static void choose_rows(struct model_plan *plan, const struct gyaru_model_options *o)
{
    struct backend_shape *s = &plan->shape;
    int rows = o->chunk ? o->chunk : plan->backend->default_rows;
    int64_t positions = (int64_t)s->context * s->n_slots;
    while (!o->chunk && rows > LEAST_CHUNK && rows / 2 >= positions)
        rows /= 2;
    for (;; rows /= 2) {
        s->max_rows = rows > o->sessions ? rows : o->sessions;
        plan->backend->stage_bytes(plan->device, s, &plan->kv_bytes, &plan->workspace_bytes);
        if (o->chunk || rows <= LEAST_CHUNK ||
            model_plan_total(plan) <= model_plan_available(plan, o))
            return;
    }
}

static int plan_shape(struct model_plan *plan, const struct gyaru_model_options *o,
                      struct gyaru_error *err)
{
    const struct model_config *c = &plan->config;
    int context = 0;
    if (o->kv == GYARU_KV_I8 && !plan->backend->int8_kv)
        return error_set(err, GYARU_USAGE,
                         "a KV cache of int8 needs a GPU; on the %s it is f16 or f32",
                         plan->backend->name);
    if (choose_context(c, o, &context, err))
        return -1;
    plan->shape = (struct backend_shape){
        .n_layers = c->n_layers,
        .hidden = c->hidden,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .intermediate = c->intermediate,
        .vocab = c->vocab,
        .rope_theta = c->rope_theta,
        .norm_eps = c->norm_eps,
        .n_slots = o->sessions,
        .context = context,
        .max_logits = o->sessions > MODEL_EVAL_ROWS ? o->sessions : MODEL_EVAL_ROWS,
        .kv = o->kv == GYARU_KV_AUTO ? plan->backend->default_kv : o->kv,
    };
    double cache = 2.0 * 4 * c->n_layers * (double)o->sessions * context * c->n_kv_heads;
    if (cache * c->head_dim > 0x1p60)
        return error_set(
            err, GYARU_NO_MEMORY,
            "the KV cache would take more than 2^60 bytes: lower --context or the sessions");
    if (plan->backend->check && plan->backend->check(plan->device, &plan->shape, err))
        return -1;
    choose_rows(plan, o);
    return 0;
}

/* What the model takes on the device that is open. */
static int plan_sizes(struct model_plan *plan, const struct gyaru_model_options *o,
                      struct gyaru_error *err)
{
    bool table = o->host_embedding && plan->backend->table_new;
    if (table && plan->config.tied)
        return error_set(err, GYARU_USAGE,
                         "the embedding cannot stay in the host's memory: it is this model's head, "
                         "too, which every token reads");
    if (weights_plan(&plan->config, &plan->source, plan->backend, plan->device, table,
                     &plan->weights, err))
        return -1;
    plan->backend->memory(plan->device, &plan->memory);
    return plan_shape(plan, o, err);
}

static void close_device(struct model_plan *plan)
{
    if (plan->device)
        plan->backend->close(plan->device);
    plan->device = NULL;
}

/* Is "auto" served by a GPU? If not, *plan keeps the reason; -1 where a CPU would not help. */
static int try_gpu(struct model_plan *plan, const struct gyaru_model_options *o, bool *fits,
                   struct gyaru_error *err)
{
    struct gyaru_error why;
    *fits = false;
    if (backend_open("cuda", o->threads, &plan->backend, &plan->device, &why)) {
        snprintf(plan->why, sizeof plan->why, "auto: no GPU: %.230s", why.text);
        return 0;
    }
    if (plan_sizes(plan, o, &why)) {
        if (why.status == GYARU_USAGE) {
            *err = why;
            return -1;
        }
        snprintf(plan->why, sizeof plan->why, "auto: not on the GPU: %.230s", why.text);
    } else {
        *fits = model_plan_total(plan) <= model_plan_available(plan, o);
        model_plan_say_memory(plan, o, plan->why, sizeof plan->why);
    }
    plan->gpu_refused = !*fits;
    return 0;
}

/* Device and sizes. */
int model_plan_finish(struct model_plan *plan, const struct gyaru_model_options *options,
                      struct gyaru_error *err)
{
    const char *device = options->device;
    bool fits = false;
    if (check_options(options, err))
        return -1;
    if (!device || !strcmp(device, "auto")) {
        if (try_gpu(plan, options, &fits, err))
            return -1;
        if (fits)
            return 0;
        close_device(plan);
        device = "cpu";
    }
    if (backend_open(device, options->threads, &plan->backend, &plan->device, err))
        return -1;
    return plan_sizes(plan, options, err);
}

int model_plan_make(const char *dir, const struct gyaru_model_options *options,
                    struct model_plan *plan, struct gyaru_error *err)
{
    *plan = (struct model_plan){0};
    struct checkpoint *checkpoint;
    if (model_config_read(dir, &plan->config, err))
        return -1;
    if (checkpoint_open(dir, &checkpoint, err)) {
        model_plan_release(plan);
        return -1;
    }
    plan->source = weights_checkpoint_source(checkpoint);
    plan->checkpoint = checkpoint;
    if (model_plan_finish(plan, options, err) ||
        model_fingerprint(&plan->config, plan->checkpoint, plan->fingerprint, err)) {
        model_plan_release(plan);
        return -1;
    }
    return 0;
}

void model_plan_release(struct model_plan *plan)
{
    close_device(plan);
    if (plan->source.close)
        plan->source.close(plan->source.user);
    model_config_release(&plan->config);
    *plan = (struct model_plan){0};
}

uint64_t model_plan_available(const struct model_plan *plan,
                              const struct gyaru_model_options *options)
{
    uint64_t free_bytes = plan->memory.available;
    return options->memory && options->memory < free_bytes ? options->memory : free_bytes;
}

/* "models/rinne-base/" -> "rinne-base". */
static char *name_of(const char *dir)
{
    char *copy = strdup(dir);
    char *name = copy ? strdup(basename(copy)) : NULL;
    free(copy);
    return name;
}

static void fill_info(struct gyaru_model *m, const struct model_plan *plan)
{
    const struct model_config *c = &m->config;
    m->info = (struct gyaru_model_info){
        .dir = m->dir,
        .name = m->name,
        .n_layers = c->n_layers,
        .hidden_size = c->hidden,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .intermediate_size = c->intermediate,
        .vocab_size = c->vocab,
        .n_tokens = m->tokenizer ? gyaru_tokenizer_size(m->tokenizer) : c->vocab,
        .context = plan->shape.context,
        .max_position = c->max_position,
        .layer_first = model_layer_at(c->n_layers, 30),
        .layer_last = model_layer_at(c->n_layers, 80),
        .visualise_layer = model_layer_at(c->n_layers, 73),
        .weight_bytes = plan->weights.total,
        .token_bytes = plan->weights.per_token,
        .kv_bytes = plan->kv_bytes,
        .workspace_bytes = plan->workspace_bytes,
        .host_bytes = plan->weights.host,
        .devices = plan->memory.devices > 1 ? plan->memory.devices : 1,
        .device = m->backend->describe(m->device),
        .device_why = m->device_why,
        .on_gpu = m->backend != &backend_cpu,
        .gpu_refused = plan->gpu_refused,
    };
    memcpy(m->device_why, plan->why, sizeof m->device_why);
    memcpy(m->info.fingerprint, plan->fingerprint, sizeof plan->fingerprint);
}

/* Moves what the plan opened into the model, and loads. */
static int load(struct gyaru_model *m, struct model_plan *plan, const char *dir,
                const struct gyaru_model_options *options, struct gyaru_error *err)
{
    m->dir = strdup(dir);
    m->name = name_of(dir);
    m->slots = calloc((size_t)plan->shape.n_slots, sizeof *m->slots);
    m->rows = calloc((size_t)plan->shape.max_rows, sizeof *m->rows);
    if (!m->dir || !m->name || !m->slots || !m->rows)
        return error_memory(err, 1 << 16, "the model");
    if (plan->checkpoint && gyaru_tokenizer_open(dir, &m->tokenizer, err))
        return -1;
    if (m->tokenizer && gyaru_tokenizer_size(m->tokenizer) > plan->config.vocab)
        return error_set(err, GYARU_FAILED,
                         "%s: the tokenizer has %d ids but the model only %d: they do not belong "
                         "together",
                         dir, gyaru_tokenizer_size(m->tokenizer), plan->config.vocab);
    m->shape = plan->shape;
    fill_info(m, plan);
    size_t n = (size_t)m->shape.max_logits;
    if (m->backend->candidates && !(m->candidates = calloc(n, sizeof *m->candidates)))
        return error_memory(err, n * sizeof *m->candidates, "the model");
    if (sampler_new(plan->config.vocab, &m->sampler, err) ||
        weights_load(m, &plan->source, options, err) ||
        m->backend->stage_new(m->device, &m->shape, &m->stage, err))
        return -1;
    return 0;
}

int model_open_plan(struct model_plan *plan, const char *dir,
                    const struct gyaru_model_options *options, struct gyaru_model **out,
                    struct gyaru_error *err)
{
    double start = clock_seconds();
    struct gyaru_model *m = NULL;
    struct backend_memory before = plan->memory;
    int rc = model_plan_check_memory(plan, options, dir, err);
    if (!rc && !(m = calloc(1, sizeof *m)))
        rc = error_memory(err, sizeof *m, "the model");
    if (!rc) {
        m->config = plan->config;
        m->backend = plan->backend;
        m->device = plan->device;
        rc = load(m, plan, dir, options, err);
        plan->config = (struct model_config){0};
        plan->device = NULL;
    }
    model_plan_release(plan);
    if (rc) {
        gyaru_model_close(m);
        return -1;
    }
    m->info.load_seconds = clock_seconds() - start;
    struct backend_memory after;
    m->backend->memory(m->device, &after);
    m->info.used_bytes = after.used > before.used ? after.used - before.used : 0;
    m->info.in_use_bytes = after.used;
    *out = m;
    return 0;
}

int gyaru_model_open(const char *dir, const struct gyaru_model_options *options,
                     struct gyaru_model **out, struct gyaru_error *err)
{
    struct model_plan plan;
    if (model_plan_make(dir, options, &plan, err))
        return -1;
    return model_open_plan(&plan, dir, options, out, err);
}

void gyaru_model_close(struct gyaru_model *m)
{
    if (!m)
        return;
    for (int e = 0; e < GYARU_MAX_VECTORS; e++)
        gyaru_model_detach(m, e);
    if (m->stage)
        m->backend->stage_free(m->stage);
    weights_release(m);
    m->backend->close(m->device);
    if (m->tokenizer)
        gyaru_tokenizer_close(m->tokenizer);
    model_config_release(&m->config);
    sampler_free(m->sampler);
    free(m->candidates);
    free(m->rows);
    free(m->slots);
    free(m->name);
    free(m->dir);
    free(m);
}

const struct gyaru_model_info *gyaru_model_info(const struct gyaru_model *model)
{
    return &model->info;
}

const struct gyaru_tokenizer *gyaru_model_tokenizer(const struct gyaru_model *model)
{
    return model->tokenizer;
}
