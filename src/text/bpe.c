/*
 * bpe.c - vocabulary and merges of bpe.h, as hash tables with open addressing.
 *
 * Tables are at least twice as large as what is put in, so that probing always ends.
 */
#include "text/bpe.h"

#include "base/size.h"

#include <stdlib.h>
#include <string.h>

/* Power of two that is at least 2 n. */
static size_t table_size(size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

int bpe_init(struct bpe *bpe, int32_t n_tokens, size_t n_merges, struct gyaru_error *err)
{
    *bpe = (struct bpe){0};
    size_t vocab_size = table_size((size_t)n_tokens), merge_size = table_size(n_merges);
    bpe->tokens = calloc((size_t)n_tokens + 1, sizeof *bpe->tokens);
    bpe->vocab = malloc(vocab_size * sizeof *bpe->vocab);
    bpe->merges = malloc(merge_size * sizeof *bpe->merges);
    if (!bpe->tokens || !bpe->vocab || !bpe->merges) {
        bpe_release(bpe);
        return error_memory(err, vocab_size * sizeof *bpe->vocab, "the vocabulary");
    }
    memset(bpe->vocab, 0xff, vocab_size * sizeof *bpe->vocab);
    memset(bpe->merges, 0xff, merge_size * sizeof *bpe->merges);
    bpe->n_tokens = n_tokens;
    bpe->vocab_mask = vocab_size - 1;
    bpe->merge_mask = merge_size - 1;
    return 0;
}

void bpe_release(struct bpe *bpe)
{
    free(bpe->tokens);
    free(bpe->bytes);
    free(bpe->vocab);
    free(bpe->merges);
    *bpe = (struct bpe){0};
}

/* ---- the printable alphabet --------------------------------------------------------------- */

/* The byte that a character stands for, -1 if none: printable Latin-1 bytes stand for themselves,
 * the other 68, in order, are U+0100..U+0143. */
static int byte_of_char(unsigned c)
{
    bool printable = (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad);
    if (printable)
        return (int)c;
    if (c < 0x100 || c > 0x143)
        return -1;
    unsigned n = c - 0x100;
    if (n <= 0x20)
        return (int)n;
    n -= 0x21;
    return n <= 0x21 ? (int)(0x7f + n) : 0xad;
}

bool bpe_decode_name(const char *name, size_t len, uint8_t *out, size_t *n)
{
    const uint8_t *in = (const uint8_t *)name;
    size_t made = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned c = in[i];
        if (c >= 0xc2 && c <= 0xdf && i + 1 < len)
            c = (c & 0x1f) << 6 | (in[++i] & 0x3f);
        else if (c >= 0x80)
            return false;
        int byte = byte_of_char(c);
        if (byte < 0)
            return false;
        out[made++] = (uint8_t)byte;
    }
    *n = made;
    return true;
}

/* ---- vocabulary --------------------------------------------------------------------------- */

static uint64_t hash_bytes(const uint8_t *bytes, size_t len)
{
    uint64_t hash = 0x9e3779b97f4a7c15u ^ len;
    while (len) {
        uint64_t word = 0;
        size_t take = len < 8 ? len : 8;
        memcpy(&word, bytes, take);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
        bytes += take;
        len -= take;
    }
    return hash;
}

/* The slot that holds the bytes, or the free one where they belong. */
static size_t vocab_slot(const struct bpe *bpe, const uint8_t *bytes, size_t len)
{
    size_t slot = hash_bytes(bytes, len) & bpe->vocab_mask;
    for (; bpe->vocab[slot] >= 0; slot = (slot + 1) & bpe->vocab_mask) {
        const struct bpe_token *token = &bpe->tokens[bpe->vocab[slot]];
        if (token->len == len && memcmp(bpe->bytes + token->offset, bytes, len) == 0)
            break;
    }
    return slot;
}

int32_t bpe_find(const struct bpe *bpe, const uint8_t *bytes, size_t len)
{
    return len ? bpe->vocab[vocab_slot(bpe, bytes, len)] : -1;
}

/* Room for `more` bytes at bpe->bytes + n_bytes. */
static int reserve_bytes(struct bpe *bpe, size_t more, struct gyaru_error *err)
{
    if (bpe->cap_bytes - bpe->n_bytes >= more)
        return 0;
    size_t cap = bpe->cap_bytes ? bpe->cap_bytes : 1 << 16;
    while (cap - bpe->n_bytes < more && cap < UINT32_MAX)
        cap *= 2;
    uint8_t *bytes = cap - bpe->n_bytes < more ? NULL : realloc(bpe->bytes, cap);
    if (!bytes)
        return error_memory(err, cap, "the vocabulary");
    bpe->bytes = bytes;
    bpe->cap_bytes = cap;
    return 0;
}

static int check_id(const struct bpe *bpe, const char *name, size_t len, int32_t id,
                    struct gyaru_error *err)
{
    if (id < 0 || id >= bpe->n_tokens)
        return error_set(err, GYARU_FAILED, "token '%.*s': id %d out of range", (int)len, name, id);
    return 0;
}

int bpe_add_token(struct bpe *bpe, const char *name, size_t len, int32_t id,
                  struct gyaru_error *err)
{
    if (check_id(bpe, name, len, id, err) || reserve_bytes(bpe, len, err))
        return -1;
    struct bpe_token *token = &bpe->tokens[id];
    if (token->flags)
        return error_set(err, GYARU_FAILED, "token '%.*s': id %d is taken by another token",
                         (int)len, name, id);
    uint8_t *bytes = bpe->bytes + bpe->n_bytes;
    size_t n;
    bool mergeable = bpe_decode_name(name, len, bytes, &n) && n > 0;
    if (!mergeable) {
        memcpy(bytes, name, len);
        n = len;
    }
    *token = (struct bpe_token){(uint32_t)bpe->n_bytes, (uint32_t)n, BPE_TOKEN_USED};
    bpe->n_bytes += n;
    if (mergeable)
        bpe->vocab[vocab_slot(bpe, bytes, n)] = id;
    return 0;
}

int bpe_add_added(struct bpe *bpe, const char *text, size_t len, int32_t id, bool special,
                  struct gyaru_error *err)
{
    if (check_id(bpe, text, len, id, err) || reserve_bytes(bpe, 2 * len, err))
        return -1;
    struct bpe_token *token = &bpe->tokens[id];
    uint8_t flags = BPE_TOKEN_USED | BPE_TOKEN_ADDED | (special ? BPE_TOKEN_SPECIAL : 0);
    uint8_t *bytes = bpe->bytes + bpe->n_bytes;
    size_t n;
    int32_t same = bpe_decode_name(text, len, bytes, &n) ? bpe_find(bpe, bytes, n) : -1;
    bool in_vocab = same == id;
    if (same < 0 && token->flags == BPE_TOKEN_USED) /* not spelled in the alphabet */
        in_vocab = token->len == len && memcmp(bpe->bytes + token->offset, text, len) == 0;
    if ((token->flags && !in_vocab) || token->flags & BPE_TOKEN_ADDED || (same >= 0 && same != id))
        return error_set(err, GYARU_FAILED,
                         "added token '%.*s': id %d does not agree with the vocabulary or another "
                         "added token",
                         (int)len, text, id);
    if (in_vocab) {
        /* The entry keeps the bytes by which the vocabulary finds it: for the ASCII names in use
         * they are the text itself. */
        if (token->len != len || memcmp(bpe->bytes + token->offset, text, len) != 0)
            return error_set(err, GYARU_FAILED,
                             "added token '%.*s': the vocabulary's token %d stands for other bytes",
                             (int)len, text, id);
        token->flags = flags;
        return 0;
    }
    memcpy(bytes, text, len);
    *token = (struct bpe_token){(uint32_t)bpe->n_bytes, (uint32_t)len, flags};
    bpe->n_bytes += len;
    return 0;
}

/* ---- merges ------------------------------------------------------------------------------- */

int bpe_add_merge(struct bpe *bpe, const char *left, size_t left_len, const char *right,
                  size_t right_len, struct gyaru_error *err)
{
    if (reserve_bytes(bpe, left_len + right_len, err))
        return -1;
    /* The scratch lies behind the tokens' bytes: both halves side by side are the result. */
    uint8_t *bytes = bpe->bytes + bpe->n_bytes;
    size_t n_left = 0, n_right = 0;
    int32_t a = -1, b = -1, result = -1;
    if (bpe_decode_name(left, left_len, bytes, &n_left) &&
        bpe_decode_name(right, right_len, bytes + n_left, &n_right)) {
        a = bpe_find(bpe, bytes, n_left);
        b = bpe_find(bpe, bytes + n_left, n_right);
        result = bpe_find(bpe, bytes, n_left + n_right);
    }
    const char *wrong = NULL;
    if (a < 0 || b < 0)
        wrong = "names a token that the vocabulary lacks";
    else if (result < 0)
        wrong = "makes a token that the vocabulary lacks";
    else if (bpe->tokens[result].flags & BPE_TOKEN_ADDED)
        wrong = "makes an added token out of ordinary text";
    if (wrong)
        return error_set(err, GYARU_FAILED, "merge %u ('%.*s' '%.*s') %s", bpe->n_merges,
                         (int)left_len, left, (int)right_len, right, wrong);
    struct bpe_merge *merge = bpe_find_merge(bpe, a, b);
    if (merge->left >= 0)
        return error_set(err, GYARU_FAILED, "merge %u ('%.*s' '%.*s') is there twice",
                         bpe->n_merges, (int)left_len, left, (int)right_len, right);
    *merge = (struct bpe_merge){a, b, result, bpe->n_merges++};
    return 0;
}

int bpe_finish(struct bpe *bpe, struct gyaru_error *err)
{
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        bpe->byte_ids[i] = bpe_find(bpe, &byte, 1);
        if (bpe->byte_ids[i] < 0)
            return error_set(err, GYARU_FAILED,
                             "the vocabulary has no token for the byte 0x%02x: not a byte-level "
                             "vocabulary",
                             i);
        if (bpe->tokens[bpe->byte_ids[i]].flags & BPE_TOKEN_SPECIAL)
            return error_set(err, GYARU_FAILED, "the token of the byte 0x%02x is marked special",
                             i);
    }
    return 0;
}
