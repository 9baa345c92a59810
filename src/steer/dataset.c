/*
 * dataset.c - pairs from JSON and JSONL, their checks, and the split; see dataset.h.
 */
#include "steer/dataset.h"

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "base/size.h"
#include "base/str.h"
#include "text/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((size_t)256 << 20) /* bytes */
#define BAD_NAMED  5                   /* further bad rows that the message lists */
#define ROWS_MAX   ((size_t)1 << 20)

/* ---- rows ----------------------------------------------------------------------------------- */

void dataset_bad_row(struct dataset_reader *r, size_t line, const char *format, ...)
{
    r->n_rows++;
    size_t n = ++r->n_bad;
    if (n > 1) {
        size_t len = strlen(r->err->text), left = sizeof r->err->text - len;
        if (n == 2)
            snprintf(r->err->text + len, left, "; also bad: line %zu", line);
        else if (n <= BAD_NAMED)
            snprintf(r->err->text + len, left, ", %zu", line);
        return;
    }
    struct str what = STR_INIT;
    va_list args;
    va_start(args, format);
    str_vprintf(&what, format, args);
    va_end(args);
    error_set(r->err, GYARU_FAILED, "%s:%zu: pair %zu: %s", r->path, line, r->n_rows,
              what.data ? what.data : "unusable");
    str_release(&what);
}

static bool is_blank(const struct dataset_text *t)
{
    for (size_t i = 0; i < t->len; i++)
        if (!strchr(" \t\r\n", t->text[i]))
            return false;
    return true;
}

/* What is wrong with one text of a row, NULL if nothing. */
static const char *fault_of(const struct dataset_text *t)
{
    if (!t->text)
        return "is missing or no string";
    if (memchr(t->text, '\0', t->len))
        return "contains a NUL";
    if (!utf8_valid(t->text, t->len))
        return "is no valid UTF-8";
    return is_blank(t) ? "is blank" : NULL;
}

static int grow(struct dataset_reader *r)
{
    struct dataset *d = r->dataset;
    if (d->n < r->capacity)
        return 0;
    size_t capacity = r->capacity ? 2 * r->capacity : 64;
    struct dataset_pair *pairs = realloc(d->pairs, capacity * sizeof *pairs);
    if (!pairs)
        return error_memory(r->err, capacity * sizeof *pairs, "the pairs");
    d->pairs = pairs;
    r->capacity = capacity;
    return 0;
}

int dataset_add_row(struct dataset_reader *r, size_t line, const struct dataset_text *topic,
                    const struct dataset_text *positive, const struct dataset_text *negative)
{
    const struct {
        const char *key;
        const struct dataset_text *text;
    } texts[] = {
        {r->keys->topic, topic}, {r->keys->positive, positive}, {r->keys->negative, negative}};
    for (size_t i = 0; i < 3; i++) {
        const char *fault = fault_of(texts[i].text);
        if (fault) {
            dataset_bad_row(r, line, "'%.40s' %s", texts[i].key, fault);
            return 0;
        }
    }
    if (positive->len == negative->len && !memcmp(positive->text, negative->text, positive->len)) {
        dataset_bad_row(r, line, "'%.40s' and '%.40s' are the same text", r->keys->positive,
                        r->keys->negative);
        return 0;
    }
    if (r->dataset->n == ROWS_MAX)
        return error_set(r->err, GYARU_FAILED, "%s:%zu: more than %zu pairs", r->path, line,
                         ROWS_MAX);
    if (grow(r))
        return -1;
    struct dataset_pair *pair = &r->dataset->pairs[r->dataset->n++];
    *pair = (struct dataset_pair){.topic = strndup(topic->text, topic->len),
                                  .positive = strndup(positive->text, positive->len),
                                  .negative = strndup(negative->text, negative->len),
                                  .line = line};
    r->n_rows++;
    if (!pair->topic || !pair->positive || !pair->negative)
        return error_memory(r->err, topic->len + positive->len + negative->len, "a pair");
    return 0;
}

static struct dataset_text text_of(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    return (struct dataset_text){json_string_value(value), json_string_length(value)};
}

static int add_json_row(struct dataset_reader *r, size_t line, const json_t *row)
{
    if (!json_is_object(row)) {
        dataset_bad_row(r, line, "no object");
        return 0;
    }
    struct dataset_text topic = text_of(row, r->keys->topic);
    struct dataset_text positive = text_of(row, r->keys->positive);
    struct dataset_text negative = text_of(row, r->keys->negative);
    return dataset_add_row(r, line, &topic, &positive, &negative);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Lines on which the elements of a JSON array begin. The text is valid JSON. */
struct element_scan {
    const char *at, *end;
    size_t line;
};

/* Moves to the next element's first character: the next one that is no space, '[' of the array or
 * ',' between elements. Then over the element. */
static size_t next_element_line(struct element_scan *s)
{
    while (s->at < s->end && strchr(" \t\r\n,", *s->at))
        s->line += *s->at++ == '\n';
    size_t line = s->line;
    int depth = 0;
    bool in_string = false;
    for (; s->at < s->end; s->at++) {
        char c = *s->at;
        s->line += c == '\n';
        if (in_string) {
            s->at += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (--depth < 0)
                break;
        } else if (c == ',' && !depth) {
            break;
        }
    }
    return line;
}

static int read_json(struct dataset_reader *r, const char *text, size_t len)
{
    json_t *rows = json_parse_text(text, len, r->path, r->err);
    if (!rows)
        return -1;
    if (!json_is_array(rows)) {
        json_decref(rows);
        return error_set(r->err, GYARU_FAILED, "%s: expected an array of pairs: [{...}, ...]",
                         r->path);
    }
    struct element_scan scan = {memchr(text, '[', len), text + len, 1};
    for (const char *p = text; p < scan.at; p++)
        scan.line += *p == '\n';
    scan.at++;
    int rc = 0;
    for (size_t i = 0; !rc && i < json_array_size(rows); i++)
        rc = add_json_row(r, next_element_line(&scan), json_array_get(rows, i));
    json_decref(rows);
    return rc;
}

static int read_jsonl(struct dataset_reader *r, const char *text, size_t len)
{
    size_t line = 1;
    for (const char *at = text, *end = text + len; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at);
        if (!is_blank(&(struct dataset_text){at, n})) {
            struct gyaru_error why;
            json_t *row = json_parse_text(at, n, "the line", &why);
            int rc = 0;
            if (row)
                rc = add_json_row(r, line, row);
            else
                dataset_bad_row(r, line, "%s", why.text);
            json_decref(row);
            if (rc)
                return -1;
        }
        at += n + 1;
    }
    return 0;
}

/* ---- the whole file ---------------------------------------------------------------------------
 */

static int by_texts(const void *a, const void *b)
{
    const struct dataset_pair *const *x = a, *const *y = b;
    int order = strcmp((*x)->positive, (*y)->positive);
    if (!order)
        order = strcmp((*x)->negative, (*y)->negative);
    if (!order)
        order = strcmp((*x)->topic, (*y)->topic);
    return order;
}

static int by_texts_then_line(const void *a, const void *b)
{
    const struct dataset_pair *const *x = a, *const *y = b;
    int order = by_texts(a, b);
    return order ? order : (*x < *y ? -1 : 1);
}

static int find_duplicates(struct dataset *d, struct gyaru_error *err)
{
    struct dataset_pair **sorted = malloc(d->n * sizeof *sorted);
    if (!sorted)
        return error_memory(err, d->n * sizeof *sorted, "the search for duplicates");
    for (size_t i = 0; i < d->n; i++)
        sorted[i] = &d->pairs[i];
    qsort(sorted, d->n, sizeof *sorted, by_texts_then_line);
    for (size_t i = 0; i < d->n; i++) {
        bool same = i > 0 && !by_texts(&sorted[i - 1], &sorted[i]);
        sorted[i]->same_as = same ? sorted[i - 1]->same_as : (size_t)(sorted[i] - d->pairs);
        d->n_duplicates += same;
    }
    free(sorted);
    return 0;
}

typedef int read_format(struct dataset_reader *reader, const char *text, size_t len);

static read_format *format_of(const char *path, const char *text, size_t len)
{
    static const struct {
        const char *extension;
        read_format *read;
    } formats[] = {{".json", read_json},
                   {".jsonl", read_jsonl},
                   {".ndjson", read_jsonl},
                   {".csv", dataset_read_csv}};
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash : path, '.');
    for (size_t i = 0; dot && i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(dot, formats[i].extension))
            return formats[i].read;
    size_t first = 0;
    while (first < len && strchr(" \t\r\n", text[first]))
        first++;
    if (first < len && text[first] == '[')
        return read_json;
    return first < len && text[first] == '{' ? read_jsonl : dataset_read_csv;
}

static int read_rows(struct dataset_reader *r, const char *text, size_t len)
{
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) { /* a byte order mark says nothing */
        text += 3;
        len -= 3;
    }
    if (format_of(r->path, text, len)(r, text, len))
        return -1;
    if (r->n_bad > BAD_NAMED) {
        size_t used = strlen(r->err->text);
        snprintf(r->err->text + used, sizeof r->err->text - used, " and %zu more",
                 r->n_bad - BAD_NAMED);
    }
    if (r->n_bad)
        return -1;
    if (!r->dataset->n)
        return error_set(r->err, GYARU_FAILED, "%s: there are no pairs in it", r->path);
    return find_duplicates(r->dataset, r->err);
}

int dataset_open(const char *path, const struct dataset_keys *keys, struct dataset *out,
                 struct gyaru_error *err)
{
    char *text;
    size_t len;
    if (file_read(path, FILE_LIMIT, &text, &len, err))
        return -1;
    struct dataset dataset = {.path = strdup(path)};
    struct dataset_reader reader = {.path = path, .keys = keys, .dataset = &dataset, .err = err};
    sha256_hex_of(text, len, dataset.sha256);
    int rc =
        dataset.path ? read_rows(&reader, text, len) : error_memory(err, strlen(path), "a path");
    free(text);
    if (rc)
        dataset_release(&dataset);
    else
        *out = dataset;
    return rc;
}

void dataset_release(struct dataset *d)
{
    for (size_t i = 0; i < d->n; i++) {
        free(d->pairs[i].topic);
        free(d->pairs[i].positive);
        free(d->pairs[i].negative);
    }
    free(d->pairs);
    free(d->path);
    *d = (struct dataset){0};
}

/* ---- split ------------------------------------------------------------------------------------
 */

struct place {
    const struct dataset_pair *pair;
    size_t rank; /* in the shuffle */
};

static int by_topic_then_rank(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int order = strcmp(x->pair->topic, y->pair->topic);
    return order ? order : (x->rank < y->rank ? -1 : 1);
}

/* The part that is furthest behind its share once `done` pairs are assigned. */
static enum dataset_part neediest(const int shares[DATASET_PARTS],
                                  const size_t counts[DATASET_PARTS], size_t done)
{
    enum dataset_part best = PART_TRAIN;
    double most = -1;
    for (int p = 0; p < DATASET_PARTS; p++) {
        double behind = (double)(done + 1) * shares[p] / 100 - (double)counts[p];
        if (shares[p] && behind > most + 1e-9) {
            most = behind;
            best = (enum dataset_part)p;
        }
    }
    return best;
}

/* Pairs grouped by topic, topics and pairs within them in a random order: walking that order and
 * always feeding the neediest part spreads each topic like the whole. */
static void assign(const struct dataset *d, const size_t *order, const int shares[DATASET_PARTS],
                   enum dataset_part *parts)
{
    size_t counts[DATASET_PARTS] = {0}, done = 0;
    for (size_t i = 0; i < d->n; i++) {
        size_t p = order[i];
        if (d->pairs[p].same_as != p)
            continue;
        parts[p] = neediest(shares, counts, done++);
        counts[parts[p]]++;
    }
    for (size_t i = 0; i < d->n; i++)
        parts[i] = parts[d->pairs[i].same_as];
}

int dataset_split(const struct dataset *d, const int shares[DATASET_PARTS], uint64_t seed,
                  enum dataset_part *parts, struct gyaru_error *err)
{
    if (shares[0] < 0 || shares[1] < 0 || shares[2] < 0 || shares[0] + shares[1] + shares[2] != 100)
        return error_set(err, GYARU_USAGE, "split %d/%d/%d: the shares must sum to 100", shares[0],
                         shares[1], shares[2]);
    size_t *order = malloc(2 * d->n * sizeof *order);
    struct place *places = malloc(d->n * sizeof *places);
    if (!order || !places) {
        free(order);
        free(places);
        return error_memory(err, 2 * d->n * sizeof *order, "the split");
    }
    size_t *topics = order + d->n;
    uint64_t random = seed;
    for (size_t i = 0; i < d->n; i++)
        order[i] = i;
    random_shuffle(&random, order, d->n);
    for (size_t i = 0; i < d->n; i++)
        places[i] = (struct place){&d->pairs[order[i]], i};
    qsort(places, d->n, sizeof *places, by_topic_then_rank);
    size_t n_topics = 0; /* topics[t]: where topic t begins in places */
    for (size_t i = 0; i < d->n; i++)
        if (!i || strcmp(places[i].pair->topic, places[i - 1].pair->topic))
            topics[n_topics++] = i;
    random_shuffle(&random, topics, n_topics);
    size_t n = 0;
    for (size_t t = 0; t < n_topics; t++)
        for (size_t i = topics[t];
             i < d->n && !strcmp(places[i].pair->topic, places[topics[t]].pair->topic); i++)
            order[n++] = (size_t)(places[i].pair - d->pairs);
    assign(d, order, shares, parts);
    free(order);
    free(places);
    return 0;
}

char *dataset_message(const char *prompt, const char *topic)
{
    static const char mark[] = "{topic}";
    struct str s = STR_INIT;
    for (const char *at; (at = strstr(prompt, mark)); prompt = at + strlen(mark)) {
        str_append(&s, prompt, (size_t)(at - prompt));
        str_puts(&s, topic);
    }
    str_puts(&s, prompt);
    return str_take(&s);
}
