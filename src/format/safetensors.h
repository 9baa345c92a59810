/*
 * safetensors.h - one .safetensors file: validated whole when opened, written atomically.
 *
 * Source: the rules of the safetensors format (header length, unique names, tensors that tile the
 * data section without hole or overlap); see docs/formats.md.
 */
#ifndef FORMAT_SAFETENSORS_H
#define FORMAT_SAFETENSORS_H

#include "base/error.h"
#include "format/tensor.h"

struct safetensors;

int safetensors_open(const char *path, struct safetensors **out, struct gyaru_error *err);
void safetensors_close(struct safetensors *file);

size_t safetensors_count(const struct safetensors *file);
const struct tensor *safetensors_at(const struct safetensors *file, size_t i); /* by offset */
const struct tensor *safetensors_find(const struct safetensors *file, const char *name);

/* Value of a __metadata__ key, NULL if absent. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);
size_t safetensors_metadata_count(const struct safetensors *file);
void safetensors_metadata_at(const struct safetensors *file, size_t i, const char **key,
                             const char **value);

struct safetensors_pair {
    const char *key, *value;
};

/* Replaces `path` atomically. Tensors are stored in the order given. */
int safetensors_write(const char *path, const struct tensor *tensors, size_t n_tensors,
                      const struct safetensors_pair *metadata, size_t n_metadata,
                      struct gyaru_error *err);

#endif
