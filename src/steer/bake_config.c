/*
 * bake_config.c - config.json of a qwen2 model as one of LlamaForCausalLM.
 *
 * The two classes compute the same but for biases: Qwen2 has them on q, k and v, Llama on all seven
 * linears of a block when attention_bias and mlp_bias say so. What the file leaves to the defaults
 * of its class is written out, for the defaults differ (Llama: bos 1, eos 2, 2048 positions); what
 * only Qwen2 knows is left out; the rest, quantization_config above all, stays as it is.
 */
#include "steer/bake.h"

#include "base/json.h"

#define FILE_LIMIT ((size_t)16 << 20) /* bytes */

/* Sets the key only if the file is silent about it; takes `value` over. */
static void set_default(json_t *json, const char *key, json_t *value)
{
    const json_t *old = json_object_get(json, key);
    if (!old || (json_is_null(old) && !json_is_null(value)))
        json_object_set_new(json, key, value);
    else
        json_decref(value);
}

/* Both styles: rope_theta at the top for programs that know only that, rope_parameters for those
 * that know only those. model_config_read() has refused every scaled rope. */
static void set_rope(json_t *json, const struct model_config *c)
{
    json_t *theta = json_object_get(json_object_get(json, "rope_parameters"), "rope_theta");
    if (!theta)
        theta = json_object_get(json, "rope_theta");
    theta = theta ? json_incref(theta) : json_real((double)c->rope_theta);
    json_object_del(json, "rope_scaling");
    json_object_set(json, "rope_theta", theta);
    json_object_set_new(json, "rope_parameters",
                        json_pack("{s:o, s:s}", "rope_theta", theta, "rope_type", "default"));
}

static void rewrite(json_t *json, const struct bake_facts *facts)
{
    static const char *const foreign[] = {"use_sliding_window", "sliding_window",
                                          "max_window_layers", "layer_types", "auto_map"};
    const struct model_config *c = facts->config;
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        json_object_del(json, foreign[i]);
    json_object_set_new(json, "architectures", json_pack("[s]", "LlamaForCausalLM"));
    json_object_set_new(json, "model_type", json_string("llama"));
    json_object_set_new(json, "attention_bias", json_true());
    json_object_set_new(json, "mlp_bias", json_true());
    json_object_set_new(json, "tie_word_embeddings", json_boolean(c->tied));
    set_default(json, "hidden_act", json_string("silu"));
    set_default(json, "head_dim", json_integer(c->head_dim));
    set_default(json, "num_key_value_heads", json_integer(c->n_kv_heads));
    set_default(json, "max_position_embeddings", json_integer(c->max_position));
    set_default(json, "rms_norm_eps", json_real((double)c->norm_eps));
    set_default(json, "bos_token_id", json_null());
    set_default(json, "eos_token_id", json_null());
    set_default(json, "pad_token_id", json_null());
    /* Else a tokenizer is guessed from model_type where tokenizer_config.json is silent. */
    set_default(json, "tokenizer_class", json_string("Qwen2Tokenizer"));
    if (!json_object_get(json, "dtype"))
        set_default(json, "torch_dtype", json_string(facts->dtype));
    set_rope(json, c);
    json_object_set(json, "gyaru_bake", facts->record);
}

int bake_config(const char *dir, const struct bake_facts *facts, char **text,
                struct gyaru_error *err)
{
    json_t *json = json_parse_file_in(dir, "config.json", FILE_LIMIT, err);
    if (!json)
        return -1;
    rewrite(json, facts);
    char *dump = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    if (!dump)
        return error_memory(err, 4096, "config.json");
    *text = dump;
    return 0;
}
