/* quant.c - see quant.h. */
#include "quant/quant.h"

#include "base/half.h"

#include <string.h>

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static float load_f32(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

float quant_bf16(uint16_t bits)
{
    return bf16_to_float(bits);
}

float quant_f16(uint16_t bits)
{
    return half_to_float(bits);
}

uint16_t quant_to_bf16(float value)
{
    return bf16_from_float(value);
}

uint16_t quant_to_f16(float value)
{
    return half_from_float(value);
}

float quant_absmax(const struct quant_source *s, size_t block)
{
    if (!s->nested_absmax)
        return load_f32(s->absmax + 4 * block);
    float scale = load_f32(s->nested_absmax + 4 * (block / s->nested_block_size));
    return s->nested_map[s->absmax[block]] * scale + s->nested_offset;
}

static void row_4bit(const struct quant_source *s, size_t row, float *out)
{
    size_t first = row * s->cols;
    for (size_t c = 0; c < s->cols; c++) {
        size_t i = first + c;
        uint8_t byte = s->data[i / 2];
        uint8_t code = i % 2 ? byte & 15 : byte >> 4;
        out[c] = s->map[code] * quant_absmax(s, i / s->block_size);
    }
}

void quant_row(const struct quant_source *s, size_t row, float *out)
{
    const uint8_t *p;
    switch (s->type) {
    case QUANT_F32:
        p = s->data + 4 * row * s->cols;
        memcpy(out, p, 4 * s->cols);
        break;
    case QUANT_F16:
        p = s->data + 2 * row * s->cols;
        for (size_t c = 0; c < s->cols; c++)
            out[c] = quant_f16(load_u16(p + 2 * c));
        break;
    case QUANT_BF16:
        p = s->data + 2 * row * s->cols;
        for (size_t c = 0; c < s->cols; c++)
            out[c] = quant_bf16(load_u16(p + 2 * c));
        break;
    case QUANT_4BIT:
        row_4bit(s, row, out);
        break;
    }
}

size_t quant_bytes(const struct quant_source *s)
{
    size_t n = s->rows * s->cols;
    switch (s->type) {
    case QUANT_F32:
        return 4 * n;
    case QUANT_F16:
    case QUANT_BF16:
        return 2 * n;
    case QUANT_4BIT:
        break;
    }
    size_t blocks = (n + s->block_size - 1) / s->block_size;
    if (!s->nested_absmax)
        return n / 2 + 4 * blocks;
    size_t groups = (blocks + s->nested_block_size - 1) / s->nested_block_size;
    return n / 2 + blocks + 4 * groups + 4 * 256;
}
