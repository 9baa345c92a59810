/*
 * attach.c - turns vector files into edits of a model: does it belong, which layers, where is the
 * meter.
 */
#include "steer/vector.h"

#include "base/file.h"
#include "format/checkpoint.h"
#include "model/model.h"
#include "model/open.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void gyaru_attach_options_init(struct gyaru_attach_options *options)
{
    *options = (struct gyaru_attach_options){-1, -1, -1, false};
}

int gyaru_vector_check(const char *dir, const struct gyaru_vector *vector, char **warning,
                       struct gyaru_error *err)
{
    struct model_config config;
    struct checkpoint *checkpoint;
    char fingerprint[65];
    if (model_config_read(dir, &config, err))
        return -1;
    int rc = checkpoint_open(dir, &checkpoint, err);
    if (!rc) {
        rc = model_fingerprint(&config, checkpoint, fingerprint, err);
        checkpoint_close(checkpoint);
    }
    struct vector_model model = {dir, fingerprint, config.hidden, config.n_layers};
    if (!rc)
        rc = vector_check(&model, vector, warning, err);
    model_config_release(&config);
    return rc;
}

/* ---- finding ------------------------------------------------------------------------------- */

/* Opens the file if it is a vector of this model; an unreadable or foreign file is passed over:
 * the folder may hold vectors of many models. */
static bool belongs(const char *path, const char *fingerprint)
{
    struct gyaru_error ignored;
    struct gyaru_vector *vector;
    if (gyaru_vector_open(path, &vector, &ignored))
        return false;
    bool same = !strcmp(gyaru_vector_info(vector)->model_fingerprint, fingerprint);
    gyaru_vector_close(vector);
    return same;
}

int vector_find(const char *fingerprint, const char *folder, char **path, struct gyaru_error *err)
{
    struct dirent **entries;
    char *found = NULL;
    int n = scandir(folder, &entries, NULL, alphasort); /* the same choice every time */
    if (n < 0)
        return error_errno(err, folder, "cannot list");
    for (int i = 0; i < n; i++) {
        if (!found && entries[i]->d_name[0] != '.') {
            char *file = file_join(folder, entries[i]->d_name);
            if (file && belongs(file, fingerprint))
                found = file;
            else
                free(file);
        }
        free(entries[i]);
    }
    free(entries);
    *path = found;
    return 0;
}

int gyaru_vector_find(const struct gyaru_model *model, const char *folder, char **path,
                      struct gyaru_error *err)
{
    return vector_find(model->info.fingerprint, folder, path, err);
}

/* ---- attaching ------------------------------------------------------------------------------ */

static int check_range(const struct gyaru_vector *v, const struct gyaru_attach_options *o,
                       struct gyaru_error *err)
{
    if (o->layer_first < 0 && o->layer_last < 0)
        return 0;
    for (int l = o->layer_first; l <= o->layer_last; l++)
        if (vector_direction(v, l))
            return 0;
    return error_set(err, GYARU_USAGE, "--layers %d-%d: %s has directions for layers %d-%d only",
                     o->layer_first, o->layer_last, v->info.path, v->info.layer_min,
                     v->info.layer_max);
}

static bool in_range(const struct gyaru_attach_options *o, int layer)
{
    return (o->layer_first < 0 || layer >= o->layer_first) &&
           (o->layer_last < 0 || layer <= o->layer_last);
}

/* The vector's last layer at or below 73% of the depth, or the layer that was asked for. */
static int choose_gauge_layer(const struct gyaru_model *m, const struct gyaru_vector *v,
                              const struct gyaru_attach_options *o, int *out,
                              struct gyaru_error *err)
{
    if (o->gauge_layer >= 0) {
        if (!vector_direction(v, o->gauge_layer))
            return error_set(err, GYARU_USAGE,
                             "meter layer %d: %s has no direction there: choose one of its layers, "
                             "%d to %d",
                             o->gauge_layer, v->info.path, v->info.layer_min, v->info.layer_max);
        *out = o->gauge_layer;
        return 0;
    }
    int best = -1;
    for (int i = 0; i < v->info.n_directions; i++)
        if (in_range(o, v->layers[i].layer) &&
            (best < 0 || v->layers[i].layer <= m->info.visualise_layer))
            best = v->layers[i].layer; /* ascending; the lowest if all lie deeper */
    *out = best;
    return 0;
}

static float *copy_floats(const float *values, size_t n)
{
    float *copy = malloc(n * sizeof *copy);
    if (copy)
        memcpy(copy, values, n * sizeof *copy);
    return copy;
}

/* The gauge needs the class means of the lowest layer that is used, and no steering below it. */
static void add_gauge(const struct gyaru_vector *v, const struct gyaru_attach_options *o,
                      struct model_edit *edit)
{
    const struct vector_layer *lowest = v->layers; /* ascending; one is in the range */
    while (!in_range(o, lowest->layer))
        lowest++;
    if (v->hook == HOOK_RESID_PRE || !lowest->has_meter)
        return;
    edit->gauge_layer = lowest->layer;
    edit->m_plus = lowest->meter.m_plus;
    edit->m_minus = lowest->meter.m_minus;
}

static int make_edit(const struct gyaru_model *m, const struct gyaru_vector *v,
                     const struct gyaru_attach_options *o, int meter_layer, struct model_edit *out,
                     struct gyaru_error *err)
{
    size_t hidden = (size_t)m->config.hidden;
    struct model_edit edit = {
        .at_input = v->hook == HOOK_RESID_PRE, .meter_layer = meter_layer, .gauge_layer = -1};
    bool failed = false;
    add_gauge(v, o, &edit);
    edit.directions = calloc((size_t)m->config.n_layers, sizeof *edit.directions);
    edit.meter = copy_floats(vector_direction(v, meter_layer), hidden);
    for (int i = 0; edit.directions && i < v->info.n_directions; i++) {
        int layer = v->layers[i].layer;
        if (!in_range(o, layer))
            continue;
        edit.directions[layer] = copy_floats(v->layers[i].direction, hidden);
        failed = failed || !edit.directions[layer];
    }
    if (failed || !edit.directions || !edit.meter) {
        model_edit_release(&edit, m->config.n_layers);
        return error_memory(err, hidden * sizeof(float), "a vector");
    }
    *out = edit;
    return 0;
}

int gyaru_model_admits(const struct gyaru_model *model, const struct gyaru_vector *vector,
                       const struct gyaru_attach_options *options, int *gauge_layer, char **warning,
                       struct gyaru_error *err)
{
    char *text = NULL;
    const struct vector_model what = {model->dir, model->info.fingerprint, model->config.hidden,
                                      model->config.n_layers};
    if (vector_admit(&what, vector, options->force, &text, err) ||
        check_range(vector, options, err) ||
        choose_gauge_layer(model, vector, options, gauge_layer, err)) {
        free(text);
        return -1;
    }
    *warning = text;
    return 0;
}

int gyaru_model_attach(struct gyaru_model *model, const struct gyaru_vector *vector,
                       const struct gyaru_attach_options *options, int *index, char **warning,
                       struct gyaru_error *err)
{
    char *text;
    int gauge_layer;
    struct model_edit edit;
    if (gyaru_model_admits(model, vector, options, &gauge_layer, &text, err))
        return -1;
    if (make_edit(model, vector, options, gauge_layer, &edit, err) ||
        model_attach_edit(model, &edit, index, err)) {
        free(text);
        return -1;
    }
    *warning = text;
    return 0;
}
