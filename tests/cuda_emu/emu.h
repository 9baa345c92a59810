/*
 * emu.h - what the played runtime (runtime.cpp) asks of the fibers (emu.cpp).
 */
#ifndef EMU_H
#define EMU_H

#include "backend/cuda/ptx.cuh"

/* Runs a kernel to its end; together: all blocks of the grid are alive at the same time. */
void emu_run_grid(const std::function<void()> &kernel, dim3 grid, unsigned threads, size_t shared,
                  bool together);

/* Between kernels: gives back the stacks that are kept for the next. */
void emu_release_fibers(void);

#endif
