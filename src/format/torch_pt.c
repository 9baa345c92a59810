/*
 * torch_pt.c - see torch_pt.h.
 *
 * The file is a zip whose members lie under one directory: data.pkl describes the tensors,
 * data/KEY hold their bytes, byteorder says "little" and may be missing. Members that the pickle
 * does not point to are not looked at. Only members stored as they are get read, so none can be
 * larger than the file, and all that is read together is held below the file's size, so members
 * that share their bytes gain an attacker nothing.
 */
#include "format/torch_pt.h"

#include "base/file.h"
#include "base/half.h"
#include "base/str.h"
#include "format/pickle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#define MEMBERS_MAX (2 * PICKLE_ENTRIES_MAX) /* a member for each storage, and a few besides */
#define PICKLE_NAME "data.pkl"

struct archive {
    const char *path;
    struct gyaru_error *err;
    struct file_map map;
    zip_t *zip;
    size_t n_members;
    char *prefix; /* "NAME/", owned */
    size_t read;  /* bytes of all members read so far */
};

static int fail(const struct archive *a, const char *what)
{
    return error_set(a->err, GYARU_FAILED, "%s: %s", a->path, what);
}

static const char *member_name(const struct archive *a, size_t i)
{
    const char *name = zip_get_name(a->zip, i, ZIP_FL_ENC_RAW);
    return name ? name : "";
}

/* *index of PREFIX + name, -1 if there is none. */
static int find_member(const struct archive *a, const char *name, int64_t *index)
{
    size_t prefix = strlen(a->prefix);
    int64_t found = -1;
    for (size_t i = 0; i < a->n_members; i++) {
        if (strcmp(member_name(a, i) + prefix, name))
            continue;
        if (found >= 0)
            return error_set(a->err, GYARU_FAILED, "%s: member '%s' appears twice", a->path, name);
        found = (int64_t)i;
    }
    *index = found;
    return 0;
}

/* Checks how member i is stored and gives its size. */
static int stat_member(const struct archive *a, int64_t i, size_t *size)
{
    const zip_uint64_t wanted =
        ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    zip_stat_t st;
    if (zip_stat_index(a->zip, (zip_uint64_t)i, 0, &st) || (st.valid & wanted) != wanted)
        return fail(a, "damaged zip directory");
    if (st.comp_method != ZIP_CM_STORE || st.encryption_method != ZIP_EM_NONE)
        return error_set(a->err, GYARU_FAILED,
                         "%s: member '%.80s' is compressed or encrypted: torch.save stores",
                         a->path, member_name(a, (size_t)i));
    if (st.size != st.comp_size || st.size > a->map.size)
        return error_set(a->err, GYARU_FAILED, "%s: member '%.80s' has a wrong size: %ju bytes",
                         a->path, member_name(a, (size_t)i), (uintmax_t)st.size);
    *size = st.size;
    return 0;
}

/* The bytes of member i of the zip (caller frees), checked against the zip's CRC. */
static int read_at(struct archive *a, int64_t i, uint8_t **data, size_t *size)
{
    size_t n = 0;
    if (stat_member(a, i, &n))
        return -1;
    if (n > a->map.size - a->read)
        return fail(a, "members share their bytes: not written by torch");
    a->read += n;
    uint8_t *buffer = malloc(n + 1);
    if (!buffer)
        return error_memory(a->err, n, "a zip member");
    zip_file_t *file = zip_fopen_index(a->zip, (zip_uint64_t)i, 0);
    /* The byte more makes libzip meet the end and compare the CRC. */
    zip_int64_t done = file ? zip_fread(file, buffer, n + 1) : -1;
    bool whole = done >= 0 && (size_t)done == n && zip_fread(file, buffer + n, 1) == 0;
    if (file && zip_fclose(file))
        whole = false;
    if (!whole) {
        free(buffer);
        return error_set(a->err, GYARU_FAILED,
                         "%s: member '%.80s' cannot be read: the file is cut short or damaged",
                         a->path, member_name(a, (size_t)i));
    }
    *data = buffer;
    *size = n;
    return 0;
}

/* The same by name below the prefix. */
static int read_member(struct archive *a, const char *name, uint8_t **data, size_t *size)
{
    int64_t i = -1;
    if (find_member(a, name, &i))
        return -1;
    if (i < 0)
        return error_set(a->err, GYARU_FAILED, "%s: member '%s' is missing", a->path, name);
    return read_at(a, i, data, size);
}

/* All members lie under the directory of the one data.pkl. */
static int find_prefix(struct archive *a)
{
    for (size_t i = 0; i < a->n_members && !a->prefix; i++) {
        const char *name = member_name(a, i), *slash = strchr(name, '/');
        if (slash && !strcmp(slash + 1, PICKLE_NAME) &&
            !(a->prefix = strndup(name, (size_t)(slash - name) + 1)))
            return error_memory(a->err, strlen(name), "a member's name");
    }
    if (!a->prefix)
        return fail(a, "a zip without " PICKLE_NAME ": not written by torch.save");
    for (size_t i = 0; i < a->n_members; i++) {
        if (strncmp(member_name(a, i), a->prefix, strlen(a->prefix)))
            return error_set(a->err, GYARU_FAILED, "%s: member '%.80s' lies outside '%.80s'",
                             a->path, member_name(a, i), a->prefix);
    }
    return 0;
}

static int check_byteorder(struct archive *a)
{
    int64_t i = -1;
    uint8_t *data = NULL;
    size_t size = 0;
    if (find_member(a, "byteorder", &i))
        return -1;
    if (i < 0)
        return 0;
    if (read_at(a, i, &data, &size))
        return -1;
    bool little = size >= 6 && !memcmp(data, "little", 6);
    free(data);
    if (!little)
        return fail(a, "byteorder is not \"little\": save the file on a little-endian machine");
    return 0;
}

static int open_archive(struct archive *a)
{
    zip_error_t why;
    zip_error_init(&why);
    zip_source_t *source = zip_source_buffer_create(a->map.data, a->map.size, 0, &why);
    if (source && !(a->zip = zip_open_from_source(source, ZIP_RDONLY, &why)))
        zip_source_free(source);
    if (!a->zip) {
        error_set(a->err, GYARU_FAILED, "%s: not a whole zip file: %s", a->path,
                  zip_error_strerror(&why));
        zip_error_fini(&why);
        return -1;
    }
    zip_error_fini(&why);
    zip_int64_t n = zip_get_num_entries(a->zip, 0);
    if (n < 0 || n > MEMBERS_MAX)
        return error_set(a->err, GYARU_FAILED, "%s: %jd members, more than the limit of %d",
                         a->path, (intmax_t)n, MEMBERS_MAX);
    a->n_members = (size_t)n;
    if (find_prefix(a))
        return -1;
    return check_byteorder(a);
}

static void close_archive(struct archive *a)
{
    if (a->zip)
        zip_discard(a->zip);
    free(a->prefix);
    file_map_close(&a->map);
}

static void convert(enum dtype dtype, const uint8_t *data, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, sizeof bits);
        out[i] = dtype == DTYPE_F16 ? half_to_float(bits) : bf16_to_float(bits);
    }
}

/* Reads storage `s` and fills all entries that point into it. */
static int read_storage(struct archive *a, const struct pickle *pickle, size_t s,
                        struct torch_pt *pt)
{
    const struct pickle_storage *storage = &pickle->storages[s];
    char name[64];
    snprintf(name, sizeof name, "data/%.*s", (int)storage->key_len, storage->key);
    uint8_t *data = NULL;
    size_t size = 0, step = dtype_size(storage->dtype);
    if (read_member(a, name, &data, &size))
        return -1;
    if (size % step || size / step != storage->n) {
        free(data);
        return error_set(a->err, GYARU_FAILED,
                         "%s: member '%s' has %zu bytes, the pickle wants %ju elements of %zu",
                         a->path, name, size, (uintmax_t)storage->n, step);
    }
    for (size_t e = 0; e < pickle->n_entries; e++) {
        const struct pickle_entry *entry = &pickle->entries[e];
        if (entry->storage != s)
            continue;
        const uint8_t *first = data + step * entry->offset;
        if (storage->dtype == DTYPE_F32)
            memcpy(pt->entries[e].values, first, step * entry->n);
        else
            convert(storage->dtype, first, entry->n, pt->entries[e].values);
    }
    free(data);
    return 0;
}

/* Allocates the entries. Views may overlap in their storage, but together they may not be larger
 * than the file: a few bytes of pickle must not claim memory that the file does not have. */
static int prepare(struct archive *a, const struct pickle *pickle, struct torch_pt *pt)
{
    size_t total = 0;
    pt->entries = calloc(pickle->n_entries + 1, sizeof *pt->entries);
    if (!pt->entries)
        return error_memory(a->err, pickle->n_entries * sizeof *pt->entries, "the tensors");
    for (size_t e = 0; e < pickle->n_entries; e++) {
        const struct pickle_entry *entry = &pickle->entries[e];
        size_t step = dtype_size(pickle->storages[entry->storage].dtype);
        if (entry->n > (a->map.size - total) / step)
            return error_set(a->err, GYARU_FAILED,
                             "%s: key %jd: %ju elements are more than the file holds", a->path,
                             (intmax_t)entry->key, (uintmax_t)entry->n);
        total += step * entry->n;
        pt->entries[e].key = entry->key;
        pt->entries[e].n = entry->n;
        pt->entries[e].values = malloc(sizeof(float) * entry->n);
        pt->n_entries++;
        if (!pt->entries[e].values)
            return error_memory(a->err, sizeof(float) * entry->n, "a tensor");
    }
    return 0;
}

static int read_archive(struct archive *a, struct torch_pt *pt)
{
    uint8_t *data = NULL;
    size_t size = 0;
    struct pickle pickle = {0};
    if (read_member(a, PICKLE_NAME, &data, &size))
        return -1;
    int rc = pickle_read(data, size, a->path, &pickle, a->err);
    if (!rc && !pickle.n_entries)
        rc = fail(a, "an empty dict: no tensor in it");
    if (!rc)
        rc = prepare(a, &pickle, pt);
    for (size_t s = 0; s < pickle.n_storages && !rc; s++)
        rc = read_storage(a, &pickle, s, pt);
    pickle_release(&pickle);
    free(data);
    return rc;
}

int torch_pt_read(const char *path, struct torch_pt *out, struct gyaru_error *err)
{
    struct archive a = {.path = path, .err = err};
    struct torch_pt pt = {0};
    if (file_map_open(path, &a.map, err))
        return -1;
    int rc = open_archive(&a);
    if (!rc)
        rc = read_archive(&a, &pt);
    close_archive(&a);
    if (rc)
        torch_pt_release(&pt);
    else
        *out = pt;
    return rc;
}

void torch_pt_release(struct torch_pt *pt)
{
    for (size_t i = 0; i < pt->n_entries; i++)
        free(pt->entries[i].values);
    free(pt->entries);
    *pt = (struct torch_pt){0};
}

/* ---- writing ------------------------------------------------------------------------------ */

static void put_bytes(struct str *s, size_t size, uint32_t value)
{
    for (size_t i = 0; i < size; i++)
        str_putc(s, (char)(value >> (8 * i) & 0xff));
}

/* BININT1, BININT2 or BININT, whichever is shortest. */
static void put_int(struct str *s, int32_t value)
{
    bool byte = value >= 0 && value <= 0xff, word = value >= 0 && value <= 0xffff;
    str_putc(s, byte ? 'K' : word ? 'M' : 'J');
    put_bytes(s, byte ? 1 : word ? 2 : 4, (uint32_t)value);
}

static void put_text(struct str *s, const char *text)
{
    str_putc(s, 'X');
    put_bytes(s, 4, (uint32_t)strlen(text));
    str_puts(s, text);
}

/* KEY: _rebuild_tensor_v2(storage, 0, (n,), (1,), False, OrderedDict()). No memo is needed: names
 * are written out each time. */
static void put_entry(struct str *s, const struct torch_pt_entry *entry, size_t i)
{
    char key[24];
    snprintf(key, sizeof key, "%zu", i);
    put_int(s, (int32_t)entry->key);
    str_puts(s, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(s, "storage");
    str_puts(s, "ctorch\nHalfStorage\n");
    put_text(s, key);
    put_text(s, "cpu");
    put_int(s, (int32_t)entry->n);
    str_puts(s, "tQK");
    str_putc(s, '\0');
    put_int(s, (int32_t)entry->n);
    str_puts(s, "\x85K\x01\x85\x89"
                "ccollections\nOrderedDict\n)RtR");
}

static int check_writable(const char *path, const struct torch_pt *pt, struct gyaru_error *err)
{
    if (!pt->n_entries || pt->n_entries > PICKLE_ENTRIES_MAX)
        return error_set(err, GYARU_FAILED, "%s: %zu tensors cannot be written: 1 to %d can", path,
                         pt->n_entries, PICKLE_ENTRIES_MAX);
    for (size_t i = 0; i < pt->n_entries; i++) {
        const struct torch_pt_entry *e = &pt->entries[i];
        if (e->key < INT32_MIN || e->key > INT32_MAX || e->n < 1 || e->n > INT32_MAX / 2)
            return error_set(err, GYARU_FAILED, "%s: key %jd with %zu elements cannot be written",
                             path, (intmax_t)e->key, e->n);
        for (size_t k = 0; k < e->n; k++) {
            if ((half_from_float(e->values[k]) & 0x7c00) == 0x7c00)
                return error_set(err, GYARU_FAILED,
                                 "%s: key %jd: element %zu does not fit in float16", path,
                                 (intmax_t)e->key, k);
        }
    }
    return 0;
}

/* Adds a stored member with a fixed date, so that equal vectors give equal files. Takes `data`,
 * from malloc, over. */
static int add_member(zip_t *zip, const char *name, void *data, size_t len)
{
    char full[64];
    snprintf(full, sizeof full, "archive/%s", name);
    zip_source_t *source = data ? zip_source_buffer(zip, data, len, 1) : NULL;
    if (!source) {
        free(data);
        return -1;
    }
    zip_int64_t i = zip_file_add(zip, full, source, ZIP_FL_ENC_UTF_8);
    if (i < 0) {
        zip_source_free(source);
        return -1;
    }
    if (zip_set_file_compression(zip, (zip_uint64_t)i, ZIP_CM_STORE, 0))
        return -1;
    return zip_file_set_dostime(zip, (zip_uint64_t)i, 0, 1 << 5 | 1, 0); /* 1980-01-01 */
}

static int add_text(zip_t *zip, const char *name, const char *text)
{
    return add_member(zip, name, strdup(text), strlen(text));
}

static int add_pickle(zip_t *zip, const struct torch_pt *pt)
{
    struct str s = STR_INIT;
    str_puts(&s, "\x80\x02}(");
    for (size_t i = 0; i < pt->n_entries; i++)
        put_entry(&s, &pt->entries[i], i);
    str_puts(&s, "u.");
    size_t len = s.len;
    return add_member(zip, PICKLE_NAME, str_take(&s), len);
}

static int add_storage(zip_t *zip, const struct torch_pt_entry *entry, size_t i)
{
    char name[32];
    snprintf(name, sizeof name, "data/%zu", i);
    uint16_t *half = malloc(entry->n * sizeof *half);
    for (size_t k = 0; half && k < entry->n; k++)
        half[k] = half_from_float(entry->values[k]);
    return add_member(zip, name, half, entry->n * sizeof *half);
}

/* The finished zip that lies in `source` goes to the file. */
static int write_source(zip_source_t *source, const char *path, struct gyaru_error *err)
{
    zip_stat_t st;
    if (zip_source_stat(source, &st) || !(st.valid & ZIP_STAT_SIZE) || zip_source_open(source))
        return error_set(err, GYARU_FAILED, "%s: cannot build the zip", path);
    int rc;
    char *data = malloc(st.size + 1);
    if (!data)
        rc = error_memory(err, st.size, "the zip");
    else if (zip_source_read(source, data, st.size) != (zip_int64_t)st.size)
        rc = error_set(err, GYARU_FAILED, "%s: cannot build the zip", path);
    else
        rc = file_write_atomic(path, data, st.size, err);
    free(data);
    zip_source_close(source);
    return rc;
}

int torch_pt_write(const char *path, const struct torch_pt *pt, struct gyaru_error *err)
{
    if (check_writable(path, pt, err))
        return -1;
    zip_error_t why;
    zip_error_init(&why);
    zip_source_t *source = zip_source_buffer_create(NULL, 0, 0, &why);
    zip_t *zip = source ? zip_open_from_source(source, ZIP_CREATE | ZIP_TRUNCATE, &why) : NULL;
    zip_error_fini(&why);
    if (!zip) {
        zip_source_free(source);
        return error_memory(err, 0, "a zip");
    }
    zip_source_keep(source); /* zip_close lets go of its own hold */
    int rc = add_pickle(zip, pt) || add_text(zip, "byteorder", "little");
    for (size_t i = 0; i < pt->n_entries && !rc; i++)
        rc = add_storage(zip, &pt->entries[i], i);
    rc = rc || add_text(zip, "version", "3\n");
    if (rc || zip_close(zip)) {
        rc = error_set(err, GYARU_FAILED, "%s: cannot build the zip: %s", path, zip_strerror(zip));
        zip_discard(zip);
    } else {
        rc = write_source(source, path, err);
    }
    zip_source_free(source);
    return rc;
}
