/*
 * open.h - the plan that is made before anything is loaded; also what `inspect` shows.
 */
#ifndef MODEL_OPEN_H
#define MODEL_OPEN_H

#include "format/checkpoint.h"
#include "model/weights.h"

struct model_plan {
    struct model_config config;
    struct weights_source source;
    const struct checkpoint *checkpoint; /* behind the source; NULL: generated weights */
    const struct backend *backend;
    struct backend_device *device;
    struct backend_shape shape;
    struct backend_memory memory;
    struct weights_size weights;
    uint64_t kv_bytes, workspace_bytes;
    char fingerprint[65];
    char why[256]; /* why "auto" took the device; "": it was asked for */
    bool gpu_refused;
};

int model_plan_make(const char *dir, const struct gyaru_model_options *options,
                    struct model_plan *plan, struct gyaru_error *err);
void model_plan_release(struct model_plan *plan);

/* random.c: weights of a real shape that hold nothing; views stay valid until the source closes. */
int model_random_source(const char *shape, struct model_config *config, struct weights_source *out,
                        struct gyaru_error *err);

/* The steps of model_plan_make() after config and source are in the plan: device, shape, sizes. */
int model_plan_finish(struct model_plan *plan, const struct gyaru_model_options *options,
                      struct gyaru_error *err);

/* Refuses what does not fit before anything is allocated, with the numbers that the user needs and,
 * of a GPU, who holds its memory. `dir` names the model. */
int model_plan_check_memory(const struct model_plan *plan,
                            const struct gyaru_model_options *options, const char *dir,
                            struct gyaru_error *err);

/* The same as a reason of "auto". */
void model_plan_say_memory(const struct model_plan *plan, const struct gyaru_model_options *options,
                           char *out, size_t size);

/* Takes the plan over (also on failure). `dir` names the model; a tokenizer is opened there if
 * the weights come from a checkpoint. */
int model_open_plan(struct model_plan *plan, const char *dir,
                    const struct gyaru_model_options *options, struct gyaru_model **out,
                    struct gyaru_error *err);

static inline uint64_t model_plan_total(const struct model_plan *plan)
{
    return plan->weights.total + plan->kv_bytes + plan->workspace_bytes;
}

/* What may be used: what the device has free, at most what the options allow. */
uint64_t model_plan_available(const struct model_plan *plan,
                              const struct gyaru_model_options *options);

/* The layer at `percent` of the depth: the document's int(n_layers * 0.30) and so on, exactly. */
static inline int model_layer_at(int n_layers, int percent)
{
    return n_layers * percent / 100;
}

#endif
