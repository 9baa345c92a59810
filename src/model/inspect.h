/*
 * inspect.h - what a checkpoint holds and what it would cost, without loading it.
 */
#ifndef MODEL_INSPECT_H
#define MODEL_INSPECT_H

#include "base/json.h"

/* Describes the model in `dir` (a new reference); NULL on failure. A model that does not fit is
 * described all the same. */
json_t *model_inspect(const char *dir, const struct gyaru_model_options *options,
                      struct gyaru_error *err);

#endif
