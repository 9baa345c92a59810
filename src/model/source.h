/*
 * source.h - tensors of a checkpoint by their role: which are 4-bit, and where their parts lie.
 *
 * Whether a linear is 4-bit is decided per tensor by the presence of its quant_state ("dynamic"
 * checkpoints leave some in bf16). Source: bitsandbytes' layout, docs/formats.md.
 */
#ifndef MODEL_SOURCE_H
#define MODEL_SOURCE_H

#include "format/checkpoint.h"
#include "quant/quant.h"

/* The matrix `name` ("...q_proj.weight") of shape [rows, cols] as views into the checkpoint. */
int source_matrix(const struct checkpoint *checkpoint, const char *name, size_t rows, size_t cols,
                  struct quant_source *out, struct gyaru_error *err);

/* Of a 4-bit matrix: FP4 codes rather than NF4. */
bool source_is_fp4(const struct checkpoint *checkpoint, const char *name);

/* n values as float32 (caller frees), all finite. */
int source_vector(const struct checkpoint *checkpoint, const char *name, size_t n, float **out,
                  struct gyaru_error *err);

#endif
