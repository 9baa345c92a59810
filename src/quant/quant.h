/*
 * quant.h - how stored numbers become float32: the readable truth, scalar.
 *
 * Source: bitsandbytes' 4-bit layout (docs/formats.md). The kernels of the backends repack these
 * sources; their tests compare with quant_row().
 */
#ifndef QUANT_QUANT_H
#define QUANT_QUANT_H

#include <stddef.h>
#include <stdint.h>

enum quant_type { QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_4BIT };

/* What devices that share a model hold of a matrix: all of it, or a part each (part.h). */
enum quant_cut { QUANT_WHOLE, QUANT_BY_ROWS, QUANT_BY_COLUMNS };

/* One matrix [rows, cols] as the file stores it; all pointers are views, maybe unaligned. */
struct quant_source {
    enum quant_type type;
    size_t rows, cols;
    const uint8_t *data; /* [rows*cols] elements, or [rows*cols/2] bytes, high nibble first */
    enum quant_cut cut;
    size_t unit; /* unless WHOLE: rows or columns that stay together */

    /* QUANT_4BIT only (NF4 and FP4 differ in the map alone). b = flat index / block_size. */
    size_t block_size;
    float map[16];
    const uint8_t *absmax;        /* u8 [blocks] if nested, else f32 [blocks] */
    const uint8_t *nested_absmax; /* f32 [ceil(blocks / nested_block_size)], NULL: not nested */
    size_t nested_block_size;
    float nested_map[256];
    float nested_offset;
};

float quant_f16(uint16_t bits);
float quant_bf16(uint16_t bits);
uint16_t quant_to_f16(float value);  /* round to nearest even */
uint16_t quant_to_bf16(float value); /* round to nearest even */

/* Scale of flat block b. */
float quant_absmax(const struct quant_source *s, size_t block);

/* Dequantises row r into out [cols], exactly: map[nibble] * absmax in float32. */
void quant_row(const struct quant_source *s, size_t row, float *out);

/* Bytes of the source as stored (data and scales). */
size_t quant_bytes(const struct quant_source *s);

#endif
