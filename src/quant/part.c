/* part.c - see part.h. */
#include "quant/part.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

#define GROUP 64 /* columns: no backend keeps smaller blocks as 4 bits */

struct quant_span quant_share(size_t n, size_t unit, int part, int parts)
{
    size_t units = n / unit + (n % unit != 0);
    size_t first = units * (size_t)part / (size_t)parts * unit;
    size_t end = units * ((size_t)part + 1) / (size_t)parts * unit;
    return (struct quant_span){first, (end < n ? end : n) - first};
}

/* Where a part lies: rows x cols values, the first at flat index `first`, rows `pitch` apart. */
struct window {
    size_t rows, cols, first, pitch;
};

static struct window window_of(const struct quant_source *s, int part, int parts)
{
    bool by_rows = s->cut == QUANT_BY_ROWS;
    struct quant_span span = quant_share(by_rows ? s->rows : s->cols, s->unit, part, parts);
    if (by_rows)
        return (struct window){span.n, s->cols, span.first * s->cols, s->cols};
    return (struct window){s->rows, span.n, span.first, s->cols};
}

static bool contiguous(const struct window *w)
{
    return w->cols == w->pitch;
}

/* The largest run of values of which the whole's runs of n consist, and the part's too. */
static size_t run_within(const struct window *w, size_t n)
{
    n = size_divisor(n, w->first);
    return contiguous(w) ? n : size_divisor(size_divisor(n, w->cols), w->pitch);
}

/* Flat index in the whole of the part's value i. */
static size_t place_of(const struct window *w, size_t i)
{
    return w->first + i / w->cols * w->pitch + i % w->cols;
}

/* Bytes of n values. */
static size_t bytes_of(enum quant_type type, size_t n)
{
    return type == QUANT_F32 ? 4 * n : type == QUANT_4BIT ? n / 2 : 2 * n;
}

struct quant_source quant_part_describe(const struct quant_source *s, int part, int parts)
{
    struct window w = window_of(s, part, parts);
    struct quant_source out = *s;
    size_t nested = 0;
    out.rows = w.rows;
    out.cols = w.cols;
    out.cut = QUANT_WHOLE;
    if (s->type != QUANT_4BIT)
        return out;
    out.block_size = run_within(&w, s->block_size);
    bool fits = w.cols && w.cols % GROUP == 0 && out.block_size && out.block_size % GROUP == 0 &&
                (!s->nested_absmax || size_mul(s->block_size, s->nested_block_size, &nested));
    if (!fits)
        out.type = QUANT_F32;
    else if (s->nested_absmax)
        out.nested_block_size = run_within(&w, nested) / out.block_size;
    return out;
}

struct scales {
    const uint8_t *from; /* of the whole, for each `whole` values */
    size_t whole, run;   /* run: of the part, a divisor */
    size_t size;         /* bytes of one */
};

/* The part's scales: where they lie as they are, else written to `out`. */
static const uint8_t *part_scales(const struct window *w, const struct scales *s, uint8_t *out)
{
    size_t n = w->rows * w->cols, row = w->cols / s->run * s->size;
    if (s->run == s->whole && contiguous(w))
        return s->from + w->first / s->run * s->size;
    if (s->run == s->whole)
        for (size_t r = 0; r < w->rows; r++)
            memcpy(out + r * row, s->from + (w->first + r * w->pitch) / s->run * s->size, row);
    else
        for (size_t i = 0, at = 0; i < n; i += s->run, at += s->size)
            memcpy(out + at, s->from + place_of(w, i) / s->whole * s->size, s->size);
    return out;
}

/* Scales, and in front of them room for the data of columns. */
static int take_scales(const struct quant_source *s, const struct window *w, struct quant_part *out)
{
    struct quant_source *p = &out->source;
    size_t n = w->rows * w->cols;
    struct scales absmax = {s->absmax, s->block_size, p->block_size, s->nested_absmax ? 1 : 4};
    struct scales nested = {s->nested_absmax, s->block_size * s->nested_block_size,
                            p->block_size * p->nested_block_size, 4};
    size_t data = contiguous(w) ? 0 : bytes_of(p->type, n);
    size_t blocks = (n / absmax.run + 1) * absmax.size;
    uint8_t *own = malloc(data + blocks + (s->nested_absmax ? (n / nested.run + 1) * 4 : 0));
    if (!own)
        return -1;
    out->own = own;
    p->absmax = part_scales(w, &absmax, own + data);
    if (s->nested_absmax)
        p->nested_absmax = part_scales(w, &nested, own + data + blocks);
    return 0;
}

/* Columns of each row, one under the other, to the front of `own`. */
static void gather(const struct quant_source *s, const struct window *w, struct quant_part *out)
{
    size_t row = bytes_of(s->type, w->cols), pitch = bytes_of(s->type, w->pitch);
    const uint8_t *from = s->data + bytes_of(s->type, w->first);
    for (size_t r = 0; r < w->rows; r++)
        memcpy((uint8_t *)out->own + r * row, from + r * pitch, row);
    out->source.data = out->own;
}

/* As float32, from whole rows. */
static int dequantise(const struct quant_source *s, const struct window *w, struct quant_part *out)
{
    float *row = malloc(s->cols * sizeof *row);
    float *values = malloc(w->rows * w->cols * sizeof *values);
    if (row && values)
        for (size_t r = 0; r < w->rows; r++) {
            quant_row(s, w->first / s->cols + r, row);
            memcpy(values + r * w->cols, row + w->first % s->cols, w->cols * sizeof *row);
        }
    free(row);
    if (!row)
        free(values);
    out->own = row ? values : NULL;
    out->source.data = out->own;
    return out->own ? 0 : -1;
}

int quant_part_new(const struct quant_source *s, int part, int parts, struct quant_part *out,
                   struct gyaru_error *err)
{
    struct window w = window_of(s, part, parts);
    int rc = 0;
    *out = (struct quant_part){quant_part_describe(s, part, parts), NULL};
    if (!w.rows || !w.cols)
        return error_set(err, GYARU_FAILED, "a matrix of %zu x %zu cannot be shared by %d", s->rows,
                         s->cols, parts);
    if (out->source.type != s->type)
        rc = dequantise(s, &w, out);
    else {
        if (s->type == QUANT_4BIT)
            rc = take_scales(s, &w, out);
        else if (!contiguous(&w))
            rc = (out->own = malloc(bytes_of(s->type, w.rows * w.cols))) ? 0 : -1;
        if (contiguous(&w))
            out->source.data = s->data + bytes_of(s->type, w.first);
        else if (!rc)
            gather(s, &w, out);
    }
    if (rc)
        return error_memory(err, w.rows * w.cols * sizeof(float), "a part of a matrix");
    return 0;
}

void quant_part_release(struct quant_part *part)
{
    free(part->own);
    *part = (struct quant_part){0};
}
