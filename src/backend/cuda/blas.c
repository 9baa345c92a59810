/*
 * blas.c - loads cuBLASLt. The library is not linked: it is 500 MB, and without it everything
 * works.
 */
#include "backend/cuda/blas.h"

#include <dlfcn.h>
#include <string.h>

static bool find_all(struct cuda_blas *blas)
{
#define FIND(name, function)                                                                       \
    {                                                                                              \
        void *found = dlsym(blas->library, #function);                                             \
        if (!found)                                                                                \
            return false;                                                                          \
        memcpy(&blas->name, &found, sizeof found);                                                 \
    }
    CUDA_BLAS_FUNCTIONS(FIND)
#undef FIND
    return true;
}

void cuda_blas_open(struct cuda_blas *blas)
{
    /* Of these two the interface is the same as far as it is used here. */
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    *blas = (struct cuda_blas){0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        blas->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (blas->library && find_all(blas))
            return;
        cuda_blas_close(blas);
    }
}

void cuda_blas_close(struct cuda_blas *blas)
{
    if (blas->library)
        (void)dlclose(blas->library);
    *blas = (struct cuda_blas){0};
}
