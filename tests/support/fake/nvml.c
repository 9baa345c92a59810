/*
 * nvml.c - stands in for NVIDIA's libnvidia-ml.so: two GPUs, three processes, and the habits of the
 * real one that have to be coped with.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct memory {
    unsigned long long total, free, used;
};

struct process {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int result);
int nvmlSystemGetDriverVersion(char *out, unsigned size);
int nvmlDeviceGetCount_v2(unsigned *out);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out);
int nvmlDeviceGetName(void *gpu, char *out, unsigned size);
int nvmlDeviceGetUUID(void *gpu, char *out, unsigned size);
int nvmlDeviceGetMemoryInfo(void *gpu, struct memory *out);
int nvmlSystemGetProcessName(unsigned pid, char *out, unsigned size);
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, struct process *out);
int nvmlDeviceGetGraphicsRunningProcesses_v2(void *gpu, unsigned *count, struct process *out);

static char first[] = "GPU 0", second[] = "GPU 1";

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

const char *nvmlErrorString(int result)
{
    return result == 3 ? "Not Supported" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    snprintf(out, size, "999.1");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *out)
{
    *out = 2;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    *out = index ? second : first;
    return 0;
}

int nvmlDeviceGetName(void *gpu, char *out, unsigned size)
{
    snprintf(out, size, "Fake %s", (const char *)gpu);
    return 0;
}

/* The first one's is that of the GPU that tests/cuda_emu pretends to be. */
int nvmlDeviceGetUUID(void *gpu, char *out, unsigned size)
{
    const char *digits = gpu == first ? "11111111-1111-1111-1111-111111111111"
                                      : "22222222-2222-2222-2222-222222222222";
    snprintf(out, size, "GPU-%s", digits);
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *gpu, struct memory *out)
{
    *out = (struct memory){24ull << 30, 4ull << 30, 20ull << 30};
    return 0;
}

/* Names of processes in other containers are not known to the driver's library. */
int nvmlSystemGetProcessName(unsigned pid, char *out, unsigned size)
{
    if (pid != 4242)
        return 6;
    snprintf(out, size, "/usr/bin/hog");
    return 0;
}

/* Forty processes on the first GPU: more than a caller makes room for at first. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, struct process *out)
{
    unsigned room = *count;
    if (gpu == second)
        return 3;
    *count = 40;
    if (room < 40)
        return 7;
    memset(out, 0, 40 * sizeof *out);
    for (unsigned i = 0; i < 40; i++)
        out[i] = (struct process){.pid = 5000000 + i, .bytes = 1 << 20};
    out[0] = (struct process){.pid = 4242, .bytes = 19ull << 30};
    out[1] = (struct process){.pid = (unsigned)getpid(), .bytes = ~0ull};
    return 0;
}

/* One of them draws, too. */
int nvmlDeviceGetGraphicsRunningProcesses_v2(void *gpu, unsigned *count, struct process *out)
{
    *count = gpu == first;
    if (gpu == first)
        out[0] = (struct process){.pid = 4242, .bytes = 19ull << 30};
    return 0;
}
