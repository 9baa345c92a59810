/* kernels_avx2.c - the kernels of kernels.h for this instruction set. */
#include "backend/cpu/simd_avx2.h"

#include "backend/cpu/kernels_body.h"
