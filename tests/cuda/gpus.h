/*
 * gpus.h - how many GPUs a test program drives, and what it says where there are none.
 *
 * Every program that includes this is built several times: for the plug-in on a GPU (`make
 * test-cuda`) and for the same sources compiled for the CPU (tests/cuda_emu), with -DCUDA_REQUIRED;
 * and both again with -DGPUS=2: as many GPUs then share the model.
 */
#ifndef TESTS_CUDA_GPUS_H
#define TESTS_CUDA_GPUS_H

#include <stdio.h>

#ifndef GPUS
#define GPUS 1
#endif

/* No device opened: says why, and gives the program's exit code. */
static inline int gpus_missing(const char *why)
{
#ifdef CUDA_REQUIRED
    printf("%s\n", why);
    return 1;
#else
    printf("SKIP: %s\n", why);
    return 0;
#endif
}

#endif
