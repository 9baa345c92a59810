/*
 * nvml.h - the NVIDIA GPUs of the machine and who holds their memory, through the driver's own
 * library, loaded at run time: machines without it run the same program.
 */
#ifndef BACKEND_NVML_H
#define BACKEND_NVML_H

#include "base/error.h"

#define NVML_LIBRARY "libnvidia-ml.so.1"
#define NVML_UNKNOWN UINT64_MAX

struct nvml_process {
    unsigned pid;
    char name[256]; /* "" if unknown */
    uint64_t bytes; /* of GPU memory; NVML_UNKNOWN in some containers */
};

struct nvml_gpu {
    char name[96];
    char uuid[96];                  /* "GPU-..."; "" if unknown */
    uint64_t total, free, used;     /* bytes */
    struct nvml_process *processes; /* [n_processes] owned */
    size_t n_processes;
    char problem[160]; /* what the driver would not tell; "": nothing */
};

struct nvml_report {
    char driver[96];
    struct nvml_gpu *gpus; /* [n_gpus] owned */
    size_t n_gpus;
};

/* Asks the library at `path`. Fails if there is no driver, saying why. */
int nvml_read(const char *path, struct nvml_report *out, struct gyaru_error *err);
void nvml_release(struct nvml_report *report);

#endif
