/*
 * sentence.c - see sentence.h: where sentences end. sentence_text.c says how they look and sound.
 *
 * find_end() reads the waiting text from its beginning every time; it is short, because whatever
 * is complete has left. It decides only on what no later text can change, otherwise it waits.
 */
#include "talk/sentence_impl.h"

#include <string.h>

#define CODE_MAX 160 /* bytes of `code` inside of a sentence */
#define URL_MAX  2048
#define SONG_MIN 16 /* width after which a note or a star ends a sentence */

void sentences_init(struct sentences *s)
{
    *s = (struct sentences){.raw = STR_INIT};
}

void sentences_clear(struct sentences *s)
{
    str_clear(&s->raw);
    s->fenced = false;
}

void sentences_release(struct sentences *s)
{
    str_release(&s->raw);
}

void sentence_release(struct sentence *sentence)
{
    str_release(&sentence->shown);
    str_release(&sentence->spoken);
}

void sentences_feed(struct sentences *s, const char *text, size_t len)
{
    str_append(&s->raw, text, len);
}

/* ---- characters ----------------------------------------------------------------------------- */

uint32_t sentence_char(const char *text, size_t len, size_t *size)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n > len)
        n = len;
    uint32_t c = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (p[i] & 0x3f);
    *size = n;
    return c;
}

bool sentence_is_picture(uint32_t c)
{
    return (c >= 0x1f000 && c <= 0x1faff) || (c >= 0x2600 && c <= 0x27bf) || c == 0xfe0f ||
           c == 0x200d || (c >= 0x2b00 && c <= 0x2bff) || (c >= 0xe0020 && c <= 0xe007f);
}

static bool is_song(uint32_t c)
{
    return c == 0x266a || c == 0x266b || c == 0x2605 || c == 0x2606 || c == 0x2661 || c == 0x2665;
}

static bool is_in(uint32_t c, const char *set)
{
    for (size_t n; *set; set += n) {
        if (sentence_char(set, strlen(set), &n) == c)
            return true;
    }
    return false;
}

static bool is_full_stop(uint32_t c)
{
    return is_in(c, "。！？．｡‼⁇⁈⁉");
}

static bool is_ascii_stop(uint32_t c)
{
    return c == '.' || c == '!' || c == '?';
}

/* What stays with the sentence that ended before it. */
static bool is_closer(uint32_t c)
{
    return is_in(c, "」』）】〉》〕”’)\"'*_…〜～ー") || is_song(c) || sentence_is_picture(c);
}

static bool is_space(uint32_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0x3000;
}

/* ---- pieces that are skipped as one --------------------------------------------------------- */

static bool is_tag_char(unsigned char c, bool first)
{
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return letter || (!first && ((c >= '0' && c <= '9') || (c && strchr("_:.- ", c))));
}

size_t sentence_tag(const char *text, size_t len, bool *open)
{
    size_t n = 1;
    *open = false;
    if (!len || text[0] != '[')
        return 0;
    while (n < len && n <= SENTENCE_TAG_MAX && is_tag_char((unsigned char)text[n], n == 1))
        n++;
    if (n == len) {
        *open = n <= SENTENCE_TAG_MAX;
        return 0;
    }
    /* [text](address) is a link. */
    *open = n > 1 && text[n] == ']' && n + 1 == len;
    return n > 1 && text[n] == ']' && (*open || text[n + 1] != '(') ? n + 1 : 0;
}

static bool is_url_char(unsigned char c)
{
    return c > 0x20 && c < 0x7f && !strchr("<>\"`(){}[]\\|^", c);
}

size_t sentence_url(const char *text, size_t len, bool *open)
{
    static const char *const starts[] = {"https://", "http://", "www."};
    size_t n = 0;
    *open = false;
    for (size_t i = 0; i < sizeof starts / sizeof starts[0] && !n; i++) {
        size_t want = strlen(starts[i]), have = want < len ? want : len;
        if (!strncasecmp(text, starts[i], have)) {
            n = have == want ? want : 0;
            *open = have < want;
        }
    }
    if (!n)
        return 0;
    while (n < len && n < URL_MAX && is_url_char((unsigned char)text[n]))
        n++;
    *open = n == len;
    /* What ends the sentence is no part of the address. */
    while (n && strchr(".,!?;:'*_", text[n - 1]))
        n--;
    return n;
}

size_t sentence_code(const char *text, size_t len, bool *open)
{
    *open = false;
    if (!len || text[0] != '`')
        return 0;
    for (size_t n = 1; n < len; n++) {
        if (text[n] == '\n' || n >= CODE_MAX)
            return 0;
        if (text[n] == '`')
            return n > 1 ? n + 1 : 0;
    }
    *open = true;
    return 0;
}

/* ---- ends ----------------------------------------------------------------------------------- */

struct scan {
    const char *text;
    size_t len, at;
    bool end;    /* nothing follows */
    bool wait;   /* what follows decides */
    size_t soft; /* the last good place to cut; 0: none */
    int width;
};

/* Does the '.' before `at` belong to an abbreviation, an initial or the number of a list? */
static bool is_short_form(const char *text, size_t at)
{
    static const char *const forms[] = {"mr",  "mrs", "ms", "dr",  "st", "vs", "etc",
                                        "e.g", "i.e", "no", "fig", "jr", "sr", "prof"};
    size_t dot = at - 1, start = dot;
    while (start && (unsigned char)text[start - 1] < 0x80 &&
           !is_space((unsigned char)text[start - 1]))
        start--;
    size_t n = dot - start;
    if (n && n <= 3 && !start && strspn(text, "0123456789") == n)
        return true;
    if (n == 1)
        return text[start] >= 'A' && text[start] <= 'Z' && text[start] != 'I';
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strlen(forms[i]) == n && !strncasecmp(forms[i], text + start, n))
            return true;
    }
    return false;
}

/* After a stop at s->at - its size: takes the stops and closers that follow. True if the sentence
 * ends there. */
static bool stops(struct scan *s, uint32_t c)
{
    bool full = is_full_stop(c) || is_song(c);
    size_t first = s->at, n;
    while (s->at < s->len) {
        uint32_t next = sentence_char(s->text + s->at, s->len - s->at, &n);
        if (!is_full_stop(next) && !is_ascii_stop(next) && !is_closer(next))
            break;
        full = full || is_full_stop(next);
        s->at += n;
        s->width += next < 0x80 ? 1 : 2;
        if (s->width >= SENTENCE_WIDTH_MAX)
            return true;
    }
    if (s->at == s->len) {
        s->wait = !s->end;
        return s->end;
    }
    uint32_t next = sentence_char(s->text + s->at, s->len - s->at, &n);
    if (full && s->width >= SENTENCE_WIDTH_MIN)
        return true;
    if (full || s->width < SENTENCE_WIDTH_MIN)
        return false;
    if (c == '.' && s->at == first && is_short_form(s->text, first))
        return false;
    return is_space(next) || next >= 0x80;
}

/* Steps over a tag, an address or code; false if there is none here. */
static bool skip_piece(struct scan *s)
{
    static size_t (*const pieces[])(const char *, size_t, bool *) = {sentence_tag, sentence_url,
                                                                     sentence_code};
    static const int widths[] = {0, 8, 8};
    bool starts_word = !s->at || (unsigned char)s->text[s->at - 1] >= 0x80 ||
                       !is_tag_char((unsigned char)s->text[s->at - 1], true);
    for (size_t i = 0; i < 3; i++) {
        bool open;
        if (i == 1 && !starts_word)
            continue;
        size_t n = pieces[i](s->text + s->at, s->len - s->at, &open);
        if (open && !s->end) {
            s->wait = true;
            return true;
        }
        if (n) {
            s->at += n;
            s->width += widths[i];
            return true;
        }
    }
    return false;
}

/* A fence begins or may begin here: what stands before it is a sentence. */
static bool fence_here(struct scan *s)
{
    size_t left = s->len - s->at, n = strspn(s->text + s->at, "`");
    if (n >= 3)
        return true;
    s->wait = n && n == left && !s->end;
    return false;
}

/* One character; true if a sentence ends after it. */
static bool step(struct scan *s)
{
    size_t n;
    uint32_t c = sentence_char(s->text + s->at, s->len - s->at, &n);
    s->at += n;
    if (c == '\n')
        return true;
    s->width += is_space(c) ? 0 : c < 0x80 ? 1 : 2;
    if (is_full_stop(c) || is_ascii_stop(c) || (is_song(c) && s->width >= SONG_MIN))
        return stops(s, c);
    if (is_in(c, "、，,;；:：…‥♪☆★♡♥") || is_space(c)) {
        if (s->width >= SENTENCE_WIDTH_MAX / 4)
            s->soft = s->at;
    }
    return false;
}

/* Bytes of the first sentence; 0: it is not complete. */
static size_t find_end(const struct sentences *sentences, bool end)
{
    struct scan s = {.text = sentences->raw.data, .len = sentences->raw.len, .end = end};
    while (s.at < s.len) {
        if (fence_here(&s))
            return s.at;
        if (s.wait)
            return 0;
        bool ended = !skip_piece(&s) && step(&s);
        if (s.wait)
            return 0;
        if (ended)
            return s.at;
        if (s.width >= SENTENCE_WIDTH_MAX)
            return s.soft ? s.soft : s.at;
    }
    return end ? s.len : 0;
}

/* ---- taking them ---------------------------------------------------------------------------- */

static void drop(struct str *raw, size_t n)
{
    raw->len -= n;
    memmove(raw->data, raw->data + n, raw->len);
    raw->data[raw->len] = '\0';
}

/* Throws away what lies between fences, as far as it has come. */
static void drop_fenced(struct sentences *s)
{
    const char *text = s->raw.data;
    if (!s->fenced && !strncmp(text, "```", 3)) {
        s->fenced = true;
        drop(&s->raw, 3);
    }
    if (!s->fenced)
        return;
    const char *close = strstr(text, "```");
    if (close) {
        drop(&s->raw, (size_t)(close - text) + 3);
        s->fenced = false;
    } else if (s->raw.len > 2) {
        drop(&s->raw, s->raw.len - 2);
    }
}

static void drop_space(struct str *raw)
{
    size_t at = 0, n;
    while (at < raw->len && is_space(sentence_char(raw->data + at, raw->len - at, &n)))
        at += n;
    if (at)
        drop(raw, at);
}

/* Reads on until there is something to show. */
static bool find_next(struct sentences *s, bool end, struct sentence *out)
{
    while (s->raw.len && !str_failed(&s->raw)) {
        drop_fenced(s);
        if (s->fenced) {
            if (end)
                sentences_clear(s);
            return false;
        }
        drop_space(&s->raw);
        if (s->raw.len && !strncmp(s->raw.data, "```", 3))
            continue;
        size_t n = s->raw.len ? find_end(s, end) : 0;
        if (!n)
            return false;
        sentence_texts(s->raw.data, n, &out->shown, &out->spoken);
        drop(&s->raw, n);
        if (out->shown.len)
            return true;
        str_clear(&out->spoken);
    }
    return false;
}

bool sentences_next(struct sentences *s, bool end, struct sentence *out)
{
    *out = (struct sentence){STR_INIT, STR_INIT};
    if (find_next(s, end, out))
        return true;
    sentence_release(out); /* of what was nothing to show */
    return false;
}

void sentences_partial(const struct sentences *s, struct str *shown)
{
    size_t len = s->fenced ? 0 : s->raw.len;
    const char *text = s->raw.data;
    str_clear(shown);
    /* A tag or a fence that has only begun would flash up. */
    for (size_t at = len > SENTENCE_TAG_MAX ? len - SENTENCE_TAG_MAX : 0; at < len; at++) {
        bool open;
        sentence_tag(text + at, len - at, &open);
        if (open)
            len = at;
    }
    while (len && text[len - 1] == '`')
        len--;
    if (len)
        sentence_texts(text, len, shown, NULL);
}
