/*
 * nfc.h - Unicode normalisation form C, in linear time.
 */
#ifndef TEXT_NFC_H
#define TEXT_NFC_H

#include "base/error.h"

/* NFC of valid UTF-8 (caller frees). *out is NULL when the text is plain ASCII, which is its own
 * normal form. */
int nfc(const char *text, size_t len, char **out, size_t *out_len, struct gyaru_error *err);

#endif
