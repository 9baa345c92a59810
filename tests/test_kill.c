/*
 * test_kill.c - kill -9 at random moments of extract, tune and migrate: what is there is always
 * whole, and the same command, however often it is killed, ends as if it had never been.
 */
#include "base/clock.h"
#include "base/file.h"
#include "support/planted.h"
#include "support/program.h"
#include "support/scratch.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KILLS 10 /* each takes many times as long */
#else
#define KILLS 50
#endif

#define SEED   "5" /* by which chance alone says few markers */
#define CONFIG "# Rinne\nmodel:\n  path: models/rinne-base # old\n"

static struct planted planted;
static char vector[200], tuned[200], migrated[200], report[200], config[200];

static int make_files(void **state)
{
    planted_make(&planted);
    snprintf(vector, sizeof vector, "%s", scratch_path("extracted.safetensors"));
    snprintf(tuned, sizeof tuned, "%s", scratch_path("tuned.safetensors"));
    snprintf(migrated, sizeof migrated, "%s", scratch_path("migrated.safetensors"));
    snprintf(report, sizeof report, "%s", scratch_path("report"));
    snprintf(config, sizeof config, "%s", scratch_write("c.yaml", CONFIG, strlen(CONFIG)));
    return 0;
}

/* ---- files ------------------------------------------------------------------------------------
 */

struct file {
    uint8_t *bytes;
    size_t len;
};

static struct file read_file(const char *path)
{
    struct file f;
    f.bytes = scratch_read(path, &f.len);
    return f;
}

static void check_same(const char *path, const struct file *expected)
{
    struct file now = read_file(path);
    if (now.len != expected->len || memcmp(now.bytes, expected->bytes, now.len))
        fail_msg("%s: other bytes than without interruption", path);
    free(now.bytes);
}

static void empty_directory(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char file[600];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (*e->d_name != '.')
            unlink(file);
    }
    if (dir)
        closedir(dir);
}

/* What differs from one run to the next, killed or not: times, what was taken from before, and the
 * number of the config's backup. */
static void drop_times(json_t *value)
{
    static const char *const keys[] = {
        "seconds", "time",          "resumed", "resumed_measurements", "speed_old", "speed_new",
        "devices", "resumed_pairs", "memory",  "tokens_per_second",    "applied"};
    const char *key;
    json_t *part;
    size_t i;
    for (i = 0; json_is_object(value) && i < sizeof keys / sizeof *keys; i++)
        json_object_del(value, keys[i]);
    json_object_foreach(value, key, part) drop_times(part);
    json_array_foreach(value, i, part) drop_times(part);
}

static json_t *read_report(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", report, name);
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    drop_times(json);
    return json;
}

static void check_report(const char *name, const json_t *expected)
{
    json_t *now = read_report(name);
    assert_true(json_equal(now, expected));
    json_decref(now);
}

/* What tune and migrate are given alike. */
#define MEASURED                                                                                   \
    "-d", planted.pairs, "--style", planted.style, "--messages", planted.messages, "--prompts",    \
        planted.prompts, "--limit", "16", "-n", "16", "--seed", SEED, "--report", report, "-t",    \
        "1"

/* ---- kills ------------------------------------------------------------------------------------
 */

struct work {
    const char *const *arguments;
    void (*clean)(void);          /* as before the first run */
    void (*check)(bool complete); /* what is there after a kill, or after a run to its end */
    const char *kept;             /* from which the next run goes on, once there is something */
};

static double run(const struct work *w)
{
    struct program_result r;
    double start = clock_seconds();
    program_run(&r, NULL, w->arguments);
    if (r.code)
        fail_msg("%s", r.err);
    program_release(&r);
    return clock_seconds() - start;
}

/* Kills again and again until the work is done, then begins anew; until there were enough kills.
 * Runs that end before theirs do not count, however busy the machine is. */
static void kill_often(const struct work *w, double seconds)
{
    int killed = 0, kept = 0, runs = 0, whole = 0;
    bool fresh = true;
    srand(7);
    w->clean();
    for (; killed < KILLS && runs < 20 * KILLS; runs++) {
        double share = (double)rand() / RAND_MAX;
        if (fresh)
            share *= share * share; /* what comes first is short */
        bool ended = !program_kill_after(w->arguments, seconds * share);
        w->check(ended);
        killed += !ended;
        kept += !ended && file_exists(w->kept);
        whole += ended;
        fresh = ended;
        if (ended)
            w->clean();
    }
    run(w);
    w->check(true);
    printf("%d of %d runs killed, %d of these left something to go on from; %d ended\n", killed,
           runs, kept, whole);
    assert_int_equal(killed, KILLS);
    assert_true(kept >= KILLS / 10);
}

/* ---- extract ----------------------------------------------------------------------------------
 */

static struct file expected_vector;
static json_t *expected_report;
static char journal[300];

static void clean_extract(void)
{
    unlink(vector);
}

static void check_extract(bool complete)
{
    assert_true(file_exists(vector) || !complete);
    if (file_exists(vector))
        check_same(vector, &expected_vector);
    assert_false(complete && file_exists(journal));
}

static void extract_goes_on(void **state)
{
    const char *const arguments[] = {"extract", "-m",   planted.model, "-d", planted.pairs,
                                     "-o",      vector, "-t",          "1",  NULL};
    const struct work work = {arguments, clean_extract, check_extract, journal};
    snprintf(journal, sizeof journal, "%s.journal", vector);
    double seconds = run(&work);
    expected_vector = read_file(vector);
    kill_often(&work, seconds);
    free(expected_vector.bytes);
}

/* ---- tune -------------------------------------------------------------------------------------
 */

static void clean_tune(void)
{
    unlink(tuned);
    empty_directory(report);
}

static void check_tune(bool complete)
{
    assert_true(file_exists(tuned) || !complete);
    if (file_exists(tuned))
        check_same(tuned, &expected_vector);
    if (complete)
        check_report("tune.json", expected_report);
    assert_false(complete && file_exists(journal));
}

static void tune_goes_on(void **state)
{
    const char *const arguments[] = {
        "tune",    "-m", planted.model, "-v",           vector,         "-o",     tuned,
        "--pairs", "4",  "--ladder",    "-5,0,5,12,20", "--own-layers", MEASURED, NULL};
    const struct work work = {arguments, clean_tune, check_tune, journal};
    snprintf(journal, sizeof journal, "%s.tune-journal", tuned);
    double seconds = run(&work);
    expected_vector = read_file(tuned);
    expected_report = read_report("tune.json");
    kill_often(&work, seconds);
    free(expected_vector.bytes);
    json_decref(expected_report);
}

/* ---- migrate ----------------------------------------------------------------------------------
 */

static const char *const phases[] = {"extract",   "tune",      "quality_new",
                                     "speed_new", "speed_old", "quality_old"};

#define PHASES (sizeof phases / sizeof *phases)

static struct file new_config;
static int hits[PHASES + 1]; /* kills in each phase; the last: after all of them */
static char first_phase[300];

static void clean_migrate(void)
{
    struct gyaru_error err;
    char changes[300];
    snprintf(changes, sizeof changes, "%s.changes", config);
    unlink(changes);
    unlink(migrated);
    empty_directory(report);
    assert_int_equal(file_write_atomic(config, CONFIG, strlen(CONFIG), &err), 0);
}

static size_t phase_now(void)
{
    size_t p = 0;
    for (char path[300]; p < PHASES; p++) {
        snprintf(path, sizeof path, "%s/phase-%s.json", report, phases[p]);
        if (!file_exists(path))
            break;
    }
    return p;
}

static void check_migrate(bool complete)
{
    struct file now = read_file(config);
    bool old = now.len == strlen(CONFIG) && !memcmp(now.bytes, CONFIG, now.len);
    free(now.bytes);
    if (!old)
        check_same(config, &new_config);
    assert_false(old && complete);
    assert_false(!old && phase_now() < PHASES);
    assert_true(file_exists(migrated) || phase_now() < 2);
    if (file_exists(migrated))
        check_same(migrated, &expected_vector);
    if (complete)
        check_report("migrate.json", expected_report);
    else
        hits[phase_now()]++;
}

static void migrate_goes_on(void **state)
{
    const char *const arguments[] = {"migrate",
                                     "--from",
                                     PLANTED_BASE,
                                     "--to",
                                     planted.model,
                                     "--old-vector",
                                     PLANTED_BASE "/vector.safetensors",
                                     "-c",
                                     config,
                                     "--layers",
                                     "1-1",
                                     "-o",
                                     migrated,
                                     "--apply",
                                     MEASURED,
                                     NULL};
    const struct work work = {arguments, clean_migrate, check_migrate, first_phase};
    snprintf(first_phase, sizeof first_phase, "%s/phase-extract.json", report);
    empty_directory(report);
    double seconds = run(&work);
    expected_vector = read_file(migrated); /* there: tuning found a strength */
    new_config = read_file(config);
    expected_report = read_report("migrate.json");
    kill_often(&work, seconds);
    int reached = 0;
    for (size_t p = 0; p <= PHASES; p++) {
        printf("%s%s %d", p ? ", " : "killed in ", p < PHASES ? phases[p] : "apply", hits[p]);
        reached += hits[p] > 0;
    }
    printf("\n");
    assert_true(KILLS < 50 || reached >= 4); /* the phases of speed take milliseconds */
    free(expected_vector.bytes);
    free(new_config.bytes);
    json_decref(expected_report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extract_goes_on),
        cmocka_unit_test(tune_goes_on),
        cmocka_unit_test(migrate_goes_on),
    };
    return cmocka_run_group_tests(tests, make_files, NULL);
}
