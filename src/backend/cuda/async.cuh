/*
 * async.cuh - copies into shared memory that do not wait, and fragments out of it. Like ptx.cuh,
 * this file has a twin on the host under tests/cuda_emu.
 */
#ifndef CUDA_ASYNC_CUH
#define CUDA_ASYNC_CUH

#include "backend/cuda/ptx.cuh"

/* 16 bytes to shared memory, zeros if not `inside`; complete after async_wait(). */
__device__ __forceinline__ void async_copy(void *to, const void *from, bool inside)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    int bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes)
                 : "memory");
}

/* The same, or nothing at all: without a branch. */
__device__ __forceinline__ void async_copy_if(bool wanted, void *to, const void *from)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %2, 0;\n"
                 "@p cp.async.cg.shared.global [%0], [%1], 16; }" ::"r"(at),
                 "l"(from), "r"((int)wanted)
                 : "memory");
}

/* The same at an offset in both, always inside. */
template <int OFFSET> __device__ __forceinline__ void async_copy_at(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0+%2], [%1+%2], 16;" ::"r"(to), "l"(from), "n"(OFFSET)
                 : "memory");
}

__device__ __forceinline__ void async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most N of the thread's committed groups are under way. */
template <int N> __device__ __forceinline__ void async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Four 8 x 8 matrices of 16-bit values; lane l gives the address of row l%8 of matrix l/8 and gets
 * of each matrix columns 2*(l%4) and +1 of row l/4. */
__device__ __forceinline__ void load_fragments(uint32_t (&r)[4], const uint16_t *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* The same of the transposed matrices. */
__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], const uint16_t *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

#endif
