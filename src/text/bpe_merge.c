/*
 * bpe_merge.c - applies the merges to one piece of text, lowest rank first, leftmost first.
 *
 * The piece is a doubly linked list of symbols in an array; a binary heap holds the pairs that may
 * be merged, as rank << 32 | position of the left symbol. Pairs that have changed since stay in the
 * heap and are recognised by their rank when they come up, so a piece of n bytes takes n log n.
 */
#include "text/bpe.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

#define NO_RANK UINT32_MAX

struct bpe_symbol {
    int32_t id;
    int32_t prev, next; /* positions; -1 at the ends */
    uint32_t rank;      /* of the merge with `next`; NO_RANK: none, or the symbol is gone */
    int32_t result;     /* of that merge */
};

void bpe_work_release(struct bpe_work *work)
{
    free(work->ids);
    free(work->symbols);
    free(work->heap);
    *work = (struct bpe_work){0};
}

/* Grows *array to hold `need` items of `size` bytes. */
static int reserve(void **array, size_t *cap, size_t need, size_t size, struct gyaru_error *err)
{
    if (need <= *cap)
        return 0;
    size_t items = *cap > need / 2 ? 2 * *cap : need, bytes;
    if (items < 64)
        items = 64;
    void *grown = size_mul(items, size, &bytes) ? realloc(*array, bytes) : NULL;
    if (!grown)
        return error_memory(err, items, "tokenizing");
    *array = grown;
    *cap = items;
    return 0;
}

int bpe_push_id(struct bpe_work *work, int32_t id, struct gyaru_error *err)
{
    if (reserve((void **)&work->ids, &work->cap_ids, work->n_ids + 1, sizeof *work->ids, err))
        return -1;
    work->ids[work->n_ids++] = id;
    return 0;
}

/* ---- heap --------------------------------------------------------------------------------- */

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t item = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= item)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = item;
}

static void heap_push(struct bpe_work *work, uint64_t item)
{
    uint64_t *heap = work->heap;
    size_t i = work->n_heap++;
    while (i > 0 && heap[(i - 1) / 2] > item) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = item;
}

static uint64_t heap_pop(struct bpe_work *work)
{
    uint64_t top = work->heap[0];
    work->heap[0] = work->heap[--work->n_heap];
    if (work->n_heap)
        sift_down(work->heap, work->n_heap, 0);
    return top;
}

/* ---- merging ------------------------------------------------------------------------------ */

/* Looks up what the symbol makes with its right neighbour. */
static void look_up(const struct bpe *bpe, struct bpe_symbol *symbols, int32_t at)
{
    struct bpe_symbol *s = &symbols[at];
    s->rank = NO_RANK;
    if (s->next < 0)
        return;
    const struct bpe_merge *merge = bpe_find_merge(bpe, s->id, symbols[s->next].id);
    if (merge->left < 0)
        return;
    s->rank = merge->rank;
    s->result = merge->result;
}

static void push_pair(struct bpe_work *work, int32_t at)
{
    if (work->symbols[at].rank != NO_RANK)
        heap_push(work, (uint64_t)work->symbols[at].rank << 32 | (uint32_t)at);
}

static void merge_pair(const struct bpe *bpe, struct bpe_work *work, int32_t at)
{
    struct bpe_symbol *symbols = work->symbols, *s = &symbols[at];
    struct bpe_symbol *gone = &symbols[s->next];
    s->id = s->result;
    s->next = gone->next;
    gone->rank = NO_RANK;
    if (s->next >= 0)
        symbols[s->next].prev = at;
    look_up(bpe, symbols, at);
    push_pair(work, at);
    if (s->prev >= 0) {
        look_up(bpe, symbols, s->prev);
        push_pair(work, s->prev);
    }
}

/* One symbol per byte and a heap of their pairs. */
static void begin(const struct bpe *bpe, const uint8_t *piece, size_t len, struct bpe_work *work)
{
    struct bpe_symbol *symbols = work->symbols;
    for (size_t i = 0; i < len; i++)
        symbols[i] = (struct bpe_symbol){bpe->byte_ids[piece[i]], (int32_t)i - 1,
                                         i + 1 < len ? (int32_t)i + 1 : -1, NO_RANK, -1};
    work->n_heap = 0;
    for (size_t i = 0; i < len; i++) {
        look_up(bpe, symbols, (int32_t)i);
        if (symbols[i].rank != NO_RANK)
            work->heap[work->n_heap++] = (uint64_t)symbols[i].rank << 32 | i;
    }
    for (size_t i = work->n_heap / 2; i-- > 0;)
        sift_down(work->heap, work->n_heap, i);
}

int bpe_encode(const struct bpe *bpe, const uint8_t *piece, size_t len, struct bpe_work *work,
               struct gyaru_error *err)
{
    if (len == 0)
        return 0;
    if (len == 1)
        return bpe_push_id(work, bpe->byte_ids[piece[0]], err);
    if (len > INT32_MAX / 2)
        return error_set(err, GYARU_FAILED, "text of %zu bytes in one piece is too long", len);
    if (bpe->ignore_merges) {
        int32_t whole = bpe_find(bpe, piece, len);
        if (whole >= 0 && !(bpe->tokens[whole].flags & BPE_TOKEN_ADDED))
            return bpe_push_id(work, whole, err);
    }
    /* Each of the at most len - 1 merges takes one pair out and puts at most two in. */
    if (reserve((void **)&work->symbols, &work->cap_symbols, len, sizeof *work->symbols, err) ||
        reserve((void **)&work->heap, &work->cap_heap, 2 * len, sizeof *work->heap, err))
        return -1;
    begin(bpe, piece, len, work);
    while (work->n_heap) {
        uint64_t top = heap_pop(work);
        int32_t at = (int32_t)(uint32_t)top;
        if (work->symbols[at].rank == (uint32_t)(top >> 32))
            merge_pair(bpe, work, at);
    }
    for (int32_t at = 0; at >= 0; at = work->symbols[at].next)
        if (bpe_push_id(work, work->symbols[at].id, err))
            return -1;
    return 0;
}
