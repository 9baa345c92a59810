/* reference.c - see reference.h. */
#include "support/reference.h"

#include "base/file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

char *reference_shared(const char *name)
{
    const char *shared = getenv("GYARU_SHARED");
    char *path = file_join(shared ? shared : "../shared", name);
    assert_non_null(path);
    if (file_exists(path))
        return path;
    free(path);
    return NULL;
}

void reference_skip(const char *what)
{
    printf("SKIP: %s is not here (set GYARU_SHARED)\n", what);
    skip();
}

void reference_open(const char *dir, struct reference *out)
{
    struct gyaru_error err;
    out->dir = file_join(dir, "");
    char *json = file_join(dir, "expected.json"), *tensors = file_join(dir, "expected.safetensors");
    assert_non_null(json);
    assert_non_null(tensors);
    out->json = json_load_file(json, 0, NULL);
    assert_non_null(out->json);
    if (safetensors_open(tensors, &out->tensors, &err))
        fail_msg("%s", err.text);
    free(json);
    free(tensors);
}

void reference_close(struct reference *reference)
{
    free(reference->dir);
    json_decref(reference->json);
    safetensors_close(reference->tensors);
}

const float *reference_values(const struct reference *reference, const char *name, size_t n)
{
    const struct tensor *t = safetensors_find(reference->tensors, name);
    assert_non_null(t);
    assert_int_equal(t->dtype, DTYPE_F32);
    assert_int_equal(tensor_count(t), n);
    return (const float *)(const void *)t->data;
}

int32_t *reference_ids(const json_t *array, size_t *n)
{
    *n = json_array_size(array);
    int32_t *ids = calloc(*n + 1, sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return ids;
}

double reference_error(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}
