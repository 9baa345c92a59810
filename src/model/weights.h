/*
 * weights.h - from checkpoint to backend: every matrix by its name and shape, planned, then copied.
 */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "format/checkpoint.h"
#include "model/model.h"

/* Visits every matrix that the model needs, in the order of use, after validating it.
 * layer: 0-based block, -1 for embedding and head. A non-zero return of `visit` stops. */
typedef int weights_visit(void *user, const char *name, int layer,
                          const struct quant_source *source, struct gyaru_error *err);
int weights_each(const struct model_config *config, const struct checkpoint *checkpoint,
                 weights_visit *visit, void *user, struct gyaru_error *err);

/* Bytes that the backend will take for all weights. */
int weights_plan(const struct model_config *config, const struct checkpoint *checkpoint,
                 const struct backend *backend, uint64_t *bytes, struct gyaru_error *err);

/* Fills model->layers, embedding, head and norm. */
int weights_load(struct gyaru_model *model, const struct checkpoint *checkpoint,
                 const struct gyaru_model_options *options, struct gyaru_error *err);
void weights_release(struct gyaru_model *model);

#endif
