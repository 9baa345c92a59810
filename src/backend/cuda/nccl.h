/*
 * nccl.h - NCCL, found at run time: only GPUs that share a model need it. Its functions are
 * declared here under their own names, as far as they are used: the library keeps them as they are,
 * and a CUDA installation need not have its header.
 */
#ifndef CUDA_NCCL_H
#define CUDA_NCCL_H

#include "base/error.h"

#include <cuda_runtime_api.h>
#include <stddef.h>

#define NCCL_LIBRARY "libnccl.so.2"
#define NCCL_FLOAT32 7 /* ncclDataType_t */
#define NCCL_SUM     0 /* ncclRedOp_t */

struct ncclComm; /* one GPU's end of what joins them */

/* All return an ncclResult_t, 0 for success, where they return an int. */
#define CUDA_NCCL_FUNCTIONS(X)                                                                     \
    X(version, ncclGetVersion, int, (int *version))                                                \
    X(words, ncclGetErrorString, const char *, (int result))                                       \
    X(init, ncclCommInitAll, int, (struct ncclComm * *comms, int n, const int *devices))           \
    X(destroy, ncclCommDestroy, int, (struct ncclComm * comm))                                     \
    X(abort, ncclCommAbort, int, (struct ncclComm * comm))                                         \
    X(begin, ncclGroupStart, int, (void))                                                          \
    X(end, ncclGroupEnd, int, (void))                                                              \
    X(all_reduce, ncclAllReduce, int,                                                              \
      (const void *from, void *to, size_t n, int type, int operation, struct ncclComm *comm,       \
       cudaStream_t stream))

struct cuda_nccl {
    void *library; /* NULL: not open */
#define DECLARE(name, function, result, parameters) result(*name) parameters;
    CUDA_NCCL_FUNCTIONS(DECLARE)
#undef DECLARE
};

/* Fails with what is missing and what to do. */
int cuda_nccl_open(struct cuda_nccl *nccl, struct gyaru_error *err);
void cuda_nccl_close(struct cuda_nccl *nccl);

#endif
