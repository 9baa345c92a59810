/*
 * carve.h - many buffers out of one block. With base NULL a carver only adds up what they will
 * take, else it hands them out: the same walk does both, so that the two cannot differ.
 */
#ifndef BACKEND_CARVE_H
#define BACKEND_CARVE_H

#include <stddef.h>
#include <stdint.h>

struct carver {
    uint8_t *base;
    size_t used;
    size_t align; /* bytes: of the end of each buffer */
};

static inline void *carve(struct carver *c, size_t count, size_t size)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += (count * size + c->align - 1) / c->align * c->align;
    return p;
}

#endif
