/*
 * migrate_vector.c - the new model's vector: extracted beside the report, tuned, and only then put
 * where vectors belong. What stood there under the same name is kept as FILE.bak-N.
 */
#include "steer/migrate.h"

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include "steer/vector.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS    16
#define CONTEXT     512 /* tokens of the longest text with its question */
#define BACKUPS_MAX 10000

static json_t *with_file(json_t *found, const char *path, struct gyaru_error *err)
{
    char digest[SHA256_HEX];
    if (!found) {
        error_memory(err, 1 << 16, "a phase's report");
        return NULL;
    }
    if (migrate_digest(path, digest, err)) {
        json_decref(found);
        return NULL;
    }
    json_object_set_new(found, "file", json_string(path));
    json_object_set_new(found, "file_sha256", json_string(digest));
    json_object_set_new(found, "file_bytes", json_integer((json_int_t)migrate_file_size(path)));
    return found;
}

json_t *migrate_extract(struct migration *m)
{
    const struct gyaru_migrate_options *o = m->options;
    struct gyaru_extract_options options;
    gyaru_extract_options_init(&options);
    options.dataset = o->dataset;
    if (o->method)
        options.method = o->method;
    options.layer_first = o->layer_first;
    options.layer_last = o->layer_last;
    options.seed = o->seed;
    options.progress = migrate_progress;
    options.progress_user = m;
    char *path = file_join(o->report_dir, "extracted.safetensors"), *text = NULL;
    json_t *found = NULL;
    if (!path)
        error_memory(m->err, 100, "a path");
    else if (!migrate_open(m, SIDE_NEW, SESSIONS, CONTEXT) &&
             !gyaru_extract(m->model, &options, path, &text, m->err)) {
        json_t *report = json_parse(text, strlen(text), "the extraction's report", m->err);
        if (report)
            found = with_file(json_pack("{s:o}", "report", report), path, m->err);
    }
    free(text);
    free(path);
    return found;
}

/* ---- strength ---------------------------------------------------------------------------------
 */

static bool same_file(const char *a, const char *b)
{
    struct gyaru_error ignored;
    char digests[2][SHA256_HEX];
    return !migrate_digest(a, digests[0], &ignored) && !migrate_digest(b, digests[1], &ignored) &&
           !strcmp(digests[0], digests[1]);
}

/* Another vector under the name to be written is not lost. */
static int keep_other(const char *path, struct gyaru_error *err)
{
    char *data;
    size_t len;
    if (!file_exists(path))
        return 0;
    for (int n = 1; n < BACKUPS_MAX; n++) {
        struct str name = STR_INIT;
        str_printf(&name, "%s.bak-%d", path, n);
        char *backup = str_take(&name);
        if (!backup)
            return error_memory(err, strlen(path), "a path");
        if (file_exists(backup)) {
            bool kept = same_file(path, backup); /* by a run that was interrupted */
            free(backup);
            if (kept)
                return 0;
            continue;
        }
        int rc = file_read(path, (size_t)1 << 30, &data, &len, err);
        if (!rc) {
            rc = file_write_atomic(backup, data, len, err);
            free(data);
        }
        free(backup);
        return rc;
    }
    return error_set(err, GYARU_FAILED, "%s: too many backups beside it; remove old ones", path);
}

/* The extracted vector with the strength that was asked for. */
static json_t *take_given(struct migration *m, const char *in, const char *out)
{
    struct gyaru_vector *vector;
    char text[32], *warning = NULL;
    snprintf(text, sizeof text, "%g", (double)m->options->strength);
    if (gyaru_vector_open(in, &vector, m->err))
        return NULL;
    int rc = vector_set_metadata(vector, "recommended_strength", text, m->err) ||
             vector_save(vector, out, &warning, m->err);
    gyaru_vector_close(vector);
    free(warning);
    if (rc)
        return NULL;
    return with_file(json_pack("{s:s, s:n, s:f}", "source", "given", "report", "strength",
                               (double)m->options->strength),
                     out, m->err);
}

/* A vector that no strength makes safe is still measured, so that the report can say what is
 * wrong. */
static json_t *not_found(struct migration *m, const char *in, const char *text)
{
    struct gyaru_error ignored;
    json_t *report = json_parse_text(text, strlen(text), "the report", &ignored);
    return with_file(json_pack("{s:s, s:o?, s:n, s:s}", "source", "none", "report", report,
                               "strength", "reason", m->err->text),
                     in, m->err);
}

static json_t *take_tuned(struct migration *m, const char *text, const char *out)
{
    json_t *report = json_parse_text(text, strlen(text), "the report", m->err);
    const json_t *choice = json_object_get(report, "choice");
    if (!report)
        return NULL;
    json_t *found = json_pack("{s:s, s:o, s:O?, s:O?}", "source", "tune", "report", report,
                              "strength", json_object_get(choice, "recommended_strength"),
                              "max_strength", json_object_get(choice, "max_strength"));
    return with_file(found, out, m->err);
}

static json_t *find_strength(struct migration *m, const char *in, const char *out)
{
    const struct gyaru_migrate_options *o = m->options;
    struct gyaru_tune_options options;
    char *text = NULL;
    gyaru_tune_options_init(&options);
    options.dataset = o->dataset;
    options.style = o->style;
    options.system = o->system;
    options.style_system = o->style_system;
    options.messages = o->messages;
    options.n_messages = o->n_messages;
    options.max_tokens = o->max_tokens;
    options.seed = o->seed;
    options.progress = migrate_progress;
    options.progress_user = m;
    json_t *found = NULL;
    if (!gyaru_tune(m->model, in, out, &options, &text, m->err))
        found = take_tuned(m, text, out);
    else if (text && !m->stopped)
        found = not_found(m, in, text);
    free(text);
    return found;
}

json_t *migrate_tune(struct migration *m)
{
    const char *in = json_text_at(json_object_get(m->report, "extract"), "file");
    const char *out = m->options->vector;
    if (file_make_parent(out, m->err) || keep_other(out, m->err))
        return NULL;
    if (!isnan(m->options->strength))
        return take_given(m, in, out);
    return migrate_open(m, SIDE_NEW, SESSIONS, CONTEXT) ? NULL : find_strength(m, in, out);
}
