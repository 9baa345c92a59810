/*
 * checkpoint.c - see checkpoint.h.
 *
 * Owner of the opened shards. The index and the shards must tell the same story: every tensor of
 * the index lies in the shard it names, and every tensor of a shard is in the index under that
 * shard. A tensor that only a shard has is refused rather than ignored: such a directory mixes
 * two checkpoints, and which of them was meant cannot be known. Where both a single file and an
 * index exist, the single file is read, as Hugging Face's loader does.
 */
#include "format/checkpoint.h"

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#define SINGLE_NAME "model.safetensors"
#define INDEX_NAME  "model.safetensors.index.json"
#define INDEX_LIMIT ((size_t)16 << 20) /* bytes; 100,000 tensors, far beyond any model */

struct shard {
    char *name; /* file name without directory */
    struct safetensors *file;
};

struct checkpoint {
    struct shard *shards; /* [n_shards] by name */
    size_t n_shards;
    const struct tensor **tensors; /* [n] by shard, then by offset: the order on the disk */
    const struct tensor **by_name; /* [n] */
    size_t n;
};

static int compare_tensor(const void *a, const void *b)
{
    const struct tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_shard(const void *a, const void *b)
{
    const struct shard *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Lists the tensors of all shards. */
static int collect(struct checkpoint *c, struct gyaru_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_shards; i++)
        n += safetensors_count(c->shards[i].file);
    c->tensors = malloc((n + 1) * sizeof *c->tensors);
    c->by_name = malloc((n + 1) * sizeof *c->by_name);
    if (!c->tensors || !c->by_name)
        return error_memory(err, 2 * n * sizeof *c->tensors, "the list of tensors");
    for (size_t i = 0; i < c->n_shards; i++) {
        for (size_t k = 0; k < safetensors_count(c->shards[i].file); k++)
            c->tensors[c->n++] = safetensors_at(c->shards[i].file, k);
    }
    memcpy(c->by_name, c->tensors, n * sizeof *c->by_name);
    qsort(c->by_name, c->n, sizeof *c->by_name, compare_tensor);
    return 0;
}

static bool is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, ".") &&
           strcmp(name, "..");
}

/* The distinct shard names of the map, sorted. */
static int list_shards(struct checkpoint *c, json_t *map, const char *index,
                       struct gyaru_error *err)
{
    size_t n = json_object_size(map);
    c->shards = calloc(n + 1, sizeof *c->shards);
    if (!c->shards)
        return error_memory(err, (n + 1) * sizeof *c->shards, "the list of shards");
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !is_plain_name(name))
            return error_set(err, GYARU_FAILED,
                             "%s: weight_map: '%.80s' names no plain file: '%.80s'", index, tensor,
                             name ? name : "(no string)");
        /* Maps list a shard's tensors together, mostly: the sort below sees few names. */
        if (c->n_shards && !strcmp(c->shards[c->n_shards - 1].name, name))
            continue;
        if (!(c->shards[c->n_shards].name = strdup(name)))
            return error_memory(err, strlen(name), "a shard's name");
        c->n_shards++;
    }
    qsort(c->shards, c->n_shards, sizeof *c->shards, compare_shard);
    size_t kept = 0;
    for (size_t i = 0; i < c->n_shards; i++) {
        if (kept && !strcmp(c->shards[kept - 1].name, c->shards[i].name))
            free(c->shards[i].name);
        else
            c->shards[kept++] = c->shards[i];
    }
    c->n_shards = kept;
    return 0;
}

static int open_shard(struct shard *shard, const char *dir, struct gyaru_error *err)
{
    char *path = file_join(dir, shard->name);
    if (!path)
        return error_memory(err, strlen(dir), "a path");
    int rc = safetensors_open(path, &shard->file, err);
    free(path);
    return rc;
}

/* The map and the shards name the same tensors in the same places. */
static int check_map(const struct checkpoint *c, json_t *map, const char *index,
                     struct gyaru_error *err)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        const struct shard *shard = &c->shards[i];
        for (size_t k = 0; k < safetensors_count(shard->file); k++) {
            const char *name = safetensors_at(shard->file, k)->name;
            const char *place = json_string_value(json_object_get(map, name));
            if (!place)
                return error_set(err, GYARU_FAILED,
                                 "%s: %.80s holds tensor '%.80s', which weight_map does not name: "
                                 "files of two checkpoints mixed?",
                                 index, shard->name, name);
            if (strcmp(place, shard->name))
                return error_set(err, GYARU_FAILED,
                                 "%s: weight_map puts tensor '%.80s' in %.80s, but %.80s holds it",
                                 index, name, place, shard->name);
        }
    }
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        struct shard key = {.name = (char *)json_string_value(value)};
        const struct shard *shard =
            bsearch(&key, c->shards, c->n_shards, sizeof *c->shards, compare_shard);
        if (!safetensors_find(shard->file, name))
            return error_set(err, GYARU_FAILED,
                             "%s: weight_map puts tensor '%.80s' in %.80s, which lacks it", index,
                             name, shard->name);
    }
    return 0;
}

static int open_sharded(struct checkpoint *c, const char *dir, const char *index,
                        struct gyaru_error *err)
{
    json_t *json = json_parse_file(index, INDEX_LIMIT, err);
    if (!json)
        return -1;
    json_t *map = json_object_get(json, "weight_map");
    int rc = 0;
    if (!json_is_object(map) || !json_object_size(map))
        rc = error_set(err, GYARU_FAILED, "%s: weight_map is missing or empty", index);
    if (!rc)
        rc = list_shards(c, map, index, err);
    for (size_t i = 0; i < c->n_shards && !rc; i++)
        rc = open_shard(&c->shards[i], dir, err);
    if (!rc)
        rc = check_map(c, map, index, err);
    json_decref(json);
    return rc;
}

static int open_single(struct checkpoint *c, const char *path, struct gyaru_error *err)
{
    c->shards = calloc(1, sizeof *c->shards);
    if (!c->shards || !(c->shards[0].name = strdup(SINGLE_NAME)))
        return error_memory(err, sizeof *c->shards, path);
    c->n_shards = 1;
    return safetensors_open(path, &c->shards[0].file, err);
}

int checkpoint_open(const char *dir, struct checkpoint **out, struct gyaru_error *err)
{
    struct checkpoint *c = calloc(1, sizeof *c);
    char *single = file_join(dir, SINGLE_NAME);
    char *index = file_join(dir, INDEX_NAME);
    int rc;
    if (!c || !single || !index)
        rc = error_memory(err, sizeof *c, dir);
    else if (file_exists(single))
        rc = open_single(c, single, err);
    else if (file_exists(index))
        rc = open_sharded(c, dir, index, err);
    else
        rc = error_set(err, GYARU_FAILED,
                       "%s: neither " SINGLE_NAME " nor " INDEX_NAME
                       " there: give the directory of a Hugging Face checkpoint",
                       dir);
    free(single);
    free(index);
    if (!rc)
        rc = collect(c, err);
    if (rc)
        checkpoint_close(c);
    else
        *out = c;
    return rc;
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_shards; i++) {
        safetensors_close(c->shards[i].file);
        free(c->shards[i].name);
    }
    free(c->shards);
    free(c->tensors);
    free(c->by_name);
    free(c);
}

size_t checkpoint_count(const struct checkpoint *c)
{
    return c->n;
}

const struct tensor *checkpoint_at(const struct checkpoint *c, size_t i)
{
    return c->tensors[i];
}

const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    struct tensor key = {.name = name};
    const struct tensor *wanted = &key;
    const struct tensor **found = NULL;
    if (c->n)
        found = bsearch(&wanted, c->by_name, c->n, sizeof *c->by_name, compare_tensor);
    return found ? *found : NULL;
}

size_t checkpoint_shards(const struct checkpoint *c)
{
    return c->n_shards;
}

const struct safetensors *checkpoint_shard(const struct checkpoint *c, size_t i, const char **name)
{
    *name = c->shards[i].name;
    return c->shards[i].file;
}
