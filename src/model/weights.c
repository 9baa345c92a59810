/* weights.c - see weights.h. */
#include "model/weights.h"

#include "base/str.h"
#include "model/source.h"

#include <stddef.h>
#include <stdlib.h>

/* The seven linears of a block, in the order of struct model_layer's use. */
enum width { HIDDEN, QUERIES, KEYS, INTERMEDIATE };

#define AT(field) offsetof(struct model_layer, field)

/* Where devices share a model, each has some kv heads with their query heads, and some of the
 * MLP's columns: what it computes from its rows of q, k, v, gate and up is what its columns of o
 * and down read. */
static const struct linear {
    const char *name;
    enum width rows, cols;
    enum quant_cut cut;
    size_t slot; /* offset of the backend_matrix pointer in struct model_layer */
} linears[] = {
    {"self_attn.q_proj.weight", QUERIES, HIDDEN, QUANT_BY_ROWS, AT(qkv[0])},
    {"self_attn.k_proj.weight", KEYS, HIDDEN, QUANT_BY_ROWS, AT(qkv[1])},
    {"self_attn.v_proj.weight", KEYS, HIDDEN, QUANT_BY_ROWS, AT(qkv[2])},
    {"self_attn.o_proj.weight", HIDDEN, QUERIES, QUANT_BY_COLUMNS, AT(output)},
    {"mlp.gate_proj.weight", INTERMEDIATE, HIDDEN, QUANT_BY_ROWS, AT(gate)},
    {"mlp.up_proj.weight", INTERMEDIATE, HIDDEN, QUANT_BY_ROWS, AT(up)},
    {"mlp.down_proj.weight", HIDDEN, INTERMEDIATE, QUANT_BY_COLUMNS, AT(down)},
};

static const struct {
    const char *name;
    enum width n;
    size_t slot;
} vectors[] = {
    {"input_layernorm.weight", HIDDEN, AT(attention_norm)},
    {"post_attention_layernorm.weight", HIDDEN, AT(mlp_norm)},
    {"self_attn.q_proj.bias", QUERIES, AT(qkv_bias[0])},
    {"self_attn.k_proj.bias", KEYS, AT(qkv_bias[1])},
    {"self_attn.v_proj.bias", KEYS, AT(qkv_bias[2])},
};

#define N_LINEARS (sizeof linears / sizeof *linears)
#define N_VECTORS (sizeof vectors / sizeof *vectors)

static size_t width_of(const struct model_config *c, enum width w)
{
    switch (w) {
    case HIDDEN:
        return (size_t)c->hidden;
    case QUERIES:
        return (size_t)c->n_heads * (size_t)c->head_dim;
    case KEYS:
        return (size_t)c->n_kv_heads * (size_t)c->head_dim;
    case INTERMEDIATE:
        break;
    }
    return (size_t)c->intermediate;
}

/* Of the side that is cut: what belongs to one kv head, or to a group of columns. */
static size_t unit_of(const struct model_config *c, const struct linear *linear)
{
    enum width side = linear->cut == QUANT_BY_ROWS ? linear->rows : linear->cols;
    return side == INTERMEDIATE ? BACKEND_CUT : width_of(c, side) / (size_t)c->n_kv_heads;
}

static int checkpoint_matrix(void *user, const char *name, size_t rows, size_t cols,
                             struct quant_source *out, struct gyaru_error *err)
{
    return source_matrix(user, name, rows, cols, out, err);
}

static int checkpoint_vector(void *user, const char *name, size_t n, float **out,
                             struct gyaru_error *err)
{
    return source_vector(user, name, n, out, err);
}

static void checkpoint_free(void *user)
{
    checkpoint_close(user);
}

struct weights_source weights_checkpoint_source(struct checkpoint *checkpoint)
{
    return (struct weights_source){checkpoint, checkpoint_matrix, checkpoint_vector,
                                   checkpoint_free};
}

struct visitor {
    weights_visit *visit;
    void *user;
};

static int visit_ids(const struct model_config *c, const struct weights_source *source,
                     const char *name, enum quant_cut cut, const struct visitor *v,
                     struct gyaru_error *err)
{
    struct quant_source matrix;
    if (source->matrix(source->user, name, (size_t)c->vocab, (size_t)c->hidden, &matrix, err))
        return -1;
    matrix.cut = cut;
    matrix.unit = BACKEND_CUT;
    return v->visit(v->user, name, -1, &matrix, err);
}

static int visit_linear(const struct model_config *c, const struct weights_source *source,
                        int layer, const struct linear *linear, const struct visitor *v,
                        struct gyaru_error *err)
{
    struct str name = STR_INIT;
    struct quant_source matrix;
    str_printf(&name, "model.layers.%d.%s", layer, linear->name);
    int rc = name.failed ? error_memory(err, 64, "a name")
                         : source->matrix(source->user, name.data, width_of(c, linear->rows),
                                          width_of(c, linear->cols), &matrix, err);
    if (!rc) {
        matrix.cut = linear->cut;
        matrix.unit = unit_of(c, linear);
        rc = v->visit(v->user, name.data, layer, &matrix, err);
    }
    str_release(&name);
    return rc;
}

/* The embedding is not cut: each device reads rows of all of it, and as a head some of its rows. */
int weights_each(const struct model_config *c, const struct weights_source *source,
                 weights_visit *visit, void *user, struct gyaru_error *err)
{
    struct visitor v = {visit, user};
    if (visit_ids(c, source, "model.embed_tokens.weight", QUANT_WHOLE, &v, err))
        return -1;
    for (int l = 0; l < c->n_layers; l++)
        for (size_t i = 0; i < N_LINEARS; i++)
            if (visit_linear(c, source, l, &linears[i], &v, err))
                return -1;
    return c->tied ? 0 : visit_ids(c, source, "lm_head.weight", QUANT_BY_ROWS, &v, err);
}

int weights_each_vector(const struct model_config *c, weights_vector_visit *visit, void *user,
                        struct gyaru_error *err)
{
    int rc = visit(user, "model.norm.weight", -1, 0, (size_t)c->hidden, err);
    for (int l = 0; !rc && l < c->n_layers; l++)
        for (size_t i = 0; !rc && i < N_VECTORS; i++) {
            struct str name = STR_INIT;
            str_printf(&name, "model.layers.%d.%s", l, vectors[i].name);
            rc = name.failed ? error_memory(err, 64, "a name")
                             : visit(user, name.data, l, i, width_of(c, vectors[i].n), err);
            str_release(&name);
        }
    return rc;
}

struct plan {
    const struct backend *backend;
    const struct backend_device *device;
    struct weights_size size;
    bool host_embedding;
    uint64_t embedding;
    size_t visited;
};

static int add_to_plan(void *user, const char *name, int layer, const struct quant_source *source,
                       struct gyaru_error *err)
{
    struct plan *plan = user;
    bool embedding = !plan->visited++; /* it is visited first */
    if (embedding && plan->host_embedding) {
        plan->size.host = plan->backend->table_bytes(plan->device, source);
        return 0;
    }
    uint64_t bytes = plan->backend->matrix_bytes(plan->device, source);
    if (embedding)
        plan->embedding = bytes;
    if (__builtin_add_overflow(plan->size.total, bytes, &plan->size.total))
        return error_set(err, GYARU_FAILED, "%s: its layout is not supported by this device", name);
    return 0;
}

static int add_vector_to_plan(void *user, const char *name, int layer, size_t slot, size_t n,
                              struct gyaru_error *err)
{
    struct plan *plan = user;
    plan->size.total += n * sizeof(float);
    return 0;
}

int weights_plan(const struct model_config *config, const struct weights_source *source,
                 const struct backend *backend, const struct backend_device *device,
                 bool host_embedding, struct weights_size *out, struct gyaru_error *err)
{
    struct plan plan = {.backend = backend, .device = device, .host_embedding = host_embedding};
    if (weights_each(config, source, add_to_plan, &plan, err) ||
        weights_each_vector(config, add_vector_to_plan, &plan, err))
        return -1;
    plan.size.per_token = plan.size.total - (config->tied ? 0 : plan.embedding);
    *out = plan.size;
    return 0;
}

struct upload {
    struct gyaru_model *model;
    const struct gyaru_model_options *options;
    size_t next; /* linear of the layer that comes next */
    uint64_t done, total;
};

static struct backend_matrix **place_of(struct upload *u, int layer)
{
    struct gyaru_model *m = u->model;
    if (layer < 0)
        return m->embedding ? &m->head : &m->embedding;
    size_t slot = linears[u->next++ % N_LINEARS].slot;
    return (struct backend_matrix **)((char *)&m->layers[layer] + slot);
}

static int upload_one(void *user, const char *name, int layer, const struct quant_source *source,
                      struct gyaru_error *err)
{
    struct upload *u = user;
    struct gyaru_model *m = u->model;
    bool table = !m->embedding && m->info.host_bytes;
    if (table ? m->backend->table_new(m->device, source, place_of(u, layer), err)
              : m->backend->matrix_new(m->device, source, place_of(u, layer), err))
        return error_prefix(err, name);
    u->done += table ? m->backend->table_bytes(m->device, source)
                     : m->backend->matrix_bytes(m->device, source);
    if (u->options->progress &&
        u->options->progress(u->options->progress_user, "loading", u->done, u->total))
        return error_set(err, GYARU_FAILED, "%s: loading was stopped", m->dir);
    return 0;
}

struct vector_upload {
    struct gyaru_model *model;
    const struct weights_source *source;
};

static int upload_vector(void *user, const char *name, int layer, size_t slot, size_t n,
                         struct gyaru_error *err)
{
    const struct vector_upload *u = user;
    struct gyaru_model *m = u->model;
    float *values;
    if (u->source->vector(u->source->user, name, n, &values, err))
        return -1;
    void *place = layer < 0 ? (void *)&m->norm : (char *)&m->layers[layer] + vectors[slot].slot;
    int rc = m->backend->vector_new(m->device, values, n, place, err);
    free(values);
    return rc;
}

int weights_load(struct gyaru_model *m, const struct weights_source *source,
                 const struct gyaru_model_options *options, struct gyaru_error *err)
{
    m->layers = calloc((size_t)m->config.n_layers, sizeof *m->layers);
    if (!m->layers)
        return error_memory(err, (size_t)m->config.n_layers * sizeof *m->layers, "the layers");
    struct vector_upload vector_upload = {m, source};
    struct upload upload = {m, options, 0, 0, m->info.weight_bytes + m->info.host_bytes};
    if (weights_each_vector(&m->config, upload_vector, &vector_upload, err) ||
        weights_each(&m->config, source, upload_one, &upload, err))
        return -1;
    if (m->config.tied)
        m->head = m->embedding;
    return 0;
}

void weights_release(struct gyaru_model *m)
{
    const struct backend *b = m->backend;
    if (m->head != m->embedding && m->head)
        b->matrix_free(m->head);
    if (m->embedding)
        b->matrix_free(m->embedding);
    if (m->norm)
        b->vector_free(m->norm);
    for (int l = 0; m->layers && l < m->config.n_layers; l++) {
        char *layer = (char *)&m->layers[l];
        for (size_t i = 0; i < N_LINEARS; i++) {
            struct backend_matrix *w = *(struct backend_matrix **)(layer + linears[i].slot);
            if (w)
                b->matrix_free(w);
        }
        for (size_t i = 0; i < N_VECTORS; i++) {
            struct backend_vector *v = *(struct backend_vector **)(layer + vectors[i].slot);
            if (v)
                b->vector_free(v);
        }
    }
    free(m->layers);
    m->layers = NULL;
}
