/*
 * tokenizer_impl.h - the tokenizer's insides, for the files of this directory only.
 *
 * Constant once opened; encoding keeps its state in a struct bpe_work of the caller.
 */
#ifndef TEXT_TOKENIZER_IMPL_H
#define TEXT_TOKENIZER_IMPL_H

#include "text/bpe.h"
#include "text/template.h"
#include "text/pattern.h"
#include "text/tokenizer.h"

struct gyaru_tokenizer {
    struct bpe bpe;
    struct pattern *pattern; /* NULL: text is one piece */
    bool nfc;
    int32_t *added; /* [n_added] ids of added tokens, sorted by their bytes */
    size_t n_added;
    bool begins_added[256]; /* bytes with which an added token begins */
    struct template chat;
};

/* Fills everything but `chat` from DIR/tokenizer.json. On failure the caller releases. */
int tokenizer_load_json(const char *path, struct gyaru_tokenizer *t, struct gyaru_error *err);

/* Appends ids to work->ids. `text` must be valid UTF-8. */
int tokenizer_encode(const struct gyaru_tokenizer *t, const char *text, size_t len, bool special,
                     struct bpe_work *work, struct gyaru_error *err);

#endif
