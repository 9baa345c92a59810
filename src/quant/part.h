/*
 * part.h - one device's part of a matrix that several share: rows or columns of a quant_source as a
 * quant_source of its own, whose values are the same to the last bit.
 *
 * Scales are numbered through the whole matrix, without regard for where a part begins. A part
 * numbers its own anew: where its edges cut a block, or the run of blocks under one nested scale,
 * blocks and runs become the largest ones that no edge cuts, and scales are repeated.
 */
#ifndef QUANT_PART_H
#define QUANT_PART_H

#include "base/error.h"
#include "quant/quant.h"

/* Rows or columns [first, first + n). */
struct quant_span {
    size_t first, n;
};

/* What part `part` of `parts` gets of n rows or columns, of which each `unit` stay together. n is 0
 * where there are fewer units than parts. */
struct quant_span quant_share(size_t n, size_t unit, int part, int parts);

struct quant_part {
    struct quant_source source;
    void *own; /* what the source's views do not lie in the whole's; NULL: nothing */
};

/* The part by source->cut, of a matrix that is not WHOLE; 4-bit parts whose edges cut groups of 64
 * become float32. */
int quant_part_new(const struct quant_source *source, int part, int parts, struct quant_part *out,
                   struct gyaru_error *err);
void quant_part_release(struct quant_part *part);

/* The same without contents, for plans: type, shape and block sizes hold, no pointer does. */
struct quant_source quant_part_describe(const struct quant_source *source, int part, int parts);

#endif
