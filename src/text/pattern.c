/*
 * pattern.c - see pattern.h.
 *
 * A compiled pattern is never written to after pattern_new(); every split has its own match data.
 */
#include "text/pattern.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Steps of one match attempt; the split patterns in use need a few per character. */
#define MATCH_LIMIT 10000000

struct pattern {
    pcre2_code *code;
    pcre2_match_context *limits;
};

/* ---- from Oniguruma's syntax to PCRE2's --------------------------------------------------- */

struct translation {
    const char *in;
    size_t len, at;
    bool in_class;
    struct str out;
};

static int refuse(const struct translation *t, size_t n, struct gyaru_error *err)
{
    if (n > t->len - t->at)
        n = t->len - t->at;
    return error_set(err, GYARU_FAILED, "split pattern: '%.*s' at byte %zu is not supported",
                     (int)n, t->in + t->at, t->at);
}

static bool looking_at(const struct translation *t, const char *text)
{
    size_t n = strlen(text);
    return n <= t->len - t->at && memcmp(t->in + t->at, text, n) == 0;
}

static void copy(struct translation *t, size_t n)
{
    str_append(&t->out, t->in + t->at, n);
    t->at += n;
}

static int translate_escape(struct translation *t, struct gyaru_error *err)
{
    if (t->len - t->at < 2)
        return refuse(t, 1, err);
    char c = t->in[t->at + 1];
    if (c == 's' || c == 'S') {
        /* PCRE2's own \s counts U+180E, White_Space does not. */
        str_puts(&t->out, c == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
        t->at += 2;
        return 0;
    }
    bool punctuation = c > ' ' && c < 0x7f && !strchr("0123456789<>_", c) &&
                       !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    if (!punctuation && !strchr("nrtdDpP", c))
        return refuse(t, 2, err);
    if ((c == 'p' || c == 'P') && (t->len - t->at < 3 || t->in[t->at + 2] != '{'))
        return refuse(t, 3, err);
    copy(t, 2);
    if (c == 'p' || c == 'P') /* the name must not be taken for anything else */
        while (t->at < t->len && t->in[t->at] != '}')
            copy(t, 1);
    if ((c == 'p' || c == 'P') && t->at < t->len)
        copy(t, 1);
    return 0;
}

static int translate_group(struct translation *t, struct gyaru_error *err)
{
    static const char *const known[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (looking_at(t, known[i])) {
            copy(t, strlen(known[i]));
            return 0;
        }
    if (looking_at(t, "(?") || looking_at(t, "(*"))
        return refuse(t, 4, err);
    copy(t, 1);
    return 0;
}

static int translate_in_class(struct translation *t, struct gyaru_error *err)
{
    if (looking_at(t, "[") || looking_at(t, "&&")) /* nested classes and intersections */
        return refuse(t, 2, err);
    if (looking_at(t, "]"))
        t->in_class = false;
    copy(t, 1);
    return 0;
}

static int translate_outside(struct translation *t, struct gyaru_error *err)
{
    if (looking_at(t, "("))
        return translate_group(t, err);
    /* Anchors differ in what a line is, "}+" is possessive in one engine only. */
    if (looking_at(t, "^") || looking_at(t, "$") || looking_at(t, "}+") || looking_at(t, "{,") ||
        looking_at(t, "."))
        return refuse(t, 2, err);
    bool class_begins = looking_at(t, "[");
    copy(t, 1);
    if (class_begins) {
        t->in_class = true;
        if (looking_at(t, "^"))
            copy(t, 1);
        if (looking_at(t, "]"))
            return refuse(t, 1, err);
    }
    return 0;
}

static int translate(struct translation *t, struct gyaru_error *err)
{
    while (t->at < t->len) {
        int rc;
        if (t->in[t->at] == '\\')
            rc = translate_escape(t, err);
        else if (t->in_class)
            rc = translate_in_class(t, err);
        else
            rc = translate_outside(t, err);
        if (rc)
            return -1;
    }
    return str_failed(&t->out) ? error_memory(err, t->len, "the split pattern") : 0;
}

/* ---- compiling and matching --------------------------------------------------------------- */

static int compile(struct pattern *p, const struct str *regex, struct gyaru_error *err)
{
    int code;
    PCRE2_SIZE at;
    p->limits = pcre2_match_context_create(NULL);
    if (!p->limits)
        return error_memory(err, 0, "the split pattern");
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    p->code = pcre2_compile((PCRE2_SPTR)(regex->data ? regex->data : ""), regex->len,
                            PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!p->code) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        return error_set(err, GYARU_FAILED, "split pattern: %s (at byte %zu)", (char *)why,
                         (size_t)at);
    }
    uint32_t empty = 0;
    pcre2_pattern_info(p->code, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty)
        return error_set(err, GYARU_FAILED, "split pattern: it can match the empty string");
    /* Without JIT on this machine the interpreter does the same, more slowly. */
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
    return 0;
}

int pattern_new(const char *regex, size_t len, struct pattern **out, struct gyaru_error *err)
{
    struct pattern *p = calloc(1, sizeof *p);
    if (!p)
        return error_memory(err, sizeof *p, "the split pattern");
    struct translation t = {.in = regex, .len = len, .out = STR_INIT};
    int rc = translate(&t, err);
    if (!rc)
        rc = compile(p, &t.out, err);
    str_release(&t.out);
    if (rc) {
        pattern_free(p);
        return -1;
    }
    *out = p;
    return 0;
}

void pattern_free(struct pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    free(p);
}

/* The next match at or after `at`: 1 found, 0 none, -1 error. */
static int next_match(const struct pattern *p, pcre2_match_data *match, const char *text,
                      size_t len, size_t at, struct gyaru_error *err)
{
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, match, p->limits);
    /* The interpreter keeps its backtracking points on the heap. */
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         match, p->limits);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc >= 0)
        return 1;
    PCRE2_UCHAR why[128];
    pcre2_get_error_message(rc, why, sizeof why);
    return error_set(err, GYARU_FAILED, "split pattern: gives up at byte %zu of the text: %s", at,
                     (char *)why);
}

int pattern_split(const struct pattern *p, const char *text, size_t len, pattern_piece *piece,
                  void *user, struct gyaru_error *err)
{
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    if (!match)
        return error_memory(err, 0, "splitting text");
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(match);
    size_t at = 0;
    int rc = 0;
    while (at < len) {
        rc = next_match(p, match, text, len, at, err);
        if (rc < 0)
            break;
        size_t start = rc ? span[0] : len, end = rc ? span[1] : len;
        rc = 0;
        if (start > at && (rc = piece(user, text + at, start - at, err)))
            break;
        if (end > start && (rc = piece(user, text + start, end - start, err)))
            break;
        at = end;
    }
    pcre2_match_data_free(match);
    return rc < 0 ? -1 : 0;
}
