/* quant.c - see quant.h. */
#include "quant/quant.h"

#include <string.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

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
    return float_of((uint32_t)bits << 16);
}

float quant_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 31)
        return float_of(sign | 0x7f800000 | mantissa << 13);
    if (exponent)
        return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f; /* subnormal or zero */
    return sign ? -magnitude : magnitude;
}

uint16_t quant_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000) /* NaN stays NaN */
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t quant_to_f16(float value)
{
    uint32_t bits = bits_of(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return sign | 0x7e00;
    if (magnitude >= 0x477ff000) /* rounds past 65504 */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) /* below the smallest normal, 2^-14: the FPU rounds for us */
        return sign | (uint16_t)(bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f));
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return sign | (uint16_t)((rounded - (112u << 23)) >> 13);
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
