/* weights.c - see pair.h: random matrices of every kind that checkpoints hold. */
#include "cuda/pair.h"
#include "support/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void *random_source(enum kind kind, size_t rows, size_t cols, struct quant_source *out)
{
    size_t n = rows * cols, blocks;
    *out = (struct quant_source){.rows = rows, .cols = cols, .block_size = 64};
    uint8_t *data = allocate(8 * n + 4096);
    uint8_t *scales = data + 4 * n;
    float amplitude = 1.0f / sqrtf((float)cols);
    out->data = data;
    for (size_t i = 0; i < n && kind >= BF16; i++) {
        float value = random_float() * amplitude;
        uint16_t half = kind == F16 ? quant_to_f16(value) : quant_to_bf16(value);
        if (kind == F32)
            memcpy(data + 4 * i, &value, 4);
        else
            memcpy(data + 2 * i, &half, 2);
    }
    out->type = kind == F32 ? QUANT_F32 : kind == F16 ? QUANT_F16 : QUANT_BF16;
    if (kind >= BF16)
        return data;
    out->type = QUANT_4BIT;
    if (kind == NESTED_LARGE)
        out->block_size = 128;
    blocks = (n + out->block_size - 1) / out->block_size;
    for (size_t i = 0; i < n / 2; i++)
        data[i] = (uint8_t)random_bits();
    for (int i = 0; i < 16; i++)
        out->map[i] = (float)(i - 8) / 8 + 0.03f * random_float();
    out->absmax = scales;
    if (kind == PLAIN_4BIT) {
        for (size_t i = 0; i < blocks; i++) {
            float value = (0.6f + 0.4f * random_float()) * amplitude;
            memcpy(scales + 4 * i, &value, 4);
        }
        return data;
    }
    out->nested_block_size = kind == NESTED ? 256 : 4; /* the small one ends in mid-row */
    for (size_t i = 0; i < blocks; i++)
        scales[i] = (uint8_t)random_bits();
    out->nested_absmax = scales + (blocks + 3) / 4 * 4;
    for (size_t i = 0; i < (blocks + out->nested_block_size - 1) / out->nested_block_size; i++) {
        float value = (0.6f + 0.4f * random_float()) * amplitude;
        memcpy(scales + (blocks + 3) / 4 * 4 + 4 * i, &value, 4);
    }
    for (int i = 0; i < 256; i++)
        out->nested_map[i] = random_float();
    out->nested_offset = 0.3f * amplitude;
    return data;
}
