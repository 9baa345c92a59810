/*
 * ptx.cuh - stands in for src/backend/cuda/ptx.cuh: the language of kernels, on the host.
 *
 * A CUDA thread is a fiber; blocks run one after the other in random order, or all together where
 * the kernel asks for it, warps in random turns. What crosses lanes (shuffles, mma) waits until all
 * 32 have arrived.
 */
#ifndef CUDA_PTX_CUH
#define CUDA_PTX_CUH

#include "base/half.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

using std::min;
using std::rintf;

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static /* blocks do not overlap in time */

struct uint4 {
    uint32_t x, y, z, w;
};
struct uint2 {
    uint32_t x, y;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};

static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return {x, y, z, w};
}

static inline uint2 make_uint2(uint32_t x, uint32_t y)
{
    return {x, y};
}

static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

static inline float2 make_float2(float x, float y)
{
    return {x, y};
}

/* Of the running fiber; set by emu.cpp. */
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

void emu_launch(std::function<void()> kernel, dim3 grid, unsigned threads, size_t shared,
                cudaStream_t stream, bool together);
void *emu_shared(void);
void emu_block_barrier(void);
/* Gives `bytes` of each lane to all: returns [32][bytes], valid until the lane's next exchange. */
const void *emu_exchange(const void *mine, size_t bytes);

#define DYNAMIC_SHARED(type, name) type *name = (type *)emu_shared()

template <class A>
static void launch(void (*kernel)(A), dim3 grid, unsigned threads, size_t shared,
                   cudaStream_t stream, const A &a)
{
    emu_launch([=] { kernel(a); }, grid, threads, shared, stream, false);
}

template <class A>
static void launch_together(void (*kernel)(A), dim3 grid, unsigned threads, size_t shared,
                            cudaStream_t stream, const A &a)
{
    emu_launch([=] { kernel(a); }, grid, threads, shared, stream, true);
}

/* One after the other. */
template <class A>
static void launch_chained(void (*kernel)(A), dim3 grid, unsigned threads, size_t shared,
                           cudaStream_t stream, const A &a)
{
    launch(kernel, grid, threads, shared, stream, a);
}

static inline void chain_start_next()
{
}

static inline void chain_wait()
{
}

uint32_t emu_shared_address(const void *p);
void *emu_shared_place(uint32_t address);

static inline uint32_t shared_address(const void *p)
{
    return emu_shared_address(p);
}

template <int OFFSET> static inline uint32_t shared_word(uint32_t address)
{
    uint32_t word;
    memcpy(&word, emu_shared_place(address + OFFSET), sizeof word);
    return word;
}

#define GRID_SIDE 0x80000000u

void emu_grid_arrive(unsigned *counter, unsigned add);
unsigned emu_grid_wait(const unsigned *counter, unsigned side);

static inline unsigned grid_side(const unsigned *counter)
{
    return *counter & GRID_SIDE;
}

static inline void grid_arrive(unsigned *counter)
{
    emu_grid_arrive(counter, blockIdx.x == 0 ? GRID_SIDE - (gridDim.x - 1) : 1);
}

static inline unsigned grid_wait(const unsigned *counter, unsigned side)
{
    return emu_grid_wait(counter, side);
}

/* Reads, so that the sanitizers see an address that is nobody's. */
static inline void fetch(const void *p)
{
    (void)*(const volatile char *)p;
}

static inline void __trap()
{
    abort();
}

static inline void __syncthreads()
{
    emu_block_barrier();
}

static inline void __syncwarp()
{
    char nothing = 0;
    emu_exchange(&nothing, 1);
}

static inline void __threadfence()
{
}

template <class T> static inline T __shfl_sync(unsigned mask, T v, int from)
{
    T all[32];
    memcpy(all, emu_exchange(&v, sizeof v), sizeof all);
    return all[from & 31];
}

template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int with)
{
    return __shfl_sync(mask, v, (int)(threadIdx.x & 31) ^ with);
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

template <class T> static inline T __ldcg(const T *p)
{
    return *p;
}

static inline int atomicAdd(int *p, int v)
{
    int old = *p;
    *p += v;
    return old;
}

static inline unsigned atomicOr(unsigned *p, unsigned v)
{
    unsigned old = *p;
    *p |= v;
    return old;
}

static inline float __uint_as_float(uint32_t v)
{
    float f;
    memcpy(&f, &v, sizeof f);
    return f;
}

static inline uint32_t __float_as_uint(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++)
        out |= (uint32_t)(both >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
    return out;
}

static inline uint4 load_once(const uint4 *p)
{
    return *p;
}

static inline uint16_t half_bits(float v)
{
    return half_from_float(v);
}

static inline float half_value(uint16_t v)
{
    return half_to_float(v);
}

static inline float bf16_value(uint16_t v)
{
    return bf16_to_float(v);
}

static inline uint16_t bf16_bits(float v)
{
    uint32_t bits = __float_as_uint(v);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint32_t half_bits2(float low, float high)
{
    return half_bits(low) | (uint32_t)half_bits(high) << 16;
}

static inline uint32_t bf16_bits2(float low, float high)
{
    return bf16_bits(low) | (uint32_t)bf16_bits(high) << 16;
}

static inline float rsqrtf(float v)
{
    return 1.0f / sqrtf(v);
}

/* The layout of operands is the PTX manual's: group g = lane/4, thread-in-group t = lane%4. */
static inline void emu_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                           float (*value)(uint16_t))
{
    struct lane {
        float a[4][2], b[2][2]; /* converted by their owner: once instead of eight times */
    } mine;
    const uint32_t y[2] = {b0, b1};
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 4; i++)
            mine.a[i][h] = value((uint16_t)(a[i] >> (16 * h)));
        for (int i = 0; i < 2; i++)
            mine.b[i][h] = value((uint16_t)(y[i] >> (16 * h)));
    }
    const struct lane *all = (const struct lane *)emu_exchange(&mine, sizeof mine);
    int g = (int)(threadIdx.x & 31) / 4, t = (int)(threadIdx.x & 31) % 4;
    for (int i = 0; i < 4; i++) {
        int row = g + i / 2 * 8, col = 2 * t + i % 2;
        double sum = c[i];
        for (int k = 0; k < 16; k++)
            sum += (double)all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2][k % 2] *
                   (double)all[col * 4 + k % 8 / 2].b[k / 8][k % 2];
        c[i] = (float)sum;
    }
}

static inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    emu_mma(c, a, b0, b1, half_value);
}

static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    emu_mma(c, a, b0, b1, bf16_value);
}

#endif
