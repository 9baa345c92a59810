/*
 * doctor.c - what this machine offers: processor, memory and its limits, GPUs and who uses them.
 * It looks and tells; it changes nothing and ends no process.
 */
#include "backend/doctor.h"

#include "backend/backend.h"
#include "backend/nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Text from the system may be anything; what is no UTF-8 becomes "?". */
static json_t *text(const char *value)
{
    json_t *json = json_string(value);
    return json ? json : json_string("?");
}

/* "KEY<tabs>: value" of /proc/cpuinfo into out, "" if absent. */
static void cpuinfo(const char *key, char *out, size_t size)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[4096];
    size_t len = strlen(key);
    out[0] = '\0';
    while (file && !*out && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (!strncmp(line, key, len) && colon && (line[len] == '\t' || line[len] == ':'))
            snprintf(out, size, "%.*s", (int)strcspn(colon + 1 + (colon[1] == ' '), "\n"),
                     colon + 1 + (colon[1] == ' '));
    }
    if (file)
        fclose(file);
}

static bool has_word(const char *words, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = words; (p = strstr(p, word)); p += len)
        if ((p == words || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
            return true;
    return false;
}

/* The features that our kernels use, or could. */
static json_t *features_json(void)
{
    static const char *const names[] = {"avx2",        "fma",      "f16c",     "avx512f",
                                        "avx512bw",    "avx512dq", "avx512vl", "avx512_vnni",
                                        "avx512_bf16", "amx_bf16", "amx_int8"};
    char flags[4096];
    cpuinfo("flags", flags, sizeof flags);
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        json_object_set_new(object, names[i], json_boolean(has_word(flags, names[i])));
    return object;
}

static json_t *cpu_json(const struct backend_device *device)
{
    char model[256];
    struct utsname system;
    cpuinfo("model name", model, sizeof model);
    json_t *json = json_pack("{s:o, s:I, s:s, s:o}", "model", text(*model ? model : "unknown"),
                             "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "kernels",
                             backend_cpu.describe(device), "features", features_json());
    if (json && !uname(&system)) {
        json_object_set_new(json, "architecture", text(system.machine));
        json_object_set_new(json, "system", text(system.release));
    }
    return json;
}

/* The first word of a file under /sys/fs/cgroup as it stands, a number or "max"; null if neither
 * version of the control groups has it. */
static json_t *first_word(const char *version_2, const char *version_1)
{
    char path[128], word[64] = "";
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s", version_2);
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s", version_1);
        file = fopen(path, "re");
    }
    if (file && fscanf(file, "%63s", word) != 1)
        word[0] = '\0';
    if (file)
        fclose(file);
    char *end;
    long long value = strtoll(word, &end, 10);
    if (!*word)
        return json_null();
    return *end ? text(word) : json_integer(value);
}

static json_t *limits_json(void)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "memory_max_bytes",
                     first_word("memory.max", "memory/memory.limit_in_bytes"), "memory_used_bytes",
                     first_word("memory.current", "memory/memory.usage_in_bytes"), "cpu_quota_us",
                     first_word("cpu.max", "cpu/cpu.cfs_quota_us"), "pids_max",
                     first_word("pids.max", "pids/pids.max"));
}

static json_t *process_json(const struct nvml_process *p)
{
    json_t *json = json_pack("{s:I, s:o}", "pid", (json_int_t)p->pid, "name",
                             *p->name ? text(p->name) : json_null());
    json_object_set_new(json, "mib",
                        p->bytes == NVML_UNKNOWN ? json_null()
                                                 : json_integer((json_int_t)(p->bytes >> 20)));
    return json;
}

static json_t *gpu_json(const struct nvml_gpu *gpu)
{
    json_t *processes = json_array();
    for (size_t i = 0; i < gpu->n_processes; i++)
        json_array_append_new(processes, process_json(&gpu->processes[i]));
    json_t *json = json_pack("{s:o, s:I, s:I, s:I, s:o}", "name", text(gpu->name), "total_bytes",
                             (json_int_t)gpu->total, "free_bytes", (json_int_t)gpu->free,
                             "used_bytes", (json_int_t)gpu->used, "processes", processes);
    if (*gpu->problem)
        json_object_set_new(json, "problem", text(gpu->problem));
    return json;
}

/* Without a driver that is the finding, not an error. */
static json_t *nvidia_json(const char *path)
{
    struct nvml_report report;
    struct gyaru_error reason;
    json_t *gpus = json_array();
    if (nvml_read(path, &report, &reason))
        return json_pack("{s:n, s:o, s:o}", "driver", "gpus", gpus, "problem", text(reason.text));
    for (size_t i = 0; i < report.n_gpus; i++)
        json_array_append_new(gpus, gpu_json(&report.gpus[i]));
    json_t *json = json_pack("{s:o, s:o}", "driver", text(report.driver), "gpus", gpus);
    nvml_release(&report);
    return json;
}

/* One that was asked for is opened: a group of GPUs tries its link then. */
static json_t *device_json(const char *name)
{
    const struct backend *backend;
    struct backend_device *device;
    struct gyaru_error reason;
    bool usable = !backend_open(name, 0, &backend, &device, &reason);
    json_t *json = json_pack("{s:o, s:b}", "name", text(name), "usable", (int)usable);
    json_object_set_new(json, usable ? "description" : "reason",
                        text(usable ? backend->describe(device) : reason.text));
    if (usable)
        backend->close(device);
    return json;
}

/* Which of our devices can be used now. */
static json_t *devices_json(const char *asked)
{
    static const char *const names[] = {"cpu", "cuda"};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct gyaru_error reason;
        bool usable = backend_find(names[i], &reason) != NULL;
        json_t *json = json_pack("{s:s, s:b}", "name", names[i], "usable", (int)usable);
        if (!usable)
            json_object_set_new(json, "reason", text(reason.text));
        json_array_append_new(list, json);
    }
    if (asked)
        json_array_append_new(list, device_json(asked));
    return list;
}

json_t *doctor_report(const char *nvml_path, const char *asked, struct gyaru_error *err)
{
    struct backend_device *device;
    struct backend_memory memory;
    if (backend_cpu.open(0, 0, &device, err))
        return NULL;
    backend_cpu.memory(device, &memory);
    json_t *root =
        json_pack("{s:s, s:o, s:{s:I, s:I}, s:o, s:o, s:o}", "version", GYARU_VERSION, "cpu",
                  cpu_json(device), "memory", "total_bytes", (json_int_t)memory.total,
                  "available_bytes", (json_int_t)memory.available, "limits", limits_json(),
                  "nvidia", nvidia_json(nvml_path), "devices", devices_json(asked));
    backend_cpu.close(device);
    if (!root)
        error_memory(err, 1 << 16, "the report");
    return root;
}

int gyaru_doctor(const char *device, char **json, struct gyaru_error *err)
{
    json_t *root = doctor_report(NVML_LIBRARY, device, err);
    if (!root)
        return -1;
    char *dumped = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    if (!dumped)
        return error_memory(err, 1 << 16, "the report");
    *json = dumped;
    return 0;
}
