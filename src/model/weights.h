/*
 * weights.h - from their source to the backend: every tensor by its name and shape, planned, then
 * copied. The source is a checkpoint (checkpoint_source) or a generator (random.c).
 */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "format/checkpoint.h"
#include "model/model.h"

/* Gives tensors by name. Views of a matrix hold until the next call. */
struct weights_source {
    void *user; /* owned: close() frees it */
    int (*matrix)(void *user, const char *name, size_t rows, size_t cols, struct quant_source *out,
                  struct gyaru_error *err);
    /* n finite values (caller frees) */
    int (*vector)(void *user, const char *name, size_t n, float **out, struct gyaru_error *err);
    void (*close)(void *user);
};

/* Takes the checkpoint over. */
struct weights_source weights_checkpoint_source(struct checkpoint *checkpoint);

/* Visits every matrix that the model needs, in the order of use, after validating it.
 * layer: 0-based block, -1 for embedding and head. A non-zero return of `visit` stops. */
typedef int weights_visit(void *user, const char *name, int layer,
                          const struct quant_source *source, struct gyaru_error *err);
int weights_each(const struct model_config *config, const struct weights_source *source,
                 weights_visit *visit, void *user, struct gyaru_error *err);

/* The same for norm weights and biases: name and length. `slot`: which of a block's vectors. */
typedef int weights_vector_visit(void *user, const char *name, int layer, size_t slot, size_t n,
                                 struct gyaru_error *err);
int weights_each_vector(const struct model_config *config, weights_vector_visit *visit, void *user,
                        struct gyaru_error *err);

/* Bytes that the backend will take. */
struct weights_size {
    uint64_t total;
    uint64_t per_token; /* what decoding one token reads: of an untied embedding only one row */
    uint64_t host;      /* of an embedding that stays in the host's memory, beside total */
};
int weights_plan(const struct model_config *config, const struct weights_source *source,
                 const struct backend *backend, const struct backend_device *device,
                 bool host_embedding, struct weights_size *out, struct gyaru_error *err);

/* Fills model->layers, embedding, head and norm. */
int weights_load(struct gyaru_model *model, const struct weights_source *source,
                 const struct gyaru_model_options *options, struct gyaru_error *err);
void weights_release(struct gyaru_model *model);

#endif
