/*
 * ptx.cuh - the few instructions that CUDA C++ has no name for, and 16-bit conversions.
 *
 * tests/cuda_emu/backend/cuda/ptx.cuh stands in for this file where the kernels are run on the
 * host; both give the same functions.
 */
#ifndef CUDA_PTX_CUH
#define CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]

/* With one attribute, or `n` 0. Launch errors stay with the runtime: cudaGetLastError() after the
 * step names them. */
template <class A>
static void launch_with(void (*kernel)(A), dim3 grid, unsigned threads, size_t shared,
                        cudaStream_t stream, const A &a, cudaLaunchAttribute attribute, unsigned n)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = n;
    (void)cudaLaunchKernelEx(&config, kernel, a);
}

template <class A>
static void launch(void (*kernel)(A), dim3 grid, unsigned threads, size_t shared,
                   cudaStream_t stream, const A &a)
{
    launch_with(kernel, grid, threads, shared, stream, a, cudaLaunchAttribute(), 0);
}

/* All blocks run at the same time, so that they may wait for each other. */
template <class A>
static void launch_together(void (*kernel)(A), dim3 grid, unsigned threads, size_t shared,
                            cudaStream_t stream, const A &a)
{
    cudaLaunchAttribute together = {};
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
    launch_with(kernel, grid, threads, shared, stream, a, together, 1);
}

/* For a chain of kernels, each of which reads what the one before it wrote: the next may begin
 * while this one ends, and waits in chain_wait(). Before that it may read only what no kernel of
 * the chain writes, and write nothing. Without effect before compute capability 9.0. */
template <class A>
static void launch_chained(void (*kernel)(A), dim3 grid, unsigned threads, size_t shared,
                           cudaStream_t stream, const A &a)
{
    int device = 0, major = 0;
    cudaLaunchAttribute early = {};
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    launch_with(kernel, grid, threads, shared, stream, a, early, major >= 9);
}

/* At the head of a kernel: the next of the chain may begin when all blocks have come here. */
__device__ __forceinline__ void chain_start_next()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Until the kernel before this one of the chain has ended and what it wrote is seen. */
__device__ __forceinline__ void chain_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Addresses of shared memory as numbers, and a word at one: for what is fixed while it is read. */
__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

template <int OFFSET> __device__ __forceinline__ uint32_t shared_word(uint32_t address)
{
    uint32_t v;
    asm("ld.shared.u32 %0, [%1+%2];" : "=r"(v) : "r"(address), "n"(OFFSET));
    return v;
}

/* A barrier of the grid. One block adds 2^31 - (blocks - 1), every other 1, so that the top bit
 * turns to its other side once all have come. One thread of a block speaks for it: before it
 * arrives, and after it has waited, the block meets in a barrier of its own. */
#define GRID_SIDE 0x80000000u

/* Before a block first arrives. */
__device__ __forceinline__ unsigned grid_side(const unsigned *counter)
{
    return *(const volatile unsigned *)counter & GRID_SIDE;
}

__device__ __forceinline__ void grid_arrive(unsigned *counter)
{
    const unsigned add = blockIdx.x == 0 ? GRID_SIDE - (gridDim.x - 1) : 1;
    asm volatile("red.add.release.gpu.global.u32 [%0], %1;" ::"l"(counter), "r"(add) : "memory");
}

/* Returns the new side. A wait that lasts seconds is an error, not a hang. */
__device__ __forceinline__ unsigned grid_wait(const unsigned *counter, unsigned side)
{
    unsigned now, spins = 0;
    do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
        if (++spins == 1u << 24)
            __trap();
    } while ((now & GRID_SIDE) == side);
    return now & GRID_SIDE;
}

/* The line of `p` into L2. */
__device__ __forceinline__ void fetch(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* c += A * B over m16n8k16 with fp32 accumulation; a, b as registers of two 16-bit values. */
__device__ __forceinline__ void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Weights are read once: they must not push x out of L1. */
__device__ __forceinline__ uint4 load_once(const uint4 *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

__device__ __forceinline__ uint16_t half_bits(float v)
{
    return __half_as_ushort(__float2half_rn(v));
}

/* Two in a word, the first in its lower half. */
__device__ __forceinline__ uint32_t half_bits2(float low, float high)
{
    const __half2 both = __floats2half2_rn(low, high);
    return *(const uint32_t *)&both;
}

__device__ __forceinline__ uint32_t bf16_bits2(float low, float high)
{
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&both;
}

__device__ __forceinline__ float half_value(uint16_t v)
{
    return __half2float(__ushort_as_half(v));
}

__device__ __forceinline__ uint16_t bf16_bits(float v)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}

__device__ __forceinline__ float bf16_value(uint16_t v)
{
    return __uint_as_float((uint32_t)v << 16);
}

#endif
