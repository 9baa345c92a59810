/*
 * backend.c - finds a backend by name. The CUDA backend is a plug-in, so that one program serves
 * machines with and without a GPU.
 */
#include "backend/backend.h"

#include <string.h>

const struct backend *backend_find(const char *name, struct gyaru_error *err)
{
    if (!strcmp(name, "cpu"))
        return &backend_cpu;
    if (!strcmp(name, "cuda"))
        error_set(err, GYARU_FAILED,
                  "device cuda: this build has no CUDA backend: use --device cpu");
    else
        error_set(err, GYARU_USAGE, "device %s: unknown: use auto, cpu or cuda[:N]", name);
    return NULL;
}
