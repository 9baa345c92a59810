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
#include "backend/cuda/batch_format.cuh"
#include "backend/cuda/cut.cuh"

#define WARPS   (CUDA_BLOCK_ROWS / CUDA_TILE_ROWS)
#define THREADS (WARPS * 32)

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

/* Shared memory of a block, in uint4: the table, AHEAD slots of weights, their codes, buffers of x.
 * A warp's pointers are to its own in slot 0, to the block's in buffer 0. */
template <class FORMAT, int SETS, int STEPS_AHEAD, int STEPS_SPAN> struct space {
    typedef FORMAT F;
    static const int NT = SETS, AHEAD = STEPS_AHEAD, SPAN = STEPS_SPAN;
    static const int X_ROWS = NT * 8, X_BUFFERS = AHEAD / SPAN + 1;
    static const int X_STEP = F::PLANES * X_ROWS * 8; /* of x of a step */
    static const int SLOT = WARPS * F::ENTRIES * 32, CODES = WARPS * 2 * F::QUADS;

    const uint4 *table;
    uint4 *ring, *codes, *x;
    int lane, length, groups; /* length: steps of the block */
    struct spot first;

    static size_t bytes()
    {
        return (F::TABLE ? TABLE_BYTES : 0) +
               sizeof(uint4) * (AHEAD * (SLOT + CODES) + X_BUFFERS * SPAN * X_STEP);
    }

    __device__ __forceinline__ space(const struct cuda_cut &cut, uint4 *shared)
    {
        const int warp = threadIdx.x / 32, step = cut_first(cut, blockIdx.x);
        uint4 *rest = shared + (F::TABLE ? TABLE_BYTES / 16 : 0);
        table = shared;
        ring = rest + warp * F::ENTRIES * 32;
        codes = rest + AHEAD * SLOT + warp * 2 * F::QUADS;
        x = rest + AHEAD * (SLOT + CODES);
        lane = threadIdx.x % 32;
        length = cut_first(cut, blockIdx.x + 1) - step;
        groups = cut.groups;
        first = {step / groups, step % groups};
    }
};

/* Weights and x on their way into the space. */
template <class S> struct copying {
    typedef typename S::F F;
    const struct cuda_batch &a;
    struct spot place; /* copied next */
    struct source source;
    int slot, buffer;

    __device__ __forceinline__ copying(const struct cuda_batch &args, struct spot first)
        : a(args), place(first), slot(0), buffer(0)
    {
        find_source<F>(a, place, &source);
    }

    __device__ __forceinline__ void weights(const S &at, int step)
    {
        const bool inside = step < at.length && source.inside;
        uint4 *to = at.ring + slot * S::SLOT + at.lane;
#pragma unroll
        for (int i = 0; i < F::ENTRIES; i++)
            async_copy_if(inside, to + i * 32,
                          source.weights[i / (F::ENTRIES / 2)] + i % (F::ENTRIES / 2) * 32);
        if (F::QUADS)
            async_copy_if(inside && source.has_codes, at.codes + slot * S::CODES + at.lane,
                          source.codes);
        slot = slot + 1 == S::AHEAD ? 0 : slot + 1;
    }

    /* x of SPAN steps from the one that is copied next: entry c of row r lies at c ^ (r & 1), so
     * that the lanes of two rows meet no bank twice. Rows past n stay what they are. */
    __device__ __forceinline__ void x(const S &at, int step)
    {
        const int c = threadIdx.x % 8, span = threadIdx.x / 8 % S::SPAN, groups = at.groups;
        const int first = threadIdx.x / (8 * S::SPAN), rows = THREADS / (8 * S::SPAN);
        int group = place.group + span;
        group -= group >= groups ? groups : 0;
        const uint4 *from = (const uint4 *)a.x + ((size_t)first * groups + group) * 8 + c;
        uint4 *to = at.x + buffer * (S::SPAN * S::X_STEP) + span * S::X_STEP + first * 8 +
                    (c ^ (first & 1));
#pragma unroll
        for (int plane = 0; plane < F::PLANES; plane++)
#pragma unroll
            for (int r = 0; r < S::X_ROWS; r += rows)
                async_copy_if(step + span < at.length && first + r < a.n,
                              to + (plane * S::X_ROWS + r) * 8,
                              from + plane * a.plane + (size_t)r * groups * 8);
        buffer = buffer + 1 == S::X_BUFFERS ? 0 : buffer + 1;
    }

    __device__ __forceinline__ void advance(int groups)
    {
        source.weights[0] += F::PER_GROUP;
        source.weights[1] += F::PER_GROUP;
        source.codes += F::QUADS;
        if (place.next(groups))
            find_source<F>(a, place, &source);
    }
};

/* What lies in a slot becomes operands. */
template <class S> struct decoding {
    typedef typename S::F F;
    const struct cuda_batch &a;
    struct spot place; /* decoded next */
    struct tile_scales scales;
    int slot;

    __device__ __forceinline__ decoding(const struct cuda_batch &args, struct spot first)
        : a(args), place(first), slot(0)
    {
        find_scales(a, place.row_block, &scales);
    }

    __device__ __forceinline__ const uint4 *own(const S &at) const
    {
        return at.ring + slot * S::SLOT + at.lane;
    }

    __device__ __forceinline__ void begin(const S &at, struct operands &out)
    {
        F::begin(own(at), out);
        F::scales(at.codes + slot * S::CODES, at.table, at.lane, scales, a.parts[0].shift,
                  place.group, out);
    }

    /* k: which quarter of the weights. */
    __device__ __forceinline__ void quarter(const S &at, int k, struct operands &out)
    {
        F::decode(own(at), at.table, (uint32_t)at.lane * 4, k, out);
    }

    __device__ __forceinline__ void advance(int groups)
    {
        slot = slot + 1 == S::AHEAD ? 0 : slot + 1;
        if (place.next(groups) && F::TABLE && place.row_block < a.cut.row_blocks)
            find_scales(a, place.row_block, &scales);
    }
};

/* The sums of the warp's 32 rows of W, for NT sets of eight rows of x. */
template <class S> struct adding {
    typedef typename S::F F;
    float sum[2][S::NT][4];

    static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&w)[4], uint32_t b0,
                                               uint32_t b1)
    {
        if (F::BF16)
            mma_bf16(c, w, b0, b1);
        else
            mma_f16(c, w, b0, b1);
    }

    /* WIDE times eight rows of x, the first of them 8 * nt: so many sums that mma need not wait for
     * each other. x: row 0 of the lane's. */
    template <int WIDE>
    __device__ __forceinline__ void multiply(int lane, const struct operands &w, const uint4 *x,
                                             int nt)
    {
        float c[2][WIDE][4] = {};
#pragma unroll
        for (int p = F::PLANES - 1; p >= 0; p--) {
            uint4 b[WIDE][2];
#pragma unroll
            for (int i = 0; i < WIDE; i++) {
                const uint4 *row = x + (p * S::X_ROWS + (nt + i) * 8) * 8;
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
            for (int nt = 0; nt < S::NT; nt++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[m][nt][i] = 0;
    }

    /* To the block's segment of a row block. */
    __device__ __forceinline__ void leave(int lane, const struct cuda_batch &a, int row_block)
    {
        float *out = a.out + (size_t)(blockIdx.x + row_block) * a.n * CUDA_BLOCK_ROWS +
                     threadIdx.x / 32 * CUDA_TILE_ROWS + lane / 4;
#pragma unroll
        for (int nt = 0; nt < S::NT; nt++)
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
};

template <class S> struct walk {
    static const int WIDE = 4 / S::F::PLANES; /* sets of eight rows of x multiplied at once */
    const struct cuda_batch &a;
    const S at;
    struct copying<S> copy;
    struct decoding<S> decode;
    struct spot multiplied; /* next to be */
    int x_buffer;
    struct adding<S> add;

    __device__ __forceinline__ walk(const struct cuda_batch &args, uint4 *shared)
        : a(args), at(a.cut, shared), copy(a, at.first), decode(a, at.first), multiplied(at.first),
          x_buffer(0)
    {
    }

    /* PHASE: the step's number within its SPAN. */
    template <int PHASE>
    __device__ __forceinline__ void step(int s, const struct operands &now, struct operands &next)
    {
        if (PHASE == 0)
            __syncthreads(); /* x of the step is here; nobody reads that before it any more */
        else
            __syncwarp(); /* nobody reads the codes of this step any more */
        copy.weights(at, s + S::AHEAD);
        if (PHASE == 0)
            copy.x(at, s + S::AHEAD);
        async_commit();
        copy.advance(at.groups);
        async_wait<S::AHEAD - 1>();
        __syncwarp();
        const uint4 *x =
            at.x + x_buffer * (S::SPAN * S::X_STEP) + PHASE * S::X_STEP + at.lane / 4 * 8;
        decode.advance(at.groups);
        decode.begin(at, next);
#pragma unroll
        for (int nt = 0; nt < S::NT; nt += WIDE) {
            add.template multiply<WIDE>(at.lane, now, x, nt);
#pragma unroll
            for (int k = 0; k < 4 * WIDE / S::NT; k++)
                decode.quarter(at, 4 * nt / S::NT + k, next);
        }
        if (PHASE == S::SPAN - 1)
            x_buffer = x_buffer + 1 == S::X_BUFFERS ? 0 : x_buffer + 1;
        if (multiplied.group == at.groups - 1 || s == at.length - 1)
            add.leave(at.lane, a, multiplied.row_block);
        (void)multiplied.next(at.groups);
    }

    /* AHEAD steps on their way, in as many groups, the first of which holds all there is. */
    __device__ __forceinline__ void start()
    {
        const struct spot first = copy.place;
#pragma unroll 1
        for (int s = 0; s < S::AHEAD; s++) {
            copy.weights(at, s);
            copy.advance(at.groups);
        }
        chain_wait(); /* weights are no kernel's work, x is */
        const struct spot last = copy.place;
        copy.place = first;
#pragma unroll 1
        for (int s = 0; s < S::AHEAD; s++) {
            if (s % S::SPAN == 0)
                copy.x(at, s);
            (void)copy.place.next(at.groups);
            async_commit();
        }
        copy.place = last;
    }

    __device__ __forceinline__ void run()
    {
        struct operands w[2];
        add.clear();
        start();
        async_wait<S::AHEAD - 1>();
        __syncthreads(); /* the table, too */
        decode.begin(at, w[0]);
#pragma unroll
        for (int k = 0; k < 4; k++)
            decode.quarter(at, k, w[0]);
#pragma unroll 1
        for (int s = 0; s < at.length; s += 2) {
            step<0>(s, w[0], w[1]);
            if (s + 1 < at.length)
                step<S::SPAN == 1 ? 0 : 1>(s + 1, w[1], w[0]);
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
    struct walk<space<F, NT, AHEAD, SPAN>> w(a, shared);
    w.run();
}

/* ---- on the host ------------------------------------------------------------------------------
 */

template <class F, int NT, int AHEAD, int SPAN>
static bool run(const struct cuda_batch &a, cudaStream_t stream)
{
    const size_t bytes = space<F, NT, AHEAD, SPAN>::bytes();
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
    return space<F, 8, 4, 2>::bytes() <= shared ? 64 : 32;
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
    const size_t bytes = space<F, NT, AHEAD, SPAN>::bytes();
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
