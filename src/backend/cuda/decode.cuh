/*
 * decode.cuh - what the phases of a whole step share: the block's memory, the barrier of the grid,
 * and the reading of the stream. See decode.cu.
 *
 * Shared memory: struct control and a scratch (each warp's own for packing x and for its sums, or
 * attention's workspace), the rings of a few warps, the byte table, the rings of the others. The
 * table begins at a multiple of 64 KiB, so that one byte of an address is a code.
 */
#ifndef CUDA_DECODE_CUH
#define CUDA_DECODE_CUH

#include "backend/cuda/attention.cuh"
#include "backend/cuda/stream.cuh"
#include "backend/cuda/tuning.cuh"

#define PHASE_WORDS ((int)(sizeof(struct cuda_phase) / 4))
#define WARP_SUMS   CUDA_WARP_SUMS /* [tile][row of x][16]; or one packed row of x */

struct control {
    struct cuda_decode a;
    struct cuda_phase phases[2]; /* the present one and the next */
    struct cuda_row rows[CUDA_GRAPH_ROWS];
    struct feed feeds[CUDA_WARPS];
    int order[CUDA_GRAPH_ROWS];                            /* rows that want logits */
    alignas(16) float square[CUDA_GRAPH_ROWS][CUDA_WARPS]; /* of x, by warp */
    float reduce[32];
    unsigned side; /* of the barrier; thread 0 */
    int from;      /* the first tile whose sums wait to be added; thread 0 */
    bool alone;    /* attention: one split a row, and few enough heads for a block each */
    TIMES_FIELD
};

static_assert(sizeof(struct cuda_run) == 128, "a word for each lane");
static_assert(PHASE_WORDS <= CUDA_THREADS, "a word for each thread");
static_assert(WARP_SUMS * 4 >= CUDA_GROUPS * CUDA_GROUP * 2, "a packed row of x");

#define UP(n)         (((n) + 15) / 16 * 16)
#define CONTROL_BYTES UP(sizeof(struct control))
#define SUMS_BYTES    (CUDA_WARPS * WARP_SUMS * sizeof(float))
#define SCRATCH_BYTES                                                                              \
    UP(SUMS_BYTES > sizeof(struct attend_space) ? SUMS_BYTES : sizeof(struct attend_space))

/* A block's own shared memory begins at 1024 on GPUs that have enough of it for this kernel. */
#define TABLE_PLACE (TABLE_BYTES - 1024)
#define RINGS_PLACE (CONTROL_BYTES + SCRATCH_BYTES)
#define RINGS_BELOW ((int)((TABLE_PLACE - RINGS_PLACE) / RING_BYTES))
#define ALL_BYTES   (TABLE_PLACE + TABLE_BYTES + (CUDA_WARPS - RINGS_BELOW) * RING_BYTES)

static_assert(ALL_BYTES <= 227 << 10, "shared memory");

struct shared_place {
    struct control *control;
    uint4 *table;
    char *scratch;
};

/* Every kind of phase is a function of its own, with registers of its own, and finds its way from
 * here: what the compiler knows to be shared memory is read as such. */
static __device__ __forceinline__ struct shared_place places(void)
{
    DYNAMIC_SHARED(uint4, shared);
    char *const all = (char *)shared;
    return {(struct control *)shared, (uint4 *)(all + TABLE_PLACE), all + CONTROL_BYTES};
}

static __device__ __forceinline__ char *ring_of(const struct shared_place &at, int warp)
{
    char *const first =
        (char *)at.control + (warp < RINGS_BELOW ? RINGS_PLACE : TABLE_PLACE + TABLE_BYTES);
    return first + (warp < RINGS_BELOW ? warp : warp - RINGS_BELOW) * RING_BYTES;
}

static __device__ __forceinline__ void barrier_wait(struct control &control)
{
    if (threadIdx.x == 0)
        control.side = grid_wait(control.a.barrier, control.side);
    __syncthreads();
}

/* ---- reading the stream -----------------------------------------------------------------------
 */

/* Columns c and c+1 of N groups of a row, zero past the last. cols is even. SURE: so many groups
 * are there in any case. */
template <int SURE, int N>
static __device__ __forceinline__ void load_row(const float *row, int c, int cols, float2 (&v)[N])
{
    const float2 *at = (const float2 *)(row + c);
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = i < SURE || c + i * CUDA_GROUP < cols ? __ldcg(at + i * (CUDA_GROUP / 2))
                                                     : make_float2(0, 0);
}

template <int N>
static __device__ __forceinline__ void add_row(float factor, const float2 (&a)[N], float2 (&v)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i].x = fmaf(factor, a[i].x, v[i].x);
        v[i].y = fmaf(factor, a[i].y, v[i].y);
    }
}

/* Columns c, c+1 of N groups of a row of the step: x and what came to it. The first loads are all
 * on their way before any is used. */
template <int SURE, int N>
static __device__ __forceinline__ void read_stream(const struct control &control,
                                                   const struct cuda_source &in, int r, int c,
                                                   int cols, float2 (&v)[N])
{
    const float *parts = in.parts + (size_t)r * cols;
    const size_t pitch = (size_t)control.a.n * cols;
    float2 a[N] = {}, b[N] = {};
    load_row<SURE>(in.x + (size_t)r * cols, c, cols, v);
    if (in.n_parts > 0)
        load_row<SURE>(parts, c, cols, a);
    if (in.n_parts > 1)
        load_row<SURE>(parts + pitch, c, cols, b);
    if (in.n_parts > 0)
        add_row(1, a, v);
    if (in.n_parts > 1)
        add_row(1, b, v);
#pragma unroll 1
    for (int k = 2; k < in.n_parts; k += 2) {
        load_row<SURE>(parts + k * pitch, c, cols, a);
        load_row<SURE>(parts + (k + 1) * pitch, c, cols, b);
        add_row(1, a, v);
        add_row(1, b, v);
    }
#pragma unroll 1
    for (int e = 0; e < in.n_edits; e++) {
        const float strength = control.rows[r].strength[in.edits[e].index];
        if (strength != 0) {
            load_row<SURE>(in.edits[e].direction, c, cols, a);
            add_row(strength, a, v);
        }
    }
}

#endif
