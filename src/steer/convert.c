/*
 * convert.c - gyaru_convert(): a vector from one file format to another.
 */
#include "steer/vector.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

/* A copy with the layers first..last. */
static int copy_layers(const struct gyaru_vector *v, int first, int last, struct gyaru_vector *copy,
                       struct gyaru_error *err)
{
    for (int i = 0; i < v->info.n_directions; i++) {
        const struct vector_layer *at = &v->layers[i];
        if (at->layer < first || at->layer > last)
            continue;
        if (vector_set_direction(copy, at->layer, at->direction, err) ||
            (at->has_meter && vector_set_meter(copy, at->layer, &at->meter, err)))
            return -1;
    }
    for (size_t i = 0; i < v->n_metadata; i++)
        if (vector_set_metadata(copy, v->metadata[i].key, v->metadata[i].value, err))
            return -1;
    if (copy->info.n_directions)
        return 0;
    return error_set(err, GYARU_USAGE, "%s: no direction in layers %d-%d: it has %d-%d",
                     v->info.path, first, last, v->info.layer_min, v->info.layer_max);
}

static int save(const struct gyaru_vector *v, const char *opened, const char *path, char **warning,
                struct gyaru_error *err)
{
    char *lost = NULL;
    if (vector_save(v, path, &lost, err))
        return -1;
    struct str text = STR_INIT;
    if (opened)
        str_puts(&text, opened);
    if (lost)
        str_printf(&text, "%s%s", text.len ? "; " : "", lost);
    free(lost);
    *warning = text.len || str_failed(&text) ? str_take(&text) : NULL;
    return 0;
}

int gyaru_convert(const char *in, const char *out, int layer_first, int layer_last, char **warning,
                  struct gyaru_error *err)
{
    struct gyaru_vector *v, *copy = NULL;
    if (gyaru_vector_open(in, &v, err))
        return -1;
    int rc = 0;
    if (layer_first >= 0) {
        rc = vector_new(v->info.hidden_size, v->hook, &copy, err);
        if (!rc)
            rc = copy_layers(v, layer_first, layer_last, copy, err);
    }
    if (!rc)
        rc = save(copy ? copy : v, v->warning, out, warning, err);
    gyaru_vector_close(copy);
    gyaru_vector_close(v);
    return rc;
}
