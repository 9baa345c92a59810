/*
 * gguf.c - see gguf.h.
 *
 * Layout (little-endian): "GGUF", u32 version, u64 tensors, u64 keys; per key: string, u32 type,
 * value; per tensor: string, u32 dims, u64[dims], u32 type, u64 offset; padding; data, every
 * tensor padded to the alignment. Strings are a u64 length and bytes. Every count and length is
 * held against the bytes that remain before it is used, so memory stays below the file's size.
 */
#include "format/gguf.h"

#include "base/file.h"
#include "base/size.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ALIGNMENT 32
#define TYPE_F32          0
#define TENSOR_MIN        24   /* bytes of the shortest tensor description */
#define LAYERS_MAX        4096 /* far more than any model has; bounds the search for doubles */
#define PREFIX            "direction."
#define KEY_ARCHITECTURE  "general.architecture"
#define KEY_ALIGNMENT     "general.alignment"
#define KEY_HINT          "controlvector.model_hint"
#define KEY_LAYERS        "controlvector.layer_count"
#define ARCHITECTURE      "controlvector"

enum value_type {
    VALUE_U32 = 4,
    VALUE_I32 = 5,
    VALUE_STRING = 8,
    VALUE_ARRAY = 9,
    VALUE_COUNT = 13
};

/* Bytes of a scalar value; 0 for string and array. u8 i8 u16 i16 u32 i32 f32 bool - - u64 i64 f64
 */
static const uint8_t value_sizes[VALUE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* A view of bytes in the file, not NUL-terminated. */
struct text {
    const char *data;
    size_t len;
};

struct reader {
    const char *path;
    const uint8_t *data;
    size_t size, pos; /* pos <= size */
    struct gyaru_error *err;

    /* What the keys said. */
    bool has_architecture, has_hint, has_layers, has_alignment;
    struct text hint;
    uint32_t layer_count;
    size_t alignment;
};

static int fail(struct reader *r, const char *what)
{
    return error_set(r->err, GYARU_FAILED, "%s: %s", r->path, what);
}

static int read_bytes(struct reader *r, uint64_t len, const uint8_t **out)
{
    if (len > r->size - r->pos) {
        error_set(r->err, GYARU_FAILED,
                  "%s: %ju bytes wanted at byte %zu, the file ends at %zu: it is cut short or "
                  "damaged",
                  r->path, (uintmax_t)len, r->pos, r->size);
        return -1;
    }
    *out = r->data + r->pos;
    r->pos += len;
    return 0;
}

/* A little-endian number of `size` bytes. */
static int read_number(struct reader *r, size_t size, uint64_t *out)
{
    const uint8_t *p;
    if (read_bytes(r, size, &p))
        return -1;
    *out = 0;
    for (size_t i = size; i-- > 0;)
        *out = *out << 8 | p[i];
    return 0;
}

static int read_text(struct reader *r, struct text *out)
{
    uint64_t len;
    const uint8_t *p;
    if (read_number(r, 8, &len) || read_bytes(r, len, &p))
        return -1;
    *out = (struct text){(const char *)p, len};
    return 0;
}

static bool text_is(struct text text, const char *other)
{
    return text.len == strlen(other) && !memcmp(text.data, other, text.len);
}

static int skip_array(struct reader *r)
{
    uint64_t type, n;
    if (read_number(r, 4, &type) || read_number(r, 8, &n))
        return -1;
    if (type >= VALUE_COUNT || type == VALUE_ARRAY)
        return fail(r, "an array of arrays or of an unknown type: not a control vector");
    if (type == VALUE_STRING) {
        struct text text;
        /* Ends with the file at the latest: each string takes eight bytes. */
        for (uint64_t i = 0; i < n; i++) {
            if (read_text(r, &text))
                return -1;
        }
        return 0;
    }
    size_t bytes;
    const uint8_t *p;
    if (!size_mul(n, value_sizes[type], &bytes))
        bytes = SIZE_MAX;
    return read_bytes(r, bytes, &p);
}

/* One key's first appearance; a second one is refused, as which of them counts is anyone's guess.
 */
static int once(struct reader *r, bool *seen, struct text key)
{
    if (*seen)
        return error_set(r->err, GYARU_FAILED, "%s: key '%.*s' appears twice", r->path,
                         (int)key.len, key.data);
    *seen = true;
    return 0;
}

static int bad_type(struct reader *r, struct text key)
{
    return error_set(r->err, GYARU_FAILED, "%s: key '%.*s' has the wrong type", r->path,
                     (int)key.len, key.data);
}

/* Reads the value of a key that we know; -1 on failure. */
static int read_known(struct reader *r, struct text key, uint64_t type)
{
    struct text text;
    uint64_t number;
    if (text_is(key, KEY_ARCHITECTURE) || text_is(key, KEY_HINT)) {
        if (type != VALUE_STRING)
            return bad_type(r, key);
        if (read_text(r, &text))
            return -1;
        if (text_is(key, KEY_HINT)) {
            r->hint = text;
            if (memchr(text.data, '\0', text.len))
                return fail(r, KEY_HINT " holds a NUL");
            return once(r, &r->has_hint, key);
        }
        if (!text_is(text, ARCHITECTURE))
            return error_set(r->err, GYARU_FAILED,
                             "%s: " KEY_ARCHITECTURE " is '%.*s', not '" ARCHITECTURE
                             "': not a control vector",
                             r->path, text.len > 60 ? 60 : (int)text.len, text.data);
        return once(r, &r->has_architecture, key);
    }
    if (type != VALUE_U32 && (type != VALUE_I32 || text_is(key, KEY_ALIGNMENT)))
        return bad_type(r, key);
    if (read_number(r, 4, &number))
        return -1;
    if (text_is(key, KEY_LAYERS)) {
        if (number > INT32_MAX)
            return fail(r, KEY_LAYERS " is negative or too large");
        r->layer_count = (uint32_t)number;
        return once(r, &r->has_layers, key);
    }
    if (!number || (number & (number - 1)))
        return fail(r, KEY_ALIGNMENT " is no power of two");
    r->alignment = number;
    return once(r, &r->has_alignment, key);
}

static int read_key(struct reader *r)
{
    static const char *const known[] = {KEY_ARCHITECTURE, KEY_HINT, KEY_LAYERS, KEY_ALIGNMENT};
    struct text key, text;
    uint64_t type;
    if (read_text(r, &key) || read_number(r, 4, &type))
        return -1;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (text_is(key, known[i]))
            return read_known(r, key, type);
    }
    if (type >= VALUE_COUNT)
        return error_set(r->err, GYARU_FAILED, "%s: key '%.*s' has unknown type %ju", r->path,
                         key.len > 60 ? 60 : (int)key.len, key.data, (uintmax_t)type);
    if (type == VALUE_STRING)
        return read_text(r, &text);
    if (type == VALUE_ARRAY)
        return skip_array(r);
    const uint8_t *p;
    return read_bytes(r, value_sizes[type], &p);
}

/* N of "direction.N": decimal, from 1, no leading zero. */
static int parse_layer(struct reader *r, struct text name, int *layer)
{
    size_t prefix = strlen(PREFIX);
    int shown = name.len > 60 ? 60 : (int)name.len;
    if (name.len <= prefix || name.len > prefix + 9 || memcmp(name.data, PREFIX, prefix))
        return error_set(r->err, GYARU_FAILED, "%s: tensor '%.*s' is no " PREFIX "N", r->path,
                         shown, name.data);
    *layer = 0;
    for (size_t i = prefix; i < name.len; i++) {
        char c = name.data[i];
        if (c < '0' || c > '9' || (c == '0' && i == prefix))
            return error_set(r->err, GYARU_FAILED,
                             "%s: tensor '%.*s': layers are decimal numbers from 1", r->path, shown,
                             name.data);
        *layer = *layer * 10 + (c - '0');
    }
    return 0;
}

/* Describes one direction: its layer, and the running end of the data in *end. */
static int read_direction(struct reader *r, struct gguf_vector *v, struct gguf_direction *d,
                          uint64_t *offset)
{
    struct text name;
    uint64_t n_dims, n = 0, dim, type;
    if (read_text(r, &name) || parse_layer(r, name, &d->layer) || read_number(r, 4, &n_dims))
        return -1;
    if (n_dims < 1 || n_dims > 4)
        return error_set(r->err, GYARU_FAILED, "%s: direction.%d: %ju dimensions instead of one",
                         r->path, d->layer, (uintmax_t)n_dims);
    for (uint64_t i = 0; i < n_dims; i++) {
        if (read_number(r, 8, &dim))
            return -1;
        if (i == 0)
            n = dim;
        else if (dim != 1) /* trailing ones are how ggml pads a shape */
            return error_set(r->err, GYARU_FAILED, "%s: direction.%d: more than one dimension",
                             r->path, d->layer);
    }
    if (read_number(r, 4, &type) || read_number(r, 8, offset))
        return -1;
    if (type != TYPE_F32)
        return error_set(r->err, GYARU_FAILED, "%s: direction.%d: type %ju is not F32", r->path,
                         d->layer, (uintmax_t)type);
    if (n == 0 || n > r->size / 4)
        return error_set(r->err, GYARU_FAILED,
                         "%s: direction.%d: %ju elements cannot lie in a file of %zu bytes",
                         r->path, d->layer, (uintmax_t)n, r->size);
    if (v->n && v->n != n)
        return error_set(r->err, GYARU_FAILED,
                         "%s: direction.%d has %ju elements, the one before it %zu", r->path,
                         d->layer, (uintmax_t)n, v->n);
    for (const struct gguf_direction *other = v->directions; other < d; other++) {
        if (other->layer == d->layer)
            return error_set(r->err, GYARU_FAILED, "%s: direction.%d appears twice", r->path,
                             d->layer);
    }
    v->n = n;
    return 0;
}

static bool align_up(size_t value, size_t alignment, size_t *out)
{
    if (!size_add(value, alignment - 1, out))
        return false;
    *out &= ~(alignment - 1);
    return true;
}

/* Copies the values: the tensors follow one another, each padded to the alignment. */
static int read_values(struct reader *r, struct gguf_vector *v, const uint64_t *offsets)
{
    size_t start, bytes = 4 * v->n, step;
    if (!align_up(r->pos, r->alignment, &start) || !align_up(bytes, r->alignment, &step))
        return fail(r, KEY_ALIGNMENT " is too large");
    for (size_t i = 0; i < v->n_directions; i++) {
        struct gguf_direction *d = &v->directions[i];
        const uint8_t *p;
        size_t offset;
        if (!size_mul(i, step, &offset) || offsets[i] != offset)
            return error_set(r->err, GYARU_FAILED,
                             "%s: direction.%d: offset %ju where the tensors before it end at %zu",
                             r->path, d->layer, (uintmax_t)offsets[i], offset);
        if (!size_add(start, offset, &r->pos) || r->pos > r->size)
            r->pos = r->size;
        if (read_bytes(r, bytes, &p))
            return -1;
        if (!(d->values = malloc(bytes)))
            return error_memory(r->err, bytes, "a direction");
        memcpy(d->values, p, bytes);
    }
    if (r->size - r->pos > step - bytes)
        return error_set(r->err, GYARU_FAILED, "%s: %zu bytes after the last direction", r->path,
                         r->size - r->pos);
    return 0;
}

static int read_header(struct reader *r, uint64_t *n_tensors)
{
    const uint8_t *magic;
    uint64_t version, n_keys;
    if (read_bytes(r, 4, &magic) || read_number(r, 4, &version))
        return -1;
    if (memcmp(magic, "GGUF", 4))
        return fail(r, "not a GGUF file");
    if (version != 2 && version != 3)
        return error_set(r->err, GYARU_FAILED, "%s: GGUF version %ju: only 2 and 3 are read",
                         r->path, (uintmax_t)version);
    if (read_number(r, 8, n_tensors) || read_number(r, 8, &n_keys))
        return -1;
    for (uint64_t i = 0; i < n_keys; i++) {
        if (read_key(r))
            return -1;
    }
    if (!r->has_architecture)
        return fail(r, KEY_ARCHITECTURE " is missing: not a control vector");
    if (*n_tensors == 0 || *n_tensors > LAYERS_MAX || *n_tensors > (r->size - r->pos) / TENSOR_MIN)
        return error_set(r->err, GYARU_FAILED,
                         "%s: %ju directions announced, %zu bytes left: not a control vector",
                         r->path, (uintmax_t)*n_tensors, r->size - r->pos);
    return 0;
}

static int read_vector(struct reader *r, struct gguf_vector *v)
{
    uint64_t n_tensors = 0;
    if (read_header(r, &n_tensors))
        return -1;
    v->layer_count = (int)r->layer_count;
    v->model_hint = strndup(r->hint.data ? r->hint.data : "", r->hint.len);
    v->directions = calloc(n_tensors, sizeof *v->directions);
    uint64_t *offsets = calloc(n_tensors, sizeof *offsets);
    int rc = 0;
    if (!v->model_hint || !v->directions || !offsets)
        rc = error_memory(r->err, n_tensors * sizeof *v->directions, "the list of directions");
    for (uint64_t i = 0; i < n_tensors && !rc; i++) {
        rc = read_direction(r, v, &v->directions[i], &offsets[i]);
        v->n_directions++;
    }
    if (!rc)
        rc = read_values(r, v, offsets);
    free(offsets);
    return rc;
}

int gguf_vector_read(const char *path, struct gguf_vector *out, struct gyaru_error *err)
{
    struct file_map map;
    if (file_map_open(path, &map, err))
        return -1;
    struct reader r = {.path = path,
                       .data = map.data,
                       .size = map.size,
                       .err = err,
                       .alignment = DEFAULT_ALIGNMENT};
    struct gguf_vector v = {0};
    int rc = read_vector(&r, &v);
    file_map_close(&map);
    if (rc)
        gguf_vector_release(&v);
    else
        *out = v;
    return rc;
}

void gguf_vector_release(struct gguf_vector *v)
{
    for (size_t i = 0; i < v->n_directions && v->directions; i++)
        free(v->directions[i].values);
    free(v->directions);
    free(v->model_hint);
    *v = (struct gguf_vector){0};
}

/* ---- writing ------------------------------------------------------------------------------ */

static void put_number(struct str *s, size_t size, uint64_t value)
{
    for (size_t i = 0; i < size; i++)
        str_putc(s, (char)(value >> (8 * i) & 0xff));
}

static void put_text(struct str *s, const char *text)
{
    put_number(s, 8, strlen(text));
    str_puts(s, text);
}

static void put_string_key(struct str *s, const char *key, const char *value)
{
    put_text(s, key);
    put_number(s, 4, VALUE_STRING);
    put_text(s, value);
}

static void put_padding(struct str *s)
{
    while (s->len % DEFAULT_ALIGNMENT && !str_failed(s))
        str_putc(s, '\0');
}

static int check_writable(const char *path, const struct gguf_vector *v, struct gyaru_error *err)
{
    if (!v->n || !v->n_directions)
        return error_set(err, GYARU_FAILED, "%s: no direction to write", path);
    for (size_t i = 0; i < v->n_directions; i++) {
        int layer = v->directions[i].layer;
        if (layer < 1)
            return error_set(err, GYARU_FAILED,
                             "%s: direction.%d cannot be written: GGUF counts from 1", path, layer);
        for (size_t k = 0; k < i; k++) {
            if (v->directions[k].layer == layer)
                return error_set(err, GYARU_FAILED, "%s: direction.%d is given twice", path, layer);
        }
    }
    return 0;
}

int gguf_vector_write(const char *path, const struct gguf_vector *v, struct gyaru_error *err)
{
    if (check_writable(path, v, err))
        return -1;
    struct str s = STR_INIT;
    str_puts(&s, "GGUF");
    put_number(&s, 4, 3);
    put_number(&s, 8, v->n_directions);
    put_number(&s, 8, 3);
    put_string_key(&s, KEY_ARCHITECTURE, ARCHITECTURE);
    put_string_key(&s, KEY_HINT, v->model_hint ? v->model_hint : "");
    put_text(&s, KEY_LAYERS);
    put_number(&s, 4, VALUE_U32);
    put_number(&s, 4, (uint64_t)v->layer_count);
    size_t bytes = 4 * v->n;
    size_t step = (bytes + DEFAULT_ALIGNMENT - 1) / DEFAULT_ALIGNMENT * DEFAULT_ALIGNMENT;
    for (size_t i = 0; i < v->n_directions; i++) {
        char name[32];
        snprintf(name, sizeof name, PREFIX "%d", v->directions[i].layer);
        put_text(&s, name);
        put_number(&s, 4, 1);
        put_number(&s, 8, v->n);
        put_number(&s, 4, TYPE_F32);
        put_number(&s, 8, i * step);
    }
    for (size_t i = 0; i < v->n_directions; i++) {
        put_padding(&s);
        str_append(&s, v->directions[i].values, bytes);
    }
    put_padding(&s);
    int rc = str_failed(&s) ? error_memory(err, s.len, path)
                            : file_write_atomic(path, s.data, s.len, err);
    str_release(&s);
    return rc;
}
