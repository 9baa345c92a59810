/*
 * tokenizer.h - what the rest of the library needs of a tokenizer beyond gyaru.h.
 */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "base/error.h"

/* The bytes a token stands for (added tokens: their text); valid while the tokenizer is open.
 * Returns -1, without message, for an id past the tokenizer or an unused one. */
int tokenizer_bytes(const struct gyaru_tokenizer *tokenizer, int32_t id, const uint8_t **bytes,
                    size_t *n);

/* Is it an added token marked special? */
bool tokenizer_is_special(const struct gyaru_tokenizer *tokenizer, int32_t id);

/* Id of an added token, e.g. "<|im_end|>"; -1 if there is none. */
int32_t tokenizer_find_added(const struct gyaru_tokenizer *tokenizer, const char *text);

/* SHA-256 of the chat template (hex). */
const char *tokenizer_template_sha256(const struct gyaru_tokenizer *tokenizer);

#endif
