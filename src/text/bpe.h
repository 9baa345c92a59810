/*
 * bpe.h - byte-level byte-pair encoding: vocabulary, merges, and the merging itself.
 *
 * A token is a string of raw bytes; the printable alphabet that tokenizer.json spells them in is
 * undone while loading (bpe_decode_name). Filled once (add tokens, add merges, finish), constant
 * from then on.
 */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include "base/error.h"

#define BPE_TOKEN_USED    1 /* the id exists */
#define BPE_TOKEN_ADDED   2 /* an added token: found in text, never made by merging */
#define BPE_TOKEN_SPECIAL 4

struct bpe_token {
    uint32_t offset, len; /* its bytes in bpe.bytes */
    uint8_t flags;
};

struct bpe_merge {
    int32_t left, right; /* left -1: free slot */
    int32_t result;
    uint32_t rank; /* place in the file: lower merges first */
};

struct bpe {
    struct bpe_token *tokens; /* [n_tokens], by id */
    int32_t n_tokens;
    uint8_t *bytes; /* [n_bytes] of all tokens */
    size_t n_bytes, cap_bytes;
    int32_t *vocab; /* [vocab_mask + 1] hash table of ids, -1: free slot */
    size_t vocab_mask;
    struct bpe_merge *merges; /* [merge_mask + 1] hash table by (left, right) */
    size_t merge_mask;
    uint32_t n_merges;
    int32_t byte_ids[256]; /* id of each single byte */
    bool ignore_merges;    /* a piece that is a token as a whole is not taken apart */
};

/* Room for ids 0..n_tokens-1 and n_merges merges; both come from the sizes of parsed arrays. */
int bpe_init(struct bpe *bpe, int32_t n_tokens, size_t n_merges, struct gyaru_error *err);
void bpe_release(struct bpe *bpe);

/* Undoes the printable spelling of bytes: writes at most `len` bytes to `out`, *n of them. False
 * if the name has a character outside the alphabet. */
bool bpe_decode_name(const char *name, size_t len, uint8_t *out, size_t *n);

/* A token of the vocabulary, spelled as in the file; one outside the alphabet stands for its own
 * UTF-8 and takes no part in merging. */
int bpe_add_token(struct bpe *bpe, const char *name, size_t len, int32_t id,
                  struct gyaru_error *err);

/* An added token with its plain text; its id may be one of the vocabulary's if the names agree. */
int bpe_add_added(struct bpe *bpe, const char *text, size_t len, int32_t id, bool special,
                  struct gyaru_error *err);

/* The next merge in order; names spelled as in the file. */
int bpe_add_merge(struct bpe *bpe, const char *left, size_t left_len, const char *right,
                  size_t right_len, struct gyaru_error *err);

/* Checks that every byte has a token, so that any text can be encoded. */
int bpe_finish(struct bpe *bpe, struct gyaru_error *err);

/* Id of the vocabulary's token with these raw bytes, -1 if there is none. */
int32_t bpe_find(const struct bpe *bpe, const uint8_t *bytes, size_t len);

/* The merge of two neighbours, or the free slot (left < 0) where it belongs. */
static inline struct bpe_merge *bpe_find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    size_t slot = (key ^ key >> 32) & bpe->merge_mask;
    for (; bpe->merges[slot].left >= 0; slot = (slot + 1) & bpe->merge_mask)
        if (bpe->merges[slot].left == left && bpe->merges[slot].right == right)
            break;
    return &bpe->merges[slot];
}

/* Growing array of ids and the memory that merging needs, kept from piece to piece. */
struct bpe_work {
    int32_t *ids; /* [n_ids], appended to */
    size_t n_ids, cap_ids;
    struct bpe_symbol *symbols; /* [cap_symbols] */
    size_t cap_symbols;
    uint64_t *heap; /* [cap_heap] of rank << 32 | position */
    size_t n_heap, cap_heap;
};

void bpe_work_release(struct bpe_work *work);
int bpe_push_id(struct bpe_work *work, int32_t id, struct gyaru_error *err);

/* Appends the ids of one piece of text. */
int bpe_encode(const struct bpe *bpe, const uint8_t *piece, size_t len, struct bpe_work *work,
               struct gyaru_error *err);

#endif
