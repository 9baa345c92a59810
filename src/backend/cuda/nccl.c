/* nccl.c - see nccl.h. */
#include "backend/cuda/nccl.h"

#include <dlfcn.h>
#include <string.h>

/* The first function that the library lacks, NULL if it has all. */
static const char *find_all(struct cuda_nccl *nccl)
{
#define FIND(name, function, result, parameters)                                                   \
    {                                                                                              \
        void *found = dlsym(nccl->library, #function);                                             \
        if (!found)                                                                                \
            return #function;                                                                      \
        memcpy(&nccl->name, &found, sizeof found);                                                 \
    }
    CUDA_NCCL_FUNCTIONS(FIND)
#undef FIND
    return NULL;
}

int cuda_nccl_open(struct cuda_nccl *nccl, struct gyaru_error *err)
{
    /* It has threads of its own: once loaded it stays. */
    *nccl =
        (struct cuda_nccl){.library = dlopen(NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)};
    const char *lacks = nccl->library ? find_all(nccl) : NULL;
    if (nccl->library && !lacks)
        return 0;
    error_set(err, GYARU_FAILED,
              "several GPUs need NVIDIA's NCCL, and " NCCL_LIBRARY " %s%s: install it (package "
              "libnccl2, or pip's nvidia-nccl) and name its folder in LD_LIBRARY_PATH, or use one "
              "GPU: --device cuda:0",
              lacks ? "has no " : "is not found", lacks ? lacks : "");
    cuda_nccl_close(nccl);
    return -1;
}

void cuda_nccl_close(struct cuda_nccl *nccl)
{
    if (nccl->library)
        (void)dlclose(nccl->library);
    *nccl = (struct cuda_nccl){0};
}
