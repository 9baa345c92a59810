/*
 * kernels.h - between the host files (C) and the kernels (.cu): plain structures of device
 * pointers, and the functions that launch.
 *
 * Shapes. A matrix [rows, cols] is cut into tiles of 32 rows x 64 columns; `groups` is cols/64,
 * rounded up. Sixteen rows of a tile are one half (m16n8k16's A operand). Within a half and a
 * group, lane (g = lane/4, t = lane%4) owns rows g and g+8 and columns 16t..16t+15:
 *   4-bit  weights uint4 [half][group][lane]: word i holds columns 16t+4i..+3 as four bytes, in the
 *          order of the A registers: (g, first pair), (g+8, first pair), (g, second), (g+8,
 * second); codes  uint8 [half][group][8][2] (or float): of rows g and g+8 16-bit weights uint4
 * [half][group][4][lane]: word j of entry i is A register j of step i 32-bit weights float
 * [rows][cols], as stored Packed x is uint4 [plane][n/8][group][2][8][4]: entry (j, row, t) holds
 * the eight 16-bit values of columns 16t+8j..+7, which is what lane 4*row+t needs as B operand.
 */
#ifndef CUDA_KERNELS_H
#define CUDA_KERNELS_H

#include "backend/backend.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_TILE_ROWS  32
#define CUDA_GROUP      64  /* columns */
#define CUDA_WARPS      16  /* per block of a matrix kernel */
#define CUDA_PASS_ROWS  8   /* rows of x in one pass of cuda_product() */
#define CUDA_SPLIT      128 /* positions that attention sums before it merges */
#define CUDA_HEAD_DIM   128 /* at most */
#define CUDA_QUERIES    8   /* query heads of one attention block, at most */
#define CUDA_GRAPH_ROWS 8   /* steps of at most so many rows become graphs */
#define CUDA_GROUPS     8   /* of a row of x that a warp of a whole step holds, at most */
#define CUDA_PARTS      8   /* of a row of weights that whole steps share out, at most */
#define CUDA_WARP_SUMS  384 /* floats in which a warp of a whole step leaves sums of tiles */
#define CUDA_THREADS    (CUDA_WARPS * 32)
#define CUDA_EDITS      (2 * GYARU_MAX_VECTORS) /* after one operation */

/* How weights lie on the device. */
enum cuda_layout { CUDA_NESTED, CUDA_4BIT, CUDA_F16, CUDA_BF16, CUDA_F32 };

struct cuda_weights {
    enum cuda_layout layout;
    size_t rows, cols;
    int groups;
    int tiles;           /* of CUDA_TILE_ROWS */
    const void *data;    /* device, see above */
    const void *codes;   /* device: uint8 if nested, float if 4-bit */
    const float *scale;  /* device [(rows*groups) >> shift]: nested absmax */
    float offset;        /* nested offset */
    int shift;           /* groups per nested scale, log2 */
    const uint32_t *lut; /* device [256]: byte -> half2 of map * table_scale */
    const float *map;    /* device [256]: code -> nested map (4-bit, not nested: unused) */
    float
        table_scale;  /* makes the map's values fall near fp16 numbers; a result is divided by it */
    float values[16]; /* the map itself, for lookups of single rows */
    int plain;     /* 16-bit weights in host memory, [rows][cols] as stored: rows alone are read */
    float ceiling; /* 4-bit: no weight is larger */
};

/* Row of a step as the kernels read it. */
struct cuda_row {
    int32_t token, slot, pos;
    int32_t logits; /* row of the logits buffer, -1: none wanted */
    float strength[GYARU_MAX_VECTORS];
    struct backend_choice choice;
};

/* ---- x as the matrix kernels want it ---- */

struct cuda_pack {
    enum cuda_layout layout; /* of the matrix that will read it */
    const float *x;          /* [.., cols] */
    const float *norm;       /* [cols] rmsnorm weight, NULL: x is taken as it is */
    float eps;
    int n, cols, groups;
    const struct cuda_row *rows; /* not NULL: row r of the output is the row whose logits is r */
    int n_rows;
    void *out;        /* two planes (high, low part) if 16-bit; float [n, cols] if 32-bit */
    float *row_scale; /* [n]: multiplies results */
};
void cuda_pack(const struct cuda_pack *a, cudaStream_t stream);

/* ---- out = x * W^T ---- */

enum cuda_finish {
    CUDA_STORE, /* out = v + bias */
    CUDA_ADD,   /* out += v */
    CUDA_GATE,  /* out = silu(out) * v */
    CUDA_PAIR   /* parts 0 and 1 are gate and up: out = silu(gate) * up */
};

struct cuda_part {
    struct cuda_weights weights;
    const float *bias; /* [rows] or NULL */
    float *out;        /* [n, rows] */
};

struct cuda_product {
    struct cuda_part parts[3]; /* of one layout, with the same tables and the same cols */
    int n_parts;
    enum cuda_finish finish;
    int n;         /* rows of x */
    const void *x; /* as cuda_pack leaves it */
    const float *row_scale;
    float *partial; /* [workers][2][32][CUDA_PASS_ROWS] scratch */
    int *counters;  /* [tiles] zero before and after */
    int blocks;     /* of the grid, at most */
};
void cuda_product(const struct cuda_product *a, cudaStream_t stream);

/* One pass over at most CUDA_PASS_ROWS rows, as the kernels get it: the chunks of all tiles are cut
 * into runs, block b's from b*quotient + b*rest/blocks. */
struct cuda_pass {
    struct cuda_product a;
    size_t plane; /* uint4 from the high to the low plane of x */
    int tiles;    /* of all parts; PAIR: halves of gate */
    int blocks, quotient, rest;
    float unscale; /* 1 / table_scale */
};
/* Rows [first, first+n) of x. */
struct cuda_pass cuda_pass_of(const struct cuda_product *a, int first, int n);

/* ---- the rest of a step ---- */

enum cuda_kv { CUDA_KV_FLOAT, CUDA_KV_HALF, CUDA_KV_INT8 };

struct cuda_cache {
    void *k, *v; /* [layers, slots, kv_heads, context, head_dim] of `type`; see kv.cuh */
    float *k_scale, *v_scale; /* int8: [layers, slots, kv_heads, context] */
    enum cuda_kv type;
    int slots, kv_heads, context, head_dim, heads;
};

void cuda_embed(const struct cuda_weights *table, const struct cuda_row *rows, int n, float *x,
                cudaStream_t stream);
/* Rope, and K and V of a step's rows into the cache. */
struct cuda_append {
    struct cuda_cache cache;
    int layer;
    const struct cuda_row *rows;
    const float *rope;  /* [context][head_dim]: head_dim/2 cosines, then sines */
    float *q;           /* [n, heads, head_dim], rotated in place */
    const float *k, *v; /* [n, kv_heads, head_dim] */
    int n;
};
void cuda_append(const struct cuda_append *a, cudaStream_t stream);
void cuda_append_int8(const struct cuda_append *a, cudaStream_t stream); /* a cache of int8 */

struct cuda_attention {
    struct cuda_cache cache;
    int layer, n;
    bool alone; /* a query head is an item; whole steps */
    const struct cuda_row *rows;
    const float *q; /* [n, heads, head_dim] */
    float *out;     /* [n, heads, head_dim] */
    int splits;     /* of CUDA_SPLIT positions that cover the context */
    float *partial; /* [n, kv_heads, splits, group, head_dim + 2], for n <= CUDA_GRAPH_ROWS */
    int *counters;  /* [n, kv_heads * batches of query heads] zero before and after */
};
void cuda_attend(const struct cuda_attention *a, cudaStream_t stream);

/* ---- a whole step of few rows in one kernel (decode.cu) ---- */

enum cuda_phase_kind { CUDA_PHASE_EMBED, CUDA_PHASE_PRODUCT, CUDA_PHASE_ATTEND, CUDA_PHASE_METER };

/* Weights reach a warp in loads of as many of a tile's groups as CUDA_LOAD_BYTES hold: bytes of g
 * groups are weights, codes, then of nested absmax the span of scales that sixteen rows of
 * `groups` may need, from a multiple of four on. */
#define CUDA_LOAD_BYTES  2736
#define CUDA_LOAD_GROUPS 5 /* of 4 bits with nested absmax, at most */
#define CUDA_SPAN_BYTES(groups, g, shift)                                                          \
    (((((15 * (groups) + (g)-1) >> (shift)) + 5) + 3) / 4 * 16)

/* Which weights of a product each warp multiplies. The unit of work is a tile of sixteen rows times
 * a range of groups: the groups are cut into parts << 4 ranges, range p*16+w being warp w's of the
 * blocks of part p, which share the tiles out among them: block i of a part takes `quotient` tiles,
 * the first `rest` of them one more. It depends on the matrices and the GPU alone. 128 bytes: a
 * word for each lane. */
struct cuda_run {
    const void *data[3], *codes[3]; /* of up to three matrices of one layout and width */
    const float *scale[3];
    float offset[3];
    int tiles[3];
    int groups, shift, layout;
    uint16_t
        pair; /* tile 2i is matrix 0's i-th, 2i+1 matrix 1's; else one matrix after the other */
    uint16_t parts; /* log2 */
    int quotient, rest;
    int next; /* the step's next phase that is a product, -1: none */
};

/* Rows of the stream as phases read them: x, and what has been added to it since it was written. */
struct cuda_source {
    const float *x;     /* [.., cols] */
    const float *parts; /* [n_parts][n][cols] sums of parts of the product before, in this order */
    int n_parts, n_edits;
    struct {
        int index;
        const float *direction;
    } edits[CUDA_EDITS];
};

struct cuda_phase {
    enum cuda_phase_kind kind;
    bool wait;                   /* for all blocks to have ended the phases before */
    bool fill;                   /* PRODUCT: the byte table first, it is not this matrix's */
    bool chosen;                 /* PRODUCT: only rows that want logits, in that order */
    int index;                   /* ATTEND: layer */
    struct cuda_weights weights; /* EMBED: the table; PRODUCT: whose byte table and width it is */
    struct cuda_source in;       /* PRODUCT, METER */
    const float *vector;         /* METER: direction; PRODUCT: rmsnorm weight or NULL */
    float *out[3];               /* PRODUCT: [n, rows] of each matrix; METER: [n][2] */
    /* PRODUCT */
    struct cuda_run cut;
    float *keep; /* what `in` comes to is left here, NULL: nowhere */
    const float *bias[3];
    int rows[3];
    int first, n;     /* rows of x */
    int inverse;      /* i * inverse >> 16 is i / n, of the few i there are */
    int room;         /* tiles whose sums a warp can leave */
    float unscale;    /* 1 / table_scale */
    size_t out_pitch; /* from the sums of one part to the next */
    enum cuda_finish finish;
};

struct cuda_decode {
    const struct cuda_phase *phases; /* device [n_phases] */
    int n_phases, n, hidden;
    int product;                 /* the first phase that is one */
    const struct cuda_row *rows; /* device [n] */
    float *x;                    /* what EMBED writes */
    float eps;
    struct cuda_attention attention; /* q not yet rotated */
    const float *rope, *k, *v;       /* k, v [n, kv_heads, head_dim]: not yet in the cache */
    unsigned *barrier;               /* any value */
    int blocks;
};
/* Bytes of shared memory that the kernel takes. */
size_t cuda_decode_shared(void);
void cuda_decode(const struct cuda_decode *a, cudaStream_t stream);

void cuda_edit(const struct cuda_row *rows, int n, int index, const float *direction, int hidden,
               float *x, cudaStream_t stream);
/* out [n][2] = { x . direction, x . x } */
void cuda_meter(const float *x, int n, int hidden, const float *direction, float *out,
                cudaStream_t stream);

/* ---- sampling ---- */

#define CUDA_CHOOSE_BLOCKS  64 /* of a row, at most */
#define CUDA_CHOOSE_SCRATCH (CUDA_CHOOSE_BLOCKS * 10 + 1)

struct cuda_choose {
    const struct cuda_row *rows;
    int n, n_logits, vocab;
    const float *logits;            /* [n_logits, vocab] */
    uint32_t *seen;                 /* [slots][seen_words] a bit for each id */
    int seen_words;                 /* vocab / 32 + 1 */
    float *scratch;                 /* [n_logits][CUDA_CHOOSE_SCRATCH] */
    int *counters, *odd;            /* [n_logits] zero before and after */
    struct backend_candidates *out; /* [n_logits] n may exceed what there is room for */
};
void cuda_choose(const struct cuda_choose *a, cudaStream_t stream);

/* ---- loading ---- */

/* Rearranges whole tiles: `raw` holds rows [first, first+rows) as stored, `first` a multiple of 32.
 * `codes` are one uint8 or float for each 64 columns. */
struct cuda_repack {
    enum cuda_layout layout;
    size_t first, rows, total_rows, cols;
    int groups;
    const void *raw, *raw_codes; /* device */
    void *data, *codes;          /* device, of the whole matrix */
};
void cuda_repack(const struct cuda_repack *a, cudaStream_t stream);

/* ---- the memory itself ---- */

/* Reads n entries; `sink` [1] is written only if their bits are what they are not. */
void cuda_read_memory(const void *from, size_t n, uint32_t *sink, int blocks, cudaStream_t stream);
void cuda_copy_memory(const void *from, void *to, size_t n, int blocks, cudaStream_t stream);
#define CUDA_MEMORY_ENTRY 16 /* bytes */

/* Dynamic shared memory and the like, once per device. */
cudaError_t cuda_products_init(void);
cudaError_t cuda_decode_init(size_t shared); /* of a block, at most */

#ifdef __cplusplus
}
#endif

#endif
