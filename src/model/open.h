/*
 * open.h - the plan that is made before anything is loaded; also what `inspect` shows.
 */
#ifndef MODEL_OPEN_H
#define MODEL_OPEN_H

#include "format/checkpoint.h"
#include "model/model.h"

struct model_plan {
    struct model_config config;
    struct checkpoint *checkpoint;
    const struct backend *backend;
    struct backend_device *device;
    struct backend_shape shape;
    struct backend_memory memory;
    uint64_t weight_bytes, kv_bytes, workspace_bytes;
    char fingerprint[65];
};

int model_plan_make(const char *dir, const struct gyaru_model_options *options,
                    struct model_plan *plan, struct gyaru_error *err);
void model_plan_release(struct model_plan *plan);

/* The layer at `percent` of the depth: the document's int(n_layers * 0.30) and so on, exactly. */
static inline int model_layer_at(int n_layers, int percent)
{
    return n_layers * percent / 100;
}

#endif
