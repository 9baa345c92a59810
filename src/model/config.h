/*
 * config.h - config.json and generation_config.json of a checkpoint of model_type qwen2.
 *
 * Both styles are read: rope_theta at the top level, or in rope_parameters. What the layer loop
 * does not implement (rope scaling, sliding windows, other activations, other quantisations) is
 * refused by name; nothing about a model's size is a constant in the code.
 */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "base/error.h"

struct model_config {
    int n_layers, hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab, max_position;
    float rope_theta, norm_eps;
    bool tied;    /* the embedding is the head */
    int32_t *eos; /* ids that end an answer, of both files; owned */
    size_t n_eos;
    struct gyaru_sampling sampling; /* the model's own defaults; seed 0 */
};

int model_config_read(const char *dir, struct model_config *out, struct gyaru_error *err);
void model_config_release(struct model_config *config);

#endif
