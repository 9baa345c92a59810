/*
 * matrix.c - weights repacked for the kernels: sixteen output rows become sixteen lanes.
 *
 * Every matrix is copied once at load; the checkpoint's mapping may go afterwards. The layout is
 * the same for all instruction sets.
 */
#include "backend/cpu/cpu.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

/* Groups must not straddle rows: where a row is no whole number of blocks, the scale of a block is
 * repeated for each of its parts, gcd(cols, block_size) columns wide. */
static size_t scale_group(const struct quant_source *s)
{
    return size_divisor(s->cols, s->block_size);
}

struct layout {
    size_t tiles, group, data_bytes, scale_bytes;
};

static bool layout_of(const struct quant_source *s, struct layout *out)
{
    struct layout l = {.tiles = s->rows / TILE + (s->rows % TILE != 0), .group = 64};
    size_t elements;
    if (!size_mul(l.tiles * TILE, s->cols, &elements) || elements > SIZE_MAX / 8)
        return false;
    if (s->type == QUANT_4BIT) {
        l.group = scale_group(s);
        if (l.group % 8)
            return false;
        l.data_bytes = elements / 2;
        l.scale_bytes = elements / l.group * sizeof(float);
    } else
        l.data_bytes = elements * (s->type == QUANT_F32 ? 4 : 2);
    *out = l;
    return true;
}

uint64_t cpu_matrix_bytes(const struct backend_device *device, const struct quant_source *source)
{
    struct layout l;
    return layout_of(source, &l) ? l.data_bytes + l.scale_bytes : UINT64_MAX;
}

/* Codes of one tile: nibble j of word [c/8][lane] is column c+j of row tile*TILE+lane. */
static void pack_codes(const struct quant_source *s, size_t tile, uint32_t *words)
{
    for (size_t lane = 0; lane < TILE; lane++) {
        size_t row = tile * TILE + lane;
        for (size_t c = 0; c < s->cols; c += 8) {
            uint32_t word = 0;
            size_t byte = (row * s->cols + c) / 2;
            for (int j = 0; j < 4 && row < s->rows; j++) {
                uint32_t pair = s->data[byte + (size_t)j];
                word |= (pair >> 4 | (pair & 15) << 4) << (8 * j);
            }
            words[c / 8 * TILE + lane] = word;
        }
    }
}

static void pack_scales(const struct quant_source *s, size_t tile, size_t group, float *scales)
{
    for (size_t lane = 0; lane < TILE; lane++) {
        size_t row = tile * TILE + lane;
        for (size_t c = 0; c < s->cols; c += group) {
            size_t block = (row * s->cols + c) / s->block_size;
            scales[c / group * TILE + lane] = row < s->rows ? quant_absmax(s, block) : 0;
        }
    }
}

static void pack_plain(const struct quant_source *s, size_t tile, uint8_t *out)
{
    size_t element = s->type == QUANT_F32 ? 4 : 2;
    for (size_t lane = 0; lane < TILE; lane++) {
        size_t row = tile * TILE + lane;
        const uint8_t *in = s->data + row * s->cols * element;
        for (size_t c = 0; c < s->cols; c++) {
            uint8_t *to = out + (c * TILE + lane) * element;
            if (row < s->rows)
                memcpy(to, in + c * element, element);
            else
                memset(to, 0, element);
        }
    }
}

static int allocate(const struct layout *l, struct backend_matrix *m, struct gyaru_error *err)
{
    m->bytes = l->data_bytes + l->scale_bytes;
    m->data = aligned_alloc(64, (l->data_bytes + 63) / 64 * 64);
    if (l->scale_bytes)
        m->scales = aligned_alloc(64, (l->scale_bytes + 63) / 64 * 64);
    if (!m->data || (l->scale_bytes && !m->scales))
        return error_memory(err, m->bytes, "weights");
    return 0;
}

struct packing {
    const struct quant_source *source;
    const struct layout *layout;
    struct backend_matrix *m;
};

static void pack_tiles(void *arg, size_t first, size_t end, int thread)
{
    const struct packing *p = arg;
    struct backend_matrix *m = p->m;
    size_t data = p->layout->data_bytes / m->tiles;
    size_t scales = p->layout->scale_bytes / m->tiles / sizeof(float);
    for (size_t t = first; t < end; t++) {
        if (m->type == QUANT_4BIT) {
            pack_codes(p->source, t, (uint32_t *)(m->data + t * data));
            pack_scales(p->source, t, m->group, m->scales + t * scales);
        } else
            pack_plain(p->source, t, m->data + t * data);
    }
}

int cpu_matrix_new(struct backend_device *device, const struct quant_source *source,
                   struct backend_matrix **out, struct gyaru_error *err)
{
    struct layout l;
    if (!layout_of(source, &l))
        return error_set(err, GYARU_FAILED,
                         "a 4-bit matrix of %zu columns in blocks of %zu: the CPU backend needs "
                         "blocks that meet rows at multiples of 8 columns",
                         source->cols, source->block_size);
    struct backend_matrix *m = calloc(1, sizeof *m);
    if (!m)
        return error_memory(err, sizeof *m, "weights");
    *m = (struct backend_matrix){.type = source->type,
                                 .rows = source->rows,
                                 .cols = source->cols,
                                 .tiles = l.tiles,
                                 .group = l.group};
    memcpy(m->map, source->map, sizeof m->map);
    if (allocate(&l, m, err)) {
        cpu_matrix_free(m);
        return -1;
    }
    pool_run(device->pool, m->tiles, cpu_grain(TILE * m->cols), pack_tiles,
             &(struct packing){source, &l, m});
    *out = m;
    return 0;
}

void cpu_matrix_free(struct backend_matrix *m)
{
    if (!m)
        return;
    free(m->data);
    free(m->scales);
    free(m);
}

void cpu_matrix_row(const struct backend_matrix *m, size_t row, float *out)
{
    size_t tile = row / TILE, lane = row % TILE, first = tile * m->cols * TILE;
    for (size_t c = 0; c < m->cols; c++) {
        size_t i = first + c * TILE + lane;
        switch (m->type) {
        case QUANT_F32:
            out[c] = ((const float *)m->data)[i];
            break;
        case QUANT_F16:
            out[c] = quant_f16(((const uint16_t *)m->data)[i]);
            break;
        case QUANT_BF16:
            out[c] = quant_bf16(((const uint16_t *)m->data)[i]);
            break;
        case QUANT_4BIT: {
            const uint32_t *words = (const uint32_t *)m->data + (tile * m->cols + c) / 8 * TILE;
            size_t groups = m->cols / m->group;
            float scale = m->scales[(tile * groups + c / m->group) * TILE + lane];
            out[c] = m->map[words[lane] >> (4 * (c % 8)) & 15] * scale;
            break;
        }
        }
    }
}
