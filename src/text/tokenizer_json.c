/*
 * tokenizer_json.c - tokenizer.json of the Hugging Face tokenizers library -> struct
 * gyaru_tokenizer.
 *
 * Understood is what Qwen2-family files use: normaliser NFC or none; pre-tokenizer Split by a
 * regular expression (isolated) followed by ByteLevel, or ByteLevel alone; model BPE over bytes;
 * decoder and post-processor ByteLevel; added tokens without stripping. Whatever else would change
 * the ids is refused by name, unknown fields included. "truncation" and "padding" are not part of
 * what a text means (the callers of that library set them anew for each call) and are ignored.
 */
#include "text/tokenizer_impl.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((size_t)128 << 20) /* bytes; the largest in use have about 20 MB */

/* Ids may leave holes, but a small file must not ask for a large table. */
#define MAX_HOLES (1 << 16)

/* What the reference's ByteLevel splits by when it is asked to (the pattern of GPT-2). */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
                                   " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- checking fields ---------------------------------------------------------------------- */

static int refuse(struct gyaru_error *err, const char *where, const char *what)
{
    return error_set(err, GYARU_FAILED, "%s: %s", where, what);
}

/* Is `value` an object whose keys are all in the NULL-terminated list? */
static int check_object(const json_t *value, const char *where, const char *const *known,
                        struct gyaru_error *err)
{
    if (!json_is_object(value))
        return refuse(err, where, "expected an object");
    for (void *it = json_object_iter((json_t *)value); it;
         it = json_object_iter_next((json_t *)value, it)) {
        const char *key = json_object_iter_key(it);
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (!known[i])
            return error_set(err, GYARU_FAILED, "%s: '%.60s' is not supported", where, key);
    }
    return 0;
}

static bool has_type(const json_t *value, const char *type)
{
    const char *text = json_string_value(json_object_get(value, "type"));
    return text && strcmp(text, type) == 0;
}

static int refuse_type(const json_t *value, const char *where, struct gyaru_error *err)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    return error_set(err, GYARU_FAILED, "%s: type '%.60s' is not supported", where,
                     type ? type : "(none)");
}

/* A field that must be absent, null, or false. */
static int check_off(const json_t *object, const char *key, const char *where,
                     struct gyaru_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value) || json_is_false(value))
        return 0;
    return error_set(err, GYARU_FAILED, "%s: '%s' is not supported unless false", where, key);
}

/* A boolean with the library's default; -1 if it is something else. */
static int get_bool(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return otherwise;
    return json_is_boolean(value) ? json_is_true(value) : -1;
}

/* ---- normaliser, pre-tokenizer, decoder --------------------------------------------------- */

static int read_normalizer(const json_t *value, struct gyaru_tokenizer *t, struct gyaru_error *err)
{
    static const char *const known[] = {"type", NULL};
    if (!value || json_is_null(value))
        return 0;
    if (check_object(value, "normalizer", known, err))
        return -1;
    if (!has_type(value, "NFC"))
        return refuse_type(value, "normalizer", err);
    t->nfc = true;
    return 0;
}

/* A ByteLevel step; *splits: it is also to split, by GPT-2's pattern. */
static int read_byte_level(const json_t *value, const char *where, bool *splits,
                           struct gyaru_error *err)
{
    static const char *const known[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                        NULL};
    if (check_object(value, where, known, err))
        return -1;
    if (!has_type(value, "ByteLevel"))
        return refuse_type(value, where, err);
    int use_regex = get_bool(value, "use_regex", true);
    if (use_regex < 0 || get_bool(value, "add_prefix_space", true) < 0)
        return refuse(err, where, "a ByteLevel field is not a boolean");
    *splits = use_regex;
    return 0;
}

static int read_split(const json_t *value, const char *where, struct gyaru_tokenizer *t,
                      struct gyaru_error *err)
{
    static const char *const known[] = {"type", "pattern", "behavior", "invert", NULL};
    static const char *const known_pattern[] = {"Regex", NULL};
    if (check_object(value, where, known, err))
        return -1;
    if (!has_type(value, "Split"))
        return refuse_type(value, where, err);
    const json_t *pattern = json_object_get(value, "pattern");
    if (check_object(pattern, "pre_tokenizer.pattern", known_pattern, err))
        return -1;
    const json_t *regex = json_object_get(pattern, "Regex");
    const char *behavior = json_string_value(json_object_get(value, "behavior"));
    if (!json_is_string(regex))
        return refuse(err, where, "'pattern.Regex' must be a string");
    if (!behavior || strcmp(behavior, "Isolated") != 0)
        return refuse(err, where, "'behavior' is not supported unless \"Isolated\"");
    if (check_off(value, "invert", where, err))
        return -1;
    return pattern_new(json_string_value(regex), json_string_length(regex), &t->pattern, err);
}

static int read_pre_tokenizer(const json_t *value, struct gyaru_tokenizer *t,
                              struct gyaru_error *err)
{
    static const char where[] = "pre_tokenizer";
    static const char *const known[] = {"type", "pretokenizers", NULL};
    const json_t *byte_level = value;
    if (has_type(value, "Sequence")) {
        if (check_object(value, where, known, err))
            return -1;
        const json_t *steps = json_object_get(value, "pretokenizers");
        size_t n = json_array_size(steps);
        if (n < 1 || n > 2)
            return refuse(err, where, "only the sequence Split, ByteLevel is supported");
        if (n == 2 && read_split(json_array_get(steps, 0), where, t, err))
            return -1;
        byte_level = json_array_get(steps, n - 1);
    }
    bool splits;
    if (read_byte_level(byte_level, where, &splits, err))
        return -1;
    if (get_bool(byte_level, "add_prefix_space", true))
        return refuse(err, where, "'add_prefix_space' is not supported unless false");
    if (splits && t->pattern)
        return refuse(err, where, "'use_regex' after a Split is not supported");
    if (!splits)
        return 0;
    return pattern_new(gpt2_pattern, strlen(gpt2_pattern), &t->pattern, err);
}

/* The post-processor may be absent: ByteLevel there only touches offsets. */
static int read_decoders(const json_t *root, struct gyaru_error *err)
{
    bool unused;
    const json_t *post = json_object_get(root, "post_processor");
    if (post && !json_is_null(post) && read_byte_level(post, "post_processor", &unused, err))
        return -1;
    return read_byte_level(json_object_get(root, "decoder"), "decoder", &unused, err);
}

/* ---- model -------------------------------------------------------------------------------- */

/* An affix that must be null or empty. */
static int check_no_affix(const json_t *model, const char *key, struct gyaru_error *err)
{
    const json_t *value = json_object_get(model, key);
    if (!value || json_is_null(value) || (json_is_string(value) && !json_string_length(value)))
        return 0;
    return error_set(err, GYARU_FAILED, "model: '%s' is not supported unless empty", key);
}

static int check_model(const json_t *model, bool *ignore_merges, struct gyaru_error *err)
{
    static const char *const known[] = {"type",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "vocab",
                                        "merges",
                                        NULL};
    if (check_object(model, "model", known, err))
        return -1;
    if (!has_type(model, "BPE"))
        return refuse_type(model, "model", err);
    const json_t *dropout = json_object_get(model, "dropout");
    if (json_is_number(dropout) && json_number_value(dropout) == 0.0)
        dropout = NULL;
    if (dropout && !json_is_null(dropout))
        return refuse(err, "model", "'dropout' is not supported unless 0");
    /* unk_token and fuse_unk speak of bytes without a token; bpe_finish() sees that all have one.
     */
    if (check_no_affix(model, "continuing_subword_prefix", err) ||
        check_no_affix(model, "end_of_word_suffix", err) ||
        check_off(model, "byte_fallback", "model", err))
        return -1;
    int ignore = get_bool(model, "ignore_merges", false);
    if (ignore < 0)
        return refuse(err, "model", "'ignore_merges' must be a boolean");
    *ignore_merges = ignore;
    if (!json_is_object(json_object_get(model, "vocab")))
        return refuse(err, "model", "'vocab' must be an object");
    if (!json_is_array(json_object_get(model, "merges")))
        return refuse(err, "model", "'merges' must be an array");
    return 0;
}

/* Widens *highest to an id of the file; `limit` keeps tables in proportion to the file. */
static int see_id(const json_t *id, const char *name, json_int_t limit, json_int_t *highest,
                  struct gyaru_error *err)
{
    json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
    if (value < 0 || value >= limit)
        return error_set(err, GYARU_FAILED,
                         "token '%.60s': its id must be a whole number from 0 to %lld", name,
                         (long long)limit - 1);
    if (value > *highest)
        *highest = value;
    return 0;
}

static int count_ids(const json_t *vocab, const json_t *added, int32_t *n, struct gyaru_error *err)
{
    json_int_t highest = -1;
    json_int_t limit = (json_int_t)(json_object_size(vocab) + json_array_size(added)) + MAX_HOLES;
    for (void *it = json_object_iter((json_t *)vocab); it;
         it = json_object_iter_next((json_t *)vocab, it))
        if (see_id(json_object_iter_value(it), json_object_iter_key(it), limit, &highest, err))
            return -1;
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const char *content = json_string_value(json_object_get(token, "content"));
        if (!content)
            return error_set(err, GYARU_FAILED, "added_tokens[%zu]: 'content' must be a string", i);
        if (see_id(json_object_get(token, "id"), content, limit, &highest, err))
            return -1;
    }
    *n = (int32_t)(highest + 1);
    return 0;
}

static int read_vocab(const json_t *vocab, struct bpe *bpe, struct gyaru_error *err)
{
    for (void *it = json_object_iter((json_t *)vocab); it;
         it = json_object_iter_next((json_t *)vocab, it)) {
        int32_t id = (int32_t)json_integer_value(json_object_iter_value(it));
        if (bpe_add_token(bpe, json_object_iter_key(it), json_object_iter_key_len(it), id, err))
            return -1;
    }
    return 0;
}

/* "left right", or ["left", "right"]. */
static int read_merge(const json_t *merge, size_t i, struct bpe *bpe, struct gyaru_error *err)
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        size_t len = json_string_length(merge);
        if (space && !strchr(space + 1, ' '))
            return bpe_add_merge(bpe, text, (size_t)(space - text), space + 1,
                                 len - (size_t)(space + 1 - text), err);
    } else if (json_array_size(merge) == 2) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(left) && json_is_string(right))
            return bpe_add_merge(bpe, json_string_value(left), json_string_length(left),
                                 json_string_value(right), json_string_length(right), err);
    }
    return error_set(err, GYARU_FAILED, "model: merges[%zu] is not a pair of tokens", i);
}

static int read_merges(const json_t *merges, struct bpe *bpe, struct gyaru_error *err)
{
    for (size_t i = 0; i < json_array_size(merges); i++)
        if (read_merge(json_array_get(merges, i), i, bpe, err))
            return -1;
    return bpe_finish(bpe, err);
}

/* ---- added tokens ------------------------------------------------------------------------- */

static int read_added_token(const json_t *token, size_t i, struct bpe *bpe, struct gyaru_error *err)
{
    static const char *const known[] = {"id",     "content",    "single_word", "lstrip",
                                        "rstrip", "normalized", "special",     NULL};
    static const char *const off[] = {"single_word", "lstrip", "rstrip", "normalized"};
    const json_t *content = json_object_get(token, "content");
    const char *text = json_string_value(content);
    char where[120];
    snprintf(where, sizeof where, "added token '%.80s'", text);
    if (check_object(token, where, known, err))
        return -1;
    for (size_t k = 0; k < sizeof off / sizeof *off; k++)
        if (check_off(token, off[k], where, err))
            return -1;
    int special = get_bool(token, "special", false);
    if (special < 0)
        return refuse(err, where, "'special' must be a boolean");
    if (json_string_length(content) == 0)
        return error_set(err, GYARU_FAILED, "added_tokens[%zu]: its text is empty", i);
    return bpe_add_added(bpe, text, json_string_length(content),
                         (int32_t)json_integer_value(json_object_get(token, "id")), special, err);
}

static int compare_added(const void *a, const void *b, void *arg)
{
    const struct bpe *bpe = arg;
    const struct bpe_token *x = &bpe->tokens[*(const int32_t *)a];
    const struct bpe_token *y = &bpe->tokens[*(const int32_t *)b];
    size_t common = x->len < y->len ? x->len : y->len;
    int order = memcmp(bpe->bytes + x->offset, bpe->bytes + y->offset, common);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static int read_added(const json_t *added, struct gyaru_tokenizer *t, struct gyaru_error *err)
{
    size_t n = json_array_size(added);
    t->added = calloc(n + 1, sizeof *t->added);
    if (!t->added)
        return error_memory(err, n * sizeof *t->added, "added tokens");
    for (size_t i = 0; i < n; i++) {
        const json_t *token = json_array_get(added, i);
        if (read_added_token(token, i, &t->bpe, err))
            return -1;
        t->added[i] = (int32_t)json_integer_value(json_object_get(token, "id"));
    }
    t->n_added = n;
    qsort_r(t->added, n, sizeof *t->added, compare_added, &t->bpe);
    for (size_t i = 0; i < n; i++) {
        const struct bpe_token *token = &t->bpe.tokens[t->added[i]];
        if (i && compare_added(&t->added[i - 1], &t->added[i], &t->bpe) == 0)
            return error_set(err, GYARU_FAILED, "added token '%.*s' is there twice",
                             (int)token->len, t->bpe.bytes + token->offset);
        t->begins_added[t->bpe.bytes[token->offset]] = true;
    }
    return 0;
}

/* ---- the whole ---------------------------------------------------------------------------- */

static int read_root(const json_t *root, struct gyaru_tokenizer *t, struct gyaru_error *err)
{
    static const char *const known[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    if (check_object(root, "tokenizer", known, err))
        return -1;
    const json_t *version = json_object_get(root, "version");
    if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0") != 0))
        return refuse(err, "version", "only \"1.0\" is supported");
    const json_t *model = json_object_get(root, "model");
    const json_t *added = json_object_get(root, "added_tokens");
    if (added && !json_is_null(added) && !json_is_array(added))
        return refuse(err, "added_tokens", "expected an array");
    bool ignore_merges = false;
    if (check_model(model, &ignore_merges, err))
        return -1;
    const json_t *vocab = json_object_get(model, "vocab"),
                 *merges = json_object_get(model, "merges");
    int32_t n_tokens = 0;
    if (count_ids(vocab, added, &n_tokens, err) ||
        bpe_init(&t->bpe, n_tokens, json_array_size(merges), err))
        return -1;
    t->bpe.ignore_merges = ignore_merges;
    if (read_vocab(vocab, &t->bpe, err) || read_added(added, t, err) ||
        read_merges(merges, &t->bpe, err))
        return -1;
    if (read_normalizer(json_object_get(root, "normalizer"), t, err) ||
        read_pre_tokenizer(json_object_get(root, "pre_tokenizer"), t, err) ||
        read_decoders(root, err))
        return -1;
    return 0;
}

int tokenizer_load_json(const char *path, struct gyaru_tokenizer *t, struct gyaru_error *err)
{
    json_t *root = json_parse_file(path, FILE_LIMIT, err);
    if (!root)
        return -1;
    int rc = read_root(root, t, err);
    json_decref(root);
    return rc ? error_prefix(err, path) : 0;
}
