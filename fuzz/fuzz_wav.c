/*
 * fuzz_wav.c - an accepted sound lies within its bytes in whole frames; joined, it reads back as
 * what it was.
 *
 * The first byte says after how many 64ths of the rest a second file begins.
 */
#include "base/wav.h"
#include "feed.h"

#include <math.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static bool same_format(const struct wav *a, const struct wav *b)
{
    return a->format == b->format && a->channels == b->channels && a->rate == b->rate &&
           a->bits == b->bits;
}

static bool read_sound(const uint8_t *data, size_t size, struct wav *wav)
{
    struct gyaru_error err = {0};
    if (wav_read(data, size, wav, &err)) {
        FEED_CHECK_ERROR(err);
        return false;
    }
    size_t frame = (size_t)wav->channels * (size_t)wav->bits / 8;
    require(frame > 0 && wav->len % frame == 0);
    require(wav->data >= data && wav->len <= size && (size_t)(wav->data - data) <= size - wav->len);
    double seconds = wav_seconds(wav);
    require(isfinite(seconds) && seconds >= 0);
    return true;
}

/* Appends; what was there stays, and the whole is a file of both. */
static void join(struct str *out, const struct wav *wav)
{
    struct gyaru_error err = {0};
    struct wav before = {0}, whole;
    size_t len = out->len;
    if (len)
        require(read_sound((const uint8_t *)out->data, len, &before));
    if (wav_append(out, wav, &err)) {
        FEED_CHECK_ERROR(err);
        require(out->len == len && !same_format(&before, wav));
        return;
    }
    require(read_sound((const uint8_t *)out->data, out->len, &whole));
    require(same_format(&whole, wav) && whole.len == before.len + wav->len);
    require(!wav->len || !memcmp(whole.data + before.len, wav->data, wav->len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str out = STR_INIT;
    struct wav wav;
    if (!size)
        return 0;
    size_t first = (size - 1) * (data[0] % 64u + 1) / 64;
    if (read_sound(data + 1, first, &wav)) {
        join(&out, &wav);
        join(&out, &wav);
    }
    if (read_sound(data + 1 + first, size - 1 - first, &wav))
        join(&out, &wav);
    str_release(&out);
    return 0;
}
