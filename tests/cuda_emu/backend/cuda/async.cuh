/*
 * async.cuh - stands in for src/backend/cuda/async.cuh on the host. Copies are done when a group is
 * waited for, so that what is read too early is seen.
 */
#ifndef CUDA_ASYNC_CUH
#define CUDA_ASYNC_CUH

#include "backend/cuda/ptx.cuh"

/* Of the running thread: noted, grouped, and done oldest group first (emu.cpp). */
void emu_async_copy(void *to, const void *from, size_t bytes); /* from NULL: zeros */
void emu_async_commit(void);
void emu_async_wait(int left);

static inline void async_copy(void *to, const void *from, bool inside)
{
    emu_async_copy(to, inside ? from : NULL, 16);
}

template <int OFFSET> static inline void async_copy_at(uint32_t to, const void *from)
{
    emu_async_copy(emu_shared_place(to + OFFSET), (const char *)from + OFFSET, 16);
}

static inline void async_copy_if(bool wanted, void *to, const void *from)
{
    if (wanted)
        emu_async_copy(to, from, 16);
}

static inline void async_commit()
{
    emu_async_commit();
}

template <int N> static inline void async_wait()
{
    emu_async_wait(N);
}

static inline void emu_fragments(uint32_t (&r)[4], const uint16_t *row, bool transposed)
{
    const uint16_t *rows[32];
    memcpy(rows, emu_exchange(&row, sizeof row), sizeof rows);
    const int lane = (int)(threadIdx.x & 31), a = lane / 4, b = lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
        const uint16_t *const *m = rows + 8 * i;
        uint16_t low = transposed ? m[b][a] : m[a][b];
        uint16_t high = transposed ? m[b + 1][a] : m[a][b + 1];
        r[i] = low | (uint32_t)high << 16;
    }
    __syncwarp(); /* nobody writes what another still reads */
}

static inline void load_fragments(uint32_t (&r)[4], const uint16_t *row)
{
    emu_fragments(r, row, false);
}

static inline void load_transposed(uint32_t (&r)[4], const uint16_t *row)
{
    emu_fragments(r, row, true);
}

#endif
