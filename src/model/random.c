/*
 * random.c - models of random weights in real shapes, for timings.
 *
 * Every matrix is a view of the same few MiB of random content, mapped again and again in a row:
 * the backend copies and repacks it, so its own memory is distinct everywhere, as with a real
 * checkpoint, while the generator costs almost nothing. Values are small enough that activations
 * stay finite through any number of layers.
 */
#include "model/open.h"

#include "base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A multiple of every page size, and a prime number of the largest: with a power of two, rows of
 * the head would repeat every few hundred ids, and no trained model's logits tie by the thousand.
 */
#define PATTERN_BYTES ((size_t)61 << 16)
#define BLOCK         64
#define NESTED_BLOCK  256

/* The 4-bit NormalFloat code: quantiles of the normal distribution (Dettmers et al. 2023). */
static const float nf4_map[16] = {-1.0f,
                                  -0.6961928009986877f,
                                  -0.5250730514526367f,
                                  -0.39491748809814453f,
                                  -0.28444138169288635f,
                                  -0.18477343022823334f,
                                  -0.09105003625154495f,
                                  0.0f,
                                  0.07958029955625534f,
                                  0.16093020141124725f,
                                  0.24611230194568634f,
                                  0.33791524171829224f,
                                  0.44070982933044434f,
                                  0.5626170039176941f,
                                  0.7229568362236023f,
                                  1.0f};

/* config.json of Qwen2.5-*-Instruct; all have head_dim 128 or 64 = hidden / heads. */
static const struct shape {
    const char *name;
    int hidden, n_layers, n_heads, n_kv_heads, intermediate, vocab;
    bool tied;
} shapes[] = {
    {"0.5b", 896, 24, 14, 2, 4864, 151936, true},   {"1.5b", 1536, 28, 12, 2, 8960, 151936, true},
    {"7b", 3584, 28, 28, 4, 18944, 152064, false},  {"14b", 5120, 48, 40, 8, 13824, 152064, false},
    {"32b", 5120, 64, 40, 8, 27648, 152064, false},
};

/* Content that repeats every PATTERN_BYTES. */
struct pattern {
    uint8_t *data; /* read-only mapping */
    size_t bytes;
};

struct generator {
    struct pattern codes; /* random bytes: 4-bit codes and absmax indices */
    struct pattern bf16;  /* small finite values */
    uint8_t *ones;        /* f32 [n_groups]: nested_absmax */
    size_t n_groups;
};

/* Four bf16 of +-[2^-7, 2^-6): sign and mantissa from the random bits, the exponent fixed. */
static uint64_t bf16_of(uint64_t bits)
{
    uint64_t exponent = (uint64_t)(127 - 7) << 7;
    return (bits & 0x807f807f807f807fu) | exponent * 0x0001000100010001u;
}

static void fill(uint64_t *words, bool bf16)
{
    uint64_t state = bf16;
    for (size_t i = 0; i < PATTERN_BYTES / sizeof *words; i++) {
        uint64_t bits = random_next(&state);
        words[i] = bf16 ? bf16_of(bits) : bits;
    }
}

static void pattern_release(struct pattern *p)
{
    if (p->data)
        munmap(p->data, p->bytes);
    *p = (struct pattern){0};
}

/* Reserves the addresses, then maps the one file over each stretch of them. */
static int map_repeated(int fd, struct pattern *p)
{
    void *base = mmap(NULL, p->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -1;
    p->data = base;
    for (size_t at = 0; at < p->bytes; at += PATTERN_BYTES)
        if (mmap(p->data + at, PATTERN_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) ==
            MAP_FAILED)
            return -1;
    return 0;
}

static int pattern_init(struct pattern *p, size_t bytes, bool bf16, struct gyaru_error *err)
{
    p->bytes = (bytes + PATTERN_BYTES - 1) / PATTERN_BYTES * PATTERN_BYTES;
    int fd = memfd_create("gyaru-random", MFD_CLOEXEC);
    void *once = MAP_FAILED;
    if (fd >= 0 && !ftruncate(fd, (off_t)PATTERN_BYTES))
        once = mmap(NULL, PATTERN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int rc = -1;
    if (once != MAP_FAILED) {
        fill(once, bf16);
        munmap(once, PATTERN_BYTES);
        rc = map_repeated(fd, p);
    }
    if (fd >= 0)
        close(fd);
    return rc ? error_errno(err, "random weights", "mapping") : 0;
}

static int random_matrix(void *user, const char *name, size_t rows, size_t cols,
                         struct quant_source *out, struct gyaru_error *err)
{
    const struct generator *g = user;
    *out = (struct quant_source){.rows = rows, .cols = cols};
    if (!strstr(name, "_proj.")) { /* embedding and head */
        out->type = QUANT_BF16;
        out->data = g->bf16.data;
        return 0;
    }
    out->type = QUANT_4BIT;
    out->data = out->absmax = g->codes.data;
    out->block_size = BLOCK;
    out->nested_block_size = NESTED_BLOCK;
    out->nested_absmax = g->ones;
    memcpy(out->map, nf4_map, sizeof out->map);
    for (int i = 0; i < 256; i++) /* absmax in 0.02 .. 0.06, as in trained models */
        out->nested_map[i] = 0.04f * (float)i / 255;
    out->nested_offset = 0.02f;
    return 0;
}

/* Norm weights of one, biases of a bf16's size. */
static int random_vector(void *user, const char *name, size_t n, float **out,
                         struct gyaru_error *err)
{
    float *values = calloc(n, sizeof *values);
    if (!values)
        return error_memory(err, n * sizeof *values, name);
    for (size_t i = 0; i < n; i++)
        values[i] = strstr(name, "norm") ? 1.0f : 0.01f;
    *out = values;
    return 0;
}

static void generator_free(void *user)
{
    struct generator *g = user;
    pattern_release(&g->codes);
    pattern_release(&g->bf16);
    free(g->ones);
    free(g);
}

static int generator_new(const struct shape *s, struct generator **out, struct gyaru_error *err)
{
    struct generator *g = calloc(1, sizeof *g);
    if (!g)
        return error_memory(err, sizeof *g, "random weights");
    /* The largest 4-bit matrix is of the MLP in all of these shapes. */
    size_t elements = (size_t)s->hidden * (size_t)s->intermediate;
    g->n_groups = elements / BLOCK / NESTED_BLOCK + 1;
    float *ones = malloc(g->n_groups * sizeof *ones);
    g->ones = (uint8_t *)ones;
    for (size_t i = 0; ones && i < g->n_groups; i++)
        ones[i] = 1;
    if (!ones || pattern_init(&g->codes, elements / 2, false, err) ||
        pattern_init(&g->bf16, 2 * (size_t)s->vocab * (size_t)s->hidden, true, err)) {
        int rc = ones ? -1 : error_memory(err, g->n_groups * sizeof *ones, "random weights");
        generator_free(g);
        return rc;
    }
    *out = g;
    return 0;
}

static const struct shape *find_shape(const char *name, struct gyaru_error *err)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(name, shapes[i].name))
            return &shapes[i];
    error_set(err, GYARU_USAGE, "shape %s: unknown: use 0.5b, 1.5b, 7b, 14b or 32b", name);
    return NULL;
}

static struct model_config config_of(const struct shape *s)
{
    return (struct model_config){
        .n_layers = s->n_layers,
        .hidden = s->hidden,
        .n_heads = s->n_heads,
        .n_kv_heads = s->n_kv_heads,
        .head_dim = s->hidden / s->n_heads,
        .intermediate = s->intermediate,
        .vocab = s->vocab,
        .max_position = 32768,
        .rope_theta = 1e6f,
        .norm_eps = 1e-6f,
        .tied = s->tied,
        .sampling = {.temperature = 0, .top_p = 1, .repeat_penalty = 1},
    };
}

int model_random_source(const char *shape, struct model_config *config, struct weights_source *out,
                        struct gyaru_error *err)
{
    struct generator *generator = NULL;
    const struct shape *s = find_shape(shape, err);
    if (!s || generator_new(s, &generator, err))
        return -1;
    *config = config_of(s);
    *out = (struct weights_source){generator, random_matrix, random_vector, generator_free};
    return 0;
}

int gyaru_model_open_random(const char *shape, const struct gyaru_model_options *options,
                            struct gyaru_model **out, struct gyaru_error *err)
{
    struct model_plan plan = {0};
    if (model_random_source(shape, &plan.config, &plan.source, err))
        return -1;
    if (model_plan_finish(&plan, options, err)) {
        model_plan_release(&plan);
        return -1;
    }
    char name[64];
    snprintf(name, sizeof name, "random-qwen2.5-%s", shape);
    return model_open_plan(&plan, name, options, out, err);
}

int gyaru_model_attach_random(struct gyaru_model *m, int *index, struct gyaru_error *err)
{
    size_t hidden = (size_t)m->shape.hidden, n_layers = (size_t)m->shape.n_layers;
    struct model_edit edit = {
        .meter_layer = m->info.visualise_layer, .gauge_layer = m->info.layer_first, .m_plus = 1};
    edit.directions = calloc(n_layers, sizeof *edit.directions);
    edit.meter = malloc(hidden * sizeof *edit.meter);
    bool failed = !edit.directions || !edit.meter;
    for (int l = m->info.layer_first; !failed && l <= m->info.layer_last; l++) {
        float *direction = edit.directions[l] = malloc(hidden * sizeof *direction);
        failed = !direction;
        for (size_t i = 0; direction && i < hidden; i++)
            direction[i] = (float)((i * 7919 + (size_t)l) % 101) * 1e-4f - 50e-4f;
    }
    if (failed) {
        model_edit_release(&edit, m->shape.n_layers);
        return error_memory(err, n_layers * hidden * sizeof(float), "a random vector");
    }
    for (size_t i = 0; i < hidden; i++)
        edit.meter[i] = 1;
    return model_attach_edit(m, &edit, index, err);
}

int gyaru_model_bandwidth(struct gyaru_model *m, double *read, double *copy,
                          struct gyaru_error *err)
{
    *read = *copy = 0;
    return m->backend->bandwidth ? m->backend->bandwidth(m->device, read, copy, err) : 0;
}
