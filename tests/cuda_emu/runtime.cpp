/*
 * runtime.cpp - plays the CUDA runtime: devices, their memory, streams, graphs. Kernels are run by
 * emu.cpp. See cuda_runtime_api.h.
 */
#include "emu.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <unordered_map>
#include <vector>

#include <sys/mman.h>

#define MULTIPROCESSORS 6 /* a tile can be cut by several borders; whole steps have parts */
#define SHARED_MOST     ((size_t)227 << 10)

struct emu_graph {
    std::vector<std::function<void()>> nodes;
};

/* A device's memory lies in a stretch of addresses of its own, which can be closed. */
#if defined(__SANITIZE_ADDRESS__)
#define ARENA ((size_t)0)
#else
#define ARENA ((size_t)16 << 30)
#endif
#define DEVICES 8 /* at most */

struct emu_device {
    char *arena = NULL;
    size_t most = 0;                 /* bytes from its beginning that were ever taken */
    std::map<size_t, size_t> blocks; /* taken: offset -> bytes, whole pages */
    std::unordered_map<void *, size_t> sizes;
    size_t used = 0;
};

static emu_device devices[DEVICES];
static thread_local int current_device;
static int reached = -1; /* device whose memory is open, -1: all */

/* EMU_DEVICES: how many GPUs are pretended. */
static int device_count(void)
{
    const char *n = getenv("EMU_DEVICES");
    return n ? atoi(n) : 2;
}

static void reach(int device)
{
    for (int d = 0; d < DEVICES && device != reached; d++)
        if (devices[d].most &&
            mprotect(devices[d].arena, devices[d].most,
                     device < 0 || d == device ? PROT_READ | PROT_WRITE : PROT_NONE))
            abort();
    reached = device;
}

static void reach_all(void)
{
    reach(-1);
}

static cudaError_t submit(cudaStream_t stream, std::function<void()> work)
{
    const int device = stream->device;
    if (stream->recording)
        stream->recording->nodes.push_back([=] {
            reach(device);
            work();
        });
    else {
        reach(device);
        work();
    }
    return cudaSuccess;
}

static cudaError_t last_error;

/* EMU_SHARED: what a block of the pretended GPU may take, KiB. */
static size_t shared_most(void)
{
    const char *kib = getenv("EMU_SHARED");
    return kib ? (size_t)atoi(kib) << 10 : SHARED_MOST;
}

void emu_launch(std::function<void()> kernel, dim3 grid, unsigned threads, size_t shared,
                cudaStream_t stream, bool together)
{
    if (stream->device != current_device) {
        last_error = cudaErrorInvalidValue;
        return;
    }
    if (!grid.x || !grid.y || !grid.z || !threads || threads > 1024 || shared > shared_most() ||
        (together && grid.x * grid.y * grid.z > MULTIPROCESSORS)) {
        last_error = cudaErrorInvalidValue;
        return;
    }
    submit(stream, [=] { emu_run_grid(kernel, grid, threads, shared, together); });
}

extern "C" {

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory" : "emulated error";
}

const char *cudaGetErrorName(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorInvalidValue";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = device_count();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= device_count())
        return cudaErrorInvalidValue;
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    const char *second = getenv("EMU_SECOND"); /* name of the second GPU, if it is another */
    snprintf(prop->name, sizeof prop->name, "%s",
             device == 1 && second ? second : "host emulation");
    prop->major = 9;
    prop->minor = 0;
    prop->multiProcessorCount = MULTIPROCESSORS;
    prop->sharedMemPerBlockOptin = shared_most();
    memset(&prop->uuid, 0x11, sizeof prop->uuid);
    prop->uuid.bytes[0] = (char)(0x11 + device);
    return cudaSuccess;
}

/* EMU_MEMORY: of each pretended GPU, MiB: "4096" or "4096,2048". */
static size_t device_bytes(int device)
{
    const char *mib = getenv("EMU_MEMORY");
    while (mib && device-- && strchr(mib, ','))
        mib = strchr(mib, ',') + 1;
    return (mib ? strtoul(mib, NULL, 10) : 4096) << 20;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = device_bytes(current_device);
    *available = *total - devices[current_device].used;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *f, enum cudaFuncAttribute a, int value)
{
    return cudaSuccess;
}

/* A float of all ones is NaN: whoever reads what nobody wrote shows it. */
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    void *memory = bytes < (size_t)4 << 30 ? aligned_alloc(256, (bytes + 255) / 256 * 256) : NULL;
    if (!memory)
        return cudaErrorMemoryAllocation;
    memset(memory, 0xff, bytes);
    *p = memory;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

/* The first gap that is wide enough. */
static void *take_pages(emu_device *d, size_t bytes)
{
    size_t at = 0;
    if (!d->arena) {
        void *p = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            return NULL;
        d->arena = (char *)p;
    }
    bytes = (bytes + 4095) / 4096 * 4096;
    for (const auto &[from, size] : d->blocks) {
        if (from - at >= bytes)
            break;
        at = from + size;
    }
    if (at + bytes > ARENA)
        return NULL;
    d->blocks[at] = bytes;
    d->most = std::max(d->most, at + bytes);
    return d->arena + at;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    emu_device *d = &devices[current_device];
    if (bytes > device_bytes(current_device) - d->used)
        return cudaErrorMemoryAllocation;
    if (!ARENA && cudaHostAlloc(p, bytes, 0))
        return cudaErrorMemoryAllocation;
    if (ARENA) {
        if (!(*p = take_pages(d, bytes)))
            return cudaErrorMemoryAllocation;
        reach(current_device);
        memset(*p, 0xff, bytes);
    }
    d->sizes[*p] = bytes;
    d->used += bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    for (emu_device &d : devices) {
        if (!p || !d.sizes.count(p))
            continue;
        d.used -= d.sizes[p];
        d.sizes.erase(p);
        if (!ARENA)
            free(p);
        else {
            auto taken = d.blocks.find((size_t)((char *)p - d.arena));
            madvise(p, taken->second, MADV_DONTNEED);
            d.blocks.erase(taken);
        }
        return cudaSuccess;
    }
    return p ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return submit(stream, [=] { memcpy(to, from, bytes); });
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    return submit(stream, [=] { memset(p, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    *stream = new emu_stream{NULL, current_device, reach_all};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    emu_release_fibers();
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return stream->recording ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    static char one;
    *event = (cudaEvent_t)(void *)&one;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    stream->recording = new emu_graph();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = stream->recording;
    stream->recording = NULL;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    *exec = new emu_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    for (const std::function<void()> &node : exec->nodes)
        node();
    return cudaSuccess;
}
}
