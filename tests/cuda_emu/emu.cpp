/*
 * emu.cpp - runs kernels on the host and plays the CUDA runtime. See cuda_runtime_api.h.
 */
#include "backend/cuda/async.cuh"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

/* ---- fibers -----------------------------------------------------------------------------------
 */

#define STACK_BYTES ((size_t)128 << 10) /* with sanitizers, frames are large */

struct context {
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t ucontext;
#endif
};

#if defined(__x86_64__)
extern "C" void emu_switch(void **save, void *load);
__asm__(".text\n.globl emu_switch\n.hidden emu_switch\n.type emu_switch,@function\nemu_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".section .note.GNU-stack,\"\",@progbits\n.text\n");
#endif

struct copy {
    void *to;
    const void *from;
    bool inside;
    unsigned group;
};

struct fiber {
    struct context context;
    unsigned thread;
    bool done;
    char *stack;
    std::vector<copy> copies; /* under way */
    unsigned group;           /* of the next copies */
};

struct exchange {
    unsigned char data[2][32][64]; /* by parity of the generation */
    int arrived;
    unsigned generation;
};

static struct {
    std::vector<fiber> fibers;
    std::vector<exchange> warps;
    std::vector<unsigned char> shared;
    std::function<void()> kernel;
    struct context scheduler;
    fiber *current;
    unsigned alive, arrived, generation;
} block;

static std::mt19937 random_order(1);

static void switch_to(struct context *from, struct context *to)
{
#if defined(__x86_64__)
    emu_switch(&from->sp, to->sp);
#else
    swapcontext(&from->ucontext, &to->ucontext);
#endif
}

static void yield_fiber(void)
{
    switch_to(&block.current->context, &block.scheduler);
}

static void fiber_main(void)
{
    block.kernel();
    block.current->done = true;
    yield_fiber();
    abort();
}

static void fiber_start(fiber *f)
{
    f->done = false;
    if (!f->stack)
        f->stack = (char *)aligned_alloc(64, STACK_BYTES);
#if defined(__x86_64__)
    void **top = (void **)(f->stack + STACK_BYTES) - 2;
    *top = (void *)fiber_main; /* return address; the stack is then as after a call */
    for (int i = 0; i < 6; i++)
        *--top = NULL;
    f->context.sp = top;
#else
    getcontext(&f->context.ucontext);
    f->context.ucontext.uc_stack.ss_sp = f->stack;
    f->context.ucontext.uc_stack.ss_size = STACK_BYTES;
    f->context.ucontext.uc_link = NULL;
    makecontext(&f->context.ucontext, fiber_main, 0);
#endif
}

static void run_fiber(fiber *f)
{
    block.current = f;
    threadIdx = dim3(f->thread, 0, 0);
    switch_to(&block.scheduler, &f->context);
    if (f->done)
        block.alive--;
}

void *emu_shared(void)
{
    return block.shared.data();
}

void emu_block_barrier(void)
{
    unsigned generation = block.generation;
    block.arrived++;
    while (block.generation == generation) {
        if (block.arrived >= block.alive) { /* threads that ended do not hold the others up */
            block.arrived = 0;
            block.generation++;
            return;
        }
        yield_fiber();
    }
}

const void *emu_exchange(const void *mine, size_t bytes)
{
    exchange &w = block.warps[threadIdx.x / 32];
    unsigned generation = w.generation;
    unsigned char *data = w.data[generation % 2][0];
    if (bytes > sizeof w.data[0][0])
        abort();
    memcpy(data + threadIdx.x % 32 * bytes, mine, bytes);
    if (++w.arrived == 32) {
        w.arrived = 0;
        w.generation++;
    } else
        while (w.generation == generation)
            yield_fiber();
    return data;
}

static void do_copy(const copy &c)
{
    if (c.inside)
        memcpy(c.to, c.from, 16);
    else
        memset(c.to, 0, 16);
}

/* Copies are done at once or when they are waited for: both may be. */
void emu_async_copy(void *to, const void *from, bool inside)
{
    copy c = {to, from, inside, block.current->group};
    if (random_order() % 2)
        do_copy(c);
    else
        block.current->copies.push_back(c);
}

void emu_async_commit(void)
{
    block.current->group++;
}

void emu_async_wait(int left)
{
    fiber *f = block.current;
    size_t done = 0;
    for (; done < f->copies.size() && f->copies[done].group + (unsigned)left < f->group; done++)
        do_copy(f->copies[done]);
    f->copies.erase(f->copies.begin(), f->copies.begin() + (ptrdiff_t)done);
}

static void run_block(unsigned threads, size_t shared)
{
    block.shared.assign(shared, 0xff);
    block.shared.shrink_to_fit();
    block.warps.assign((threads + 31) / 32, exchange());
    block.alive = threads;
    block.arrived = block.generation = 0;
    for (unsigned t = 0; t < threads; t++) {
        block.fibers[t].thread = t;
        block.fibers[t].copies.clear();
        block.fibers[t].group = 0;
        fiber_start(&block.fibers[t]);
    }
    std::vector<unsigned> order(block.warps.size());
    for (size_t i = 0; i < order.size(); i++)
        order[i] = (unsigned)i;
    for (unsigned idle = 0; block.alive; idle++) {
        std::shuffle(order.begin(), order.end(), random_order);
        for (unsigned w : order)
            for (unsigned t = w * 32; t < std::min(threads, w * 32 + 32); t++)
                if (!block.fibers[t].done)
                    run_fiber(&block.fibers[t]);
        if (idle > 100000000) {
            fprintf(stderr, "emulation: a block never ends\n");
            abort();
        }
    }
}

static void run_grid(const std::function<void()> &kernel, dim3 grid, unsigned threads,
                     size_t shared)
{
    block.kernel = kernel;
    if (block.fibers.size() < threads)
        block.fibers.resize(threads);
    gridDim = grid;
    blockDim = dim3(threads);
    std::vector<unsigned> order(grid.x * grid.y * grid.z);
    for (size_t i = 0; i < order.size(); i++)
        order[i] = (unsigned)i;
    std::shuffle(order.begin(), order.end(), random_order);
    for (unsigned i : order) {
        blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
        run_block(threads, shared);
    }
}

/* ---- the runtime ------------------------------------------------------------------------------
 */

struct emu_graph {
    std::vector<std::function<void()>> nodes;
};

struct emu_stream {
    emu_graph *recording; /* NULL: work runs at once */
};

static cudaError_t submit(cudaStream_t stream, std::function<void()> work)
{
    if (stream->recording)
        stream->recording->nodes.push_back(work);
    else
        work();
    return cudaSuccess;
}

static cudaError_t last_error;

void emu_launch(std::function<void()> kernel, dim3 grid, unsigned threads, size_t shared,
                cudaStream_t stream)
{
    if (!grid.x || !grid.y || !grid.z || !threads || threads > 1024 || shared > (99 << 10)) {
        last_error = cudaErrorInvalidValue;
        return;
    }
    submit(stream, [=] { run_grid(kernel, grid, threads, shared); });
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
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    snprintf(prop->name, sizeof prop->name, "host emulation");
    prop->major = 9;
    prop->minor = 0;
    prop->multiProcessorCount = 2;
    memset(&prop->uuid, 0x11, sizeof prop->uuid);
    return cudaSuccess;
}

/* EMU_MEMORY: of the pretended GPU, MiB. */
static size_t device_bytes(void)
{
    const char *mib = getenv("EMU_MEMORY");
    return (mib ? strtoul(mib, NULL, 10) : 4096) << 20;
}

static std::unordered_map<void *, size_t> device_blocks;
static size_t device_used;

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = device_bytes();
    *available = *total - device_used;
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

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    if (bytes > device_bytes() - device_used || cudaHostAlloc(p, bytes, 0))
        return cudaErrorMemoryAllocation;
    device_blocks[*p] = bytes;
    device_used += bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (p)
        device_used -= device_blocks.at(p);
    device_blocks.erase(p);
    free(p);
    return cudaSuccess;
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
    *stream = new emu_stream();
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    for (fiber &f : block.fibers)
        free(f.stack);
    block.fibers.clear();
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
