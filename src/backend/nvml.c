/*
 * nvml.c - see nvml.h. The few declarations of NVML that are needed stand here, after NVIDIA's
 * published API reference, so that no header of theirs is needed to build.
 */
#include "backend/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NVML_SUCCESS = 0, NVML_INSUFFICIENT_SIZE = 7 };

/* More processes or GPUs than this on one machine is a broken driver, not a fact. */
#define MAX_PROCESSES 4096
#define MAX_GPUS      256

struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml_process_info { /* version 2 and 3 of the call */
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

typedef int nvml_list(void *gpu, unsigned *count, struct nvml_process_info *out);

/* The library's functions; NULL where this driver lacks one. */
struct nvml {
    void *handle;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_text)(int result);
    int (*driver_version)(char *out, unsigned size);
    int (*count)(unsigned *out);
    int (*gpu_at)(unsigned index, void **out);
    int (*gpu_name)(void *gpu, char *out, unsigned size);
    int (*gpu_uuid)(void *gpu, char *out, unsigned size);
    int (*gpu_memory)(void *gpu, struct nvml_memory *out);
    int (*process_name)(unsigned pid, char *out, unsigned size);
    nvml_list *compute, *graphics;
};

static void find(const struct nvml *n, const char *name, void *place)
{
    void *symbol = dlsym(n->handle, name);
    if (symbol)
        memcpy(place, &symbol, sizeof symbol);
}

static int load(const char *path, struct nvml *n, struct gyaru_error *err)
{
    *n = (struct nvml){.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (!n->handle)
        return error_set(err, GYARU_FAILED, "no NVIDIA driver: %s cannot be loaded", path);
    find(n, "nvmlInit_v2", &n->init);
    find(n, "nvmlShutdown", &n->shutdown);
    find(n, "nvmlErrorString", &n->error_text);
    find(n, "nvmlSystemGetDriverVersion", &n->driver_version);
    find(n, "nvmlDeviceGetCount_v2", &n->count);
    find(n, "nvmlDeviceGetHandleByIndex_v2", &n->gpu_at);
    find(n, "nvmlDeviceGetName", &n->gpu_name);
    find(n, "nvmlDeviceGetUUID", &n->gpu_uuid);
    find(n, "nvmlDeviceGetMemoryInfo", &n->gpu_memory);
    find(n, "nvmlSystemGetProcessName", &n->process_name);
    find(n, "nvmlDeviceGetComputeRunningProcesses_v2", &n->compute);
    find(n, "nvmlDeviceGetComputeRunningProcesses_v3", &n->compute);
    find(n, "nvmlDeviceGetGraphicsRunningProcesses_v2", &n->graphics);
    find(n, "nvmlDeviceGetGraphicsRunningProcesses_v3", &n->graphics);
    if (n->init && n->shutdown && n->count && n->gpu_at && n->gpu_memory)
        return 0;
    dlclose(n->handle);
    return error_set(err, GYARU_FAILED, "%s: too old a driver: it lacks the calls of NVML 2", path);
}

static const char *reason(const struct nvml *n, int result)
{
    return n->error_text ? n->error_text(result) : "an error of the driver";
}

/* The library knows the names of its own container only; /proc knows the others. */
static void name_process(const struct nvml *n, struct nvml_process *p)
{
    char path[64];
    if (n->process_name && !n->process_name(p->pid, p->name, sizeof p->name))
        return;
    snprintf(path, sizeof path, "/proc/%u/comm", p->pid);
    FILE *file = fopen(path, "re");
    p->name[0] = '\0';
    if (file && fgets(p->name, sizeof p->name, file))
        p->name[strcspn(p->name, "\n")] = '\0';
    if (file)
        fclose(file);
}

static bool known(const struct nvml_gpu *gpu, unsigned pid)
{
    for (size_t i = 0; i < gpu->n_processes; i++)
        if (gpu->processes[i].pid == pid)
            return true;
    return false;
}

static int add_processes(const struct nvml *n, const struct nvml_process_info *list, unsigned count,
                         struct nvml_gpu *gpu, struct gyaru_error *err)
{
    size_t most = gpu->n_processes + count;
    struct nvml_process *grown = realloc(gpu->processes, (most + 1) * sizeof *grown);
    if (!grown)
        return error_memory(err, most * sizeof *grown, "the list of processes");
    gpu->processes = grown;
    for (unsigned i = 0; i < count; i++) {
        if (known(gpu, list[i].pid)) /* computes and draws: its memory is counted once */
            continue;
        struct nvml_process *p = &gpu->processes[gpu->n_processes++];
        p->pid = list[i].pid;
        p->bytes = list[i].bytes; /* "not available" is all ones there, too */
        name_process(n, p);
    }
    return 0;
}

/* Processes come and go: the list is asked for with room to spare, again if it grew. */
static int read_processes(const struct nvml *n, nvml_list *ask, void *handle, struct nvml_gpu *gpu,
                          struct gyaru_error *err)
{
    struct nvml_process_info *list = NULL;
    unsigned room = 32, count = 0;
    int result = NVML_INSUFFICIENT_SIZE, rc = 0;
    if (!ask)
        return 0;
    while (!rc && result == NVML_INSUFFICIENT_SIZE && room <= MAX_PROCESSES) {
        struct nvml_process_info *grown = realloc(list, room * sizeof *list);
        if (!grown) {
            rc = error_memory(err, room * sizeof *list, "the list of processes");
            break;
        }
        list = grown;
        count = room;
        result = ask(handle, &count, list);
        room *= 2;
    }
    if (!rc && result)
        snprintf(gpu->problem, sizeof gpu->problem, "its processes: %s", reason(n, result));
    else if (!rc)
        rc = add_processes(n, list, count, gpu, err);
    free(list);
    return rc;
}

static int read_gpu(const struct nvml *n, unsigned index, struct nvml_gpu *gpu,
                    struct gyaru_error *err)
{
    void *handle;
    struct nvml_memory memory = {0};
    int result = n->gpu_at(index, &handle);
    if (result) {
        snprintf(gpu->problem, sizeof gpu->problem, "%s", reason(n, result));
        return 0;
    }
    if (n->gpu_name && n->gpu_name(handle, gpu->name, sizeof gpu->name))
        gpu->name[0] = '\0';
    if (n->gpu_uuid && n->gpu_uuid(handle, gpu->uuid, sizeof gpu->uuid))
        gpu->uuid[0] = '\0';
    result = n->gpu_memory(handle, &memory);
    if (result)
        snprintf(gpu->problem, sizeof gpu->problem, "its memory: %s", reason(n, result));
    gpu->total = memory.total;
    gpu->free = memory.free;
    gpu->used = memory.used;
    if (read_processes(n, n->compute, handle, gpu, err))
        return -1;
    return read_processes(n, n->graphics, handle, gpu, err);
}

static int read_all(const struct nvml *n, struct nvml_report *report, struct gyaru_error *err)
{
    unsigned count = 0;
    int result = n->count(&count);
    if (result)
        return error_set(err, GYARU_FAILED, "NVIDIA driver: counting GPUs: %s", reason(n, result));
    if (count > MAX_GPUS)
        return error_set(err, GYARU_FAILED, "NVIDIA driver: it claims %u GPUs", count);
    if (n->driver_version && n->driver_version(report->driver, sizeof report->driver))
        report->driver[0] = '\0';
    report->gpus = calloc(count + 1u, sizeof *report->gpus);
    if (!report->gpus)
        return error_memory(err, count * sizeof *report->gpus, "the list of GPUs");
    report->n_gpus = count;
    for (unsigned i = 0; i < count; i++)
        if (read_gpu(n, i, &report->gpus[i], err))
            return -1;
    return 0;
}

int nvml_read(const char *path, struct nvml_report *out, struct gyaru_error *err)
{
    struct nvml n;
    struct nvml_report report = {0};
    if (load(path, &n, err))
        return -1;
    int result = n.init(), rc;
    if (result)
        rc = error_set(err, GYARU_FAILED, "NVIDIA driver: it does not start: %s",
                       reason(&n, result));
    else {
        rc = read_all(&n, &report, err);
        n.shutdown();
    }
    dlclose(n.handle);
    if (rc)
        nvml_release(&report);
    else
        *out = report;
    return rc;
}

void nvml_release(struct nvml_report *report)
{
    for (size_t i = 0; i < report->n_gpus; i++)
        free(report->gpus[i].processes);
    free(report->gpus);
    *report = (struct nvml_report){0};
}
