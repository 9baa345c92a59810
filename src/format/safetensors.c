/*
 * safetensors.c - see safetensors.h.
 *
 * Owner of the mapping and of all views into it. Nothing of the header is believed before it is
 * checked: the header must fit the file before it is parsed, every size is multiplied with an
 * overflow check, and the tensors together must cover the data section exactly, so that no view
 * can reach outside the file and no byte of it is left unexplained. Stricter than the reference
 * reader in one point: an unknown key in a tensor's description is refused.
 */
#include "format/safetensors.h"

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_LIMIT 100000000u /* bytes; the reference reader's limit */
#define VALUES_MAX   1000000u   /* JSON values in a header; 70,000 tensors */
#define METADATA     "__metadata__"

struct safetensors {
    char *path;
    struct file_map map;
    struct tensor *tensors; /* [n] by offset */
    size_t n;
    const struct tensor **by_name; /* [n] */
    uint64_t *dims;                /* all tensors' dims */
    struct safetensors_pair *metadata;
    size_t n_metadata;
    char *text; /* names and metadata, NUL-terminated each */
};

/* While the header is read: where the next name and the next dims go. */
struct cursor {
    char *text;
    uint64_t *dims;
};

static uint64_t read_u64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static char *keep_text(struct cursor *cursor, const char *text)
{
    size_t len = strlen(text) + 1;
    char *kept = cursor->text;
    memcpy(kept, text, len);
    cursor->text += len;
    return kept;
}

static bool find_dtype(const char *name, enum dtype *out)
{
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (!strcmp(name, dtype_name((enum dtype)i))) {
            *out = (enum dtype)i;
            return true;
        }
    }
    return false;
}

/* The non-negative integer at `i`; false for floats, strings, negative numbers. */
static bool get_index(const json_t *array, size_t i, uint64_t *out)
{
    const json_t *value = json_array_get(array, i);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* "PATH: tensor 'NAME': WHAT"; the name is cut short, for it may be as long as the header. */
static int refuse(const struct safetensors *f, const char *name, const char *what,
                  struct gyaru_error *err)
{
    return error_set(err, GYARU_FAILED, "%s: tensor '%.80s': %s", f->path, name, what);
}

static int check_keys(const struct safetensors *f, const char *name, const json_t *entry,
                      struct gyaru_error *err)
{
    if (!json_is_string(json_object_get(entry, "dtype")))
        return refuse(f, name, "dtype is missing or no string", err);
    if (!json_is_array(json_object_get(entry, "shape")))
        return refuse(f, name, "shape is missing or no array", err);
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return refuse(f, name, "data_offsets is missing or no pair", err);
    if (json_object_size(entry) != 3)
        return refuse(f, name, "has keys besides dtype, shape and data_offsets", err);
    return 0;
}

/* Fills *t from its header entry; `data` is the data section of `data_size` bytes. */
static int read_tensor(const struct safetensors *f, const char *name, const json_t *entry,
                       const uint8_t *data, size_t data_size, struct cursor *cursor,
                       struct tensor *t, struct gyaru_error *err)
{
    if (check_keys(f, name, entry, err))
        return -1;
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!find_dtype(dtype, &t->dtype))
        return error_set(err, GYARU_FAILED, "%s: tensor '%.80s': unknown dtype '%.40s'", f->path,
                         name, dtype);
    const json_t *shape = json_object_get(entry, "shape");
    size_t size = dtype_size(t->dtype);
    t->n_dims = json_array_size(shape);
    t->dims = cursor->dims;
    for (size_t i = 0; i < t->n_dims; i++) {
        uint64_t dim;
        if (!get_index(shape, i, &dim))
            return refuse(f, name, "shape holds something else than integers from 0", err);
        if (!size_mul(size, dim, &size))
            return refuse(f, name, "shape is too large for any file", err);
        *cursor->dims++ = dim;
    }
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    if (!get_index(offsets, 0, &begin) || !get_index(offsets, 1, &end))
        return refuse(f, name, "data_offsets holds something else than integers from 0", err);
    if (begin > end || end > data_size)
        return error_set(err, GYARU_FAILED,
                         "%s: tensor '%.80s': data_offsets [%ju, %ju] outside the data of %zu "
                         "bytes: the file is cut short or damaged",
                         f->path, name, (uintmax_t)begin, (uintmax_t)end, data_size);
    if (end - begin != size)
        return error_set(err, GYARU_FAILED,
                         "%s: tensor '%.80s': shape needs %zu bytes, data_offsets span %ju",
                         f->path, name, size, (uintmax_t)(end - begin));
    t->data = data + begin;
    t->size = size;
    t->name = keep_text(cursor, name);
    return 0;
}

static void read_metadata(struct safetensors *f, json_t *map, struct cursor *cursor)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        struct safetensors_pair *pair = &f->metadata[f->n_metadata++];
        pair->key = keep_text(cursor, key);
        pair->value = keep_text(cursor, json_string_value(value));
    }
}

/* Bytes of text and number of dims in the header, so that each is allocated once. */
static int measure(const struct safetensors *f, json_t *header, size_t *text, size_t *n_dims,
                   struct gyaru_error *err)
{
    const char *key;
    json_t *value;
    *text = 1;
    *n_dims = 1;
    json_object_foreach(header, key, value)
    {
        if (!json_is_object(value))
            return refuse(f, key, "described by something else than an object", err);
        if (strcmp(key, METADATA)) {
            *text += strlen(key) + 1;
            *n_dims += json_array_size(json_object_get(value, "shape"));
            continue;
        }
        const char *name;
        json_t *string;
        json_object_foreach(value, name, string)
        {
            if (!json_is_string(string))
                return error_set(err, GYARU_FAILED, "%s: " METADATA ": '%.80s' is no string",
                                 f->path, name);
            *text += strlen(name) + json_string_length(string) + 2;
        }
    }
    return 0;
}

static int compare_offset(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_name(const void *a, const void *b)
{
    const struct tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* By offset, each tensor begins where the one before it ends, the first at 0, the last at the end
 * of the file. */
static int check_tiling(const struct safetensors *f, const uint8_t *data, size_t data_size,
                        struct gyaru_error *err)
{
    size_t end = 0;
    for (size_t i = 0; i < f->n; i++) {
        const struct tensor *t = &f->tensors[i];
        size_t begin = (size_t)(t->data - data);
        if (begin != end)
            return error_set(err, GYARU_FAILED,
                             "%s: tensor '%.80s': %s at byte %zu of the data: the file is damaged",
                             f->path, t->name, begin < end ? "overlap" : "hole before it",
                             begin < end ? begin : end);
        end += t->size;
    }
    if (end != data_size)
        return error_set(err, GYARU_FAILED,
                         "%s: %zu bytes of data, its tensors account for %zu: the file is damaged",
                         f->path, data_size, end);
    return 0;
}

static int read_entries(struct safetensors *f, json_t *header, const uint8_t *data,
                        size_t data_size, struct gyaru_error *err)
{
    size_t text, n_dims;
    if (measure(f, header, &text, &n_dims, err))
        return -1;
    json_t *metadata = json_object_get(header, METADATA);
    size_t n = json_object_size(header);
    f->text = malloc(text);
    f->dims = malloc(n_dims * sizeof *f->dims);
    f->tensors = malloc((n + 1) * sizeof *f->tensors);
    f->by_name = malloc((n + 1) * sizeof *f->by_name);
    f->metadata = malloc((json_object_size(metadata) + 1) * sizeof *f->metadata);
    if (!f->text || !f->dims || !f->tensors || !f->by_name || !f->metadata)
        return error_memory(err, text + n * sizeof *f->tensors, "the list of tensors");
    struct cursor cursor = {f->text, f->dims};
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value)
    {
        if (value == metadata) {
            read_metadata(f, value, &cursor);
            continue;
        }
        if (read_tensor(f, key, value, data, data_size, &cursor, &f->tensors[f->n], err))
            return -1;
        f->n++;
    }
    qsort(f->tensors, f->n, sizeof *f->tensors, compare_offset);
    for (size_t i = 0; i < f->n; i++)
        f->by_name[i] = &f->tensors[i];
    qsort(f->by_name, f->n, sizeof *f->by_name, compare_name);
    return check_tiling(f, data, data_size, err);
}

/* A parsed value takes a hundred times the bytes of its text, so their number is bounded first.
 * Every value but the first follows one of four characters, which may appear in texts, too. */
static bool has_few_values(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += text[i] == ',' || text[i] == ':' || text[i] == '[' || text[i] == '{';
    return n <= VALUES_MAX;
}

static int read_header(struct safetensors *f, struct gyaru_error *err)
{
    if (f->map.size < 8)
        return error_set(err, GYARU_FAILED,
                         "%s: %zu bytes are too few for a safetensors file: it is cut short or "
                         "another format",
                         f->path, f->map.size);
    uint64_t len = read_u64(f->map.data);
    if (len > HEADER_LIMIT)
        return error_set(err, GYARU_FAILED,
                         "%s: header of %ju bytes, more than the limit of %u: no safetensors file",
                         f->path, (uintmax_t)len, HEADER_LIMIT);
    if (len > f->map.size - 8)
        return error_set(err, GYARU_FAILED,
                         "%s: header of %ju bytes in a file of %zu: the file is cut short", f->path,
                         (uintmax_t)len, f->map.size);
    const char *text = (const char *)f->map.data + 8;
    if (len == 0 || text[0] != '{')
        return error_set(err, GYARU_FAILED,
                         "%s: the header does not start with '{': no safetensors file", f->path);
    if (!has_few_values(text, len))
        return error_set(err, GYARU_FAILED,
                         "%s: the header holds more than %u values: not a model's", f->path,
                         VALUES_MAX);
    json_t *header = json_parse(text, len, f->path, err);
    if (!header)
        return -1;
    int rc = read_entries(f, header, f->map.data + 8 + len, f->map.size - 8 - len, err);
    json_decref(header);
    return rc;
}

int safetensors_open(const char *path, struct safetensors **out, struct gyaru_error *err)
{
    struct safetensors *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return error_memory(err, sizeof *f, path);
    }
    if (file_map_open(path, &f->map, err) || read_header(f, err)) {
        safetensors_close(f);
        return -1;
    }
    *out = f;
    return 0;
}

void safetensors_close(struct safetensors *f)
{
    if (!f)
        return;
    file_map_close(&f->map);
    free(f->path);
    free(f->tensors);
    free(f->by_name);
    free(f->dims);
    free(f->metadata);
    free(f->text);
    free(f);
}

size_t safetensors_count(const struct safetensors *f)
{
    return f->n;
}

const struct tensor *safetensors_at(const struct safetensors *f, size_t i)
{
    return &f->tensors[i];
}

const struct tensor *safetensors_find(const struct safetensors *f, const char *name)
{
    struct tensor key = {.name = name};
    const struct tensor *wanted = &key;
    const struct tensor **found = NULL;
    if (f->n)
        found = bsearch(&wanted, f->by_name, f->n, sizeof *f->by_name, compare_name);
    return found ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *f, const char *key)
{
    for (size_t i = 0; i < f->n_metadata; i++) {
        if (!strcmp(f->metadata[i].key, key))
            return f->metadata[i].value;
    }
    return NULL;
}

size_t safetensors_metadata_count(const struct safetensors *f)
{
    return f->n_metadata;
}

void safetensors_metadata_at(const struct safetensors *f, size_t i, const char **key,
                             const char **value)
{
    *key = f->metadata[i].key;
    *value = f->metadata[i].value;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* {"dtype", "shape", "data_offsets"} of one tensor that begins at *offset; advances *offset. NULL
 * when memory runs out. */
static json_t *describe(const struct tensor *t, size_t *offset)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < t->n_dims; i++) {
        if (json_array_append_new(shape, json_integer((json_int_t)t->dims[i]))) {
            json_decref(shape);
            return NULL;
        }
    }
    size_t begin = *offset;
    *offset += t->size;
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(t->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)*offset);
}

static int check_tensor(const char *path, const struct tensor *t, size_t total,
                        const json_t *header, struct gyaru_error *err)
{
    const char *what = NULL;
    size_t size = dtype_size(t->dtype), sum;
    for (size_t i = 0; i < t->n_dims; i++) {
        if (!size_mul(size, t->dims[i], &size) || t->dims[i] > INT64_MAX)
            what = "shape is too large for any file";
    }
    if (!what && size != t->size)
        what = "size does not fit its shape";
    if (!size_add(total, t->size, &sum) || sum > INT64_MAX)
        what = "data is too large for any file";
    if (!strcmp(t->name, METADATA) || json_object_get(header, t->name))
        what = "name is taken";
    if (what)
        return error_set(err, GYARU_FAILED, "%s: cannot write tensor '%.80s': %s", path, t->name,
                         what);
    return 0;
}

static int fill_header(json_t *header, const char *path, const struct tensor *tensors,
                       size_t n_tensors, const struct safetensors_pair *metadata, size_t n_metadata,
                       struct gyaru_error *err)
{
    size_t offset = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        if (check_tensor(path, &tensors[i], offset, header, err))
            return -1;
        if (json_object_set_new(header, tensors[i].name, describe(&tensors[i], &offset)))
            return error_set(err, GYARU_FAILED,
                             "%s: cannot describe tensor '%.80s': no valid UTF-8 or no memory",
                             path, tensors[i].name);
    }
    json_t *map = n_metadata ? json_object() : NULL;
    if (n_metadata && json_object_set_new(header, METADATA, map))
        return error_memory(err, sizeof *map, "the header");
    for (size_t i = 0; i < n_metadata; i++) {
        if (json_object_get(map, metadata[i].key))
            return error_set(err, GYARU_FAILED, "%s: metadata '%.80s' is given twice", path,
                             metadata[i].key);
        if (json_object_set_new(map, metadata[i].key, json_string(metadata[i].value)))
            return error_set(err, GYARU_FAILED,
                             "%s: cannot write metadata '%.80s': no valid UTF-8 or no memory", path,
                             metadata[i].key);
    }
    return 0;
}

/* The length and the JSON text, padded with spaces so that the data begins at a multiple of 8. */
static int make_header(struct str *out, const char *path, const struct tensor *tensors,
                       size_t n_tensors, const struct safetensors_pair *metadata, size_t n_metadata,
                       struct gyaru_error *err)
{
    json_t *header = json_object();
    if (!header)
        return error_memory(err, sizeof *header, "the header");
    if (fill_header(header, path, tensors, n_tensors, metadata, n_metadata, err)) {
        json_decref(header);
        return -1;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text)
        return error_memory(err, sizeof *header, "the header");
    size_t len = strlen(text), padded = (len + 7) / 8 * 8;
    for (int i = 0; i < 8; i++)
        str_putc(out, (char)(padded >> (8 * i) & 0xff));
    str_append(out, text, len);
    for (size_t i = len; i < padded; i++)
        str_putc(out, ' ');
    free(text);
    if (padded > HEADER_LIMIT)
        return error_set(err, GYARU_FAILED, "%s: header of %zu bytes, more than the limit of %u",
                         path, padded, HEADER_LIMIT);
    return str_failed(out) ? error_memory(err, padded, "the header") : 0;
}

int safetensors_write(const char *path, const struct tensor *tensors, size_t n_tensors,
                      const struct safetensors_pair *metadata, size_t n_metadata,
                      struct gyaru_error *err)
{
    struct str header = STR_INIT;
    struct file_writer writer;
    if (make_header(&header, path, tensors, n_tensors, metadata, n_metadata, err) ||
        file_writer_open(&writer, path, err)) {
        str_release(&header);
        return -1;
    }
    int rc = file_writer_write(&writer, header.data, header.len, err);
    for (size_t i = 0; i < n_tensors && !rc; i++)
        rc = file_writer_write(&writer, tensors[i].data, tensors[i].size, err);
    str_release(&header);
    if (rc) {
        file_writer_abort(&writer);
        return -1;
    }
    return file_writer_commit(&writer, err);
}
