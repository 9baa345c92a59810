/*
 * device.c - the device that a plan is for: whether its memory is enough.
 */
#include "model/open.h"

#include "backend/nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOLDERS 3 /* processes that are named, at most */

static double gib(uint64_t bytes)
{
    return (double)bytes / (1u << 30);
}

static int by_bytes(const void *a, const void *b)
{
    uint64_t x = ((const struct nvml_process *)a)->bytes;
    uint64_t y = ((const struct nvml_process *)b)->bytes;
    return (x < y) - (x > y);
}

/* Of other processes, those that hold most. */
static void list_holders(struct nvml_gpu *gpu, char *out, size_t size)
{
    size_t used = 0;
    int named = 0;
    qsort(gpu->processes, gpu->n_processes, sizeof *gpu->processes, by_bytes);
    for (size_t i = 0; i < gpu->n_processes && named < HOLDERS; i++) {
        const struct nvml_process *p = &gpu->processes[i];
        char mib[32] = "?";
        if (p->pid == (unsigned)getpid())
            continue;
        if (p->bytes != NVML_UNKNOWN)
            snprintf(mib, sizeof mib, "%llu", (unsigned long long)(p->bytes >> 20));
        int n = snprintf(out + used, size - used, "%s pid %u %.40s %s MiB",
                         named++ ? "," : "; it is held by", p->pid, p->name, mib);
        if (n < 0 || (size_t)n >= size - used) {
            out[used] = '\0';
            return;
        }
        used += (size_t)n;
    }
}

/* "; it is held by pid 42 python 10240 MiB, ..." for the GPU of this name; "" if nobody knows. */
static void name_holders(const char *gpu, char *out, size_t size)
{
    struct nvml_report report;
    struct gyaru_error ignored;
    out[0] = '\0';
    if (!gpu[0] || nvml_read(NVML_LIBRARY, &report, &ignored))
        return;
    for (size_t g = 0; g < report.n_gpus; g++)
        if (!strcmp(report.gpus[g].uuid, gpu) && report.gpus[g].n_processes)
            list_holders(&report.gpus[g], out, size);
    nvml_release(&report);
}

/* " on each of 2 GPUs", or "". */
static const char *on_each(const struct model_plan *p, char *out, size_t size)
{
    out[0] = '\0';
    if (p->memory.devices > 1)
        snprintf(out, size, " on each of %d GPUs", p->memory.devices);
    return out;
}

void model_plan_say_memory(const struct model_plan *p, const struct gyaru_model_options *o,
                           char *out, size_t size)
{
    uint64_t need = model_plan_total(p), available = model_plan_available(p, o);
    char holders[160] = "";
    if (need > available)
        name_holders(p->memory.gpu, holders, sizeof holders);
    snprintf(out, size, "auto: %s: %.2f GiB needed, %.2f GiB free there%s",
             need <= available ? "on the GPU" : "not on the GPU", gib(need), gib(available),
             holders);
}

int model_plan_check_memory(const struct model_plan *p, const struct gyaru_model_options *o,
                            const char *dir, struct gyaru_error *err)
{
    uint64_t need = model_plan_total(p), available = model_plan_available(p, o);
    char holders[160], each[32];
    struct backend_memory host = {0};
    if (p->weights.host) {
        backend_cpu.memory(NULL, &host);
        if (p->weights.host > host.available)
            return error_set(err, GYARU_NO_MEMORY,
                             "%s: its embedding needs %.2f GiB of the host's memory but %.2f GiB "
                             "are free: leave it on the GPU",
                             dir, gib(p->weights.host), gib(host.available));
    }
    if (need <= available)
        return 0;
    name_holders(p->memory.gpu, holders, sizeof holders);
    return error_set(err, GYARU_NO_MEMORY,
                     "%s: needs %.2f GiB%s (%.2f weights, %.2f KV cache of %d x %d positions, %.2f "
                     "workspace; %llu bytes) but %.2f GiB (%llu bytes) are free%s%s: close other "
                     "programs, lower --context or choose a smaller model",
                     dir, gib(need), on_each(p, each, sizeof each), gib(p->weights.total),
                     gib(p->kv_bytes), p->shape.n_slots, p->shape.context, gib(p->workspace_bytes),
                     (unsigned long long)need, gib(available), (unsigned long long)available,
                     p->memory.devices > 1 ? " on one of them" : "", holders);
}
