/* kernels_scalar.c - the kernels of kernels.h for this instruction set. */
#include "backend/cpu/simd_scalar.h"

#include "backend/cpu/kernels_body.h"
