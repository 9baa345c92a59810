/*
 * pair.h - a block of a model, random in shape, types and values, on the CPU and on the GPUs: the
 * same steps on both, and how far apart what comes back may be. All that comes back is poisoned
 * first.
 */
#ifndef TESTS_CUDA_PAIR_H
#define TESTS_CUDA_PAIR_H

#include "backend/backend.h"

#define MAX_ROWS  160  /* from 129 rows on, products of 4-bit weights take another way */
#define MOST_ROWS 1100 /* of the one test whose products come in two shares */
#define POINTS    6    /* taps of a step */

/* Relative errors of what an operation adds to the stream, |difference| / |expected| over a row. */
#define EXACT_TYPES 1e-4 /* bf16 weights see 16 bits of x */
#define FOUR_BIT    1.5e-3

extern const struct backend *gpu; /* the plug-in's */
extern int n_gpus;                /* that share the model */

/* GPUs 0 .. n-1; *b: what runs them. */
int open_gpus(int n, const struct backend **b, struct backend_device **out,
              struct gyaru_error *err);

void *allocate(size_t bytes);

/* Fails the test with the error's text unless rc is 0. */
void check(int rc, const struct gyaru_error *err);

/* ---- random weights ------------------------------------------------------------------------- */

enum kind { NESTED, NESTED_LARGE, PLAIN_4BIT, BF16, F16, F32, N_KINDS };

/* Fills a source whose arrays lie in one allocation, returned for free(). */
void *random_source(enum kind kind, size_t rows, size_t cols, struct quant_source *out);

/* ---- one block of a model on both backends -------------------------------------------------- */

enum { CPU, GPU };

struct side {
    const struct backend *b;
    struct backend_device *device;
    struct backend_stage *stage;
    struct backend_matrix *embedding, *qkv[3], *output, *gate, *up, *down, *head;
    struct backend_vector *norm, *bias[3], *direction[2];
};

struct pair {
    struct backend_shape shape;
    struct side side[2];
    bool four_bit;
};

struct backend_shape random_shape(int round);

/* kinds: of the seven linears; -1: each at random. */
void pair_new(struct pair *p, const struct backend_shape *shape, int kind);
void pair_free(struct pair *p);

/* ---- steps ---------------------------------------------------------------------------------- */

/* What one step says. */
struct result {
    float *taps;   /* [POINTS, n, hidden] */
    float *logits; /* [n_logits, vocab] */
    float meter[MOST_ROWS][2];
};

/* The next positions of each slot in turn: n rows, fewer where contexts end. Gives how many. */
int pair_rows(const struct pair *p, struct backend_row *rows, int *pos, int n);

/* All operations once, with taps between them unless a graph is wanted. */
void pair_run(const struct pair *p, int which, const struct backend_row *rows, int n, bool taps,
              struct result *out);
void result_free(struct result *r);

/* |a - b| / |b| of vectors less a common start (NULL: none); NaN never passes. */
void close_rows(const char *what, const float *a, const float *a0, const float *b, const float *b0,
                size_t rows, size_t cols, double bound);

/* Everything that a step with taps says, within the bounds of the pair's types. */
void pair_compare(const struct pair *p, const struct backend_row *rows, int n,
                  const struct result *got, const struct result *want);

/* Steps of so many random rows, run on both and compared. */
void pair_check(struct pair *p, const int *counts, int n_counts);

#endif
