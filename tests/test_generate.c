/*
 * test_generate.c - pairs from an endpoint that answers as endpoints do: well, wrapped, cut off,
 * wrongly, late or not at all. The persona is not the one that the program ships. What is read of
 * personas and answers without an endpoint: test_generate_read.c.
 */
#include "steer/dataset.h"
#include "steer/generate.h"
#include "support/llm_server.h"
#include "support/program.h"
#include "support/scratch.h"

#include "base/clock.h"
#include "base/file.h"

#include <gyaru.h>

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PERSONA "tests/data/persona/samurai.json"
#define SHIPPED "data/personas/gyaru.json"

/* ---- helpers -------------------------------------------------------------------------------- */

/* A path that no other test uses (caller frees). */
static char *new_path(void)
{
    static int n;
    char name[32];
    snprintf(name, sizeof name, "pairs-%d.json", n++);
    return strdup(scratch_path(name));
}

static char *partial_of(const char *path)
{
    size_t n = strlen(path) + sizeof ".partial";
    char *partial = malloc(n);
    assert_non_null(partial);
    snprintf(partial, n, "%s.partial", path);
    return partial;
}

static struct gyaru_generate_options options_for(const struct llm_server *server)
{
    struct gyaru_generate_options options;
    gyaru_generate_options_init(&options);
    options.persona = PERSONA;
    options.api_base = server->base;
    options.model = "stand-in";
    options.n_pairs = 12;
    options.backoff = 0.01;
    options.timeout = 20;
    return options;
}

static json_t *parse_report(char *report)
{
    assert_non_null(report);
    json_t *json = json_loads(report, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    free(report);
    return json;
}

static json_t *generate(const struct gyaru_generate_options *options, const char *path)
{
    struct gyaru_error err;
    char *report;
    if (gyaru_generate(options, path, &report, &err))
        fail_msg("%s", err.text);
    return parse_report(report);
}

/* Fails with this part in its message; the report, NULL if there is none. */
static json_t *refuse(const struct gyaru_generate_options *options, const char *path,
                      enum gyaru_status status, const char *part)
{
    struct gyaru_error err;
    char *report;
    if (!gyaru_generate(options, path, &report, &err))
        fail_msg("not refused: %s", part);
    check_error(&err, status, part, NULL);
    return report ? parse_report(report) : NULL;
}

static json_int_t number(const json_t *report, const char *key)
{
    const json_t *value = json_object_get(report, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

/* The file is what `extract` reads: n pairs, none twice. */
static void check_pairs(const char *path, size_t n)
{
    struct gyaru_error err;
    struct dataset d;
    const struct dataset_keys keys = {"topic", "bushi", "standard"};
    if (dataset_open(path, &keys, &d, &err))
        fail_msg("%s", err.text);
    assert_int_equal(d.n, n);
    assert_int_equal(d.n_duplicates, 0);
    for (size_t i = 0; i < d.n; i++)
        assert_non_null(strstr(d.pairs[i].positive, "拙者"));
    dataset_release(&d);
    char *partial = partial_of(path);
    assert_false(file_exists(partial));
    free(partial);
}

/* ---- answers of every kind ------------------------------------------------------------------ */

static void good_answers_fill_every_topic(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    char *path = new_path();
    json_t *report = generate(&options, path);
    assert_int_equal(number(report, "pairs"), 12);
    assert_int_equal(number(report, "topics"), 5);
    assert_int_equal(server->n_requests, 2); /* 10 and 2 */
    assert_int_equal(json_array_size(json_object_get(report, "rejected")), 0);
    check_pairs(path, 12);
    json_t *pairs = json_load_file(path, 0, NULL);
    int swords = 0;
    for (size_t i = 0; i < json_array_size(pairs); i++)
        swords +=
            !strcmp("刀", json_string_value(json_object_get(json_array_get(pairs, i), "topic")));
    assert_int_equal(swords, 3); /* 12 over 5 topics in turn */
    json_decref(pairs);
    json_decref(report);
    llm_server_stop(server);
    free(path);
}

static void the_prompt_says_what_the_persona_says(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    char *path = new_path();
    json_decref(generate(&options, path));
    assert_non_null(strstr(server->prompt, "2 pairs in the style of 侍 (古い言葉で話す侍。) with "
                                           "one of 拙者, ござる."));
    assert_non_null(strstr(server->prompt, "1. 刀\n2. 茶\n"));
    assert_non_null(strstr(server->prompt, "- 拙者は刀が")); /* not to be repeated */
    llm_server_stop(server);
    free(path);
}

static void wrapped_answers_are_read_whole(void **state)
{
    static const enum llm_reply replies[] = {LLM_FENCED, LLM_THOUGHT, LLM_WRAPPED, LLM_LINES,
                                             LLM_SLIPS};
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        struct llm_server *server = LLM_START(replies[i]);
        struct gyaru_generate_options options = options_for(server);
        options.n_pairs = 8;
        char *path = new_path();
        json_decref(generate(&options, path));
        if (server->n_requests != 1)
            fail_msg("reply %d took %d requests", (int)replies[i], server->n_requests);
        check_pairs(path, 8);
        llm_server_stop(server);
        free(path);
    }
}

static void cut_off_answers_keep_their_whole_pairs(void **state)
{
    struct llm_server *server = LLM_START(LLM_TRUNCATED, LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.n_pairs = 10;
    char *path = new_path();
    json_decref(generate(&options, path));
    assert_int_equal(server->n_requests, 2);
    assert_true(server->n_pairs < 20); /* the second request asked for the rest only */
    check_pairs(path, 10);
    llm_server_stop(server);
    free(path);
}

static void passing_faults_are_tried_again(void **state)
{
    static const enum llm_reply replies[] = {LLM_500, LLM_GARBAGE, LLM_NO_CHOICES, LLM_CLOSED,
                                             LLM_REFUSAL};
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        struct llm_server *server = LLM_START(replies[i], replies[i], LLM_GOOD);
        struct gyaru_generate_options options = options_for(server);
        options.n_pairs = 5;
        char *path = new_path();
        json_decref(generate(&options, path));
        assert_int_equal(server->n_requests, 3);
        check_pairs(path, 5);
        llm_server_stop(server);
        free(path);
    }
}

static void retry_after_is_obeyed(void **state)
{
    struct llm_server *server = LLM_START(LLM_429, LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.n_pairs = 5;
    char *path = new_path();
    double start = clock_seconds();
    json_t *report = generate(&options, path);
    assert_true(clock_seconds() - start >= 1); /* not the 0.01 s of our own */
    assert_int_equal(number(report, "retries"), 1);
    json_decref(report);
    llm_server_stop(server);
    free(path);
}

static void slow_answers_time_out(void **state)
{
    struct llm_server *server = LLM_START(LLM_SLOW, LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.n_pairs = 5;
    options.timeout = 0.3;
    options.retries = 20;
    char *path = new_path();
    json_decref(generate(&options, path));
    check_pairs(path, 5);
    llm_server_stop(server);
    free(path);
}

static void faults_that_stay_end_the_run(void **state)
{
    struct llm_server *server = LLM_START(LLM_500);
    struct gyaru_generate_options options = options_for(server);
    options.retries = 2;
    char *path = new_path(), *partial = partial_of(path);
    json_decref(refuse(&options, path, GYARU_FAILED, "status 500: out of order"));
    assert_int_equal(server->n_requests, 3);
    assert_false(file_exists(path));
    assert_false(file_exists(partial)); /* nothing in it */
    char *base = strdup(server->base);
    llm_server_stop(server);
    options.api_base = base;
    json_decref(refuse(&options, path, GYARU_FAILED, base)); /* nobody is there any more */
    free(base);
    free(partial);
    free(path);
}

static void a_wrong_key_is_not_tried_again(void **state)
{
    struct llm_server *server = LLM_START(LLM_401);
    struct gyaru_generate_options options = options_for(server);
    struct gyaru_error err;
    char *report, *path = new_path();
    options.api_key = "sk-secret";
    assert_int_equal(gyaru_generate(&options, path, &report, &err), -1);
    check_error(&err, GYARU_FAILED, "401: who are you?", "--api-key-file", NULL);
    assert_null(strstr(err.text, "sk-secret"));
    assert_null(strstr(report, "sk-secret"));
    assert_int_equal(server->n_requests, 1);
    assert_string_equal(server->authorization, "Bearer sk-secret");
    llm_server_stop(server);
    free(report);
    free(path);
}

static void keys_do_not_travel_in_the_open(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    char *path = new_path();
    options.api_key = "sk-secret";
    options.api_base = "http://192.0.2.1/v1";
    json_decref(refuse(&options, path, GYARU_USAGE, "unencrypted"));
    options.api_base = "ftp://127.0.0.1/v1";
    json_decref(refuse(&options, path, GYARU_USAGE, "--api-base"));
    llm_server_stop(server);
    free(path);
}

static void the_only_model_is_found(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.model = NULL;
    char *path = new_path();
    json_t *report = generate(&options, path);
    assert_string_equal(json_string_value(json_object_get(report, "model")), "model-0");
    json_decref(report);
    server->n_models = 2;
    free(path);
    path = new_path();
    json_decref(refuse(&options, path, GYARU_USAGE, "2 models: name one with --model"));
    llm_server_stop(server);
    free(path);
}

/* ---- bad pairs ------------------------------------------------------------------------------- */

static void add_notice(void *user, const char *line)
{
    str_printf(user, "%s\n", line);
}

static void bad_pairs_are_named(void **state)
{
    static const char *const reasons[] = {"'bushi' is missing",
                                          "'bushi' has 4 characters, fewer than 10",
                                          "characters, more than 80",
                                          "both texts are the same",
                                          "'bushi' holds 0 markers",
                                          "'standard' is not plain: it holds '拙者'",
                                          "'standard' is not in the expected script",
                                          "no pair on '誰も頼まぬ話' is wanted",
                                          "duplicate"};
    struct str lines = STR_INIT;
    struct llm_server *server = LLM_START(LLM_BAD_PAIRS, LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.n_pairs = 15;
    options.notice = add_notice;
    options.notice_user = &lines;
    char *path = new_path();
    json_t *report = generate(&options, path);
    const json_t *rejected = json_object_get(report, "rejected");
    assert_int_equal(json_array_size(rejected), sizeof reasons / sizeof *reasons);
    for (size_t i = 0; i < json_array_size(rejected); i++) {
        const char *reason =
            json_string_value(json_object_get(json_array_get(rejected, i), "reason"));
        if (!strstr(reason, reasons[i]) || !strstr(lines.data, reason))
            fail_msg("'%s' instead of '%s' in %s", reason, reasons[i], lines.data);
    }
    check_pairs(path, 15);
    json_decref(report);
    str_release(&lines);
    llm_server_stop(server);
    free(path);
}

static void hopeless_pairs_end_the_run(void **state)
{
    struct llm_server *server = LLM_START(LLM_REFUSAL);
    struct gyaru_generate_options options = options_for(server);
    options.n_pairs = 3;
    options.retries = 2;
    char *path = new_path();
    json_t *report = refuse(&options, path, GYARU_FAILED, "3 of 3 pairs are still missing");
    assert_int_equal(server->n_requests, 3);
    json_decref(report);
    llm_server_stop(server);
    free(path);
}

/* ---- going on -------------------------------------------------------------------------------- */

static void a_second_run_goes_on(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD, LLM_401, LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.batch = 5;
    char *path = new_path(), *partial = partial_of(path);
    json_decref(refuse(&options, path, GYARU_FAILED, "401"));
    assert_true(file_exists(partial));
    FILE *file = fopen(partial, "ab"); /* as if the machine had lost power in a write */
    fputs("{\"topic\": \"茶\", \"stand", file);
    fclose(file);
    json_t *report = generate(&options, path);
    assert_int_equal(number(report, "resumed"), 5);
    assert_int_equal(server->n_pairs, 12); /* none was made twice */
    check_pairs(path, 12);
    json_decref(report);
    llm_server_stop(server);
    free(partial);
    free(path);
}

static void foreign_leftovers_are_refused(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD, LLM_401);
    struct gyaru_generate_options options = options_for(server);
    struct gyaru_error err;
    options.batch = 5;
    char *path = new_path(), *partial = partial_of(path);
    json_decref(refuse(&options, path, GYARU_FAILED, "401"));
    options.persona = SHIPPED;
    json_decref(refuse(&options, path, GYARU_FAILED, "another persona"));
    assert_int_equal(file_write_atomic(partial, "my notes\n", 9, &err), 0);
    json_decref(refuse(&options, path, GYARU_FAILED, "move it away"));
    size_t len;
    uint8_t *notes = scratch_read(partial, &len);
    assert_int_equal(len, 9);
    free(notes);
    llm_server_stop(server);
    free(partial);
    free(path);
}

static void an_existing_file_is_left_alone(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    json_decref(refuse(&options, scratch_write("mine.json", "[]", 2), GYARU_FAILED, "exists"));
    assert_int_equal(server->n_requests, 0);
    llm_server_stop(server);
}

static int stop_after_some(void *user, const char *what, uint64_t done, uint64_t total)
{
    assert_int_equal(total, 12);
    return done >= 4;
}

static void stopping_keeps_what_there_is(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.batch = 2;
    options.progress = stop_after_some;
    char *path = new_path();
    json_decref(refuse(&options, path, GYARU_FAILED, "stopped: 4 of 12 pairs are kept in"));
    options.progress = NULL;
    json_t *report = generate(&options, path);
    assert_int_equal(number(report, "resumed"), 4);
    json_decref(report);
    llm_server_stop(server);
    free(path);
}

/* The program, killed without warning while it asks; its output goes nowhere. */
static void kill_program(const struct llm_server *server, const char *path, int after)
{
    char program[256];
    const char *build = getenv("BUILD");
    snprintf(program, sizeof program, "%s/gyaru", build ? build : "build");
    pid_t pid = fork();
    if (!pid) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, 1);
        dup2(nowhere, 2);
        execl(program, "gyaru", "dataset", "-o", path, "--api-base", server->base, "--persona",
              PERSONA, "-n", "40", "--batch", "1", (char *)NULL);
        _exit(127);
    }
    const struct timespec pause = {0, 500000};
    for (int i = 0; i < 60000 && server->n_requests < after; i++)
        nanosleep(&pause, NULL);
    kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
}

static void a_killed_program_goes_on(void **state)
{
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    options.n_pairs = 40;
    char *path = new_path();
    kill_program(server, path, 4);
    kill_program(server, path, 12);
    json_t *report = generate(&options, path);
    assert_true(number(report, "resumed") >= 8);
    assert_true(number(report, "resumed") < 40);
    check_pairs(path, 40);
    json_decref(report);
    llm_server_stop(server);
    free(path);
}

/* ---- topics ---------------------------------------------------------------------------------- */

static void topics_come_from_a_file(void **state)
{
    static const char topics[] = "# seasons\n春\n\n夏\r\n";
    struct llm_server *server = LLM_START(LLM_GOOD);
    struct gyaru_generate_options options = options_for(server);
    char *path = new_path(), *file = strdup(scratch_write("topics", topics, sizeof topics - 1));
    options.topics = file;
    options.n_pairs = 4;
    json_t *report = generate(&options, path);
    assert_int_equal(number(report, "topics"), 2);
    assert_non_null(strstr(server->prompt, "1. 春\n2. 夏\n3. 春\n4. 夏\n"));
    json_decref(report);
    free(path);
    path = new_path();
    options.n_topics = 3;
    json_decref(refuse(&options, path, GYARU_USAGE, "3 topics are asked for, there are 2"));
    llm_server_stop(server);
    free(file);
    free(path);
}

/* ---- the command ----------------------------------------------------------------------------- */

static void the_command_generates(void **state)
{
    struct program_result r;
    struct llm_server *server = LLM_START(LLM_BAD_PAIRS, LLM_GOOD);
    char *path = new_path();
    const char *key = scratch_write("key", "sk-test\n", 8);
    const char *arguments[] = {
        "dataset", "-o", path, "--api-base", server->base, "--api-key-file", key, "--persona",
        PERSONA,   "-n", "10", "--topics",   "3",          "--json",         NULL};
    program_run(&r, NULL, arguments);
    if (r.code)
        fail_msg("%s", r.err);
    json_t *json = json_loads(r.out, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(number(json, "pairs"), 10);
    assert_int_equal(number(json, "topics"), 3);
    assert_non_null(strstr(r.err, "rejected: both texts are the same"));
    assert_null(strstr(r.err, "sk-test"));
    assert_string_equal(server->authorization, "Bearer sk-test");
    json_decref(json);
    program_release(&r);
    llm_server_stop(server);
    free(path);
}

static void the_command_wants_what_it_needs(void **state)
{
    struct program_result r;
    const char *no_output[] = {"dataset", "--api-base", "http://127.0.0.1:1/v1", NULL};
    program_run(&r, NULL, no_output);
    program_check_error(&r, GYARU_USAGE, "-o FILE");
    program_release(&r);
    const char *no_base[] = {"dataset", "-o", "/tmp/x", NULL};
    program_run(&r, NULL, no_base);
    program_check_error(&r, GYARU_USAGE, "--api-base");
    program_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_answers_fill_every_topic),
        cmocka_unit_test(the_prompt_says_what_the_persona_says),
        cmocka_unit_test(wrapped_answers_are_read_whole),
        cmocka_unit_test(cut_off_answers_keep_their_whole_pairs),
        cmocka_unit_test(passing_faults_are_tried_again),
        cmocka_unit_test(retry_after_is_obeyed),
        cmocka_unit_test(slow_answers_time_out),
        cmocka_unit_test(faults_that_stay_end_the_run),
        cmocka_unit_test(a_wrong_key_is_not_tried_again),
        cmocka_unit_test(keys_do_not_travel_in_the_open),
        cmocka_unit_test(the_only_model_is_found),
        cmocka_unit_test(bad_pairs_are_named),
        cmocka_unit_test(hopeless_pairs_end_the_run),
        cmocka_unit_test(a_second_run_goes_on),
        cmocka_unit_test(foreign_leftovers_are_refused),
        cmocka_unit_test(an_existing_file_is_left_alone),
        cmocka_unit_test(stopping_keeps_what_there_is),
        cmocka_unit_test(a_killed_program_goes_on),
        cmocka_unit_test(topics_come_from_a_file),
        cmocka_unit_test(the_command_generates),
        cmocka_unit_test(the_command_wants_what_it_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
