/*
 * fuzz_sentence.c - sentences of any text are valid UTF-8, nothing is left over, and where they end
 * does not depend on the pieces in which the text came.
 *
 * The first byte says how large the pieces are; bytes that are no UTF-8 become question marks, as
 * no others reach the splitter.
 */
#include "feed.h"
#include "talk/sentence.h"
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

#define LONGEST 1024 /* bytes looked at: more of them take time and find no more */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static size_t char_len(const char *text, size_t len)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &c);
    return n > 0 ? (size_t)n : 0;
}

static void check_text(const struct str *text)
{
    require(!str_failed(text));
    require(!text->len || utf8_valid(text->data, text->len));
}

/* Takes what is complete; one line for each form of a sentence. */
static void take(struct sentences *s, bool end, struct str *lines)
{
    struct sentence sentence;
    while (sentences_next(s, end, &sentence)) {
        check_text(&sentence.shown);
        check_text(&sentence.spoken);
        str_append(lines, sentence.shown.data, sentence.shown.len);
        str_putc(lines, '\n');
        str_append(lines, sentence.spoken.data, sentence.spoken.len);
        str_putc(lines, '\n');
        sentence_release(&sentence);
    }
}

/* In pieces of so many characters. */
static void split(const char *text, size_t len, size_t chars, struct str *lines)
{
    struct sentences s;
    struct str shown = STR_INIT;
    sentences_init(&s);
    for (size_t at = 0; at < len;) {
        size_t n = 0;
        for (size_t i = 0; i < chars && at + n < len; i++)
            n += char_len(text + at + n, len - at - n);
        sentences_feed(&s, text + at, n);
        at += n;
        take(&s, false, lines);
        sentences_partial(&s, &shown);
        check_text(&shown);
    }
    take(&s, true, lines);
    require(!s.raw.len && !str_failed(&s.raw));
    str_release(&shown);
    sentences_release(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = STR_INIT, whole = STR_INIT, pieces = STR_INIT;
    if (!size)
        return 0;
    size = size < LONGEST ? size : LONGEST;
    for (size_t at = 1; at < size;) {
        size_t n = data[at] ? char_len((const char *)data + at, size - at) : 0;
        str_append(&text, n ? (const char *)data + at : "?", n ? n : 1);
        at += n ? n : 1;
    }
    split(text.data, text.len, SIZE_MAX, &whole);
    split(text.data, text.len, data[0] % 16u + 1, &pieces);
    require(whole.len == pieces.len && (!whole.len || !memcmp(whole.data, pieces.data, whole.len)));
    str_release(&text);
    str_release(&whole);
    str_release(&pieces);
    return 0;
}
