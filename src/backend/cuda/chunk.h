/*
 * chunk.h - steps of more than CUDA_GRAPH_ROWS rows: their products, and what stands around them.
 *
 * x goes in as 16-bit rows [n][cols], each scaled by a power of two; products come out as float32
 * and an epilogue kernel undoes the scale and does what the operation asks for. Below
 * CUDA_CHUNK_ROWS rows batch.cu multiplies by the weights as they lie. From there on, 4-bit weights
 * are expanded to fp16 [rows][cols] in a scratch buffer, multiplied by cuBLASLt and forgotten. cols
 * is padded to whole groups of CUDA_GROUP and, for cuBLASLt, rows to CUDA_PAD, with zeros.
 */
#ifndef CUDA_CHUNK_H
#define CUDA_CHUNK_H

#include "backend/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Expanding all matrices of a 14B model costs about as much as two passes of batch.cu. */
#define CUDA_CHUNK_ROWS  129
#define CUDA_BATCH_ROWS  64  /* rows of x in one pass of batch.cu, at most */
#define CUDA_BLOCK_ROWS  256 /* rows of W that a block of batch.cu takes at once */
#define CUDA_PAD         8
#define CUDA_GATE_MOST   32768 /* columns of gate_up that an epilogue holds in registers */
#define CUDA_FLASH_ROWS  8     /* steps of more rows take the tiled attention */
#define CUDA_FLASH_GROUP 64    /* query heads of a kv head, at most */
#define CUDA_FLASH_SPLIT 256   /* positions that a block takes of a step of few rows, at least */
#define CUDA_FLASH_PARTS 32    /* blocks that share the positions of such a step, at most */

/* ---- weights ---- */

struct cuda_expand {
    struct cuda_weights w; /* 4-bit */
    size_t padded;         /* rows of out; those past the matrix become zero */
    float scale;           /* power of two */
    void *out;             /* half [padded][groups * 64] */
};
void cuda_expand(const struct cuda_expand *a, cudaStream_t stream);

/* ---- products by batch.cu ---- */

/* How a product's steps are shared out over blocks: see cut.cuh. */
struct cuda_cut {
    int blocks, groups, row_blocks, steps; /* steps: groups * row_blocks */
};
struct cuda_cut cuda_cut_of(const struct cuda_weights *parts, int n_parts, int blocks);

struct cuda_batch {
    struct cuda_weights parts[3]; /* of one layout, with the same tables and cols; tiles in turn */
    int n_parts;
    struct cuda_cut cut;
    int n;         /* rows of x, at most cuda_batch_rows() */
    const void *x; /* 16-bit [planes][..][groups * 64]: one plane for 4-bit weights, else two */
    size_t plane;  /* uint4 from the high to the low plane */
    float unscale; /* 1 / table_scale */
    size_t shared; /* bytes that a block may take */
    float *out;    /* [blocks + row_blocks][n][CUDA_BLOCK_ROWS] segments: see cut.cuh */
};
void cuda_batch(const struct cuda_batch *a, cudaStream_t stream);
/* Rows of one pass where a block may take so many bytes of shared memory. */
int cuda_batch_rows(enum cuda_layout layout, size_t shared);
cudaError_t cuda_batch_init(size_t shared);

/* ---- x ---- */

/* A row as products of this file read it; 16-bit layouts in two planes, high and low part. */
struct cuda_plain {
    enum cuda_layout layout; /* of the matrix that will read it; not float32 */
    const float *x;          /* [.., cols] */
    const float *norm;       /* [cols] rmsnorm weight, NULL: x as it is */
    float eps;
    int n, cols, padded;         /* padded: columns of out */
    const struct cuda_row *rows; /* not NULL: row r of out is the row whose logits is r */
    int n_rows;
    void *out;        /* 16-bit [planes][n][padded] */
    float *row_scale; /* [n]: multiplies products */
};
void cuda_plain(const struct cuda_plain *a, cudaStream_t stream);

/* ---- epilogues ---- */

/* A product of n rows, row r to be multiplied by row_scale[r]. */
struct cuda_product_rows {
    const float *product; /* [n][pitch]; or what batch.cu left, if cut.blocks is not 0 */
    int n, pitch;
    const float *row_scale; /* NULL: all 1 */
    struct cuda_cut cut;
};

/* x [n, cols] += product, then edits; then packed for the next product, if pack.out. */
struct cuda_add_rows {
    struct cuda_product_rows p;
    int cols;
    float *x;
    const struct cuda_row *rows; /* of the edits */
    int n_edits;
    struct cuda_edit_of {
        int index;
        const float *direction;
    } edits[CUDA_EDITS];
    struct cuda_plain pack; /* its row_scale may be the one that is read */
};
void cuda_add_rows(const struct cuda_add_rows *a, cudaStream_t stream);

/* out [n, cols] = product */
void cuda_store_rows(const struct cuda_product_rows *p, int cols, float *out, cudaStream_t stream);

/* gate at column 0, up at `up`: out = silu(gate) * up, packed and scaled anew by row. */
struct cuda_pair_rows {
    struct cuda_product_rows p;
    int cols, up, padded;
    enum cuda_layout layout; /* of the matrix that will read it */
    size_t plane;            /* 16-bit values from the high to the low plane of out */
    void *out;
    float *row_scale; /* [n] of out; may be the one that is read */
};
void cuda_pair_rows(const struct cuda_pair_rows *a, cudaStream_t stream);

/* q, k, v at three columns: bias, rope, k and v into the cache, q out [n, heads, head_dim]. */
struct cuda_append_rows {
    struct cuda_product_rows p;
    int at[3];
    const float *bias[3]; /* or NULL */
    struct cuda_cache cache;
    int layer;
    const struct cuda_row *rows;
    const float *rope;
    float *q;
};
void cuda_append_rows(const struct cuda_append_rows *a, cudaStream_t stream);

/* ---- attention ---- */

/* Rows order[first..first+count) of a step, all of one slot: what one block takes. */
struct cuda_tile {
    int32_t first, count, slot;
    int32_t last; /* the largest position among them */
};

struct cuda_flash {
    struct cuda_cache cache; /* of half */
    int layer;
    int wide; /* tiles of 128 instead of 64 pairs of a row and a query head */
    int n_tiles;
    const struct cuda_tile *tiles; /* [n_tiles] */
    const int32_t *order;          /* [n] */
    const struct cuda_row *rows;   /* [n] */
    int n, split, splits;          /* blocks share the positions: `split` of them each */
    float *partial;                /* [splits][n][heads][head_dim + 2], if there are several */
    const float *q;                /* [n, heads, head_dim] */
    float *out;                    /* [n, heads, head_dim], or NULL and */
    void *half_out;                /*   half [n][pitch] */
    int pitch;
};
void cuda_flash(const struct cuda_flash *a, cudaStream_t stream);

/* Rows of a step in one tile. */
static inline int cuda_flash_rows(const struct cuda_cache *c, int wide)
{
    return (wide ? 128 : 64) / (c->heads / c->kv_heads);
}

cudaError_t cuda_flash_init(void);

#ifdef __cplusplus
}
#endif

#endif
