/* shelf.c - see shelf.h. */
#include "server/shelf.h"

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- entries -------------------------------------------------------------------------------- */

struct shelf_vector *shelf_ref(struct shelf_vector *vector)
{
    atomic_fetch_add(&vector->refs, 1);
    return vector;
}

void shelf_unref(struct shelf_vector *vector)
{
    if (!vector || atomic_fetch_sub(&vector->refs, 1) != 1)
        return;
    if (vector->vector)
        gyaru_vector_close(vector->vector);
    free(vector->name);
    free(vector->path);
    free(vector->reason);
    free(vector);
}

bool shelf_usable(const struct shelf_vector *vector)
{
    return vector->vector != NULL;
}

/* Names are shown, logged and sent: text without control characters. */
static bool name_valid(const char *name, size_t len)
{
    if (!len || len > SHELF_NAME_MAX || name[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f || name[i] == '/')
            return false;
    }
    json_t *text = json_stringn(name, len); /* NULL for invalid UTF-8 */
    json_decref(text);
    return text != NULL;
}

/* Length of a vector's name within its file's; 0 if the file is no vector by its extension. */
static size_t name_len(const char *file)
{
    static const char *const extensions[] = {".safetensors", ".pt", ".gguf"};
    size_t len = strlen(file);
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        size_t n = strlen(extensions[i]);
        if (len > n && !strcmp(file + len - n, extensions[i]))
            return len - n;
    }
    return 0;
}

static char *replaced(const char *message, const char *path, const char *name)
{
    struct str out = STR_INIT;
    size_t len = strlen(path);
    for (const char *at; len && (at = strstr(message, path)); message = at + len) {
        str_append(&out, message, (size_t)(at - message));
        str_puts(&out, name);
    }
    str_puts(&out, message);
    return str_take(&out);
}

/* Messages name paths; who reads the list over the network gets to see names only. */
static char *without_paths(const char *message, const struct shelf_vector *entry,
                           const struct gyaru_model *model)
{
    const struct gyaru_model_info *info = gyaru_model_info(model);
    char *once = replaced(message, entry->path, entry->name);
    char *twice = once ? replaced(once, info->dir, info->name) : NULL;
    free(once);
    return twice;
}

static void refuse(struct shelf_vector *entry, const struct gyaru_model *model,
                   const struct gyaru_error *err)
{
    entry->reason = without_paths(err->text, entry, model);
    entry->reason_code = *err->reason ? err->reason : reason_name(REASON_UNREADABLE);
}

/* What a warning about a usable vector is about. */
static enum reason doubt_of(const struct shelf_vector *entry, const struct gyaru_vector *vector)
{
    if (!*gyaru_vector_info(vector)->model_fingerprint)
        return REASON_UNVERIFIED;
    return entry->options.force ? REASON_FORCED : REASON_NO_HOOK;
}

/* Fills state, reason, vector and meter. */
static void check(struct shelf_vector *entry, const struct gyaru_model *model,
                  struct gyaru_error *err)
{
    char *warning = NULL;
    struct gyaru_vector *vector;
    if (gyaru_vector_open(entry->path, &vector, err)) {
        entry->state = SHELF_UNREADABLE;
        refuse(entry, model, err);
        return;
    }
    if (gyaru_model_admits(model, vector, &entry->options, &entry->gauge_layer, &warning, err)) {
        gyaru_vector_close(vector);
        entry->state = err->status == GYARU_MISMATCH ? SHELF_MISMATCH : SHELF_UNREADABLE;
        refuse(entry, model, err);
        return;
    }
    entry->vector = vector;
    entry->state = warning ? SHELF_UNVERIFIED : SHELF_MATCH;
    if (warning) {
        entry->reason = without_paths(warning, entry, model);
        entry->reason_code = reason_name(doubt_of(entry, vector));
    }
    free(warning);
}

/* NULL when out of memory. */
static struct shelf_vector *entry_new(const struct shelf *shelf, const char *path,
                                      const struct stat *stat,
                                      const struct gyaru_attach_options *options)
{
    struct gyaru_error refused;
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    size_t len = name_len(file);
    struct shelf_vector *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    atomic_init(&entry->refs, 1);
    entry->name = strndup(file, len ? len : strlen(file));
    entry->path = strdup(path);
    entry->stat = *stat;
    entry->gauge_layer = -1;
    entry->reason_code = reason_name(REASON_NONE);
    if (options)
        entry->options = *options;
    else
        gyaru_attach_options_init(&entry->options);
    if (!entry->name || !entry->path) {
        shelf_unref(entry);
        return NULL;
    }
    check(entry, shelf->model, &refused);
    return entry;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* A list being built. */
struct reading {
    const struct shelf *shelf; /* as it is: unchanged files keep their entries */
    struct shelf_vector *vectors[SHELF_MAX];
    size_t n;
};

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static struct shelf_vector *find(struct shelf_vector *const *vectors, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(vectors[i]->name, name))
            return vectors[i];
    }
    return NULL;
}

static void left_out(const struct reading *r, const char *name, const char *why)
{
    log_event(r->shelf->sources.log, LOG_LEVEL_WARN, "vector_left_out",
              json_pack("{s:s,s:s}", "vector", name, "reason", why));
}

/* Adds the file's entry, the known one if the file is as it was. */
static int add(struct reading *r, const char *path, const struct stat *stat,
               const struct gyaru_attach_options *options, struct gyaru_error *err)
{
    struct shelf_vector *entry = NULL;
    for (size_t i = 0; !entry && i < r->shelf->n; i++) {
        struct shelf_vector *known = r->shelf->vectors[i];
        if (!strcmp(known->path, path) && same_file(&known->stat, stat))
            entry = shelf_ref(known);
    }
    if (!entry)
        entry = entry_new(r->shelf, path, stat, options);
    if (!entry)
        return error_memory(err, sizeof *entry, "a vector");
    /* What came first keeps the name; the main vector may well lie in the folder, too. */
    struct shelf_vector *first = find(r->vectors, r->n, entry->name);
    if (first || r->n == SHELF_MAX) {
        if (!first)
            left_out(r, entry->name, "there are too many");
        else if (first->stat.st_dev != stat->st_dev || first->stat.st_ino != stat->st_ino)
            left_out(r, entry->name, "the name is another one's");
        shelf_unref(entry);
        return 0;
    }
    r->vectors[r->n++] = entry;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct shelf_vector *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* A folder that is not there is an empty one. Links in it are not followed: who may write there
 * chooses no files elsewhere. */
static int add_folder(struct reading *r, const char *folder, struct gyaru_error *err)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort), rc = 0;
    if (n < 0)
        return errno == ENOENT ? 0 : error_errno(err, folder, "cannot list");
    for (int i = 0; i < n; i++) {
        const char *file = entries[i]->d_name;
        struct stat stat_;
        char *path = name_valid(file, name_len(file)) ? file_join(folder, file) : NULL;
        if (!rc && path && !lstat(path, &stat_)) {
            if (S_ISREG(stat_.st_mode))
                rc = add(r, path, &stat_, NULL, err);
            else if (S_ISLNK(stat_.st_mode))
                left_out(r, file, "it is a link");
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

static void drop(struct reading *r)
{
    for (size_t i = 0; i < r->n; i++)
        shelf_unref(r->vectors[i]);
    r->n = 0;
}

static int read_all(struct reading *r, struct gyaru_error *err)
{
    const struct shelf_sources *from = &r->shelf->sources;
    struct stat stat_;
    if (from->main && !stat(from->main, &stat_) &&
        add(r, from->main, &stat_, &from->main_options, err))
        return -1;
    size_t first = r->n;
    if ((from->folder && add_folder(r, from->folder, err)) ||
        (from->own && !stat(from->own, &stat_) && add(r, from->own, &stat_, NULL, err)))
        return -1;
    qsort(r->vectors + first, r->n - first, sizeof(struct shelf_vector *), by_name);
    return 0;
}

int shelf_reload(struct shelf *shelf, bool *changed, struct gyaru_error *err)
{
    struct reading r = {.shelf = shelf};
    struct shelf_vector **fresh = NULL;
    if (read_all(&r, err) || !(fresh = calloc(r.n ? r.n : 1, sizeof(struct shelf_vector *)))) {
        drop(&r);
        return fresh ? -1 : error_memory(err, SHELF_MAX * sizeof *fresh, "the vectors");
    }
    memcpy(fresh, r.vectors, r.n * sizeof(struct shelf_vector *));
    *changed = r.n != shelf->n ||
               (r.n && memcmp(fresh, shelf->vectors, r.n * sizeof(struct shelf_vector *)) != 0);
    for (size_t i = 0; i < shelf->n; i++)
        shelf_unref(shelf->vectors[i]);
    free(shelf->vectors);
    shelf->vectors = fresh;
    shelf->n = r.n;
    return 0;
}

int shelf_open(struct shelf *shelf, const struct gyaru_model *model,
               const struct shelf_sources *sources, struct gyaru_error *err)
{
    bool changed;
    *shelf = (struct shelf){.model = model, .sources = *sources};
    if (shelf_reload(shelf, &changed, err))
        return -1;
    if (!sources->main)
        return 0;
    if (shelf->n && shelf_usable(shelf->vectors[0]) &&
        !strcmp(shelf->vectors[0]->path, sources->main))
        return 0;
    /* The same words as everywhere else. */
    struct gyaru_vector *vector;
    int layer, rc = gyaru_vector_open(sources->main, &vector, err);
    char *warning = NULL;
    if (!rc) {
        rc = gyaru_model_admits(model, vector, &sources->main_options, &layer, &warning, err);
        free(warning);
        gyaru_vector_close(vector);
    }
    shelf_close(shelf);
    return rc ? rc : error_set(err, GYARU_FAILED, "%s: cannot be used", sources->main);
}

void shelf_close(struct shelf *shelf)
{
    for (size_t i = 0; i < shelf->n; i++)
        shelf_unref(shelf->vectors[i]);
    free(shelf->vectors);
    *shelf = (struct shelf){0};
}

bool shelf_name_valid(const char *name)
{
    return name_valid(name, strlen(name));
}

struct shelf_vector *shelf_find(const struct shelf *shelf, const char *name)
{
    return find(shelf->vectors, shelf->n, name);
}

/* ---- telling -------------------------------------------------------------------------------- */

json_t *shelf_json(const struct shelf_vector *vector)
{
    static const char *const states[] = {[SHELF_MATCH] = "match",
                                         [SHELF_UNVERIFIED] = "unverified",
                                         [SHELF_MISMATCH] = "mismatch",
                                         [SHELF_UNREADABLE] = "unreadable"};
    json_t *json = json_pack("{s:s,s:s,s:s,s:s?,s:s,s:b}", "id", vector->name, "object", "vector",
                             "fingerprint", states[vector->state], "reason", vector->reason,
                             "reason_code", vector->reason_code, "usable", shelf_usable(vector));
    if (!json || !shelf_usable(vector))
        return json;
    const struct gyaru_vector_info *info = gyaru_vector_info(vector->vector);
    json_t *more = json_pack(
        "{s:i,s:i,s:i,s:i,s:s,s:s,s:s,s:s,s:o,s:o}", "layer", vector->gauge_layer, "layer_min",
        info->layer_min, "layer_max", info->layer_max, "n_layers", info->n_directions, "hook",
        info->hook, "method", info->method, "position", info->position, "model", info->model_name,
        "recommended_strength", json_finite((double)info->recommended_strength), "max_strength",
        json_finite((double)info->max_strength));
    if (!more || json_object_update(json, more)) {
        json_decref(json);
        json = NULL;
    }
    json_decref(more);
    return json;
}

json_t *shelf_details(const struct shelf_vector *vector)
{
    struct gyaru_error error;
    char *text = NULL;
    json_t *json = shelf_json(vector);
    if (!json || !shelf_usable(vector) || gyaru_inspect(vector->path, NULL, &text, &error))
        return json;
    json_t *all = json_parse_text(text, strlen(text), "the vector", &error);
    json_t *metadata = json_object_get(all, "metadata");
    free(text);
    json_object_set(json, "directions", json_object_get(all, "layers"));
    const char *statistics = json_string_value(json_object_get(metadata, "statistics"));
    json_t *parsed =
        statistics ? json_parse(statistics, strlen(statistics), "the statistics", &error) : NULL;
    if (json_is_object(parsed))
        json_object_set(json, "statistics", parsed);
    json_decref(parsed);
    json_decref(all);
    return json;
}
