/*
 * stream.cuh - how weights reach the tensor cores in a whole step (decode.cu).
 *
 * What a warp multiplies in a step, and in which order, is known before the step begins (struct
 * cuda_cut). So each warp has a ring of three loads in shared memory, which copies that do not wait
 * keep full: whenever it has multiplied a load it sends for another, and whatever phase that
 * belongs to, it travels while the block waits, packs x or attends. `cursor` is where the next one
 * comes from.
 *
 * x is the operand that stays: a warp holds the columns of its groups in registers and walks over
 * the block's tiles of sixteen rows. The sum of a tile is: within a group in the tensor core,
 * groups one after the other, then warps (decode.cu), then parts (whoever reads the stream next).
 *
 * Owner of a ring, its cursor and its `feed`: the warp; no other reads or writes them.
 */
#ifndef CUDA_STREAM_CUH
#define CUDA_STREAM_CUH

#include "backend/cuda/async.cuh"
#include "backend/cuda/format.cuh"

#define LOADS       3
#define LOAD_SCALES (LOADS * CUDA_LOAD_BYTES) /* behind them: decoded scales of a load */
#define RING_BYTES  (LOAD_SCALES + CUDA_LOAD_GROUPS * 64)

/* Groups of a load, at most. */
static __device__ __forceinline__ constexpr int load_groups(int layout)
{
    return layout == CUDA_NESTED ? CUDA_LOAD_GROUPS : layout == CUDA_4BIT ? 4 : 1;
}

/* The first group of load i of a tile's `loads`, which are one, two or as many as groups. */
static __device__ __forceinline__ constexpr int load_first(int groups, int loads, int i)
{
    return i == loads ? groups : loads == 2 ? (unsigned)(groups * i) / 2 : i;
}

#define LOG_WARPS 4
static_assert(1 << LOG_WARPS == CUDA_WARPS, "log2");

/* A warp's share of a product. */
struct share {
    int part;
    int first, last;   /* tiles: the block's */
    int group, groups; /* the warp's */
};

static __device__ __forceinline__ struct share share_of(const struct cuda_run &c, int warp)
{
    const int block = (int)blockIdx.x >> c.parts, blocks = (int)gridDim.x >> c.parts;
    const int part = (int)blockIdx.x & ((1 << c.parts) - 1);
    const int range = part * CUDA_WARPS + warp, log = LOG_WARPS + c.parts; /* of all ranges */
    const int first = block * c.quotient + min(block, c.rest);
    const int last = block < blocks ? first + c.quotient + (block < c.rest) : first;
    const int group = range * c.groups >> log, end = (range + 1) * c.groups >> log;
    return {part, first << c.pair, last << c.pair, group, end - group};
}

/* Which matrix a tile is of, and which of its tiles. */
static __device__ __forceinline__ int find_tile(const struct cuda_run &c, int tile, int *matrix)
{
    int m = 0;
    if (c.pair) {
        *matrix = tile & 1;
        return tile >> 1;
    }
    while (tile >= c.tiles[m])
        tile -= c.tiles[m++];
    *matrix = m;
    return tile;
}

/* ---- fetching ---------------------------------------------------------------------------------
 */

/* What a warp fetches now; in shared memory. */
struct feed {
    struct cuda_run cut;
    struct share share;
    int loads; /* of a tile */
};

struct cursor {
    int tile, load;  /* sent for next; tile -1: everything is sent for */
    int place;       /* in the ring, of the oldest load, which the next replaces */
    uint32_t coming; /* word `lane` of the cut after the present */
};

/* To the next product of which the warp has a share. */
static __device__ __forceinline__ void next_product(struct cursor &c, struct feed &f,
                                                    const struct cuda_phase *phases)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    bool nothing, more;
    do {
        __syncwarp();
        ((uint32_t *)&f.cut)[lane] = c.coming;
        __syncwarp();
        const struct share s = share_of(f.cut, warp);
        more = f.cut.next >= 0;
        if (more)
            c.coming = __ldg((const uint32_t *)&phases[f.cut.next].cut + lane);
        nothing = s.first == s.last || !s.groups;
        c.tile = nothing ? -1 : s.first;
        if (lane == 0) {
            const int most = load_groups(f.cut.layout);
            f.share = s;
            f.loads = (s.groups + most - 1) / most;
        }
        __syncwarp();
    } while (nothing && more);
}

/* Sends for the next load, to where the oldest was; every lane has done with that. */
static __device__ __forceinline__ void send(struct cursor &c, struct feed &f, char *ring,
                                            const struct cuda_phase *phases)
{
    if (c.tile >= 0) {
        const int groups = f.cut.groups, layout = f.cut.layout, lane = threadIdx.x % 32;
        int m;
        const int tile = find_tile(f.cut, c.tile, &m);
        const int from = load_first(f.share.groups, f.loads, c.load);
        const int n = load_first(f.share.groups, f.loads, c.load + 1) - from;
        const int group = f.share.group + from, first = tile * groups + group;
        char *to = ring + c.place * CUDA_LOAD_BYTES + lane * 16;
        const uint32_t at = shared_address(to);
        const bool table = layout == CUDA_NESTED || layout == CUDA_4BIT;
        const int pieces = table ? n : 4;
        const char *weights =
            (const char *)f.cut.data[m] + (size_t)first * (table ? 512 : 2048) + lane * 16;
        async_copy_at<0>(at, weights);
        if (pieces > 1)
            async_copy_at<512>(at, weights);
        if (pieces > 2)
            async_copy_at<1024>(at, weights);
        if (pieces > 3)
            async_copy_at<1536>(at, weights);
        if (pieces > 4)
            async_copy_at<2048>(at, weights);
        if (layout == CUDA_NESTED) { /* lanes of codes, then lanes of scales */
            const int scale = (tile * 16 * groups + group) >> f.cut.shift & ~3;
            const char *behind = lane < n ? (const char *)f.cut.codes[m] + (size_t)first * 16
                                          : (const char *)(f.cut.scale[m] + scale) - n * 16;
            if (lane < n + CUDA_SPAN_BYTES(groups, n, f.cut.shift) / 16)
                async_copy(to + n * 512, behind + lane * 16, true);
        } else if (layout == CUDA_4BIT && lane < 4 * n)
            async_copy(to + n * 512, (const char *)f.cut.codes[m] + (size_t)first * 64 + lane * 16,
                       true);
        if (++c.load == f.loads) {
            c.load = 0;
            if (++c.tile == f.share.last) {
                c.tile = -1;
                if (f.cut.next >= 0)
                    next_product(c, f, phases);
            }
        }
    }
    async_commit();
    c.place = c.place == LOADS - 1 ? 0 : c.place + 1;
}

/* first: the step's first product, -1: it has none. */
static __device__ __forceinline__ struct cursor
start_cursor(struct feed &f, char *ring, const struct cuda_phase *phases, int first)
{
    struct cursor c = {-1, 0, 0, 0};
    if (first < 0)
        return c;
    c.coming = __ldg((const uint32_t *)&phases[first].cut + threadIdx.x % 32);
    next_product(c, f, phases);
#pragma unroll 1
    for (int i = 0; i < LOADS; i++)
        send(c, f, ring, phases);
    return c;
}

/* ---- multiplying ------------------------------------------------------------------------------
 */

/* x of one group: the B operands of four steps. Lane (g, t) holds columns 16t..16t+15 of row g. */
struct held_x {
    uint4 a, b;
};

/* What a warp needs beside the weights to multiply a tile. */
struct tile_of {
    const struct cuda_phase *phases;
    const struct cuda_run &cut;
    int group;       /* the warp's first */
    int tile;        /* of its matrix */
    float offset;    /* of nested scales */
    uint32_t lookup; /* address of the byte table, which 64 KiB divide, and of the lane's copies */
};

/* Codes and nested scales of a load's N groups -> scales [N][g][row g or g+8]: four for a lane. */
template <int N>
static __device__ __forceinline__ void decode_scales(const struct tile_of &t, const char *load,
                                                     int group, float *out)
{
    const int lane = threadIdx.x % 32, groups = t.cut.groups, shift = t.cut.shift;
    const int start = t.tile * 16 * groups + group;
    if (lane < 4 * N) {
        const uint32_t codes = *(const uint32_t *)(load + N * 512 + lane * 4);
        const float *nested = (const float *)(load + N * 528) - (start >> shift & ~3);
        const int flat = start + lane % 4 * 2 * groups + lane / 4;
        float s[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float scale = nested[(flat + (j % 2 * 8 + j / 2) * groups) >> shift];
            const uint32_t at = __byte_perm(codes, t.lookup, 0x7604 | j << 4);
            s[j] = fmaf(__uint_as_float(shared_word<TABLE_MAP>(at)), scale, t.offset);
        }
        *(float4 *)(out + lane * 4) = make_float4(s[0], s[1], s[2], s[3]);
    }
    __syncwarp();
}

/* A group of 4-bit weights; scales: [g][row g or g+8]. */
static __device__ __forceinline__ void multiply_group(uint32_t lookup, const char *weights,
                                                      const float *scales, const struct held_x &x,
                                                      float (&sum)[4])
{
    const int lane = threadIdx.x % 32;
    const uint4 w = *(const uint4 *)(weights + lane * 16);
    const float2 s = *(const float2 *)(scales + lane / 4 * 2);
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    const uint32_t b[8] = {x.a.x, x.a.y, x.a.z, x.a.w, x.b.x, x.b.y, x.b.z, x.b.w};
    float c[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t a[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            a[j] = shared_word<0>(__byte_perm(words[i], lookup, 0x7604 | j << 4));
        mma_f16(c, a, b[2 * i], b[2 * i + 1]);
    }
    sum[0] = fmaf(c[0], s.x, sum[0]);
    sum[1] = fmaf(c[1], s.x, sum[1]);
    sum[2] = fmaf(c[2], s.y, sum[2]);
    sum[3] = fmaf(c[3], s.y, sum[3]);
}

/* A format has TABLE (does it need the byte table), TWO_PLANES, BF16, and load<N>(): multiplies a
 * load of N groups, the first of which is the tile's `from`th of the warp. */
struct streamed_nested {
    static const enum cuda_layout LAYOUT = CUDA_NESTED;
    static const bool TABLE = true, TWO_PLANES = false, BF16 = false;

    template <int N>
    static __device__ __forceinline__ void load(const struct tile_of &t, const char *load,
                                                float *scales, int from, const struct held_x *x,
                                                float (&sum)[4])
    {
        decode_scales<N>(t, load, t.group + from, scales);
#pragma unroll
        for (int i = 0; i < N; i++)
            multiply_group(t.lookup, load + i * 512, scales + i * 16, x[i], sum);
    }
};

struct streamed_plain {
    static const enum cuda_layout LAYOUT = CUDA_4BIT;
    static const bool TABLE = true, TWO_PLANES = false, BF16 = false;

    template <int N>
    static __device__ __forceinline__ void load(const struct tile_of &t, const char *load, float *,
                                                int, const struct held_x *x, float (&sum)[4])
    {
#pragma unroll
        for (int i = 0; i < N; i++)
            multiply_group(t.lookup, load + i * 512, (const float *)(load + N * 512) + i * 16, x[i],
                           sum);
    }
};

/* 16-bit weights see x as two 16-bit parts: lanes of rows 0..3 hold the high ones, of rows 4..7 the
 * low ones of the same rows. */
template <bool BF> struct streamed_16bit {
    static const enum cuda_layout LAYOUT = BF ? CUDA_BF16 : CUDA_F16;
    static const bool TABLE = false, TWO_PLANES = true, BF16 = BF;

    template <int N>
    static __device__ __forceinline__ void load(const struct tile_of &, const char *load, float *,
                                                int, const struct held_x *x, float (&sum)[4])
    {
        const uint32_t b[8] = {x->a.x, x->a.y, x->a.z, x->a.w, x->b.x, x->b.y, x->b.z, x->b.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint4 w = ((const uint4 *)load)[j * 32 + threadIdx.x % 32];
            const uint32_t a[4] = {w.x, w.y, w.z, w.w};
            if (BF)
                mma_bf16(sum, a, b[2 * j], b[2 * j + 1]);
            else
                mma_f16(sum, a, b[2 * j], b[2 * j + 1]);
        }
    }
};

/* Load I and those after it of a tile. */
template <class F, int GROUPS, int I>
static __device__ __forceinline__ void
multiply_loads(struct cursor &c, struct feed &f, char *ring, const struct tile_of &t,
               const struct held_x (&x)[GROUPS], float (&sum)[4])
{
    constexpr int MOST = load_groups(F::LAYOUT), ALL = (GROUPS + MOST - 1) / MOST;
    if constexpr (I < ALL) {
        constexpr int FROM = load_first(GROUPS, ALL, I), N = load_first(GROUPS, ALL, I + 1) - FROM;
        async_wait<LOADS - 1>();
        __syncwarp();
        F::template load<N>(t, ring + c.place * CUDA_LOAD_BYTES, (float *)(ring + LOAD_SCALES),
                            FROM, x + FROM, sum);
        __syncwarp();
        send(c, f, ring, t.phases);
        multiply_loads<F, GROUPS, I + 1>(c, f, ring, t, x, sum);
    }
}

#endif
