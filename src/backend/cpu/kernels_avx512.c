/* kernels_avx512.c - the kernels of kernels.h for this instruction set. */
#include "backend/cpu/simd_avx512.h"

#include "backend/cpu/kernels_body.h"
