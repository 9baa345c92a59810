/*
 * fingerprint.c - names a trained model, whatever files it is stored in.
 *
 * SHA-256 over the shape facts of config.json and the float32 values of the norm weights and the
 * q, k, v biases: every variant of a checkpoint stores those unquantised, so bf16 and NF4 versions
 * of ONE model share the fingerprint, while training of any kind changes it.
 */
#include "model/model.h"

#include "base/sha256.h"
#include "base/str.h"
#include "model/source.h"

#include <stdlib.h>

static int add_vector(struct sha256 *hash, const struct checkpoint *checkpoint, const char *name,
                      size_t n, struct gyaru_error *err)
{
    float *values;
    if (source_vector(checkpoint, name, n, &values, err))
        return -1;
    sha256_update(hash, values, n * sizeof *values);
    free(values);
    return 0;
}

static int add_layer(struct sha256 *hash, const struct checkpoint *checkpoint, int layer,
                     const struct model_config *c, struct gyaru_error *err)
{
    size_t hidden = (size_t)c->hidden, head = (size_t)c->head_dim;
    const struct {
        const char *name;
        size_t n;
    } parts[] = {
        {"input_layernorm.weight", hidden},
        {"post_attention_layernorm.weight", hidden},
        {"self_attn.q_proj.bias", (size_t)c->n_heads * head},
        {"self_attn.k_proj.bias", (size_t)c->n_kv_heads * head},
        {"self_attn.v_proj.bias", (size_t)c->n_kv_heads * head},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof parts / sizeof *parts; i++) {
        struct str name = STR_INIT;
        str_printf(&name, "model.layers.%d.%s", layer, parts[i].name);
        rc = name.failed ? error_memory(err, 64, "a name")
                         : add_vector(hash, checkpoint, name.data, parts[i].n, err);
        str_release(&name);
    }
    return rc;
}

int model_fingerprint(const struct model_config *c, const struct checkpoint *checkpoint,
                      char hex[65], struct gyaru_error *err)
{
    struct sha256 hash;
    uint8_t digest[SHA256_BYTES];
    struct str facts = STR_INIT;
    str_printf(&facts,
               "gyaru-fingerprint-1 qwen2 layers=%d hidden=%d heads=%d/%d head_dim=%d "
               "intermediate=%d vocab=%d\n",
               c->n_layers, c->hidden, c->n_heads, c->n_kv_heads, c->head_dim, c->intermediate,
               c->vocab);
    if (facts.failed)
        return error_memory(err, 128, "the fingerprint");
    sha256_init(&hash);
    sha256_update(&hash, facts.data, facts.len);
    str_release(&facts);
    for (int l = 0; l < c->n_layers; l++)
        if (add_layer(&hash, checkpoint, l, c, err))
            return -1;
    if (add_vector(&hash, checkpoint, "model.norm.weight", (size_t)c->hidden, err))
        return -1;
    sha256_final(&hash, digest);
    sha256_hex(digest, hex);
    return 0;
}
