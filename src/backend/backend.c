/*
 * backend.c - finds a backend, and opens a device, by name. The CUDA backend is a plug-in, so that
 * one program serves machines with and without a GPU.
 */
#include "backend/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CUDA_PLUGIN "libgyaru-cuda.so"

/* Beside the program, then where the system looks for libraries. */
static void *open_plugin(const char *file, char *why, size_t size)
{
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
    if (len > 0) {
        path[len] = '\0';
        char *slash = strrchr(path, '/');
        size_t left = slash ? sizeof path - (size_t)(slash + 1 - path) : 0;
        if (slash && (size_t)snprintf(slash + 1, left, "%s", file) < left &&
            access(path, F_OK) == 0) {
            void *beside = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (!beside)
                snprintf(why, size, "%s", dlerror());
            return beside;
        }
    }
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        snprintf(why, size, "%s", dlerror());
    return handle;
}

/* The plug-in stays loaded: its functions may be in use until the process ends. */
static const struct backend *load_plugin(const char *name, const char *file,
                                         struct gyaru_error *err)
{
    char why[256] = "";
    void *handle = open_plugin(file, why, sizeof why);
    if (!handle) {
        error_set(err, GYARU_FAILED,
                  "device %s: cannot load the plug-in %s: %s: build it with make and keep it "
                  "beside the program, or use --device cpu",
                  name, file, why);
        return NULL;
    }
    static const size_t sizes[] = BACKEND_PLUGIN_SIZES;
    const struct backend_plugin *plugin = dlsym(handle, BACKEND_PLUGIN_SYMBOL);
    if (!plugin || strncmp(plugin->version, GYARU_VERSION, sizeof plugin->version) ||
        memcmp(plugin->sizes, sizes, sizeof sizes)) {
        error_set(err, GYARU_FAILED,
                  "device %s: %s belongs to another build of this program: build both from one "
                  "tree",
                  name, file);
        dlclose(handle);
        return NULL;
    }
    return plugin->backend;
}

const struct backend *backend_find(const char *name, struct gyaru_error *err)
{
    if (!strcmp(name, "cpu"))
        return &backend_cpu;
    if (!strcmp(name, "cuda"))
        return load_plugin(name, CUDA_PLUGIN, err);
    error_set(err, GYARU_USAGE, "device %s: unknown: use auto, cpu, cuda, cuda:N or cuda:N,M",
              name);
    return NULL;
}

/* ---- devices by name --------------------------------------------------------------------------
 */

struct device_name {
    char backend[16];
    int indices[BACKEND_DEVICES], n;
};

/* The numbers behind the colon. */
static int parse_indices(const char *name, const char *text, struct device_name *out,
                         struct gyaru_error *err)
{
    for (bool more = true; more;) {
        char *end;
        errno = 0;
        long index = strtol(text, &end, 10);
        if (*text < '0' || *text > '9' || errno || index > 999 || (*end && *end != ','))
            return error_set(err, GYARU_USAGE,
                             "device %s: expected numbers behind the colon: cuda:0 or cuda:0,1",
                             name);
        for (int i = 0; i < out->n; i++)
            if (out->indices[i] == index)
                return error_set(err, GYARU_USAGE,
                                 "device %s: GPU %ld is named twice: name each once", name, index);
        if (out->n == BACKEND_DEVICES)
            return error_set(err, GYARU_USAGE,
                             "device %s: at most %d GPUs can share a model: name fewer", name,
                             BACKEND_DEVICES);
        out->indices[out->n++] = (int)index;
        more = *end == ',';
        text = end + 1;
    }
    return 0;
}

static int parse_name(const char *name, struct device_name *out, struct gyaru_error *err)
{
    size_t len = strcspn(name, ":");
    *out = (struct device_name){.n = 0};
    snprintf(out->backend, sizeof out->backend, "%.*s", (int)len, name);
    if (name[len])
        return parse_indices(name, name + len + 1, out, err);
    out->n = 1;
    return 0;
}

int backend_open(const char *name, int threads, const struct backend **table,
                 struct backend_device **out, struct gyaru_error *err)
{
    struct device_name d;
    if (parse_name(name, &d, err) || !(*table = backend_find(d.backend, err)))
        return -1;
    if (d.n == 1)
        return (*table)->open(d.indices[0], threads, out, err);
    if (!(*table)->open_group)
        return error_set(err, GYARU_USAGE, "device %s: there is one %s only: use %s", name,
                         d.backend, d.backend);
    return (*table)->open_group(d.indices, d.n, table, out, err);
}
