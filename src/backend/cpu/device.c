/*
 * device.c - the processor: which instruction set, how many threads, how much memory is free.
 */
#include "backend/cpu/cpu.h"

#include "base/proc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The best kernels that this processor runs. */
static const struct cpu_kernels *choose_kernels(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        return &kernels_avx2;
#endif
    return &kernels_scalar;
}

int cpu_open_kernels(const struct cpu_kernels *kernels, int threads, struct backend_device **out,
                     struct gyaru_error *err)
{
    struct backend_device *d = calloc(1, sizeof *d);
    if (!d)
        return error_memory(err, sizeof *d, "the CPU backend");
    d->threads = threads > 0 ? threads : pool_processors();
    d->kernels = kernels;
    if (pool_new(d->threads, &d->pool, err)) {
        free(d);
        return -1;
    }
    snprintf(d->text, sizeof d->text, "%s, %d thread%s", kernels->name, d->threads,
             d->threads == 1 ? "" : "s");
    *out = d;
    return 0;
}

int cpu_open(int index, int threads, struct backend_device **out, struct gyaru_error *err)
{
    return cpu_open_kernels(choose_kernels(), threads, out, err);
}

void cpu_close(struct backend_device *device)
{
    pool_free(device->pool);
    free(device);
}

const char *cpu_describe(const struct backend_device *device)
{
    return device->text;
}

static uint64_t read_number(const char *path, uint64_t otherwise)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return otherwise;
    unsigned long long value;
    int n = fscanf(file, "%llu", &value); /* "max" leaves it unread */
    fclose(file);
    return n == 1 ? value : otherwise;
}

/* Not the pages of mapped files, which the system takes back at will. */
static uint64_t own_bytes(void)
{
    return proc_bytes(PROC_SELF, "RssAnon") + proc_bytes(PROC_SELF, "RssShmem");
}

/* A container's limit counts as much as the machine's memory. */
void cpu_memory(const struct backend_device *device, struct backend_memory *out)
{
    out->total = proc_bytes(PROC_MACHINE, "MemTotal");
    out->available = proc_bytes(PROC_MACHINE, "MemAvailable");
    out->used = own_bytes();
    out->gpu[0] = '\0';
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max", UINT64_MAX);
    uint64_t used = read_number("/sys/fs/cgroup/memory.current", 0);
    if (limit < out->total)
        out->total = limit;
    if (limit != UINT64_MAX && limit - (used < limit ? used : limit) < out->available)
        out->available = limit - (used < limit ? used : limit);
}
