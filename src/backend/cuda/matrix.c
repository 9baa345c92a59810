/*
 * matrix.c - weights onto the device: planned, staged through pinned memory, rearranged there.
 *
 * The host copies a piece of rows into a pinned buffer while the one before it travels and is
 * rearranged; nothing of the source is needed once cuda_matrix_new() returns.
 */
#include "backend/cuda/cuda.h"

#include "base/half.h"
#include "base/size.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN        256
#define COPY_THREADS 4
#define COPY_ALONE   ((size_t)1 << 20)        /* bytes that are not worth a second thread */
#define TABLE_BYTES  (256 * sizeof(uint32_t)) /* of the byte table, and of the nested map */

struct plan {
    enum cuda_layout layout;
    int groups, tiles, shift;
    size_t data, codes, scale, total; /* bytes */
    size_t raw_row, code_row;         /* bytes of a row as staged */
};

static size_t align(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* 4-bit blocks must hold whole groups of 64 columns and rows whole groups; what does not fit
 * (no Qwen2 is known to) is kept as float32, eight times as large but exact. */
static enum cuda_layout layout_4bit(const struct quant_source *s, int *shift)
{
    if (s->cols % CUDA_GROUP || s->block_size % CUDA_GROUP || !s->block_size)
        return CUDA_F32;
    size_t per_scale;
    if (!s->nested_absmax ||
        !size_mul(s->block_size / CUDA_GROUP, s->nested_block_size, &per_scale))
        return CUDA_4BIT;
    if (!per_scale || per_scale & (per_scale - 1) || per_scale >= (size_t)1 << 30)
        return CUDA_4BIT;
    *shift = __builtin_ctzll(per_scale);
    return CUDA_NESTED;
}

static enum cuda_layout layout_of(const struct quant_source *s, int *shift)
{
    switch (s->type) {
    case QUANT_F32:
        return CUDA_F32;
    case QUANT_F16:
        return CUDA_F16;
    case QUANT_BF16:
        return CUDA_BF16;
    case QUANT_4BIT:
        break;
    }
    return layout_4bit(s, shift);
}

static bool plan_of(const struct quant_source *s, struct plan *out)
{
    struct plan p = {0};
    size_t padded, elements;
    if (!s->rows || !s->cols || s->rows > INT32_MAX - CUDA_TILE_ROWS ||
        s->cols > INT32_MAX - CUDA_GROUP)
        return false;
    p.layout = layout_of(s, &p.shift);
    p.groups = (int)((s->cols + CUDA_GROUP - 1) / CUDA_GROUP);
    p.tiles = (int)((s->rows + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS);
    padded = (size_t)p.tiles * CUDA_TILE_ROWS;
    if (!size_mul(padded, (size_t)p.groups, &elements) || elements > INT32_MAX)
        return false; /* groups are numbered by int in the kernels */
    size_t groups = elements;
    elements *= CUDA_GROUP;
    if (p.layout == CUDA_F32) {
        p.raw_row = s->cols * sizeof(float);
        p.data = align(s->rows * p.raw_row);
    } else if (p.layout == CUDA_F16 || p.layout == CUDA_BF16) {
        p.raw_row = s->cols * 2;
        p.data = align(elements * 2);
    } else {
        p.raw_row = s->cols / 2;
        p.code_row = (size_t)p.groups * (p.layout == CUDA_NESTED ? 1 : sizeof(float));
        p.data = align(elements / 2);
        p.codes = align(groups * (p.layout == CUDA_NESTED ? 1 : sizeof(float)));
        if (p.layout == CUDA_NESTED)
            p.scale = align(((groups >> p.shift) + 1) * sizeof(float));
    }
    p.total = p.data + p.codes + p.scale + (p.codes ? 2 * TABLE_BYTES : 0);
    *out = p;
    return true;
}

uint64_t cuda_matrix_bytes(const struct backend_device *device, const struct quant_source *source)
{
    struct plan p;
    return plan_of(source, &p) ? p.total : UINT64_MAX;
}

/* ---- staging ----------------------------------------------------------------------------------
 */

int cuda_loader_init(struct cuda_loader *l, struct gyaru_error *err)
{
    for (int i = 0; i < CUDA_LOADER_BUFFERS; i++)
        if (cuda_check(
                cudaHostAlloc((void **)&l->pinned[i], CUDA_LOADER_BYTES, cudaHostAllocDefault),
                "pinned memory for loading", err) ||
            cuda_check(cudaMalloc((void **)&l->raw[i], CUDA_LOADER_BYTES), "memory for loading",
                       err) ||
            cuda_check(cudaEventCreateWithFlags(&l->done[i], cudaEventDisableTiming), "an event",
                       err))
            return -1;
    l->ready = true;
    return 0;
}

void cuda_loader_release(struct cuda_loader *l)
{
    for (int i = 0; i < CUDA_LOADER_BUFFERS; i++) {
        if (l->done[i])
            (void)cudaEventDestroy(l->done[i]);
        (void)cudaFree(l->raw[i]);
        (void)cudaFreeHost(l->pinned[i]);
    }
    *l = (struct cuda_loader){0};
}

struct part {
    pthread_t thread;
    void *to;
    const void *from;
    size_t bytes;
    bool started;
};

static void *copy_part(void *arg)
{
    const struct part *part = arg;
    memcpy(part->to, part->from, part->bytes);
    return NULL;
}

/* One thread copies out of mapped files at a tenth of what the bus takes: its page faults and the
 * latency of memory are what a load waits for. */
static void copy_parallel(void *to, const void *from, size_t bytes)
{
    struct part parts[COPY_THREADS];
    size_t share = align(bytes / COPY_THREADS), at = 0;
    if (bytes < COPY_ALONE) {
        memcpy(to, from, bytes);
        return;
    }
    for (int i = 0; i < COPY_THREADS; i++, at += share) {
        size_t left = bytes > at ? bytes - at : 0;
        parts[i] = (struct part){.to = (uint8_t *)to + at,
                                 .from = (const uint8_t *)from + at,
                                 .bytes = i < COPY_THREADS - 1 && left > share ? share : left};
        parts[i].started =
            i < COPY_THREADS - 1 && !pthread_create(&parts[i].thread, NULL, copy_part, &parts[i]);
        if (!parts[i].started)
            copy_part(&parts[i]);
    }
    for (int i = 0; i < COPY_THREADS; i++)
        if (parts[i].started)
            (void)pthread_join(parts[i].thread, NULL);
}

/* Codes or scales of `rows` rows, one for each group of 64 columns. */
static void stage_codes(const struct quant_source *s, const struct plan *p, size_t first,
                        size_t rows, uint8_t *out)
{
    size_t from = first * (size_t)p->groups, n = rows * (size_t)p->groups;
    size_t per_block = s->block_size / CUDA_GROUP;
    if (p->layout == CUDA_NESTED && per_block == 1) {
        memcpy(out, s->absmax + from, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        size_t block = (from + i) / per_block;
        if (p->layout == CUDA_NESTED)
            out[i] = s->absmax[block];
        else {
            float scale = quant_absmax(s, block);
            memcpy(out + i * sizeof scale, &scale, sizeof scale);
        }
    }
}

static void stage_rows(const struct quant_source *s, const struct plan *p, size_t first,
                       size_t rows, uint8_t *out)
{
    if (p->layout == CUDA_F32 && s->type == QUANT_4BIT) {
        for (size_t r = 0; r < rows; r++)
            quant_row(s, first + r, (float *)(void *)(out + r * p->raw_row));
        return;
    }
    copy_parallel(out, s->data + first * p->raw_row, rows * p->raw_row);
    if (p->code_row)
        stage_codes(s, p, first, rows, out + align(rows * p->raw_row));
}

/* One piece: host -> pinned -> raw -> rearranged, the last two asynchronously. */
static int load_piece(struct backend_matrix *m, const struct quant_source *s, const struct plan *p,
                      size_t first, size_t rows, struct gyaru_error *err)
{
    struct cuda_loader *l = &m->device->loader;
    cudaStream_t stream = m->device->stream;
    int i = l->next;
    l->next = (i + 1) % CUDA_LOADER_BUFFERS;
    if (cuda_check(cudaEventSynchronize(l->done[i]), "loading weights", err))
        return -1;
    stage_rows(s, p, first, rows, l->pinned[i]);
    size_t data = rows * p->raw_row;
    if (p->layout == CUDA_F32) {
        uint8_t *to = (uint8_t *)m->block + first * p->raw_row;
        if (cuda_check(cudaMemcpyAsync(to, l->pinned[i], data, cudaMemcpyHostToDevice, stream),
                       "copying weights", err))
            return -1;
    } else {
        size_t bytes = p->code_row ? align(data) + rows * p->code_row : data;
        if (cuda_check(
                cudaMemcpyAsync(l->raw[i], l->pinned[i], bytes, cudaMemcpyHostToDevice, stream),
                "copying weights", err))
            return -1;
        cuda_repack(&(struct cuda_repack){.layout = p->layout,
                                          .first = first,
                                          .rows = rows,
                                          .total_rows = s->rows,
                                          .cols = s->cols,
                                          .groups = p->groups,
                                          .raw = l->raw[i],
                                          .raw_codes = l->raw[i] + align(data),
                                          .data = m->block,
                                          .codes = (uint8_t *)m->block + p->data},
                    stream);
    }
    if (cuda_check(cudaGetLastError(), "rearranging weights", err))
        return -1;
    return cuda_check(cudaEventRecord(l->done[i], stream), "loading weights", err);
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static double table_error(const float map[16], double scale)
{
    double sum = 0;
    for (int i = 0; i < 16; i++) {
        double v = (double)half_to_float(half_from_float((float)(map[i] * scale))) / scale;
        sum += (v - (double)map[i]) * (v - (double)map[i]);
    }
    return sum;
}

/* The factor in [1, 2) under which fp16 holds the map best: for NF4 it divides the error by 2.5. */
static float best_scale(struct backend_device *d, const float map[16])
{
    if (d->map_scale != 0 && !memcmp(d->map, map, sizeof d->map))
        return d->map_scale;
    double best = 1, least = table_error(map, 1);
    for (int i = 1; i < 4096; i++) {
        double scale = 1 + i / 4096.0, error = table_error(map, scale);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    memcpy(d->map, map, sizeof d->map);
    return d->map_scale = (float)best;
}

/* An upper bound of |weight|. */
static float ceiling_of(const struct quant_source *s, const struct plan *p)
{
    float map = 0, nested = 0, absmax = 0;
    size_t groups = s->rows * (size_t)p->groups, per_block = s->block_size / CUDA_GROUP;
    for (int i = 0; i < 16; i++)
        map = fmaxf(map, fabsf(s->map[i]));
    if (p->layout == CUDA_4BIT) {
        for (size_t b = 0; b < (groups + per_block - 1) / per_block; b++)
            absmax = fmaxf(absmax, fabsf(quant_absmax(s, b)));
        return map * absmax;
    }
    for (int i = 0; i < 256; i++)
        nested = fmaxf(nested, fabsf(s->nested_map[i]));
    for (size_t i = 0; i < (groups + ((size_t)1 << p->shift) - 1) >> p->shift; i++) {
        float value;
        memcpy(&value, s->nested_absmax + i * sizeof value, sizeof value);
        absmax = fmaxf(absmax, fabsf(value));
    }
    return map * (nested * absmax + fabsf(s->nested_offset));
}

static int load_tables(struct backend_matrix *m, const struct quant_source *s, const struct plan *p,
                       struct gyaru_error *err)
{
    cudaStream_t stream = m->device->stream;
    uint32_t tables[2][256] = {{0}}; /* pageable: the runtime has copied it when the call returns */
    uint8_t *place = (uint8_t *)m->block + p->data + p->codes;
    m->w.table_scale = best_scale(m->device, s->map);
    for (int b = 0; b < 256; b++) {
        uint32_t even = half_from_float(s->map[b >> 4] * m->w.table_scale);
        uint32_t odd = half_from_float(s->map[b & 15] * m->w.table_scale);
        tables[0][b] = even | odd << 16;
    }
    if (p->layout == CUDA_NESTED) {
        size_t groups = s->rows * (size_t)p->groups;
        size_t n = (groups + ((size_t)1 << p->shift) - 1) >> p->shift;
        memcpy(tables[1], s->nested_map, sizeof tables[1]);
        memcpy(m->nested_map, s->nested_map, sizeof m->nested_map);
        if (cuda_check(cudaMemsetAsync(place, 0, p->scale, stream), "clearing scales", err) ||
            cuda_check(cudaMemcpyAsync(place, s->nested_absmax, n * sizeof(float),
                                       cudaMemcpyHostToDevice, stream),
                       "copying scales", err))
            return -1;
        m->w.scale = (const float *)(void *)place;
    }
    place += p->scale;
    m->w.lut = (const uint32_t *)(void *)place;
    m->w.map = (const float *)(void *)(place + TABLE_BYTES);
    m->w.offset = s->nested_offset;
    m->w.ceiling = ceiling_of(s, p);
    memcpy(m->w.values, s->map, sizeof m->w.values);
    return cuda_check(cudaMemcpyAsync(place, tables, sizeof tables, cudaMemcpyHostToDevice, stream),
                      "copying tables", err);
}

static int load(struct backend_matrix *m, const struct quant_source *s, const struct plan *p,
                struct gyaru_error *err)
{
    size_t per_row = p->raw_row + p->code_row;
    size_t step = (CUDA_LOADER_BYTES - ALIGN) / per_row / CUDA_TILE_ROWS * CUDA_TILE_ROWS;
    if (!step)
        return error_set(err, GYARU_FAILED, "a matrix of %zu columns is wider than cuda can load",
                         s->cols);
    if (cuda_check(cudaMalloc(&m->block, p->total), "memory for weights", err))
        return -1;
    m->w = (struct cuda_weights){.layout = p->layout,
                                 .rows = s->rows,
                                 .cols = s->cols,
                                 .groups = p->groups,
                                 .tiles = p->tiles,
                                 .data = m->block,
                                 .codes = (uint8_t *)m->block + p->data,
                                 .shift = p->shift,
                                 .table_scale = 1};
    if (p->code_row && load_tables(m, s, p, err))
        return -1;
    for (size_t first = 0; first < s->rows; first += step) {
        size_t rows = s->rows - first < step ? s->rows - first : step;
        if (load_piece(m, s, p, first, rows, err))
            return -1;
    }
    return 0;
}

/* One without weights yet, and what they will take; NULL: refused. */
static struct backend_matrix *begin_matrix(struct backend_device *device,
                                           const struct quant_source *s, struct plan *p,
                                           struct gyaru_error *err)
{
    struct backend_matrix *m = NULL;
    if (!plan_of(s, p))
        (void)error_set(err, GYARU_FAILED, "a matrix of %zu x %zu is larger than cuda can hold",
                        s->rows, s->cols);
    else if (!(m = calloc(1, sizeof *m)))
        (void)error_memory(err, sizeof *m, "weights");
    else
        m->device = device;
    return m;
}

int cuda_matrix_new(struct backend_device *device, const struct quant_source *source,
                    struct backend_matrix **out, struct gyaru_error *err)
{
    struct plan p;
    struct backend_matrix *m = begin_matrix(device, source, &p, err);
    if (!m)
        return -1;
    cuda_enter(device);
    if ((!device->loader.ready && cuda_loader_init(&device->loader, err)) ||
        load(m, source, &p, err)) {
        cuda_matrix_free(m);
        return -1;
    }
    *out = m;
    return 0;
}

void cuda_matrix_free(struct backend_matrix *m)
{
    if (!m)
        return;
    cuda_enter(m->device);
    m->device->generation++;
    (void)cudaStreamSynchronize(m->device->stream);
    (void)(m->host ? cudaFreeHost(m->block) : cudaFree(m->block));
    free(m);
}

/* Halves of sixteen rows follow each other in all that is kept by tiles; kernels.h. */
bool cuda_matrix_rows(const struct backend_matrix *m, size_t first, size_t n,
                      struct backend_matrix *out)
{
    const struct cuda_weights *w = &m->w;
    size_t groups = (size_t)w->groups, scale = first * groups;
    if (first % CUDA_TILE_ROWS || first + n > w->rows || w->plain)
        return false;
    bool nested = w->layout == CUDA_NESTED, four_bit = nested || w->layout == CUDA_4BIT;
    size_t row = w->layout == CUDA_F32 ? w->cols * sizeof(float)
                                       : groups * CUDA_GROUP * (four_bit ? 1 : 4) / 2;
    if (nested && scale & (((size_t)1 << w->shift) - 1))
        return false;
    *out = *m;
    out->block = NULL;
    out->w.rows = n;
    out->w.tiles = (int)((n + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS);
    out->w.data = (const uint8_t *)w->data + first * row;
    if (four_bit)
        out->w.codes = (const uint8_t *)w->codes + scale * (nested ? 1 : sizeof(float));
    if (nested)
        out->w.scale = w->scale + (scale >> w->shift);
    return true;
}

bool cuda_tables_alike(const struct backend_matrix *a, const struct backend_matrix *b)
{
    return !memcmp(a->w.values, b->w.values, sizeof a->w.values) &&
           !memcmp(a->nested_map, b->nested_map, sizeof a->nested_map);
}

bool cuda_matrix_alike(const struct backend_matrix *a, const struct backend_matrix *b)
{
    const struct cuda_weights *v = &a->w, *w = &b->w;
    if (v->layout != w->layout || v->cols != w->cols || v->shift != w->shift ||
        v->layout == CUDA_F32)
        return false;
    return cuda_tables_alike(a, b);
}

/* ---- tables in host memory --------------------------------------------------------------------
 */

/* 4-bit rows become float32, which the CPU and the GPU read alike. */
static size_t table_row(const struct quant_source *s)
{
    return s->cols * (s->type == QUANT_F16 || s->type == QUANT_BF16 ? 2 : sizeof(float));
}

uint64_t cuda_table_bytes(const struct backend_device *device, const struct quant_source *source)
{
    struct plan p; /* refuses sizes that overflow */
    return plan_of(source, &p) ? source->rows * table_row(source) : UINT64_MAX;
}

static int load_table(struct backend_matrix *m, const struct quant_source *s,
                      struct gyaru_error *err)
{
    size_t row = table_row(s);
    if (cuda_check(
            cudaHostAlloc(&m->block, s->rows * row, cudaHostAllocMapped | cudaHostAllocPortable),
            "pinned memory for the embedding", err))
        return -1;
    if (s->type != QUANT_4BIT)
        copy_parallel(m->block, s->data, s->rows * row);
    for (size_t r = 0; s->type == QUANT_4BIT && r < s->rows; r++)
        quant_row(s, r, (float *)m->block + r * s->cols);
    m->w = (struct cuda_weights){.layout = s->type == QUANT_F16    ? CUDA_F16
                                           : s->type == QUANT_BF16 ? CUDA_BF16
                                                                   : CUDA_F32,
                                 .rows = s->rows,
                                 .cols = s->cols,
                                 .data = m->block,
                                 .plain = 1};
    return 0;
}

int cuda_table_new(struct backend_device *device, const struct quant_source *source,
                   struct backend_matrix **out, struct gyaru_error *err)
{
    struct plan p;
    struct backend_matrix *m = begin_matrix(device, source, &p, err);
    if (!m)
        return -1;
    m->host = true;
    cuda_enter(device);
    if (load_table(m, source, err)) {
        cuda_matrix_free(m);
        return -1;
    }
    *out = m;
    return 0;
}
