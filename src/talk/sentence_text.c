/*
 * sentence_text.c - how a sentence is shown and how it is spoken.
 *
 * Models write for the eye: Markdown, addresses, pictures, a wave for a long vowel. A voice engine
 * would spell these out or stumble over them.
 */
#include "talk/sentence_impl.h"

#include <string.h>

struct texts {
    const char *raw;
    size_t len, at;
    bool japanese;
    struct str *shown, *spoken; /* spoken may be NULL */
    uint32_t last;              /* character that was spoken */
};

static bool is_kana(uint32_t c)
{
    return c >= 0x3041 && c <= 0x30ff && c != 0x30fb;
}

static bool is_kanji(uint32_t c)
{
    return (c >= 0x3400 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x20000 && c <= 0x3ffff) || (c >= 0x3005 && c <= 0x3007);
}

static bool is_alnum(uint32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Is there a sound to it? */
static bool is_sayable(uint32_t c)
{
    if (c < 0x80)
        return is_alnum(c);
    if (c == 0x30fc || c == 0xff70 || c == 0x30fb)
        return false;
    bool sign = (c >= 0xa0 && c <= 0xbf) || (c >= 0x2000 && c <= 0x2bff) ||
                (c >= 0x3000 && c <= 0x3004) || (c >= 0x3008 && c <= 0x3040) ||
                (c >= 0xff01 && c <= 0xff0f) || (c >= 0xff1a && c <= 0xff20) ||
                (c >= 0xff3b && c <= 0xff40) || (c >= 0xff5b && c <= 0xff65) || c >= 0xfff0;
    return !sign || is_kanji(c);
}

static void put(struct texts *t, const char *text, size_t len, bool shown, bool spoken)
{
    if (shown)
        str_append(t->shown, text, len);
    if (spoken && t->spoken)
        str_append(t->spoken, text, len);
}

/* A row of spaces and line ends is one space, at the edges nothing. */
static void put_space(struct texts *t)
{
    struct str *both[] = {t->shown, t->spoken};
    for (int i = 0; i < 2; i++) {
        if (both[i] && both[i]->len && both[i]->data[both[i]->len - 1] != ' ')
            str_putc(both[i], ' ');
    }
}

static void trim(struct str *text)
{
    while (text && text->len && text->data[text->len - 1] == ' ')
        text->data[--text->len] = '\0';
}

/* ---- pieces --------------------------------------------------------------------------------- */

/* An address is shown by its host and spoken by what it is. */
static bool put_url(struct texts *t)
{
    bool open;
    const char *url = t->raw + t->at;
    size_t n = sentence_url(url, t->len - t->at, &open);
    if (!n || (t->at && is_alnum((unsigned char)url[-1])))
        return false;
    const char *slashes = memmem(url, n, "://", 3);
    const char *host = slashes ? slashes + 3 : url;
    size_t len = 0, left = n - (size_t)(host - url);
    while (len < left && !strchr("/?#", host[len]))
        len++;
    const char *word = t->japanese ? "リンク" : "link";
    put(t, host, len, true, false);
    put(t, word, strlen(word), false, true);
    t->at += n;
    t->last = 0;
    return true;
}

/* [text](address): the text stays. */
static bool skip_link(struct texts *t)
{
    const char *at = t->raw + t->at;
    size_t left = t->len - t->at;
    const char *close = at[0] == ']' && left > 1 && at[1] == '(' ? memchr(at, ')', left) : NULL;
    if (close) {
        t->at += (size_t)(close - at) + 1;
        return true;
    }
    const char *end = at[0] == '[' ? memmem(at, left, "](", 2) : NULL;
    if (!end || !memchr(end, ')', left - (size_t)(end - at)))
        return false;
    t->at++;
    return true;
}

/* Marks at the beginning of a line: #, >, -, *, +. */
static void skip_line_marks(struct texts *t)
{
    size_t n = strspn(t->raw + t->at, "#>-*+");
    if (n && n < t->len - t->at && t->raw[t->at + n] == ' ')
        t->at += n + 1;
}

/* '*' and '_' that stand for emphasis, and every backtick. */
static bool is_mark(const struct texts *t)
{
    unsigned char c = (unsigned char)t->raw[t->at];
    if (c == '`')
        return true;
    if (c != '*' && c != '_')
        return false;
    unsigned char before = t->at ? (unsigned char)t->raw[t->at - 1] : ' ';
    unsigned char after = t->at + 1 < t->len ? (unsigned char)t->raw[t->at + 1] : ' ';
    bool between_words = is_alnum(before) && is_alnum(after);
    return !between_words && !(before == ' ' && after == ' ');
}

static void put_char(struct texts *t)
{
    size_t n;
    const char *at = t->raw + t->at;
    uint32_t c = sentence_char(at, t->len - t->at, &n);
    t->at += n;
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0x3000) {
        put_space(t);
        if (c == '\n')
            skip_line_marks(t);
    } else if (c < 0x20 || c == 0x7f) {
        return;
    } else if (sentence_is_picture(c) || c == 0x266a || c == 0x266b) {
        put(t, at, n, true, false);
    } else if ((c == 0x301c || c == 0xff5e) && (is_kana(t->last) || is_kanji(t->last))) {
        put(t, at, n, true, false);
        put(t, "ー", strlen("ー"), false, true);
        t->last = 0x30fc;
    } else {
        put(t, at, n, true, true);
        t->last = c;
    }
}

static bool any(const char *text, size_t len, bool (*is)(uint32_t))
{
    for (size_t at = 0, n; at < len; at += n) {
        if (is(sentence_char(text + at, len - at, &n)))
            return true;
    }
    return false;
}

static bool is_japanese(uint32_t c)
{
    return is_kana(c) || is_kanji(c);
}

void sentence_texts(const char *raw, size_t len, struct str *shown, struct str *spoken)
{
    struct texts t = {.raw = raw, .len = len, .shown = shown, .spoken = spoken};
    t.japanese = any(raw, len, is_japanese);
    skip_line_marks(&t);
    while (t.at < t.len) {
        bool open;
        size_t tag = sentence_tag(raw + t.at, len - t.at, &open);
        if (tag)
            t.at += tag;
        else if (is_mark(&t))
            t.at++;
        else if (!skip_link(&t) && !put_url(&t))
            put_char(&t);
    }
    trim(shown);
    trim(spoken);
    if (spoken && spoken->len && !any(spoken->data, spoken->len, is_sayable))
        str_clear(spoken);
}
