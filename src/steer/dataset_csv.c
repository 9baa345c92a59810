/*
 * dataset_csv.c - pairs from CSV: RFC 4180 in UTF-8, lines ending in CRLF or LF, the first record
 * naming the columns; see dataset.h.
 */
#include "steer/dataset.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 1024

struct csv {
    const char *at, *end;
    size_t line;      /* of `at` */
    struct str bytes; /* of the record's fields, one after another */
    size_t *ends;     /* [n_fields] where each field ends in `bytes` */
    size_t n_fields, capacity;
    const char *fault; /* NULL: the record is well formed */
};

static struct dataset_text field(const struct csv *csv, size_t i)
{
    size_t start = i ? csv->ends[i - 1] : 0;
    return (struct dataset_text){csv->bytes.data ? csv->bytes.data + start : "",
                                 csv->ends[i] - start};
}

static bool at_line_end(const struct csv *csv)
{
    return csv->at == csv->end || *csv->at == '\n' ||
           (*csv->at == '\r' && (csv->at + 1 == csv->end || csv->at[1] == '\n'));
}

/* From the character after the opening quote to the one after the closing. */
static void read_quoted(struct csv *csv)
{
    for (; csv->at < csv->end; csv->at++) {
        if (*csv->at == '"') {
            csv->at++;
            if (csv->at == csv->end || *csv->at != '"')
                return;
        }
        csv->line += *csv->at == '\n';
        str_putc(&csv->bytes, *csv->at);
    }
    csv->fault = "a quoted field never ends";
}

static void read_field(struct csv *csv)
{
    if (csv->at < csv->end && *csv->at == '"') {
        csv->at++;
        read_quoted(csv);
        if (!csv->fault && !at_line_end(csv) && *csv->at != ',')
            csv->fault = "text after a closing quote";
    }
    for (; !at_line_end(csv) && *csv->at != ','; csv->at++) {
        if (*csv->at == '"' && !csv->fault)
            csv->fault = "a quote inside an unquoted field";
        str_putc(&csv->bytes, *csv->at);
    }
}

static int end_field(struct csv *csv, struct gyaru_error *err)
{
    if (csv->n_fields == COLUMNS_MAX) {
        csv->fault = "too many fields";
        return 0;
    }
    if (csv->n_fields == csv->capacity) {
        size_t capacity = csv->capacity ? 2 * csv->capacity : 8;
        size_t *ends = realloc(csv->ends, capacity * sizeof *ends);
        if (!ends)
            return error_memory(err, capacity * sizeof *ends, "a row");
        csv->ends = ends;
        csv->capacity = capacity;
    }
    csv->ends[csv->n_fields++] = csv->bytes.len;
    return str_failed(&csv->bytes) ? error_memory(err, csv->bytes.len, "a row") : 0;
}

/* One record; `at` goes to the next. */
static int read_record(struct csv *csv, struct gyaru_error *err)
{
    csv->n_fields = 0;
    csv->fault = NULL;
    str_clear(&csv->bytes);
    for (;;) {
        read_field(csv);
        if (end_field(csv, err))
            return -1;
        if (csv->at == csv->end || *csv->at != ',')
            break;
        csv->at++;
    }
    if (csv->at < csv->end && *csv->at == '\r')
        csv->at++;
    if (csv->at < csv->end) {
        csv->at++;
        csv->line++;
    }
    return 0;
}

static int find_column(const struct csv *csv, const char *path, const char *key, size_t *column,
                       struct gyaru_error *err)
{
    bool found = false;
    for (size_t i = 0; i < csv->n_fields; i++) {
        struct dataset_text name = field(csv, i);
        if (name.len != strlen(key) || memcmp(name.text, key, name.len))
            continue;
        if (found)
            return error_set(err, GYARU_FAILED, "%s:1: two columns are named '%.40s'", path, key);
        *column = i;
        found = true;
    }
    if (found)
        return 0;
    return error_set(err, GYARU_FAILED, "%s:1: no column is named '%.40s'", path, key);
}

static int read_rows(struct dataset_reader *r, struct csv *csv)
{
    size_t columns[3];
    const char *keys[3] = {r->keys->topic, r->keys->positive, r->keys->negative};
    if (read_record(csv, r->err))
        return -1;
    if (csv->fault)
        return error_set(r->err, GYARU_FAILED, "%s:1: %s", r->path, csv->fault);
    for (size_t i = 0; i < 3; i++)
        if (find_column(csv, r->path, keys[i], &columns[i], r->err))
            return -1;
    size_t width = csv->n_fields;
    while (csv->at < csv->end) {
        size_t line = csv->line;
        if (read_record(csv, r->err))
            return -1;
        if (csv->fault) {
            dataset_bad_row(r, line, "%s", csv->fault);
        } else if (csv->n_fields == 1 && !field(csv, 0).len) {
            continue; /* an empty line */
        } else if (csv->n_fields != width) {
            dataset_bad_row(r, line, "%zu fields, the first line names %zu", csv->n_fields, width);
        } else {
            struct dataset_text texts[3];
            for (size_t i = 0; i < 3; i++)
                texts[i] = field(csv, columns[i]);
            if (dataset_add_row(r, line, &texts[0], &texts[1], &texts[2]))
                return -1;
        }
    }
    return 0;
}

int dataset_read_csv(struct dataset_reader *r, const char *text, size_t len)
{
    struct csv csv = {.at = text, .end = text + len, .line = 1, .bytes = STR_INIT};
    int rc = read_rows(r, &csv);
    str_release(&csv.bytes);
    free(csv.ends);
    return rc;
}
