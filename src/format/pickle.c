/*
 * pickle.c - see pickle.h.
 *
 * A stack machine whose values are numbers, texts, tuples and a few named things; there is no
 * value that could be called. REDUCE looks at what torch would have called and records the tensor
 * that would have come out. Every opcode adds at most one value to the stack or the memo, so
 * memory is bounded by the pickle's length.
 */
#include "format/pickle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    KIND_MARK,
    KIND_NONE,
    KIND_BOOL,
    KIND_INT,
    KIND_TEXT,
    KIND_TUPLE,
    KIND_GLOBAL,
    KIND_DICT,    /* the one dict of the file */
    KIND_ORDERED, /* an empty OrderedDict: a tensor's backward hooks */
    KIND_STORAGE,
    KIND_TENSOR
};

struct value {
    enum kind kind;
    uint32_t len; /* of text and tuple */
    union {
        int64_t number;   /* KIND_INT */
        const char *text; /* [len] view into the pickle */
        size_t index;     /* tuple: first of `items`; global, storage, tensor: of their list */
    };
};

struct values {
    struct value *data;
    size_t n, cap;
};

struct machine {
    const char *path;
    struct gyaru_error *err;
    const uint8_t *data;
    size_t size, pos; /* pos <= size */
    size_t op_pos;    /* of the opcode at work, for messages */
    const char *op;   /* its name */
    bool has_dict, stopped;
    struct values stack;
    struct values items; /* members of all tuples */
    struct values memo;  /* KIND_MARK: not set */
    struct pickle_entry *tensors;
    size_t n_tensors, cap_tensors;
    struct pickle *out;
};

/* What a global may be; `dtype` counts for storages only. */
enum role { ROLE_REBUILD, ROLE_ORDERED_DICT, ROLE_STORAGE };

static const struct {
    const char *module, *name;
    enum role role;
    enum dtype dtype;
} globals[] = {
    {"torch._utils", "_rebuild_tensor_v2", ROLE_REBUILD, DTYPE_COUNT},
    {"collections", "OrderedDict", ROLE_ORDERED_DICT, DTYPE_COUNT},
    {"torch", "HalfStorage", ROLE_STORAGE, DTYPE_F16},
    {"torch", "BFloat16Storage", ROLE_STORAGE, DTYPE_BF16},
    {"torch", "FloatStorage", ROLE_STORAGE, DTYPE_F32},
};

__attribute__((format(printf, 2, 3))) static int refuse(struct machine *m, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    error_set(m->err, GYARU_FAILED, "%s: pickle, %s at byte %zu: %s", m->path, m->op, m->op_pos,
              what);
    return -1;
}

/* ---- bytes and values --------------------------------------------------------------------- */

static int read_bytes(struct machine *m, size_t len, const uint8_t **out)
{
    if (len > m->size - m->pos)
        return refuse(m, "%zu bytes wanted, %zu left", len, m->size - m->pos);
    *out = m->data + m->pos;
    m->pos += len;
    return 0;
}

static int read_number(struct machine *m, size_t size, uint32_t *out)
{
    const uint8_t *p = NULL;
    if (read_bytes(m, size, &p))
        return -1;
    *out = 0;
    for (size_t i = size; i-- > 0;)
        *out = *out << 8 | p[i];
    return 0;
}

/* Doubles an array of `cap` elements of `size` bytes; NULL when out of memory. */
static void *grow(void *data, size_t *cap, size_t size)
{
    size_t wanted = *cap ? 2 * *cap : 64;
    void *grown = realloc(data, wanted * size);
    if (grown)
        *cap = wanted;
    return grown;
}

static int append(struct machine *m, struct values *values, struct value value)
{
    if (values->n == values->cap) {
        struct value *data = grow(values->data, &values->cap, sizeof *data);
        if (!data)
            return error_memory(m->err, values->n * sizeof *data, "a pickle");
        values->data = data;
    }
    values->data[values->n++] = value;
    return 0;
}

static int push(struct machine *m, struct value value)
{
    return append(m, &m->stack, value);
}

static int pop(struct machine *m, struct value *out)
{
    if (!m->stack.n || m->stack.data[m->stack.n - 1].kind == KIND_MARK)
        return refuse(m, "nothing on the stack");
    *out = m->stack.data[--m->stack.n];
    return 0;
}

/* Index of the first value above the topmost mark. */
static int find_mark(struct machine *m, size_t *first)
{
    for (size_t i = m->stack.n; i-- > 0;) {
        if (m->stack.data[i].kind == KIND_MARK) {
            *first = i + 1;
            return 0;
        }
    }
    return refuse(m, "no mark on the stack");
}

static bool text_is(struct value v, const char *text)
{
    return v.kind == KIND_TEXT && v.len == strlen(text) && !memcmp(v.text, text, v.len);
}

/* The i-th member of a tuple. */
static struct value member(const struct machine *m, struct value tuple, size_t i)
{
    return m->items.data[tuple.index + i];
}

static bool is_tuple(struct value v, size_t len)
{
    return v.kind == KIND_TUPLE && v.len == len;
}

/* ---- opcodes: constants, tuples, memo ------------------------------------------------------ */

static int op_proto(struct machine *m, size_t arg)
{
    uint32_t version = 0;
    if (read_number(m, 1, &version))
        return -1;
    if (version != 2 || m->op_pos != 0)
        return refuse(m, "protocol %u: only 2 is read, at the beginning", version);
    return 0;
}

static int op_push(struct machine *m, size_t kind)
{
    return push(m, (struct value){.kind = (enum kind)kind});
}

static int op_number(struct machine *m, size_t size)
{
    uint32_t number = 0;
    if (read_number(m, size, &number))
        return -1;
    int64_t value = size == 4 ? (int32_t)number : (int64_t)number;
    return push(m, (struct value){.kind = KIND_INT, .number = value});
}

static int op_binunicode(struct machine *m, size_t arg)
{
    uint32_t len = 0;
    const uint8_t *p = NULL;
    if (read_number(m, 4, &len) || read_bytes(m, len, &p))
        return -1;
    return push(m, (struct value){.kind = KIND_TEXT, .len = len, .text = (const char *)p});
}

static int op_empty_dict(struct machine *m, size_t arg)
{
    if (m->has_dict)
        return refuse(m, "more than one dict");
    m->has_dict = true;
    return push(m, (struct value){.kind = KIND_DICT});
}

/* Replaces the values from `first` up by one tuple of them. */
static int make_tuple(struct machine *m, size_t first)
{
    struct value tuple = {
        .kind = KIND_TUPLE, .len = (uint32_t)(m->stack.n - first), .index = m->items.n};
    for (size_t i = first; i < m->stack.n; i++) {
        if (append(m, &m->items, m->stack.data[i]))
            return -1;
    }
    m->stack.n = first;
    return push(m, tuple);
}

static int op_tuple(struct machine *m, size_t arg)
{
    size_t first = 0;
    if (find_mark(m, &first) || make_tuple(m, first))
        return -1;
    m->stack.data[first - 1] = m->stack.data[first]; /* over the mark */
    m->stack.n = first;
    return 0;
}

static int op_tuple_of(struct machine *m, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (i >= m->stack.n || m->stack.data[m->stack.n - 1 - i].kind == KIND_MARK)
            return refuse(m, "nothing on the stack");
    }
    return make_tuple(m, m->stack.n - len);
}

static int op_put(struct machine *m, size_t size)
{
    uint32_t slot = 0;
    struct value top;
    if (read_number(m, size, &slot))
        return -1;
    /* torch numbers the memo from 0; a slot past the pickle's length only serves to eat memory. */
    if (slot >= m->size)
        return refuse(m, "memo slot %u is out of range", slot);
    if (pop(m, &top))
        return -1;
    while (m->memo.n <= slot) {
        if (append(m, &m->memo, (struct value){.kind = KIND_MARK}))
            return -1;
    }
    m->memo.data[slot] = top;
    return push(m, top);
}

static int op_get(struct machine *m, size_t size)
{
    uint32_t slot = 0;
    if (read_number(m, size, &slot))
        return -1;
    if (slot >= m->memo.n || m->memo.data[slot].kind == KIND_MARK)
        return refuse(m, "memo slot %u was never set", slot);
    return push(m, m->memo.data[slot]);
}

/* ---- opcodes: globals, storages, tensors, the dict ------------------------------------------ */

/* A line of the pickle without its newline. */
static int read_line(struct machine *m, const char **line, int *len)
{
    const uint8_t *start = m->data + m->pos;
    const uint8_t *end = memchr(start, '\n', m->size - m->pos);
    if (!end)
        return refuse(m, "a name without end");
    m->pos += (size_t)(end - start) + 1;
    *line = (const char *)start;
    *len = (int)(end - start);
    return 0;
}

static bool line_is(const char *line, int len, const char *text)
{
    return strlen(text) == (size_t)len && !memcmp(line, text, (size_t)len);
}

static int op_global(struct machine *m, size_t arg)
{
    const char *module = NULL, *name = NULL;
    int module_len = 0, name_len = 0;
    if (read_line(m, &module, &module_len) || read_line(m, &name, &name_len))
        return -1;
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
        if (line_is(module, module_len, globals[i].module) &&
            line_is(name, name_len, globals[i].name))
            return push(m, (struct value){.kind = KIND_GLOBAL, .index = i});
    }
    return refuse(m, "global '%.*s %.*s' is not allowed: nothing in this file is executed",
                  module_len > 60 ? 60 : module_len, module, name_len > 60 ? 60 : name_len, name);
}

/* Index of the storage, listed before or now; the same key must mean the same storage. */
static int intern_storage(struct machine *m, struct pickle_storage wanted, size_t *index)
{
    struct pickle *out = m->out;
    for (size_t i = 0; i < out->n_storages; i++) {
        const struct pickle_storage *s = &out->storages[i];
        if (s->key_len != wanted.key_len || memcmp(s->key, wanted.key, wanted.key_len))
            continue;
        if (s->dtype != wanted.dtype || s->n != wanted.n)
            return refuse(m, "storage '%.*s' is described in two ways", (int)wanted.key_len,
                          wanted.key);
        *index = i;
        return 0;
    }
    if (out->n_storages == PICKLE_ENTRIES_MAX)
        return refuse(m, "more than %d storages", PICKLE_ENTRIES_MAX);
    size_t n = out->n_storages;
    struct pickle_storage *storages = realloc(out->storages, (n + 1) * sizeof *storages);
    if (!storages)
        return error_memory(m->err, (n + 1) * sizeof *storages, "a list of storages");
    storages[n] = wanted;
    out->storages = storages;
    *index = out->n_storages++;
    return 0;
}

/* ('storage', CLASS, KEY, LOCATION, N); where it lived before, CPU or GPU, does not matter. */
static int op_binpersid(struct machine *m, size_t arg)
{
    struct value id;
    if (pop(m, &id))
        return -1;
    if (!is_tuple(id, 5) || !text_is(member(m, id, 0), "storage"))
        return refuse(m, "persistent id is no ('storage', class, key, location, size)");
    struct value class = member(m, id, 1), key = member(m, id, 2), n = member(m, id, 4);
    if (class.kind != KIND_GLOBAL || globals[class.index].role != ROLE_STORAGE)
        return refuse(m, "persistent id names no storage class");
    if (key.kind != KIND_TEXT || key.len < 1 || key.len > 32 || memchr(key.text, '/', key.len) ||
        memchr(key.text, '\0', key.len))
        return refuse(m, "persistent id has no plain key");
    if (member(m, id, 3).kind != KIND_TEXT || n.kind != KIND_INT || n.number < 0)
        return refuse(m, "persistent id has no location or no size");
    struct pickle_storage storage = {globals[class.index].dtype, key.text, key.len,
                                     (uint64_t)n.number};
    size_t index = 0;
    if (intern_storage(m, storage, &index))
        return -1;
    return push(m, (struct value){.kind = KIND_STORAGE, .index = index});
}

/* (storage, offset, (n,), (1,), requires_grad, OrderedDict()) */
static int rebuild_tensor(struct machine *m, struct value args)
{
    if (!is_tuple(args, 6) || member(m, args, 0).kind != KIND_STORAGE)
        return refuse(m, "_rebuild_tensor_v2 without its storage and five more arguments");
    struct value offset = member(m, args, 1), size = member(m, args, 2);
    struct value stride = member(m, args, 3);
    if (!is_tuple(size, 1) || !is_tuple(stride, 1))
        return refuse(m, "a tensor that has not one dimension");
    struct value n = member(m, size, 0), step = member(m, stride, 0);
    if (offset.kind != KIND_INT || n.kind != KIND_INT || offset.number < 0 || n.number < 1)
        return refuse(m, "a tensor's offset or size is no number, or too small");
    if (step.kind != KIND_INT || step.number != 1)
        return refuse(m, "a tensor with a stride other than 1");
    if (member(m, args, 4).kind != KIND_BOOL || member(m, args, 5).kind != KIND_ORDERED)
        return refuse(m, "a tensor with unexpected arguments");
    size_t storage = member(m, args, 0).index;
    uint64_t have = m->out->storages[storage].n, first = (uint64_t)offset.number;
    if (first > have || (uint64_t)n.number > have - first)
        return refuse(m, "a tensor of %jd elements from %jd in a storage of %ju",
                      (intmax_t)n.number, (intmax_t)offset.number, (uintmax_t)have);
    if (m->n_tensors == m->cap_tensors) {
        struct pickle_entry *tensors = grow(m->tensors, &m->cap_tensors, sizeof *tensors);
        if (!tensors)
            return error_memory(m->err, m->n_tensors * sizeof *tensors, "a pickle");
        m->tensors = tensors;
    }
    m->tensors[m->n_tensors] = (struct pickle_entry){0, storage, first, (uint64_t)n.number};
    return push(m, (struct value){.kind = KIND_TENSOR, .index = m->n_tensors++});
}

static int op_reduce(struct machine *m, size_t arg)
{
    struct value args, callee;
    if (pop(m, &args) || pop(m, &callee))
        return -1;
    if (callee.kind == KIND_GLOBAL && globals[callee.index].role == ROLE_REBUILD)
        return rebuild_tensor(m, args);
    if (callee.kind == KIND_GLOBAL && globals[callee.index].role == ROLE_ORDERED_DICT &&
        is_tuple(args, 0))
        return push(m, (struct value){.kind = KIND_ORDERED});
    return refuse(m, "neither _rebuild_tensor_v2 nor OrderedDict()");
}

static int set_item(struct machine *m, struct value key, struct value value)
{
    struct pickle *out = m->out;
    if (key.kind != KIND_INT)
        return refuse(m, "a key that is no integer: not a dict[int -> tensor]");
    if (value.kind != KIND_TENSOR)
        return refuse(m, "the value of key %jd is no tensor", (intmax_t)key.number);
    for (size_t i = 0; i < out->n_entries; i++) {
        if (out->entries[i].key == key.number)
            return refuse(m, "key %jd appears twice", (intmax_t)key.number);
    }
    if (out->n_entries == PICKLE_ENTRIES_MAX)
        return refuse(m, "more than %d tensors", PICKLE_ENTRIES_MAX);
    if (!out->entries) {
        out->entries = malloc(PICKLE_ENTRIES_MAX * sizeof *out->entries);
        if (!out->entries)
            return error_memory(m->err, PICKLE_ENTRIES_MAX * sizeof *out->entries, "a pickle");
    }
    out->entries[out->n_entries] = m->tensors[value.index];
    out->entries[out->n_entries++].key = key.number;
    return 0;
}

/* Sets the pairs from `first` up in the dict below; `base` is where the dict stands. */
static int set_items(struct machine *m, size_t first, size_t base)
{
    const struct value *stack = m->stack.data;
    if (stack[base].kind != KIND_DICT || (m->stack.n - first) % 2)
        return refuse(m, "no dict, or a key without a value");
    for (size_t i = first; i < m->stack.n; i += 2) {
        if (set_item(m, stack[i], stack[i + 1]))
            return -1;
    }
    m->stack.n = base + 1;
    return 0;
}

static int op_setitem(struct machine *m, size_t arg)
{
    if (m->stack.n < 3)
        return refuse(m, "nothing on the stack");
    return set_items(m, m->stack.n - 2, m->stack.n - 3);
}

static int op_setitems(struct machine *m, size_t arg)
{
    size_t first = 0;
    if (find_mark(m, &first))
        return -1;
    if (first < 2)
        return refuse(m, "nothing on the stack");
    return set_items(m, first, first - 2);
}

static int op_stop(struct machine *m, size_t arg)
{
    if (m->stack.n != 1 || m->stack.data[0].kind != KIND_DICT)
        return refuse(m, "the file holds something else than a dict of tensors");
    if (m->pos != m->size)
        return refuse(m, "%zu bytes follow", m->size - m->pos);
    m->stopped = true;
    return 0;
}

/* ---- the table ------------------------------------------------------------------------------ */

/* All opcodes up to protocol 5; those without a function are refused by name. */
static const struct {
    uint8_t code;
    const char *name;
    int (*run)(struct machine *m, size_t arg);
    size_t arg; /* kind to push; bytes of a number or slot; members of a tuple */
} opcodes[] = {
    {0x80, "PROTO", op_proto, 0},
    {'(', "MARK", op_push, KIND_MARK},
    {'.', "STOP", op_stop, 0},
    {'J', "BININT", op_number, 4},
    {'K', "BININT1", op_number, 1},
    {'M', "BININT2", op_number, 2},
    {'N', "NONE", op_push, KIND_NONE},
    {0x88, "NEWTRUE", op_push, KIND_BOOL},
    {0x89, "NEWFALSE", op_push, KIND_BOOL},
    {'X', "BINUNICODE", op_binunicode, 0},
    {'}', "EMPTY_DICT", op_empty_dict, 0},
    {')', "EMPTY_TUPLE", op_tuple_of, 0},
    {'t', "TUPLE", op_tuple, 0},
    {0x85, "TUPLE1", op_tuple_of, 1},
    {0x86, "TUPLE2", op_tuple_of, 2},
    {0x87, "TUPLE3", op_tuple_of, 3},
    {'q', "BINPUT", op_put, 1},
    {'r', "LONG_BINPUT", op_put, 4},
    {'h', "BINGET", op_get, 1},
    {'j', "LONG_BINGET", op_get, 4},
    {'c', "GLOBAL", op_global, 0},
    {'Q', "BINPERSID", op_binpersid, 0},
    {'R', "REDUCE", op_reduce, 0},
    {'s', "SETITEM", op_setitem, 0},
    {'u', "SETITEMS", op_setitems, 0},

    {'0', "POP", NULL, 0},
    {'1', "POP_MARK", NULL, 0},
    {'2', "DUP", NULL, 0},
    {'B', "BINBYTES", NULL, 0},
    {'C', "SHORT_BINBYTES", NULL, 0},
    {'F', "FLOAT", NULL, 0},
    {'G', "BINFLOAT", NULL, 0},
    {'I', "INT", NULL, 0},
    {'L', "LONG", NULL, 0},
    {'P', "PERSID", NULL, 0},
    {'S', "STRING", NULL, 0},
    {'T', "BINSTRING", NULL, 0},
    {'U', "SHORT_BINSTRING", NULL, 0},
    {'V', "UNICODE", NULL, 0},
    {']', "EMPTY_LIST", NULL, 0},
    {'a', "APPEND", NULL, 0},
    {'b', "BUILD", NULL, 0},
    {'d', "DICT", NULL, 0},
    {'e', "APPENDS", NULL, 0},
    {'g', "GET", NULL, 0},
    {'i', "INST", NULL, 0},
    {'l', "LIST", NULL, 0},
    {'o', "OBJ", NULL, 0},
    {'p', "PUT", NULL, 0},
    {0x81, "NEWOBJ", NULL, 0},
    {0x82, "EXT1", NULL, 0},
    {0x83, "EXT2", NULL, 0},
    {0x84, "EXT4", NULL, 0},
    {0x8a, "LONG1", NULL, 0},
    {0x8b, "LONG4", NULL, 0},
    {0x8c, "SHORT_BINUNICODE", NULL, 0},
    {0x8d, "BINUNICODE8", NULL, 0},
    {0x8e, "BINBYTES8", NULL, 0},
    {0x8f, "EMPTY_SET", NULL, 0},
    {0x90, "ADDITEMS", NULL, 0},
    {0x91, "FROZENSET", NULL, 0},
    {0x92, "NEWOBJ_EX", NULL, 0},
    {0x93, "STACK_GLOBAL", NULL, 0},
    {0x94, "MEMOIZE", NULL, 0},
    {0x95, "FRAME", NULL, 0},
    {0x96, "BYTEARRAY8", NULL, 0},
    {0x97, "NEXT_BUFFER", NULL, 0},
    {0x98, "READONLY_BUFFER", NULL, 0},
};

static int step(struct machine *m)
{
    const uint8_t *code = NULL;
    m->op = "end";
    m->op_pos = m->pos;
    if (read_bytes(m, 1, &code))
        return -1;
    for (size_t i = 0; i < sizeof opcodes / sizeof *opcodes; i++) {
        if (opcodes[i].code != *code)
            continue;
        m->op = opcodes[i].name;
        if (!opcodes[i].run)
            return refuse(m, "this opcode is not allowed");
        return opcodes[i].run(m, opcodes[i].arg);
    }
    m->op = "opcode";
    return refuse(m, "0x%02x is unknown", *code);
}

int pickle_read(const uint8_t *data, size_t size, const char *path, struct pickle *out,
                struct gyaru_error *err)
{
    struct pickle pickle = {0};
    struct machine m = {
        .path = path, .err = err, .data = data, .size = size, .op = "start", .out = &pickle};
    int rc = 0;
    if (size > PICKLE_LIMIT)
        rc = refuse(&m, "%zu bytes, more than the limit of %zu", size, PICKLE_LIMIT);
    while (!rc && !m.stopped)
        rc = step(&m);
    free(m.stack.data);
    free(m.items.data);
    free(m.memo.data);
    free(m.tensors);
    if (rc)
        pickle_release(&pickle);
    else
        *out = pickle;
    return rc;
}

void pickle_release(struct pickle *pickle)
{
    free(pickle->storages);
    free(pickle->entries);
    *pickle = (struct pickle){0};
}
