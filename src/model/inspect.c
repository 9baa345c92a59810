/*
 * inspect.c - see inspect.h. Tensors are counted by part of the model and by type: what is 4-bit
 * is decided by the file, tensor by tensor, never by config.json's word.
 */
#include "model/inspect.h"

#include "base/str.h"
#include "format/checkpoint.h"
#include "model/open.h"
#include "model/source.h"

#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS 64 /* five parts by at most seven types */

/* Tensors of one part and one type. */
struct group {
    const char *part, *type;
    bool four_bit;
    uint64_t count, parameters, disk_bytes, memory_bytes;
};

struct census {
    const struct model_plan *plan;
    struct group groups[MAX_GROUPS]; /* in the order met */
    size_t n;
};

static const char *part_of(const char *name)
{
    if (strstr(name, ".bias") || strstr(name, "norm"))
        return "norms and biases";
    if (strstr(name, "self_attn."))
        return "attention";
    if (strstr(name, "mlp."))
        return "mlp";
    return strstr(name, "embed_tokens") ? "embedding" : "head";
}

static struct group *group_of(struct census *census, const char *part, const char *type)
{
    for (size_t i = 0; i < census->n; i++)
        if (!strcmp(census->groups[i].part, part) && !strcmp(census->groups[i].type, type))
            return &census->groups[i];
    struct group *group = &census->groups[census->n++];
    *group = (struct group){.part = part, .type = type};
    return group;
}

static const char *type_of(const struct checkpoint *checkpoint, const char *name,
                           const struct quant_source *source)
{
    switch (source->type) {
    case QUANT_F32:
        return "f32";
    case QUANT_F16:
        return "f16";
    case QUANT_BF16:
        return "bf16";
    case QUANT_4BIT:
        break;
    }
    bool fp4 = source_is_fp4(checkpoint, name);
    if (source->nested_absmax)
        return fp4 ? "FP4, double-quantised" : "NF4, double-quantised";
    return fp4 ? "FP4" : "NF4";
}

static int count_matrix(void *user, const char *name, int layer, const struct quant_source *source,
                        struct gyaru_error *err)
{
    struct census *census = user;
    struct group *group =
        group_of(census, part_of(name), type_of(census->plan->checkpoint, name, source));
    group->four_bit = source->type == QUANT_4BIT;
    group->count++;
    group->parameters += source->rows * source->cols;
    group->disk_bytes += quant_bytes(source);
    group->memory_bytes += census->plan->backend->matrix_bytes(census->plan->device, source);
    return 0;
}

static int count_vector(void *user, const char *name, int layer, size_t slot, size_t n,
                        struct gyaru_error *err)
{
    struct census *census = user;
    const struct tensor *t = checkpoint_find(census->plan->checkpoint, name);
    if (!t)
        return error_set(err, GYARU_FAILED, "%s: missing from the checkpoint", name);
    const char *type = t->dtype == DTYPE_F32 ? "f32" : t->dtype == DTYPE_F16 ? "f16" : "bf16";
    struct group *group = group_of(census, part_of(name), type);
    group->count++;
    group->parameters += n;
    group->disk_bytes += t->size;
    group->memory_bytes += n * sizeof(float);
    return 0;
}

static json_t *groups_json(const struct census *census)
{
    json_t *list = json_array();
    for (size_t i = 0; i < census->n; i++) {
        const struct group *g = &census->groups[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:f}", "part",
                                              g->part, "type", g->type, "four_bit",
                                              (int)g->four_bit, "count", (json_int_t)g->count,
                                              "parameters", (json_int_t)g->parameters, "disk_bytes",
                                              (json_int_t)g->disk_bytes, "memory_bytes",
                                              (json_int_t)g->memory_bytes, "bits_per_weight",
                                              8.0 * (double)g->disk_bytes / (double)g->parameters));
    }
    return list;
}

static uint64_t file_bytes(const struct checkpoint *checkpoint)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++)
        bytes += checkpoint_at(checkpoint, i)->size;
    return bytes;
}

/* Sums over all groups, or over those that are 4-bit. */
static struct group total_of(const struct census *census, bool only_four_bit)
{
    struct group total = {0};
    for (size_t i = 0; i < census->n; i++) {
        const struct group *g = &census->groups[i];
        if (only_four_bit && !g->four_bit)
            continue;
        total.count += g->count;
        total.parameters += g->parameters;
        total.disk_bytes += g->disk_bytes;
        total.memory_bytes += g->memory_bytes;
    }
    return total;
}

static void add_tensors(json_t *root, const struct census *census)
{
    struct group all = total_of(census, false), packed = total_of(census, true);
    uint64_t file = file_bytes(census->plan->checkpoint);
    json_object_set_new(root, "tensors", groups_json(census));
    json_object_set_new(root, "parameters", json_integer((json_int_t)all.parameters));
    json_object_set_new(root, "file_bytes", json_integer((json_int_t)file));
    json_object_set_new(root, "bits_per_weight",
                        json_real(8.0 * (double)file / (double)all.parameters));
    json_object_set_new(root, "four_bit_parameters", json_integer((json_int_t)packed.parameters));
    if (packed.parameters)
        json_object_set_new(root, "four_bit_bits_per_weight",
                            json_real(8.0 * (double)packed.disk_bytes / (double)packed.parameters));
}

static json_t *device_json(const char *device, const struct model_plan *plan,
                           const struct gyaru_model_options *options)
{
    uint64_t need = model_plan_total(plan), available = model_plan_available(plan, options);
    const struct backend_shape *s = &plan->shape;
    uint64_t positions = (uint64_t)s->context * (uint64_t)s->n_slots;
    return json_pack(
        "{s:s, s:b, s:s, s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:b}",
        "device", device, "present", 1, "description", plan->backend->describe(plan->device),
        "devices", plan->memory.devices > 1 ? plan->memory.devices : 1, "weight_bytes",
        (json_int_t)plan->weights.total, "weight_bytes_per_token",
        (json_int_t)plan->weights.per_token, "kv_bytes_per_token",
        (json_int_t)(plan->kv_bytes / positions), "kv_bytes", (json_int_t)plan->kv_bytes, "context",
        s->context, "sessions", s->n_slots, "kv_type", gyaru_kv_name(s->kv), "workspace_bytes",
        (json_int_t)plan->workspace_bytes, "host_bytes", (json_int_t)plan->weights.host,
        "total_bytes", (json_int_t)need, "memory_bytes", (json_int_t)plan->memory.total,
        "available_bytes", (json_int_t)available, "fits", (int)(need <= available));
}

/* Each device that could run the model; with a device in the options, that one alone. One that is
 * not there is listed with the reason. */
static json_t *devices_json(const char *dir, const struct gyaru_model_options *options)
{
    static const char *const all[] = {"cpu", "cuda"};
    bool any = !options->device || !strcmp(options->device, "auto");
    json_t *list = json_array();
    for (size_t i = 0; i < (any ? sizeof all / sizeof *all : 1); i++) {
        struct gyaru_model_options o = *options;
        struct model_plan plan;
        struct gyaru_error reason;
        o.device = any ? all[i] : options->device;
        if (model_plan_make(dir, &o, &plan, &reason)) {
            json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "device", o.device, "present",
                                                  0, "reason", reason.text));
            continue;
        }
        json_array_append_new(list, device_json(o.device, &plan, &o));
        model_plan_release(&plan);
    }
    return list;
}

static json_t *config_json(const char *dir, const struct model_plan *plan)
{
    const struct model_config *c = &plan->config;
    return json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:f, s:f, s:i, s:i, s:s, s:i, "
        "s:i, s:i}",
        "kind", "model", "path", dir, "architecture", "qwen2", "n_layers", c->n_layers,
        "hidden_size", c->hidden, "n_heads", c->n_heads, "n_kv_heads", c->n_kv_heads, "head_dim",
        c->head_dim, "intermediate_size", c->intermediate, "vocab_size", c->vocab, "tied_head",
        (int)c->tied, "rope_theta", (double)c->rope_theta, "norm_eps", (double)c->norm_eps,
        "max_position", c->max_position, "context", plan->shape.context, "fingerprint",
        plan->fingerprint, "layer_first", model_layer_at(c->n_layers, 30), "layer_last",
        model_layer_at(c->n_layers, 80), "visualise_layer", model_layer_at(c->n_layers, 73));
}

json_t *model_inspect(const char *dir, const struct gyaru_model_options *options,
                      struct gyaru_error *err)
{
    struct model_plan plan;
    if (model_plan_make(dir, options, &plan, err))
        return NULL;
    struct census census = {.plan = &plan};
    json_t *root = NULL;
    if (!weights_each(&plan.config, &plan.source, count_matrix, &census, err) &&
        !weights_each_vector(&plan.config, count_vector, &census, err)) {
        root = config_json(dir, &plan);
        json_t *devices = root ? devices_json(dir, options) : NULL;
        if (devices) {
            add_tensors(root, &census);
            json_object_set_new(root, "devices", devices);
        } else {
            json_decref(root);
            root = NULL;
            error_memory(err, 1 << 16, "the description");
        }
    }
    model_plan_release(&plan);
    return root;
}
