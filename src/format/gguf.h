/*
 * gguf.h - GGUF control vectors as llama.cpp and repeng write them.
 *
 * `direction.N` (N >= 1, F32, one dimension, equal lengths) is added to the output of 0-based
 * block N. Anything else in the file is refused, as llama.cpp does.
 */
#ifndef FORMAT_GGUF_H
#define FORMAT_GGUF_H

#include "base/error.h"

struct gguf_direction {
    int layer;     /* N of direction.N */
    float *values; /* [n] */
};

struct gguf_vector {
    char *model_hint; /* never NULL */
    int layer_count;
    size_t n; /* elements of every direction */
    struct gguf_direction *directions;
    size_t n_directions;
};

int gguf_vector_read(const char *path, struct gguf_vector *out, struct gyaru_error *err);
void gguf_vector_release(struct gguf_vector *vector);
int gguf_vector_write(const char *path, const struct gguf_vector *vector, struct gyaru_error *err);

#endif
