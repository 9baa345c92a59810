/*
 * tokenizer.c - the "text" section of gyaru.h and tokenizer.h.
 *
 * Encoding, as the reference does it: added tokens are cut out of the raw text (longest first, only
 * if asked to); what lies between is normalised, split by the pattern, and merged piece by piece.
 */
#include "text/tokenizer.h"

#include "base/file.h"
#include "base/json.h"
#include "text/nfc.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG_LIMIT ((size_t)32 << 20) /* bytes of tokenizer_config.json */
#define TEXT_LIMIT   ((size_t)1 << 29)  /* bytes of one text: positions are int32_t */

/* ---- opening ------------------------------------------------------------------------------ */

/* The config names the added tokens once more; a reader that trusts it would add what
 * tokenizer.json lacks, so a difference is an error. */
static int check_added(const json_t *config, const struct gyaru_tokenizer *t, const char *path,
                       struct gyaru_error *err)
{
    json_t *added = json_object_get(config, "added_tokens_decoder");
    for (void *it = json_object_iter(added); it; it = json_object_iter_next(added, it)) {
        const json_t *token = json_object_iter_value(it);
        const char *content = json_string_value(json_object_get(token, "content"));
        char *end;
        long id = strtol(json_object_iter_key(it), &end, 10);
        if (*end || !content)
            return error_set(err, GYARU_FAILED,
                             "%s: added_tokens_decoder: '%.40s' is not an id with a content", path,
                             json_object_iter_key(it));
        int32_t ours = tokenizer_find_added(t, content);
        if (ours < 0 || ours != id)
            return error_set(err, GYARU_FAILED,
                             "%s: added_tokens_decoder: '%.60s' (%ld) is not in tokenizer.json",
                             path, content, id);
        if (tokenizer_is_special(t, ours) != json_is_true(json_object_get(token, "special")))
            return error_set(
                err, GYARU_FAILED,
                "%s: added_tokens_decoder: '%.60s' is special in one of the files only", path,
                content);
    }
    return 0;
}

static int open_parts(const char *dir, const char *json_path, const char *config_path,
                      struct gyaru_tokenizer *t, struct gyaru_error *err)
{
    if (tokenizer_load_json(json_path, t, err))
        return -1;
    json_t *config = json_parse_file(config_path, CONFIG_LIMIT, err);
    if (!config)
        return -1;
    int rc = json_is_object(config)
                 ? 0
                 : error_set(err, GYARU_FAILED, "%s: expected an object", config_path);
    if (!rc)
        rc = check_added(config, t, config_path, err);
    if (!rc)
        rc = template_open(dir, config, &t->chat, err);
    if (!rc && t->chat.usable &&
        (tokenizer_find_added(t, CHAT_IM_START) < 0 || tokenizer_find_added(t, CHAT_IM_END) < 0)) {
        t->chat.usable = false;
        error_set(&t->chat.why_not, GYARU_FAILED, "%s: no added tokens %s and %s", json_path,
                  CHAT_IM_START, CHAT_IM_END);
    }
    json_decref(config);
    return rc;
}

int gyaru_tokenizer_open(const char *dir, struct gyaru_tokenizer **out, struct gyaru_error *err)
{
    struct gyaru_tokenizer *t = calloc(1, sizeof *t);
    char *json_path = file_join(dir, "tokenizer.json");
    char *config_path = file_join(dir, "tokenizer_config.json");
    int rc = t && json_path && config_path ? open_parts(dir, json_path, config_path, t, err)
                                           : error_memory(err, sizeof *t, "a tokenizer");
    free(json_path);
    free(config_path);
    if (rc) {
        gyaru_tokenizer_close(t);
        return -1;
    }
    *out = t;
    return 0;
}

void gyaru_tokenizer_close(struct gyaru_tokenizer *t)
{
    if (!t)
        return;
    bpe_release(&t->bpe);
    pattern_free(t->pattern);
    free(t->added);
    template_release(&t->chat);
    free(t);
}

/* ---- looking up --------------------------------------------------------------------------- */

int32_t gyaru_tokenizer_size(const struct gyaru_tokenizer *t)
{
    return t->bpe.n_tokens;
}

int tokenizer_bytes(const struct gyaru_tokenizer *t, int32_t id, const uint8_t **bytes, size_t *n)
{
    if (id < 0 || id >= t->bpe.n_tokens || !t->bpe.tokens[id].flags)
        return -1;
    *bytes = t->bpe.bytes + t->bpe.tokens[id].offset;
    *n = t->bpe.tokens[id].len;
    return 0;
}

bool tokenizer_is_special(const struct gyaru_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->bpe.n_tokens && t->bpe.tokens[id].flags & BPE_TOKEN_SPECIAL;
}

const char *tokenizer_template_sha256(const struct gyaru_tokenizer *t)
{
    return t->chat.sha256;
}

/* Narrows [*low, *high) of the sorted added tokens, which agree in `at` bytes, to those whose next
 * byte is `byte`. */
static void narrow(const struct gyaru_tokenizer *t, size_t *low, size_t *high, size_t at,
                   uint8_t byte)
{
    size_t bounds[2];
    for (int side = 0; side < 2; side++) {
        size_t a = *low, b = *high;
        while (a < b) {
            size_t middle = a + (b - a) / 2;
            const struct bpe_token *token = &t->bpe.tokens[t->added[middle]];
            /* One that ends here sorts before all that go on. */
            int next = at < token->len ? t->bpe.bytes[token->offset + at] : -1;
            if (next < byte + side)
                a = middle + 1;
            else
                b = middle;
        }
        bounds[side] = a;
    }
    *low = bounds[0];
    *high = bounds[1];
}

/* The longest added token at the start of the text: its id, or -1. */
static int32_t match_added(const struct gyaru_tokenizer *t, const char *text, size_t len,
                           size_t *used)
{
    size_t low = 0, high = t->n_added;
    int32_t found = -1;
    if (len == 0 || !t->begins_added[(uint8_t)text[0]])
        return -1;
    for (size_t at = 0; at < len && low < high; at++) {
        narrow(t, &low, &high, at, (uint8_t)text[at]);
        if (low < high && t->bpe.tokens[t->added[low]].len == at + 1) {
            found = t->added[low];
            *used = at + 1;
        }
    }
    return found;
}

int32_t tokenizer_find_added(const struct gyaru_tokenizer *t, const char *text)
{
    size_t len = strlen(text), used = 0;
    int32_t id = match_added(t, text, len, &used);
    return id >= 0 && used == len ? id : -1;
}

/* ---- encoding ----------------------------------------------------------------------------- */

struct encoding {
    const struct gyaru_tokenizer *tokenizer;
    struct bpe_work *work;
};

static int encode_piece(void *user, const char *piece, size_t len, struct gyaru_error *err)
{
    struct encoding *e = user;
    return bpe_encode(&e->tokenizer->bpe, (const uint8_t *)piece, len, e->work, err);
}

/* Text without added tokens. */
static int encode_ordinary(const struct gyaru_tokenizer *t, const char *text, size_t len,
                           struct bpe_work *work, struct gyaru_error *err)
{
    struct encoding e = {t, work};
    char *normal = NULL;
    if (t->nfc && nfc(text, len, &normal, &len, err))
        return -1;
    if (normal)
        text = normal;
    int rc = t->pattern ? pattern_split(t->pattern, text, len, encode_piece, &e, err)
                        : encode_piece(&e, text, len, err);
    free(normal);
    return rc;
}

int tokenizer_encode(const struct gyaru_tokenizer *t, const char *text, size_t len, bool special,
                     struct bpe_work *work, struct gyaru_error *err)
{
    size_t begin = 0, at = 0, used;
    while (special && at < len) {
        int32_t id = match_added(t, text + at, len - at, &used);
        if (id < 0) {
            at++;
            continue;
        }
        if (encode_ordinary(t, text + begin, at - begin, work, err) || bpe_push_id(work, id, err))
            return -1;
        at += used;
        begin = at;
    }
    return encode_ordinary(t, text + begin, len - begin, work, err);
}

/* Hands the ids over to the caller, who gets an array even if it is empty. */
static int take_ids(struct bpe_work *work, int rc, int32_t **ids, size_t *n_ids,
                    struct gyaru_error *err)
{
    if (!rc && !work->ids && !(work->ids = malloc(sizeof *work->ids)))
        rc = error_memory(err, sizeof *work->ids, "tokens");
    if (!rc) {
        *ids = work->ids;
        *n_ids = work->n_ids;
        work->ids = NULL;
    }
    bpe_work_release(work);
    return rc;
}

int gyaru_tokenize(const struct gyaru_tokenizer *t, const char *text, size_t len, bool special,
                   int32_t **ids, size_t *n_ids, struct gyaru_error *err)
{
    if (len > TEXT_LIMIT)
        return error_set(err, GYARU_FAILED, "text of %zu bytes is longer than %zu", len,
                         TEXT_LIMIT);
    size_t valid = utf8_valid_prefix(text, len);
    if (valid < len)
        return error_set(err, GYARU_FAILED, "text: invalid UTF-8 at byte %zu", valid);
    struct bpe_work work = {0};
    int rc = tokenizer_encode(t, text, len, special, &work, err);
    return take_ids(&work, rc, ids, n_ids, err);
}

int gyaru_detokenize(const struct gyaru_tokenizer *t, const int32_t *ids, size_t n_ids, char **text,
                     size_t *len, struct gyaru_error *err)
{
    struct str out = STR_INIT;
    struct utf8_stream stream = {{0}, 0};
    for (size_t i = 0; i < n_ids; i++) {
        const uint8_t *bytes;
        size_t n;
        if (tokenizer_bytes(t, ids[i], &bytes, &n)) {
            str_release(&out);
            return error_set(err, GYARU_FAILED,
                             "ids[%zu]: %d is no token of this tokenizer (ids 0 to %d)", i, ids[i],
                             t->bpe.n_tokens - 1);
        }
        utf8_stream_push(&stream, bytes, n, &out);
    }
    utf8_stream_finish(&stream, &out);
    size_t made = out.len;
    char *taken = str_take(&out);
    if (!taken)
        return error_memory(err, made, "text");
    *text = taken;
    *len = made;
    return 0;
}

/* ---- conversations ------------------------------------------------------------------------ */

int gyaru_chat_render(const struct gyaru_tokenizer *t, const struct gyaru_message *messages,
                      size_t n_messages, bool add_generation_prompt, char **text,
                      struct gyaru_error *err)
{
    return template_render(&t->chat, messages, n_messages, add_generation_prompt, text, err);
}

static int encode_part(void *user, bool marker, const char *text, size_t len,
                       struct gyaru_error *err)
{
    struct encoding *e = user;
    return tokenizer_encode(e->tokenizer, text, len, marker, e->work, err);
}

int gyaru_chat_encode(const struct gyaru_tokenizer *t, const struct gyaru_message *messages,
                      size_t n_messages, bool add_generation_prompt, int32_t **ids, size_t *n_ids,
                      struct gyaru_error *err)
{
    struct bpe_work work = {0};
    struct encoding e = {t, &work};
    int rc =
        template_walk(&t->chat, messages, n_messages, add_generation_prompt, encode_part, &e, err);
    return take_ids(&work, rc, ids, n_ids, err);
}
