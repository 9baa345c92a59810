/*
 * batch.cu - products of 9 and more rows, up to CUDA_BATCH_ROWS in one pass over the weights, which
 * are read as they lie: 4-bit, fp16 or bf16.
 *
 * A block of eight warps walks along the columns of CUDA_BLOCK_ROWS rows of W, 32 for each warp,
 * one group of 64 columns a step, and on into the next row block: cut.cuh has the cut. In a step a
 * warp multiplies its 32 x 64 weights, decoded once, with all rows of x, while it decodes those of
 * the next step through the byte table (format.cuh). Weights come AHEAD steps ahead into a ring in
 * shared memory of which each lane reads only what it copied itself; x comes the same way, for SPAN
 * steps at once, and is shared by the block.
 *
 * A row's sum is: within a group in the tensor core, group by group in float32 within a block, then
 * (by whoever reads the segments) by block. It depends on the matrix and the number of
 * multiprocessors alone, not on how many rows a pass has, nor on NT, AHEAD or SPAN.
 */
#include "backend/cuda/async.cuh"
#include "backend/cuda/cut.cuh"
#include "backend/cuda/format.cuh"

#define WARPS   (CUDA_BLOCK_ROWS / CUDA_TILE_ROWS)
#define THREADS (WARPS * 32)

/* ---- formats: 32 rows x 64 columns as a warp holds them ----------------------------------------
 */

/* A operands of four steps of mma for each half; what their sums are multiplied by (rows g, g+8).
 */
struct operands {
    uint4 words[2]; /* 4-bit: what they are decoded from */
    uint32_t a[2][4][4];
    float scale[2][2];
};

/* 4-bit weights: a lane copies two uint4; QUADS: 16-byte pieces of codes of a half and group. */
template <bool NESTED> struct batch_4bit {
    static const bool TABLE = true, BF16 = false;
    static const int PLANES = 1, ENTRIES = 2, PER_GROUP = 32, QUADS = NESTED ? 1 : 4;

    static __device__ __forceinline__ void begin(const uint4 *slot, struct operands &out)
    {
        out.words[0] = slot[0];
        out.words[1] = slot[32];
    }

    /* Quarter k of the operands: the pieces are spread over a step. */
    static __device__ __forceinline__ void decode(const uint4 *, const uint4 *table, uint32_t lane4,
                                                  int k, struct operands &out)
    {
        const uint4 &w = out.words[k / 2];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            out.a[k / 2][k % 2 * 2][j] = table_pair(table, k % 2 ? w.z : w.x, lane4, j);
            out.a[k / 2][k % 2 * 2 + 1][j] = table_pair(table, k % 2 ? w.w : w.y, lane4, j);
        }
    }

    /* codes: [2][QUADS] of the step */
    static __device__ __forceinline__ void scales(const uint4 *codes, const uint4 *table, int lane,
                                                  const struct tile_scales &place, int shift,
                                                  int group, struct operands &out)
    {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            if (!NESTED) {
                float2 s = ((const float2 *)(codes + m * QUADS))[lane / 4];
                out.scale[m][0] = s.x;
                out.scale[m][1] = s.y;
                continue;
            }
            const uint32_t code = ((const uint16_t *)(codes + m * QUADS))[lane / 4];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float nested = __ldg(place.scale[m] + ((place.flat[m][h] + group) >> shift));
                out.scale[m][h] =
                    fmaf(table_scale(table, code, (uint32_t)lane * 4, h), nested, place.offset[m]);
            }
        }
    }
};

/* 16-bit weights are operands as they lie; x comes in two planes. */
template <bool IS_BF16> struct batch_16bit {
    static const bool TABLE = false, BF16 = IS_BF16;
    static const int PLANES = 2, ENTRIES = 8, PER_GROUP = 128, QUADS = 0;

    static __device__ __forceinline__ void begin(const uint4 *, struct operands &)
    {
    }

    static __device__ __forceinline__ void decode(const uint4 *slot, const uint4 *, uint32_t, int k,
                                                  struct operands &out)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 v = slot[(2 * k + i) * 32];
            uint32_t(&a)[4] = out.a[k / 2][k % 2 * 2 + i];
            a[0] = v.x;
            a[1] = v.y;
            a[2] = v.z;
            a[3] = v.w;
        }
    }

    static __device__ __forceinline__ void scales(const uint4 *, const uint4 *, int,
                                                  const struct tile_scales &, int, int,
                                                  struct operands &)
    {
    }
};

/* ---- where things lie -------------------------------------------------------------------------
 */

/* A place in the sequence of steps. */
struct spot {
    int row_block, group;

    __device__ __forceinline__ bool next(int groups)
    {
        if (++group < groups)
            return false;
        group = 0;
        row_block++;
        return true;
    }
};

/* The part that the warp's tile of a row block lies in, *tile becomes its own; NULL past the last.
 */
static __device__ __forceinline__ const struct cuda_weights *find_tile(const struct cuda_batch &a,
                                                                       int row_block, int *tile)
{
    *tile = row_block * WARPS + (int)threadIdx.x / 32;
    for (int i = 0; i < a.n_parts; i++) {
        if (*tile < a.parts[i].tiles)
            return &a.parts[i];
        *tile -= a.parts[i].tiles;
    }
    return NULL;
}

/* What a lane copies of a tile, from a group on: weights of both halves, and some lanes a piece of
 * codes. */
struct source {
    const uint4 *weights[2], *codes;
    bool inside, has_codes;
};

template <class F>
static __device__ __forceinline__ void find_source(const struct cuda_batch &a, struct spot from,
                                                   struct source *out)
{
    int tile;
    const int lane = threadIdx.x % 32;
    const struct cuda_weights *w = find_tile(a, from.row_block, &tile);
    out->inside = w != NULL;
    out->has_codes = w && lane < 2 * F::QUADS;
    if (!w) { /* not to be read */
        w = &a.parts[0];
        tile = 0;
    }
    const size_t at = (size_t)tile * 2 * w->groups + from.group;
#pragma unroll
    for (int m = 0; m < 2; m++)
        out->weights[m] =
            (const uint4 *)w->data + (at + (size_t)(m * w->groups)) * F::PER_GROUP + lane;
    if constexpr (F::QUADS > 0)
        out->codes = (const uint4 *)w->codes +
                     (at + (size_t)(lane / F::QUADS * w->groups)) * F::QUADS + lane % F::QUADS;
}

static __device__ __forceinline__ void find_scales(const struct cuda_batch &a, int row_block,
                                                   struct tile_scales *out)
{
    int tile;
    const struct cuda_weights *w = find_tile(a, row_block, &tile);
    if (!w) { /* of no use, but readable */
        w = &a.parts[0];
        tile = 0;
    }
#pragma unroll
    for (int m = 0; m < 2; m++) {
        out->scale[m] = w->scale;
        out->offset[m] = w->offset;
        for (int h = 0; h < 2; h++)
            out->flat[m][h] = ((tile * 2 + m) * 16 + (int)threadIdx.x % 32 / 4 + h * 8) * w->groups;
    }
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

template <class F, int NT, int AHEAD, int SPAN> struct walk {
    static const int WIDE = 4 / F::PLANES; /* sets of eight rows of x that are multiplied at once */
    static const int X_ROWS = NT * 8, X_BUFFERS = AHEAD / SPAN + 1;
    static const int X_STEP = F::PLANES * X_ROWS * 8; /* uint4 of x of a step */
    static const int SLOT = WARPS * F::ENTRIES * 32, CODES = WARPS * 2 * F::QUADS;

    static size_t bytes()
    {
        return (F::TABLE ? TABLE_BYTES : 0) +
               sizeof(uint4) * (AHEAD * (SLOT + CODES) + X_BUFFERS * SPAN * X_STEP);
    }

    const struct cuda_batch &a;
    const uint4 *table;
    uint4 *ring, *codes, *x; /* the warp's own in slot 0; the block's in buffer 0 */
    int lane, length, groups;
    struct spot copied, decoded, multiplied; /* next to be */
    struct source source;
    struct tile_scales place;
    int copy_slot, decode_slot, x_buffer, x_copied;
    float sum[2][NT][4];

    __device__ __forceinline__ walk(const struct cuda_batch &args, uint4 *shared) : a(args)
    {
        const int warp = threadIdx.x / 32, first = cut_first(a.cut, blockIdx.x);
        uint4 *rest = shared + (F::TABLE ? TABLE_BYTES / 16 : 0);
        table = shared;
        ring = rest + warp * F::ENTRIES * 32;
        codes = rest + AHEAD * SLOT + warp * 2 * F::QUADS;
        x = rest + AHEAD * (SLOT + CODES);
        lane = threadIdx.x % 32;
        length = cut_first(a.cut, blockIdx.x + 1) - first;
        groups = a.cut.groups;
        copied = {first / groups, first % groups};
        decoded = multiplied = copied;
        copy_slot = decode_slot = x_buffer = x_copied = 0;
        find_source<F>(a, copied, &source);
        find_scales(a, decoded.row_block, &place);
    }

    __device__ __forceinline__ void copy_weights(int step)
    {
        const bool inside = step < length && source.inside;
        uint4 *to = ring + copy_slot * SLOT + lane;
#pragma unroll
        for (int i = 0; i < F::ENTRIES; i++)
            async_copy_if(inside, to + i * 32,
                          source.weights[i / (F::ENTRIES / 2)] + i % (F::ENTRIES / 2) * 32);
        if (F::QUADS)
            async_copy_if(inside && source.has_codes, codes + copy_slot * CODES + lane,
                          source.codes);
        copy_slot = copy_slot + 1 == AHEAD ? 0 : copy_slot + 1;
    }

    /* x of SPAN steps from the one that is copied next: entry c of row r lies at c ^ (r & 1), so
     * that the lanes of two rows meet no bank twice. Rows past n stay what they are. */
    __device__ __forceinline__ void copy_x(int step)
    {
        const int c = threadIdx.x % 8, span = threadIdx.x / 8 % SPAN;
        const int first = threadIdx.x / (8 * SPAN), rows = THREADS / (8 * SPAN);
        int group = copied.group + span;
        group -= group >= groups ? groups : 0;
        const uint4 *from = (const uint4 *)a.x + ((size_t)first * groups + group) * 8 + c;
        uint4 *to = x + x_copied * (SPAN * X_STEP) + span * X_STEP + first * 8 + (c ^ (first & 1));
#pragma unroll
        for (int plane = 0; plane < F::PLANES; plane++)
#pragma unroll
            for (int r = 0; r < X_ROWS; r += rows)
                async_copy_if(step + span < length && first + r < a.n,
                              to + (plane * X_ROWS + r) * 8,
                              from + plane * a.plane + (size_t)r * groups * 8);
        x_copied = x_copied + 1 == X_BUFFERS ? 0 : x_copied + 1;
    }

    __device__ __forceinline__ void advance_copy()
    {
        source.weights[0] += F::PER_GROUP;
        source.weights[1] += F::PER_GROUP;
        source.codes += F::QUADS;
        if (copied.next(groups))
            find_source<F>(a, copied, &source);
    }

    /* Operands of the next step; k: which quarter of the weights. */
    __device__ __forceinline__ void decode(int k, struct operands &out)
    {
        F::decode(ring + decode_slot * SLOT + lane, table, (uint32_t)lane * 4, k, out);
    }

    __device__ __forceinline__ void begin_decode(struct operands &out)
    {
        F::begin(ring + decode_slot * SLOT + lane, out);
        F::scales(codes + decode_slot * CODES, table, lane, place, a.parts[0].shift, decoded.group,
                  out);
    }

    __device__ __forceinline__ void advance_decode()
    {
        decode_slot = decode_slot + 1 == AHEAD ? 0 : decode_slot + 1;
        if (decoded.next(groups) && F::TABLE && decoded.row_block < a.cut.row_blocks)
            find_scales(a, decoded.row_block, &place);
    }

    static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&w)[4], uint32_t b0,
                                               uint32_t b1)
    {
        if (F::BF16)
            mma_bf16(c, w, b0, b1);
        else
            mma_f16(c, w, b0, b1);
    }

    /* WIDE times eight rows of x, the first of them 8 * nt: so many sums that mma need not wait for
     * each other. at: row 0 of the lane's. */
    template <int WIDE>
    __device__ __forceinline__ void multiply(const struct operands &w, const uint4 *at, int nt)
    {
        float c[2][WIDE][4] = {};
#pragma unroll
        for (int p = F::PLANES - 1; p >= 0; p--) {
            uint4 b[WIDE][2];
#pragma unroll
            for (int i = 0; i < WIDE; i++) {
                const uint4 *row = at + (p * X_ROWS + (nt + i) * 8) * 8;
                b[i][0] = row[(2 * (lane % 4)) ^ (lane / 4 & 1)];
                b[i][1] = row[(2 * (lane % 4) + 1) ^ (lane / 4 & 1)];
            }
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int i = 0; i < WIDE; i++)
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        const uint4 &v = b[i][k / 2];
                        mma(c[m][i], w.a[m][k], k % 2 ? v.z : v.x, k % 2 ? v.w : v.y);
                    }
        }
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < WIDE; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[m][nt + i][j] = F::TABLE
                                            ? fmaf(c[m][i][j], w.scale[m][j / 2], sum[m][nt + i][j])
                                            : sum[m][nt + i][j] + c[m][i][j];
    }

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[m][nt][i] = 0;
    }

    __device__ __forceinline__ void leave()
    {
        float *out = a.out + (size_t)(blockIdx.x + multiplied.row_block) * a.n * CUDA_BLOCK_ROWS +
                     threadIdx.x / 32 * CUDA_TILE_ROWS + lane / 4;
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int col = nt * 8 + 2 * (lane % 4) + i % 2;
#pragma unroll
                for (int m = 0; m < 2; m++)
                    if (col < a.n)
                        out[(size_t)col * CUDA_BLOCK_ROWS + m * 16 + i / 2 * 8] =
                            sum[m][nt][i] * a.unscale;
            }
        clear();
    }

    /* PHASE: the step's number within its SPAN. */
    template <int PHASE>
    __device__ __forceinline__ void step(int s, const struct operands &now, struct operands &next)
    {
        if (PHASE == 0)
            __syncthreads(); /* x of the step is here; nobody reads that before it any more */
        else
            __syncwarp(); /* nobody reads the codes of this step any more */
        copy_weights(s + AHEAD);
        if (PHASE == 0)
            copy_x(s + AHEAD);
        async_commit();
        advance_copy();
        async_wait<AHEAD - 1>();
        __syncwarp();
        const uint4 *at = x + x_buffer * (SPAN * X_STEP) + PHASE * X_STEP + lane / 4 * 8;
        advance_decode();
        begin_decode(next);
#pragma unroll
        for (int nt = 0; nt < NT; nt += WIDE) {
            multiply<WIDE>(now, at, nt);
#pragma unroll
            for (int k = 0; k < 4 * WIDE / NT; k++)
                decode(4 * nt / NT + k, next);
        }
        if (PHASE == SPAN - 1)
            x_buffer = x_buffer + 1 == X_BUFFERS ? 0 : x_buffer + 1;
        if (multiplied.group == groups - 1 || s == length - 1)
            leave();
        (void)multiplied.next(groups);
    }

    __device__ __forceinline__ void run()
    {
        struct operands w[2];
        clear();
        const struct spot first = copied;
#pragma unroll 1
        for (int s = 0; s < AHEAD; s++) {
            copy_weights(s);
            advance_copy();
        }
        chain_wait(); /* weights are no kernel's work, x is */
        const struct spot last = copied;
        copied = first;
#pragma unroll 1
        for (int s = 0; s < AHEAD; s++) {
            if (s % SPAN == 0)
                copy_x(s);
            (void)copied.next(groups);
            async_commit(); /* the first holds all there is */
        }
        copied = last;
        async_wait<AHEAD - 1>();
        __syncthreads(); /* the table, too */
        begin_decode(w[0]);
#pragma unroll
        for (int k = 0; k < 4; k++)
            decode(k, w[0]);
#pragma unroll 1
        for (int s = 0; s < length; s += 2) {
            step<0>(s, w[0], w[1]);
            if (s + 1 < length)
                step<SPAN == 1 ? 0 : 1>(s + 1, w[1], w[0]);
        }
    }
};

/* A thread reads what one byte stands for; half a warp writes its 256 bytes (format.cuh). */
static __device__ __forceinline__ void fill_batch_table(uint4 *table, const struct cuda_weights &w)
{
    const int lane = threadIdx.x % 32, first = threadIdx.x - lane;
    const uint32_t pair = __ldg(w.lut + threadIdx.x);
    const uint32_t map = w.map ? __float_as_uint(__ldg(w.map + threadIdx.x)) : 0;
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        const int byte = i + lane / 16;
        const uint32_t p = __shfl_sync(0xffffffffu, pair, byte);
        const uint32_t m = __shfl_sync(0xffffffffu, map, byte);
        const uint32_t v = lane % 16 < 8 ? p : m;
        table[(first + byte) * 16 + lane % 16] = make_uint4(v, v, v, v);
    }
}

template <class F, int NT, int AHEAD, int SPAN>
static __global__ void __launch_bounds__(THREADS, 1)
    batch(const __grid_constant__ struct cuda_batch a)
{
    DYNAMIC_SHARED(uint4, shared);
    chain_start_next();
    if (F::TABLE)
        fill_batch_table(shared, a.parts[0]);
    struct walk<F, NT, AHEAD, SPAN> w(a, shared);
    w.run();
}

/* ---- on the host ------------------------------------------------------------------------------
 */

template <class F, int NT, int AHEAD, int SPAN>
static bool run(const struct cuda_batch &a, cudaStream_t stream)
{
    const size_t bytes = walk<F, NT, AHEAD, SPAN>::bytes();
    if (a.n > NT * 8 || bytes > a.shared)
        return false;
    launch_chained(batch<F, NT, AHEAD, SPAN>, dim3((unsigned)a.cut.blocks), THREADS, bytes, stream,
                   a);
    return true;
}

/* The narrowest kernel that takes the rows and fits; the last of a format fits on any GPU. */
template <class F> static bool run_format(const struct cuda_batch &a, cudaStream_t stream)
{
    return run < F, 4, F::TABLE ? 6 : 4,
           2 > (a, stream) || run<F, 8, 4, 2>(a, stream) || run<F, 4, 2, 1>(a, stream);
}

void cuda_batch(const struct cuda_batch *a, cudaStream_t stream)
{
    switch (a->parts[0].layout) {
    case CUDA_NESTED:
        (void)run_format<batch_4bit<true>>(*a, stream);
        break;
    case CUDA_4BIT:
        (void)run_format<batch_4bit<false>>(*a, stream);
        break;
    case CUDA_F16:
        (void)run_format<batch_16bit<false>>(*a, stream);
        break;
    case CUDA_BF16:
        (void)run_format<batch_16bit<true>>(*a, stream);
        break;
    case CUDA_F32: /* not for this kernel */
        break;
    }
}

template <class F> static int rows_of(size_t shared)
{
    return walk<F, 8, 4, 2>::bytes() <= shared ? 64 : 32;
}

int cuda_batch_rows(enum cuda_layout layout, size_t shared)
{
    if (layout == CUDA_F16 || layout == CUDA_BF16)
        return rows_of<batch_16bit<true>>(shared);
    return rows_of<batch_4bit<false>>(shared);
}

struct cuda_cut cuda_cut_of(const struct cuda_weights *parts, int n_parts, int blocks)
{
    struct cuda_cut cut = {0, parts[0].groups, 0, 0};
    int tiles = 0;
    for (int i = 0; i < n_parts; i++)
        tiles += parts[i].tiles;
    cut.row_blocks = (tiles + WARPS - 1) / WARPS;
    cut.steps = cut.row_blocks * cut.groups;
    cut.blocks = cut.steps < blocks ? cut.steps : blocks;
    return cut;
}

template <class F, int NT, int AHEAD, int SPAN> static cudaError_t allow(size_t shared)
{
    const size_t bytes = walk<F, NT, AHEAD, SPAN>::bytes();
    if (bytes > shared)
        return cudaSuccess;
    return cudaFuncSetAttribute((const void *)batch<F, NT, AHEAD, SPAN>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

template <class F> static cudaError_t allow_format(size_t shared)
{
    cudaError_t e = allow < F, 4, F::TABLE ? 6 : 4, 2 > (shared);
    if (!e)
        e = allow<F, 8, 4, 2>(shared);
    return e ? e : allow<F, 4, 2, 1>(shared);
}

cudaError_t cuda_batch_init(size_t shared)
{
    cudaError_t e = allow_format<batch_4bit<true>>(shared);
    if (!e)
        e = allow_format<batch_4bit<false>>(shared);
    if (!e)
        e = allow_format<batch_16bit<false>>(shared);
    return e ? e : allow_format<batch_16bit<true>>(shared);
}
