/*
 * emu.cpp - runs kernels on the host, each thread a fiber. See cuda_runtime_api.h.
 */
#include "emu.h"

#include "backend/cuda/async.cuh"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
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
    const void *from; /* NULL: zeros */
    size_t bytes;
    unsigned group;
};

struct fiber {
    struct context context;
    unsigned thread;
    bool done;
    char *stack = NULL;
    std::vector<copy> copies; /* under way */
    unsigned group;           /* of the next copies */
};

struct exchange {
    unsigned char data[2][32][64]; /* by parity of the generation */
    int arrived;
    unsigned generation;
};

struct emu_block {
    std::vector<fiber> fibers;
    std::vector<exchange> warps;
    std::vector<unsigned char> shared;
    unsigned alive, arrived, generation;
    dim3 index;
};

/* Blocks that are alive at the same time: one, or the whole grid. */
static std::vector<emu_block> blocks;
static emu_block *block; /* whose fiber runs */
static fiber *current;
static struct context scheduler;
static std::function<void()> running_kernel;
static unsigned long
    progress; /* grows whenever a thread gets past something that others wait for */

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
    switch_to(&current->context, &scheduler);
}

static void fiber_main(void)
{
    running_kernel();
    current->done = true;
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

static void run_fiber(emu_block *b, fiber *f)
{
    block = b;
    current = f;
    threadIdx = dim3(f->thread, 0, 0);
    blockIdx = b->index;
    switch_to(&scheduler, &f->context);
    if (f->done) {
        b->alive--;
        progress++;
    }
}

void *emu_shared(void)
{
    return block->shared.data();
}

void emu_block_barrier(void)
{
    emu_block &b = *block;
    unsigned generation = b.generation;
    b.arrived++;
    while (b.generation == generation) {
        if (b.arrived >= b.alive) { /* threads that ended do not hold the others up */
            b.arrived = 0;
            b.generation++;
            progress++;
            return;
        }
        yield_fiber();
    }
}

void emu_grid_arrive(unsigned *counter, unsigned add)
{
    *counter += add;
    progress++;
}

unsigned emu_grid_wait(const unsigned *counter, unsigned side)
{
    while ((*(const volatile unsigned *)counter & GRID_SIDE) == side)
        yield_fiber();
    return side ^ GRID_SIDE;
}

const void *emu_exchange(const void *mine, size_t bytes)
{
    exchange &w = block->warps[threadIdx.x / 32];
    unsigned generation = w.generation;
    unsigned char *data = w.data[generation % 2][0];
    if (bytes > sizeof w.data[0][0])
        abort();
    memcpy(data + threadIdx.x % 32 * bytes, mine, bytes);
    if (++w.arrived == 32) {
        w.arrived = 0;
        w.generation++;
        progress++;
    } else
        while (w.generation == generation)
            yield_fiber();
    return data;
}

static void do_copy(const copy &c)
{
    if (c.from)
        memcpy(c.to, c.from, c.bytes);
    else
        memset(c.to, 0, c.bytes);
}

/* Copies are done at once or when they are waited for: both may be. */
void emu_async_copy(void *to, const void *from, size_t bytes)
{
    copy c = {to, from, bytes, current->group};
    if (random_order() % 2)
        do_copy(c);
    else
        current->copies.push_back(c);
}

void emu_async_commit(void)
{
    current->group++;
}

void emu_async_wait(int left)
{
    fiber *f = current;
    size_t done = 0;
    for (; done < f->copies.size() && f->copies[done].group + (unsigned)left < f->group; done++)
        do_copy(f->copies[done]);
    f->copies.erase(f->copies.begin(), f->copies.begin() + (ptrdiff_t)done);
}

/* Where the block's shared memory begins on GPUs that have whole steps. */
#define SHARED_FIRST 1024

uint32_t emu_shared_address(const void *p)
{
    return (uint32_t)((const unsigned char *)p - block->shared.data()) + SHARED_FIRST;
}

void *emu_shared_place(uint32_t address)
{
    return block->shared.data() + (address - SHARED_FIRST);
}

static void start_block(emu_block *b, dim3 index, unsigned threads, size_t shared)
{
    b->index = index;
    b->shared.assign(shared, 0xff);
    b->shared.shrink_to_fit();
    b->warps.assign((threads + 31) / 32, exchange());
    b->alive = threads;
    b->arrived = b->generation = 0;
    if (b->fibers.size() < threads)
        b->fibers.resize(threads);
    for (unsigned t = 0; t < threads; t++) {
        b->fibers[t].thread = t;
        b->fibers[t].copies.clear();
        b->fibers[t].group = 0;
        fiber_start(&b->fibers[t]);
    }
}

/* The first n blocks, to their end, warps in random turns. */
static void run_blocks(size_t n, unsigned threads)
{
    std::vector<std::pair<emu_block *, unsigned>> order;
    unsigned long seen = progress;
    unsigned alive = 1;
    for (size_t b = 0; b < n; b++)
        for (unsigned w = 0; w < (threads + 31) / 32; w++)
            order.push_back({&blocks[b], w});
    for (unsigned idle = 0; alive; idle = seen == progress ? idle + 1 : 0) {
        if (idle > 100) { /* nobody can end what all wait for */
            fprintf(stderr, "emulation: a kernel never ends\n");
            abort();
        }
        seen = progress;
        std::shuffle(order.begin(), order.end(), random_order);
        for (const auto &[b, w] : order)
            for (unsigned t = w * 32; t < std::min(threads, w * 32 + 32); t++)
                if (!b->fibers[t].done)
                    run_fiber(b, &b->fibers[t]);
        alive = 0;
        for (size_t b = 0; b < n; b++)
            alive += blocks[b].alive;
    }
}

void emu_run_grid(const std::function<void()> &kernel, dim3 grid, unsigned threads, size_t shared,
                  bool together)
{
    size_t n = (size_t)grid.x * grid.y * grid.z;
    running_kernel = kernel;
    gridDim = grid;
    blockDim = dim3(threads);
    std::vector<unsigned> order(n);
    for (size_t i = 0; i < n; i++)
        order[i] = (unsigned)i;
    std::shuffle(order.begin(), order.end(), random_order);
    if (blocks.size() < (together ? n : 1))
        blocks.resize(together ? n : 1);
    for (size_t i = 0; i < n; i++) {
        dim3 index(order[i] % grid.x, order[i] / grid.x % grid.y, order[i] / grid.x / grid.y);
        start_block(&blocks[together ? i : 0], index, threads, shared);
        if (!together)
            run_blocks(1, threads);
    }
    if (together)
        run_blocks(n, threads);
}

void emu_release_fibers(void)
{
    for (emu_block &b : blocks)
        for (fiber &f : b.fibers)
            free(f.stack);
    blocks.clear();
}
