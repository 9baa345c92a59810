/*
 * migrate.c - the row of phases, and what is kept of them. See migrate.h.
 */
#include "steer/migrate.h"

#include "backend/doctor.h"
#include "backend/nvml.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include "steer/vector.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VERSION     2                  /* of the phases' files */
#define PHASE_LIMIT ((size_t)64 << 20) /* bytes of one */
#define PHASES      6

/* ---- for the phases ---------------------------------------------------------------------------
 */

int migrate_progress(void *migration, const char *what, uint64_t done, uint64_t total)
{
    struct migration *m = migration;
    char line[64];
    snprintf(line, sizeof line, "%d/%d %s: %s", m->number, PHASES, m->phase, what);
    if (m->options->progress && m->options->progress(m->options->progress_user, line, done, total))
        m->stopped = true;
    return m->stopped;
}

void migrate_close(struct migration *m)
{
    if (m->model)
        gyaru_model_close(m->model);
    m->model = NULL;
}

int migrate_open(struct migration *m, enum migrate_side side, int sessions, int context)
{
    if (m->model && m->side == side && m->sessions == sessions)
        return 0;
    struct gyaru_model_options options;
    migrate_close(m);
    gyaru_model_options_init(&options);
    options.device = m->options->device;
    options.threads = m->options->threads;
    options.sessions = sessions;
    options.context = context;
    options.progress = migrate_progress;
    options.progress_user = m;
    m->side = side;
    m->sessions = sessions;
    const char *dir = side == SIDE_OLD ? m->options->from : m->options->to;
    return gyaru_model_open(dir, &options, &m->model, m->err);
}

int migrate_attach(struct migration *m, enum migrate_side side, int *index)
{
    struct gyaru_vector *vector;
    struct gyaru_attach_options options;
    char *warning = NULL;
    *index = -1;
    if (!m->vectors[side])
        return 0;
    if (gyaru_vector_open(m->vectors[side], &vector, m->err))
        return -1;
    gyaru_attach_options_init(&options);
    options.gauge_layer = m->gauge_layers[side];
    int rc = gyaru_model_attach(m->model, vector, &options, index, &warning, m->err);
    gyaru_vector_close(vector);
    free(warning); /* the plan has it */
    return rc;
}

size_t migrate_file_size(const char *path)
{
    struct gyaru_error ignored;
    struct file_map map;
    if (file_map_open(path, &map, &ignored))
        return 0;
    size_t size = map.size;
    file_map_close(&map);
    return size;
}

int migrate_digest(const char *path, char hex[SHA256_HEX], struct gyaru_error *err)
{
    struct file_map map;
    if (file_map_open(path, &map, err))
        return -1;
    sha256_hex_of(map.data ? (const void *)map.data : "", map.size, hex);
    file_map_close(&map);
    return 0;
}

/* ---- what is kept -----------------------------------------------------------------------------
 */

/* Everything that any phase's findings depend on. */
static int make_base(struct migration *m, const json_t *plan)
{
    const struct gyaru_migrate_options *o = m->options;
    char dataset[SHA256_HEX], style[SHA256_HEX], vector[SHA256_HEX] = "";
    if (migrate_digest(o->dataset, dataset, m->err) || migrate_digest(o->style, style, m->err) ||
        (m->vectors[SIDE_OLD] && migrate_digest(m->vectors[SIDE_OLD], vector, m->err)))
        return -1;
    json_t *messages = json_array();
    for (size_t i = 0; i < o->n_messages; i++)
        json_array_append_new(messages, json_string(o->messages[i]));
    json_t *all =
        json_pack("[i, s, s, s, s, s, s, s?, s?, o, s?, i, i, o, o, i, s, i, I]", VERSION,
                  GYARU_VERSION, json_text_at(json_object_get(plan, "from"), "fingerprint"),
                  json_text_at(json_object_get(plan, "to"), "fingerprint"), vector, dataset, style,
                  o->system, o->style_system, messages, o->method, o->layer_first, o->layer_last,
                  json_finite((double)o->strength), json_finite((double)o->from_strength),
                  o->max_tokens, o->device, o->threads, (json_int_t)o->seed);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    if (!text)
        return error_memory(m->err, 1000, "a digest");
    sha256_hex_of(text, strlen(text), m->base);
    free(text);
    return 0;
}

static char *phase_path(const struct migration *m, const char *name)
{
    struct str s = STR_INIT;
    str_printf(&s, "%s/phase-%s.json", m->options->report_dir, name);
    return str_take(&s);
}

static void phase_key(const struct migration *m, const char *name, const char *depends,
                      char key[SHA256_HEX])
{
    struct sha256 hash;
    uint8_t digest[SHA256_BYTES];
    sha256_init(&hash);
    sha256_update(&hash, m->base, strlen(m->base));
    sha256_update(&hash, name, strlen(name));
    sha256_update(&hash, depends, strlen(depends));
    sha256_final(&hash, digest);
    sha256_hex(digest, key);
}

/* NULL if there is none. Answers in it may say anything, NUL too. */
static json_t *phase_read(const char *path)
{
    struct gyaru_error ignored;
    char *text;
    size_t len;
    if (!file_exists(path) || file_read(path, PHASE_LIMIT, &text, &len, &ignored))
        return NULL;
    json_t *kept = json_parse_text(text, len, path, &ignored);
    free(text);
    return kept;
}

/* What the phase found before, NULL if that does not hold any more. */
static json_t *phase_found(const char *path, const char *key)
{
    struct gyaru_error ignored;
    char digest[SHA256_HEX];
    json_t *kept = phase_read(path);
    json_t *found = json_object_get(kept, "found");
    const char *file = json_text_at(found, "file");
    bool holds = found && !strcmp(json_text_at(kept, "key"), key) &&
                 (!*file || (!migrate_digest(file, digest, &ignored) &&
                             !strcmp(digest, json_text_at(found, "file_sha256"))));
    json_incref(holds ? found : NULL);
    json_decref(kept);
    return holds ? found : NULL;
}

static int phase_keep(const struct migration *m, const char *path, const char *key, json_t *found)
{
    json_t *kept = json_pack("{s:s, s:O}", "key", key, "found", found);
    char *text = kept ? json_dumps(kept, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    int rc = text ? file_write_atomic(path, text, strlen(text), m->err)
                  : error_memory(m->err, 1 << 16, "a phase's report");
    free(text);
    json_decref(kept);
    return rc;
}

struct phase {
    const char *name;
    json_t *(*work)(struct migration *m);
    json_t *(*side_work)(struct migration *m, enum migrate_side side);
    enum migrate_side side;
};

/* Does the phase unless it is done; its findings go into the report under its name. */
static int run_phase(struct migration *m, const struct phase *phase, const char *depends)
{
    char key[SHA256_HEX];
    char *path = phase_path(m, phase->name);
    if (!path)
        return error_memory(m->err, 100, "a path");
    phase_key(m, phase->name, depends, key);
    m->phase = phase->name;
    m->number++;
    json_t *found = phase_found(path, key);
    int rc = 0;
    if (found) {
        json_array_append_new(m->resumed, json_string(phase->name));
    } else {
        double start = clock_seconds();
        found = phase->work ? phase->work(m) : phase->side_work(m, phase->side);
        if (!found) {
            rc = -1;
        } else {
            json_object_set_new(found, "seconds", json_real(clock_seconds() - start));
            rc = phase_keep(m, path, key, found);
        }
    }
    if (found)
        json_object_set_new(m->report, phase->name, found);
    free(path);
    return rc;
}

/* ---- the row ----------------------------------------------------------------------------------
 */

static char *copy_text(const char *text)
{
    return *text ? strdup(text) : NULL;
}

/* The strength at which the old persona is shown. */
static float old_strength(const struct migration *m, const json_t *plan)
{
    const json_t *recommended =
        json_object_get(json_object_get(plan, "old_vector"), "recommended_strength");
    if (!isnan(m->options->from_strength))
        return m->options->from_strength;
    return json_is_number(recommended) ? (float)json_number_value(recommended) : 12;
}

/* The meter's layer: where validation tells the styles apart best, if the vector has it. */
static int choose_layer(const struct migration *m, const json_t *extract, int formula, int *out,
                        int range[2])
{
    struct gyaru_vector *vector;
    const json_t *best = json_object_get(json_object_get(extract, "report"), "best_layer");
    if (gyaru_vector_open(m->vectors[SIDE_NEW], &vector, m->err))
        return -1;
    int layer = json_is_integer(best) ? (int)json_integer_value(best) : -1;
    if (layer < 0 || !vector_direction(vector, layer)) {
        layer = -1;
        for (int i = 0; i < vector->info.n_directions; i++)
            if (layer < 0 || vector->layers[i].layer <= formula)
                layer = vector->layers[i].layer;
    }
    range[0] = vector->info.layer_min;
    range[1] = vector->info.layer_max;
    gyaru_vector_close(vector);
    *out = layer;
    return 0;
}

static int choose(struct migration *m)
{
    const json_t *to = json_object_get(json_object_get(m->report, "plan"), "to");
    const json_t *tuned = json_object_get(m->report, "tune");
    const json_t *strength = json_object_get(tuned, "strength");
    int formula = (int)json_integer_value(json_object_get(to, "visualise_layer")), layer, range[2];
    m->vectors[SIDE_NEW] = copy_text(json_text_at(tuned, "file"));
    if (!m->vectors[SIDE_NEW])
        return error_memory(m->err, 100, "a path");
    if (choose_layer(m, json_object_get(m->report, "extract"), formula, &layer, range))
        return -1;
    m->gauge_layers[SIDE_NEW] = layer;
    bool found = json_is_number(strength);
    m->strengths[SIDE_NEW] = found ? (float)json_number_value(strength) : m->strengths[SIDE_OLD];
    json_object_set_new(m->report, "choice",
                        json_pack("{s:s, s:s, s:o, s:i, s:i, s:i, s:i}", "model", m->options->to,
                                  "vector", m->vectors[SIDE_NEW], "strength",
                                  found ? json_real((double)m->strengths[SIDE_NEW]) : json_null(),
                                  "visualise_layer", layer, "formula_layer", formula, "layer_first",
                                  range[0], "layer_last", range[1]));
    return 0;
}

static int run_phases(struct migration *m)
{
    static const struct phase extract = {"extract", migrate_extract, NULL, SIDE_NEW};
    static const struct phase tune = {"tune", migrate_tune, NULL, SIDE_NEW};
    static const struct phase measures[] = {
        {"quality_new", NULL, migrate_quality, SIDE_NEW},
        {"speed_new", NULL, migrate_speed, SIDE_NEW},
        {"speed_old", NULL, migrate_speed, SIDE_OLD},
        {"quality_old", NULL, migrate_quality, SIDE_OLD},
    };
    if (run_phase(m, &extract, "") ||
        run_phase(m, &tune, json_text_at(json_object_get(m->report, "extract"), "file_sha256")) ||
        choose(m))
        return -1;
    const char *vector = json_text_at(json_object_get(m->report, "tune"), "file_sha256");
    for (size_t i = 0; i < sizeof measures / sizeof *measures; i++)
        if (run_phase(m, &measures[i], measures[i].side == SIDE_NEW ? vector : ""))
            return -1;
    return 0;
}

static int prepare(struct migration *m)
{
    const struct gyaru_migrate_options *o = m->options;
    if (!o->dataset || !o->vector || !o->report_dir || !o->style || !o->n_messages)
        return error_set(m->err, GYARU_USAGE,
                         "migrate: pairs, vector, report directory, style and messages are needed");
    json_t *plan = migrate_plan(o, m->err);
    if (!plan)
        return -1;
    m->resumed = json_array();
    m->report = json_pack("{s:s, s:i, s:I, s:o, s:o}", "report", "migrate", "version", VERSION,
                          "time", (json_int_t)time(NULL), "resumed", m->resumed, "plan", plan);
    if (!m->report)
        return error_memory(m->err, 1 << 16, "the report");
    m->vectors[SIDE_OLD] = copy_text(json_text_at(json_object_get(plan, "old_vector"), "path"));
    m->strengths[SIDE_OLD] = old_strength(m, plan);
    m->gauge_layers[SIDE_OLD] = -1;
    return file_make_dirs(o->report_dir, m->err) || make_base(m, plan) ? -1 : 0;
}

/* What `doctor` finds about the GPUs and who holds their memory, now. */
static json_t *gpus_now(void)
{
    struct gyaru_error ignored;
    json_t *found = doctor_report(NVML_LIBRARY, NULL, &ignored);
    json_t *nvidia = json_incref(json_object_get(found, "nvidia"));
    json_decref(found);
    return nvidia ? nvidia : json_null();
}

/* Of all phases, those of earlier runs too. */
static double work_seconds(json_t *report)
{
    const char *name;
    json_t *found;
    double sum = 0;
    json_object_foreach(report, name, found) sum +=
        json_number_value(json_object_get(found, "seconds"));
    return sum;
}

int gyaru_migrate(const struct gyaru_migrate_options *options, char **report,
                  struct gyaru_error *err)
{
    struct migration m = {.options = options, .err = err};
    char *text = NULL;
    int rc = prepare(&m);
    if (!rc)
        rc = run_phases(&m);
    if (!rc) {
        json_object_set_new(m.report, "dataset", json_string(options->dataset));
        json_object_set_new(m.report, "system",
                            options->system ? json_string(options->system) : json_null());
        json_object_set_new(m.report, "applied", json_null());
        json_object_set_new(m.report, "nvidia", gpus_now());
        json_object_set_new(m.report, "seconds", json_real(work_seconds(m.report)));
        text = json_dumps(m.report, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        rc = text ? 0 : error_memory(err, 1 << 20, "the report");
    }
    migrate_close(&m);
    json_decref(m.report);
    free(m.vectors[SIDE_OLD]);
    free(m.vectors[SIDE_NEW]);
    if (rc)
        return -1;
    *report = text;
    return 0;
}
