/*
 * wav.h - WAV files that somebody else made: checked, and joined.
 */
#ifndef BASE_WAV_H
#define BASE_WAV_H

#include "base/error.h"
#include "base/str.h"

struct wav {
    int format; /* 1: PCM, 3: float */
    int channels, rate, bits;
    const unsigned char *data; /* [len] whole frames, in the bytes that were read */
    size_t len;
};

/* Views into `bytes`. A data chunk that claims more than there is (streaming programs do not know
 * better) ends with the bytes. */
int wav_read(const void *bytes, size_t len, struct wav *wav, struct gyaru_error *err);

/* Appends the sound to *out, which is empty or a file made by this function, of the same format. */
int wav_append(struct str *out, const struct wav *wav, struct gyaru_error *err);

/* Seconds that it lasts. */
double wav_seconds(const struct wav *wav);

#endif
