/*
 * tensor.h - a named view of bytes in a file.
 *
 * Files own bytes, tensors are views: a tensor is valid as long as the file it came from is open.
 */
#ifndef FORMAT_TENSOR_H
#define FORMAT_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_BOOL,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_U16,
    DTYPE_I16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_U32,
    DTYPE_I32,
    DTYPE_F32,
    DTYPE_U64,
    DTYPE_I64,
    DTYPE_F64,
    DTYPE_COUNT
};

struct tensor {
    const char *name; /* UTF-8, NUL-terminated */
    enum dtype dtype;
    size_t n_dims;
    const uint64_t *dims; /* [n_dims], outermost first; row-major */
    const uint8_t *data;  /* [size] little-endian; may be unaligned */
    size_t size;          /* bytes = product(dims) * dtype_size(dtype), checked */
};

size_t dtype_size(enum dtype dtype);      /* bytes of one element */
const char *dtype_name(enum dtype dtype); /* as safetensors writes it: "BF16" */

/* Number of elements. */
static inline size_t tensor_count(const struct tensor *t)
{
    return t->size / dtype_size(t->dtype);
}

#endif
