/* wav.c - see wav.h. RIFF: a tag and a 32-bit length before every chunk, padded to two bytes. */
#include "base/wav.h"

#include <stdint.h>
#include <string.h>

#define HEAD_BYTES   44 /* of the files that wav_append() makes */
#define RATE_MAX     768000
#define CHANNELS_MAX 8

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int u16(const unsigned char *p)
{
    return p[0] | p[1] << 8;
}

static int refuse(struct gyaru_error *err, const char *why)
{
    return error_set(err, GYARU_FAILED, "no WAV file: %s", why);
}

static size_t frame_bytes(const struct wav *wav)
{
    return (size_t)wav->channels * (size_t)wav->bits / 8;
}

static int read_format(const unsigned char *chunk, size_t len, struct wav *wav,
                       struct gyaru_error *err)
{
    if (len < 16)
        return refuse(err, "its format is cut off");
    wav->format = u16(chunk);
    if (wav->format == 0xfffe && len >= 26) /* extensible: the real one stands further on */
        wav->format = u16(chunk + 24);
    wav->channels = u16(chunk + 2);
    uint32_t rate = u32(chunk + 4);
    wav->bits = u16(chunk + 14);
    if ((wav->format != 1 && wav->format != 3) || wav->channels < 1 ||
        wav->channels > CHANNELS_MAX || !rate || rate > RATE_MAX || wav->bits < 8 ||
        wav->bits > 64 || wav->bits % 8)
        return refuse(err, "its format is none that is known");
    wav->rate = (int)rate;
    return 0;
}

int wav_read(const void *bytes, size_t len, struct wav *wav, struct gyaru_error *err)
{
    const unsigned char *p = bytes;
    bool formatted = false;
    *wav = (struct wav){.data = NULL};
    if (len < 12 || memcmp(p, "RIFF", 4) || memcmp(p + 8, "WAVE", 4))
        return refuse(err, "it does not begin like one");
    for (size_t at = 12; len - at >= 8;) {
        const unsigned char *chunk = p + at;
        size_t size = u32(chunk + 4), left = len - at - 8;
        bool is_data = !memcmp(chunk, "data", 4);
        if (size > left && !is_data)
            return refuse(err, "a chunk is longer than the file");
        if (size > left)
            size = left;
        if (is_data && !formatted)
            return refuse(err, "the sound comes before its format");
        if (is_data) {
            wav->data = chunk + 8;
            wav->len = size - size % frame_bytes(wav);
            return 0;
        }
        if (!memcmp(chunk, "fmt ", 4)) {
            if (read_format(chunk + 8, size, wav, err))
                return -1;
            formatted = true;
        }
        at += 8 + size;
        if (size % 2 && at < len)
            at++;
    }
    return refuse(err, "there is no sound in it");
}

double wav_seconds(const struct wav *wav)
{
    return (double)(wav->len / frame_bytes(wav)) / wav->rate;
}

static void put(unsigned char *p, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(value >> (8 * i));
}

static void make_head(unsigned char head[HEAD_BYTES], const struct wav *wav)
{
    uint32_t frame = (uint32_t)frame_bytes(wav);
    memcpy(head, "RIFF\0\0\0\0WAVEfmt ", 16);
    put(head + 16, 16, 4);
    put(head + 20, (uint32_t)wav->format, 2);
    put(head + 22, (uint32_t)wav->channels, 2);
    put(head + 24, (uint32_t)wav->rate, 4);
    put(head + 28, (uint32_t)wav->rate * frame, 4);
    put(head + 32, frame, 2);
    put(head + 34, (uint32_t)wav->bits, 2);
    memcpy(head + 36, "data\0\0\0\0", 8);
}

int wav_append(struct str *out, const struct wav *wav, struct gyaru_error *err)
{
    unsigned char head[HEAD_BYTES];
    make_head(head, wav);
    if (!out->len)
        str_append(out, head, sizeof head);
    else if (memcmp(out->data + 20, head + 20, 16))
        return error_set(err, GYARU_FAILED, "two sounds of different formats cannot be joined");
    if (wav->len > UINT32_MAX - HEAD_BYTES - out->len)
        return error_set(err, GYARU_FAILED, "a WAV file cannot be longer than 4 GiB");
    str_append(out, wav->data, wav->len);
    if (str_failed(out))
        return error_memory(err, wav->len, "a sound");
    put((unsigned char *)out->data + 4, (uint32_t)(out->len - 8), 4);
    put((unsigned char *)out->data + 40, (uint32_t)(out->len - HEAD_BYTES), 4);
    return 0;
}
