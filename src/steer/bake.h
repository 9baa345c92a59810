/*
 * bake.h - a steered model as an ordinary checkpoint of LlamaForCausalLM; see gyaru_bake() in
 * gyaru.h. What is shared by bake.c (files) and bake_config.c (config.json).
 */
#ifndef STEER_BAKE_H
#define STEER_BAKE_H

#include "base/error.h"
#include "model/config.h"

#include <jansson.h>

/* What config.json says beside the model's own facts. */
struct bake_facts {
    const struct model_config *config;
    const char *dtype; /* of the weights that are not 4-bit: "bfloat16" */
    json_t *record;    /* what was baked, for the key "gyaru_bake"; borrowed */
};

/* config.json of the model in `dir`, rewritten (caller frees). */
int bake_config(const char *dir, const struct bake_facts *facts, char **text,
                struct gyaru_error *err);

#endif
