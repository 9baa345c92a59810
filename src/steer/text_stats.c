/*
 * text_stats.c - see text_stats.h. Pure functions of texts and of a style's data, which is the
 * user's own file: its patterns are bounded in steps, but otherwise trusted.
 */
#include "steer/text_stats.h"

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define FILE_LIMIT  ((size_t)1 << 20) /* bytes of a style */
#define MATCH_LIMIT 10000000          /* steps of one search */

#define GRAMS_MIN      20  /* 4-grams: shorter answers may well repeat some */
#define GRAMS_DISTINCT 0.6 /* below: a loop, even if its rounds differ a little */
#define REPLACEMENT    0xfffd

static const char loop_pattern[] = "(.{2,24}?)\\1{2,}|(.)\\2{5,}";

struct text_style {
    char *name;
    char *signature; /* NULL: none */
    char **markers;  /* [n_markers] not empty */
    size_t n_markers;
    pcre2_code *polite, *expected; /* NULL: none */
    pcre2_code *loop;
    char sha256[SHA256_HEX];
};

/* ---- the style's data ------------------------------------------------------------------------
 */

static int compile(const char *path, const char *key, const char *regex, uint32_t options,
                   pcre2_code **out, struct gyaru_error *err)
{
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)regex, strlen(regex), options | PCRE2_UTF | PCRE2_UCP, &code,
                         &at, NULL);
    if (*out)
        return 0;
    PCRE2_UCHAR why[128];
    pcre2_get_error_message(code, why, sizeof why);
    return error_set(err, GYARU_FAILED, "%s: \"%s\": %s (at byte %zu)", path, key,
                     (const char *)why, (size_t)at);
}

/* An optional string: *out stays NULL without it. */
static int take_text(const json_t *root, const char *path, const char *key, const char **out,
                     struct gyaru_error *err)
{
    const json_t *value = json_object_get(root, key);
    *out = json_string_value(value);
    if (value && (!*out || !**out))
        return error_set(err, GYARU_FAILED, "%s: \"%s\" is no text", path, key);
    return 0;
}

static int take_markers(struct text_style *s, const json_t *list, const char *path,
                        struct gyaru_error *err)
{
    size_t n = json_array_size(list), i;
    const json_t *marker;
    if (!json_is_array(list) || !n)
        return error_set(err, GYARU_FAILED, "%s: the markers are no array of texts", path);
    s->markers = calloc(n, sizeof *s->markers);
    if (!s->markers)
        return error_memory(err, n * sizeof *s->markers, "the markers");
    json_array_foreach(list, i, marker)
    {
        const char *text = json_string_value(marker);
        if (!text || !*text)
            return error_set(err, GYARU_FAILED, "%s: marker %zu is no text", path, i + 1);
        s->markers[s->n_markers] = strdup(text);
        if (!s->markers[s->n_markers])
            return error_memory(err, strlen(text), "a marker");
        s->n_markers++;
    }
    return 0;
}

/* "markers" is the list, or names the file that holds it. */
static int read_markers(struct text_style *s, const json_t *root, const char *path,
                        struct gyaru_error *err)
{
    const json_t *markers = json_object_get(root, "markers");
    const char *name = json_string_value(markers);
    if (!name)
        return take_markers(s, markers, path, err);
    const char *slash = strrchr(path, '/');
    char *dir = strndup(path, slash ? (size_t)(slash - path) : 0);
    char *file = dir ? file_join(slash ? dir : ".", name) : NULL;
    free(dir);
    if (!file)
        return error_memory(err, strlen(path) + strlen(name), "a path");
    json_t *list = json_parse_file(file, FILE_LIMIT, err);
    int rc = list ? take_markers(s, list, file, err) : -1;
    json_decref(list);
    free(file);
    return rc;
}

static void name_data(struct text_style *s, const char *polite, const char *expected)
{
    struct sha256 hash;
    uint8_t digest[SHA256_BYTES];
    const char *const texts[] = {s->signature, polite, expected};
    sha256_init(&hash);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = texts[i] ? texts[i] : "";
        sha256_update(&hash, text, strlen(text) + 1);
    }
    for (size_t i = 0; i < s->n_markers; i++)
        sha256_update(&hash, s->markers[i], strlen(s->markers[i]) + 1);
    sha256_final(&hash, digest);
    sha256_hex(digest, s->sha256);
}

static int read_style(struct text_style *s, const json_t *root, const char *path,
                      struct gyaru_error *err)
{
    const char *name, *signature, *polite, *expected;
    if (!json_is_object(root))
        return error_set(err, GYARU_FAILED, "%s: a style is a JSON object", path);
    if (take_text(root, path, "name", &name, err) ||
        take_text(root, path, "signature", &signature, err) ||
        take_text(root, path, "polite", &polite, err) ||
        take_text(root, path, "expected", &expected, err) || read_markers(s, root, path, err))
        return -1;
    s->name = strdup(name ? name : "style");
    s->signature = signature ? strdup(signature) : NULL;
    if (!s->name || (signature && !s->signature))
        return error_memory(err, strlen(path), "a style");
    if ((polite && compile(path, "polite", polite, 0, &s->polite, err)) ||
        (expected && compile(path, "expected", expected, PCRE2_ANCHORED | PCRE2_ENDANCHORED,
                             &s->expected, err)) ||
        compile(path, "loop", loop_pattern, PCRE2_DOTALL, &s->loop, err))
        return -1;
    name_data(s, polite, expected);
    return 0;
}

int text_style_open(const char *path, struct text_style **out, struct gyaru_error *err)
{
    struct text_style *s = calloc(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "a style");
    json_t *root = json_parse_file(path, FILE_LIMIT, err);
    int rc = root ? read_style(s, root, path, err) : -1;
    json_decref(root);
    if (rc)
        text_style_close(s);
    else
        *out = s;
    return rc;
}

void text_style_close(struct text_style *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_markers; i++)
        free(s->markers[i]);
    free(s->markers);
    free(s->name);
    free(s->signature);
    pcre2_code_free(s->polite);
    pcre2_code_free(s->expected);
    pcre2_code_free(s->loop);
    free(s);
}

const char *text_style_name(const struct text_style *s)
{
    return s->name;
}

const char *text_style_signature(const struct text_style *s)
{
    return s->signature;
}

size_t text_style_markers(const struct text_style *s)
{
    return s->n_markers;
}

const char *text_style_sha256(const struct text_style *s)
{
    return s->sha256;
}

const char *text_fault_name(enum text_fault fault)
{
    static const char *const names[TEXT_FAULTS] = {
        [TEXT_FINE] = "",       [TEXT_NO_END] = "no_end", [TEXT_INVALID_UTF8] = "invalid_utf8",
        [TEXT_EMPTY] = "empty", [TEXT_SCRIPT] = "script", [TEXT_LOOP] = "loop"};
    return names[fault];
}

/* ---- characters and n-grams -------------------------------------------------------------------
 */

struct chars {
    int32_t *points; /* [n]; U+FFFD for each byte that is no part of a character */
    size_t n;
};

static int decode(const char *text, size_t len, struct chars *out, struct gyaru_error *err)
{
    struct chars c = {calloc(len + 1, sizeof *c.points), 0};
    if (!c.points)
        return error_memory(err, (len + 1) * sizeof *c.points, "an answer");
    for (size_t i = 0; i < len;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t n =
            utf8proc_iterate((const uint8_t *)text + i, (utf8proc_ssize_t)(len - i), &point);
        c.points[c.n++] = n > 0 ? point : REPLACEMENT;
        i += n > 0 ? (size_t)n : 1;
    }
    *out = c;
    return 0;
}

struct gram {
    int32_t points[4]; /* unused ones are 0 */
};

static int by_points(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct gram));
}

static size_t count_distinct(struct gram *grams, size_t n)
{
    size_t distinct = n ? 1 : 0;
    qsort(grams, n, sizeof *grams, by_points);
    for (size_t i = 1; i < n; i++)
        distinct += by_points(&grams[i - 1], &grams[i]) != 0;
    return distinct;
}

static size_t gram_count(size_t n_chars, int n)
{
    return n_chars >= (size_t)n ? n_chars - (size_t)n + 1 : 0;
}

static size_t write_grams(const struct chars *c, int n, struct gram *out)
{
    size_t count = gram_count(c->n, n);
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct gram){{0}};
        memcpy(out[i].points, c->points + i, (size_t)n * sizeof *c->points);
    }
    return count;
}

int text_distinct(const char *const *texts, const size_t *lens, size_t n_texts, int n, double *out,
                  struct gyaru_error *err)
{
    size_t most = 0, count = 0;
    for (size_t i = 0; i < n_texts; i++)
        if (!size_add(most, lens[i], &most))
            return error_set(err, GYARU_FAILED, "the texts are too long to count");
    struct gram *grams = calloc(most + 1, sizeof *grams);
    if (!grams)
        return error_memory(err, (most + 1) * sizeof *grams, "n-grams");
    for (size_t i = 0; i < n_texts; i++) {
        struct chars c;
        if (decode(texts[i], lens[i], &c, err)) {
            free(grams);
            return -1;
        }
        count += write_grams(&c, n, grams + count);
        free(c.points);
    }
    *out = count ? (double)count_distinct(grams, count) / (double)count : 0;
    free(grams);
    return 0;
}

int text_repetition(const char *text, size_t len, int n, double *out, struct gyaru_error *err)
{
    double distinct;
    if (text_distinct(&text, &len, 1, n, &distinct, err))
        return -1;
    *out = distinct > 0 ? 1 - distinct : 0;
    return 0;
}

/* ---- judging ----------------------------------------------------------------------------------
 */

/* Text is valid UTF-8. */
static int search(const pcre2_code *code, const char *text, size_t len, const char *what,
                  bool *found, struct gyaru_error *err)
{
    *found = false;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    int rc = PCRE2_ERROR_NOMEMORY;
    if (match && limits) {
        pcre2_set_match_limit(limits, MATCH_LIMIT);
        rc = pcre2_match(code, (PCRE2_SPTR)text, len, 0, 0, match, limits);
    }
    pcre2_match_data_free(match);
    pcre2_match_context_free(limits);
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH)
        return 0;
    PCRE2_UCHAR why[128];
    pcre2_get_error_message(rc, why, sizeof why);
    return error_set(err, GYARU_FAILED, "the pattern for %s: %s", what, (const char *)why);
}

static bool is_space(int32_t point)
{
    utf8proc_category_t c = utf8proc_category(point);
    return (point >= '\t' && point <= '\r') || c == UTF8PROC_CATEGORY_ZS ||
           c == UTF8PROC_CATEGORY_ZL || c == UTF8PROC_CATEGORY_ZP;
}

/* Cuts white space off both ends of valid UTF-8. */
static void strip(const char **text, size_t *len, const struct chars *c)
{
    size_t first = 0, end = c->n;
    while (first < end && is_space(c->points[first]))
        first++;
    while (end > first && is_space(c->points[end - 1]))
        end--;
    uint8_t scratch[4];
    for (size_t i = 0; i < first; i++) {
        size_t n = (size_t)utf8proc_encode_char(c->points[i], scratch);
        *text += n;
        *len -= n;
    }
    for (size_t i = end; i < c->n; i++)
        *len -= (size_t)utf8proc_encode_char(c->points[i], scratch);
}

static bool contains(const char *text, size_t len, const char *part)
{
    return memmem(text, len, part, strlen(part)) != NULL;
}

static enum text_fault first_fault(const struct text_judgement *j, bool ended, bool empty)
{
    if (!ended)
        return TEXT_NO_END;
    if (j->invalid_utf8)
        return TEXT_INVALID_UTF8;
    if (empty)
        return TEXT_EMPTY;
    if (j->script)
        return TEXT_SCRIPT;
    return j->loop ? TEXT_LOOP : TEXT_FINE;
}

/* What needs patterns; the text is valid UTF-8. */
static int judge_patterns(const struct text_style *s, const char *text, size_t len,
                          const struct chars *c, struct text_judgement *j, bool *empty,
                          struct gyaru_error *err)
{
    bool expected = true;
    if ((s->expected && search(s->expected, text, len, "expected", &expected, err)) ||
        search(s->loop, text, len, "loops", &j->loop, err))
        return -1;
    j->script = !expected;
    strip(&text, &len, c);
    *empty = !len;
    return s->polite ? search(s->polite, text, len, "polite", &j->polite, err) : 0;
}

int text_judge(const struct text_style *s, const char *text, size_t len, bool ended,
               struct text_judgement *out, struct gyaru_error *err)
{
    struct text_judgement j = {0};
    struct chars c;
    bool empty = !len;
    for (size_t i = 0; !j.marker && i < s->n_markers; i++)
        j.marker = contains(text, len, s->markers[i]);
    j.signature = s->signature && contains(text, len, s->signature);
    j.marker = j.marker || j.signature;
    bool valid = utf8_valid(text, len);
    j.invalid_utf8 = !valid || contains(text, len, "\xef\xbf\xbd");
    if (text_repetition(text, len, 4, &j.repetition, err) || decode(text, len, &c, err))
        return -1;
    int rc = valid ? judge_patterns(s, text, len, &c, &j, &empty, err) : 0;
    if (gram_count(c.n, 4) >= GRAMS_MIN && 1 - j.repetition < GRAMS_DISTINCT)
        j.loop = true;
    free(c.points);
    j.fault = first_fault(&j, ended, empty);
    *out = j;
    return rc;
}
