/*
 * reference.h - a checkpoint with what exact arithmetic says about it: tests/data/tiny-model, which
 * the project carries, and the larger ones of ../shared/reference, where they are at hand.
 */
#ifndef TEST_REFERENCE_H
#define TEST_REFERENCE_H

#include "format/safetensors.h"

#include <gyaru.h>
#include <jansson.h>

struct reference {
    char *dir;
    json_t *json;                /* expected.json */
    struct safetensors *tensors; /* expected.safetensors */
};

/* $GYARU_SHARED or ../shared, with `name` under it (caller frees); NULL if absent. */
char *reference_shared(const char *name);

/* Prints "SKIP: ..." and skips the running test. */
void reference_skip(const char *what);

void reference_open(const char *dir, struct reference *out);
void reference_close(struct reference *reference);

/* Values of a float32 tensor, failing the test if it is absent or of another size. */
const float *reference_values(const struct reference *reference, const char *name, size_t n);

/* Ids of a JSON array (caller frees). */
int32_t *reference_ids(const json_t *array, size_t *n);

/* |a - b| / |b| */
double reference_error(const float *a, const float *b, size_t n);

#endif
