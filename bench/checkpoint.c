/*
 * checkpoint.c - writes a checkpoint of random NF4 weights in a real shape, as bitsandbytes stores
 * it, to time the loading of files: `gyaru bench --shape` generates its weights in memory.
 *
 *     make build/bench/checkpoint && build/bench/checkpoint SHAPE TOKENIZER_DIR OUT_DIR
 */
#include "base/file.h"
#include "base/str.h"
#include "format/safetensors.h"
#include "model/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct gyaru_error err;

static void check(int rc)
{
    if (rc) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

/* What the file will hold; names, dims and small arrays live until the process ends. */
struct content {
    struct tensor *list; /* [n] */
    size_t n, room;
    const struct weights_source *source;
};

static void add(struct content *c, const char *name, const char *suffix, enum dtype dtype,
                size_t rows, size_t cols, const void *data)
{
    if (c->n == c->room) {
        c->room = c->room ? 2 * c->room : 256;
        c->list = realloc(c->list, c->room * sizeof *c->list);
        if (!c->list)
            exit(1);
    }
    struct str full = STR_INIT;
    uint64_t *dims = allocate(2 * sizeof *dims);
    str_printf(&full, "%s%s", name, suffix);
    dims[0] = rows;
    dims[1] = cols;
    c->list[c->n++] = (struct tensor){.name = str_take(&full),
                                      .dtype = dtype,
                                      .n_dims = cols ? 2 : 1,
                                      .dims = dims,
                                      .data = data,
                                      .size = rows * (cols ? cols : 1) * dtype_size(dtype)};
}

static void *copy_of(const void *data, size_t bytes)
{
    return memcpy(allocate(bytes), data, bytes);
}

static int add_matrix(void *user, const char *name, int layer, const struct quant_source *s,
                      struct gyaru_error *error)
{
    struct content *c = user;
    if (s->type != QUANT_4BIT) {
        add(c, name, "", DTYPE_BF16, s->rows, s->cols, s->data);
        return 0;
    }
    size_t n = s->rows * s->cols, blocks = n / s->block_size;
    struct str state = STR_INIT;
    str_printf(&state,
               "{\"quant_type\": \"nf4\", \"blocksize\": %zu, \"dtype\": \"bfloat16\", \"shape\": "
               "[%zu, %zu], \"nested_blocksize\": %zu, \"nested_dtype\": \"float32\", "
               "\"nested_offset\": %.9g}",
               s->block_size, s->rows, s->cols, s->nested_block_size, (double)s->nested_offset);
    size_t state_len = strlen(state.data);
    add(c, name, "", DTYPE_U8, n / 2, 1, s->data);
    add(c, name, ".absmax", DTYPE_U8, blocks, 0, s->absmax);
    add(c, name, ".nested_absmax", DTYPE_F32,
        (blocks + s->nested_block_size - 1) / s->nested_block_size, 0, s->nested_absmax);
    add(c, name, ".nested_quant_map", DTYPE_F32, 256, 0,
        copy_of(s->nested_map, sizeof s->nested_map));
    add(c, name, ".quant_map", DTYPE_F32, 16, 0, copy_of(s->map, sizeof s->map));
    add(c, name, ".quant_state.bitsandbytes__nf4", DTYPE_U8, state_len, 0, str_take(&state));
    return 0;
}

static int add_vector(void *user, const char *name, int layer, size_t slot, size_t n,
                      struct gyaru_error *error)
{
    struct content *c = user;
    float *values;
    if (c->source->vector(c->source->user, name, n, &values, error))
        return -1;
    add(c, name, "", DTYPE_F32, n, 0, values);
    return 0;
}

static void write_config(const struct model_config *m, const char *dir)
{
    char *path = file_join(dir, "config.json");
    FILE *file = path ? fopen(path, "we") : NULL;
    if (!file)
        exit(1);
    fprintf(file,
            "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", "
            "\"hidden_act\": \"silu\", \"hidden_size\": %d, \"intermediate_size\": %d, "
            "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
            "\"max_position_embeddings\": %d, \"rms_norm_eps\": %g, \"rope_theta\": %g, "
            "\"eos_token_id\": 0, \"tie_word_embeddings\": %s, \"use_sliding_window\": false, "
            "\"vocab_size\": %d, \"quantization_config\": {\"quant_method\": \"bitsandbytes\", "
            "\"load_in_4bit\": true, \"bnb_4bit_quant_type\": \"nf4\", "
            "\"bnb_4bit_use_double_quant\": true}}\n",
            m->hidden, m->intermediate, m->n_layers, m->n_heads, m->n_kv_heads, m->max_position,
            (double)m->norm_eps, (double)m->rope_theta, m->tied ? "true" : "false", m->vocab);
    if (fclose(file))
        exit(1);
    free(path);
}

static void copy_file(const char *from, const char *to, const char *name)
{
    char *in = file_join(from, name), *out = file_join(to, name), *text;
    size_t len;
    if (!in || !out)
        exit(1);
    check(file_read(in, (size_t)64 << 20, &text, &len, &err));
    check(file_write_atomic(out, text, len, &err));
    free(text);
    free(in);
    free(out);
}

int main(int argc, char **argv)
{
    struct model_config config;
    struct weights_source source;
    struct content content = {.source = &source};
    if (argc != 4) {
        fprintf(stderr, "usage: checkpoint SHAPE TOKENIZER_DIR OUT_DIR\n");
        return 2;
    }
    check(model_random_source(argv[1], &config, &source, &err));
    mkdir(argv[3], 0755);
    check(weights_each(&config, &source, add_matrix, &content, &err) ||
          weights_each_vector(&config, add_vector, &content, &err));
    write_config(&config, argv[3]);
    copy_file(argv[2], argv[3], "tokenizer.json");
    copy_file(argv[2], argv[3], "tokenizer_config.json");
    char *path = file_join(argv[3], "model.safetensors");
    check(!path || safetensors_write(path, content.list, content.n, NULL, 0, &err));
    free(path);
    source.close(source.user);
    return 0;
}
