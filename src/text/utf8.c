/* utf8.c - see utf8.h. The ranges are those of table 3-7 of the Unicode Standard. */
#include "text/utf8.h"

/* Bytes of the character that `lead` begins; 0 if it can begin none. */
static size_t char_size(uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 2;
    if (lead >= 0xe0 && lead <= 0xef)
        return 3;
    return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

/* May `byte` stand at `index` (1..3) of the character that `lead` begins? */
static bool may_follow(uint8_t lead, size_t index, uint8_t byte)
{
    uint8_t low = 0x80, high = 0xbf;
    if (index == 1) {
        if (lead == 0xe0)
            low = 0xa0; /* shorter forms exist */
        else if (lead == 0xed)
            high = 0x9f; /* surrogates */
        else if (lead == 0xf0)
            low = 0x90;
        else if (lead == 0xf4)
            high = 0x8f; /* past U+10FFFF */
    }
    return byte >= low && byte <= high;
}

static void put_replacement(struct str *out)
{
    str_append(out, "\xef\xbf\xbd", 3);
}

void utf8_stream_push(struct utf8_stream *stream, const uint8_t *bytes, size_t n, struct str *out)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = bytes[i];
        if (stream->n_pending) {
            uint8_t lead = stream->pending[0];
            if (may_follow(lead, stream->n_pending, byte)) {
                stream->pending[stream->n_pending++] = byte;
                if (stream->n_pending == char_size(lead)) {
                    str_append(out, stream->pending, stream->n_pending);
                    stream->n_pending = 0;
                }
                continue;
            }
            put_replacement(out);
            stream->n_pending = 0;
        }
        if (byte < 0x80)
            str_putc(out, (char)byte);
        else if (char_size(byte))
            stream->pending[stream->n_pending++] = byte;
        else
            put_replacement(out);
    }
}

bool utf8_stream_accepts(const struct utf8_stream *stream, const uint8_t *bytes, size_t n)
{
    size_t done = stream->n_pending; /* bytes of the character that is being read */
    uint8_t lead = done ? stream->pending[0] : 0;
    for (size_t i = 0; i < n; i++) {
        if (!done)
            lead = bytes[i];
        if (done ? !may_follow(lead, done, bytes[i]) : !char_size(lead))
            return false;
        done = ++done == char_size(lead) ? 0 : done;
    }
    return true;
}

void utf8_stream_finish(struct utf8_stream *stream, struct str *out)
{
    if (stream->n_pending)
        put_replacement(out);
    stream->n_pending = 0;
}

size_t utf8_valid_prefix(const char *text, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)text;
    size_t i = 0;
    while (i < len) {
        if (bytes[i] < 0x80) {
            i++;
            continue;
        }
        size_t size = char_size(bytes[i]);
        if (size == 0 || size > len - i)
            return i;
        for (size_t k = 1; k < size; k++)
            if (!may_follow(bytes[i], k, bytes[i + k]))
                return i;
        i += size;
    }
    return len;
}

bool utf8_valid(const char *text, size_t len)
{
    return utf8_valid_prefix(text, len) == len;
}
