/*
 * test_config_edit.c - settings change and nothing else does: nasty YAML, refusals with their line,
 * taking back to the byte, and kill -9 at any moment.
 */
#include "base/file.h"
#include "cli/config_change.h"
#include "cli/config_edit.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct config_value path_value = {"model", "path", "models/new", false};
static const struct config_value strength_value = {"steering", "strength", "8.5", true};

static const struct edit_case {
    const char *name, *before, *after;
    struct config_value value;
} cases[] = {
    {"comment after the value", "model:\n  path: a/b   # why # not\n  x: 1\n",
     "model:\n  path: models/new   # why # not\n  x: 1\n", path_value},
    {"empty value", "model:\n  path:      # none\n", "model:\n  path: models/new      # none\n",
     path_value},
    {"empty at the end", "model:\n  path:", "model:\n  path: models/new", path_value},
    {"empty, space after", "model:\n  path: \nb: 1\n", "model:\n  path: models/new \nb: 1\n",
     path_value},
    {"tilde", "model:\n  path: ~ # x\n", "model:\n  path: models/new # x\n", path_value},
    {"double quotes", "model:\n  path: \"a # b\" # c\n", "model:\n  path: \"models/new\" # c\n",
     path_value},
    {"single quotes", "model: # m\n  path: 'it''s'\n", "model: # m\n  path: 'models/new'\n",
     path_value},
    {"CRLF", "model:\r\n  path: a\r\n  b: c\r\n", "model:\r\n  path: models/new\r\n  b: c\r\n",
     path_value},
    {"CRLF, new key", "model:\r\n  b: c\r\n", "model:\r\n  b: c\r\n  path: models/new\r\n",
     path_value},
    {"CRLF, new section", "a: 1\r\n", "a: 1\r\n\r\nmodel:\r\n  path: models/new\r\n", path_value},
    {"no last line end", "model:\n  path: a", "model:\n  path: models/new", path_value},
    {"no last line end, new key", "model:\n  b: c", "model:\n  b: c\n  path: models/new\n",
     path_value},
    {"no last line end, new section", "b: c", "b: c\n\nmodel:\n  path: models/new\n", path_value},
    {"nothing", "", "model:\n  path: models/new\n", path_value},
    {"comments only", "# hello\n", "# hello\n\nmodel:\n  path: models/new\n", path_value},
    {"empty section", "model:   # the model\nb: 1\n",
     "model:   # the model\n  path: models/new\nb: 1\n", path_value},
    {"empty section at the end", "model:", "model:\n  path: models/new\n", path_value},
    {"deep indentation", "model:\n        b: 1\n        # more\n    # less\nc: 1\n",
     "model:\n        b: 1\n        # more\n        path: models/new\n    # less\nc: 1\n",
     path_value},
    {"indented document", "  a: 1\n  model:\n    path: x\n",
     "  a: 1\n  model:\n    path: models/new\n", path_value},
    {"unicode", "# 設定😀\nmodel:\n  名前: 凛音😀 # あーし\n  path: モデル/古い # 古いやつ\n",
     "# 設定😀\nmodel:\n  名前: 凛音😀 # あーし\n  path: models/new # 古いやつ\n", path_value},
    {"byte order mark", "\xEF\xBB\xBFmodel:\n  path: é\n",
     "\xEF\xBB\xBFmodel:\n  path: models/new\n", path_value},
    {"same key elsewhere", "path: 1\nserver:\n  path: 2\nmodel:\n  path: 3\n",
     "path: 1\nserver:\n  path: 2\nmodel:\n  path: models/new\n", path_value},
    {"unknown things around",
     "x: {a: [1, 2], b: &q c}\nmodel:\n  path: old\n  y: *q\n  z: |\n    t\n",
     "x: {a: [1, 2], b: &q c}\nmodel:\n  path: models/new\n  y: *q\n  z: |\n    t\n", path_value},
    {"not after a block", "model:\n  b: 1\n  z: |\n    t\n",
     "model:\n  b: 1\n  path: models/new\n  z: |\n    t\n", path_value},
    {"document marks", "%YAML 1.1\n---\nmodel:\n  path: a\n...\n",
     "%YAML 1.1\n---\nmodel:\n  path: models/new\n...\n", path_value},
    {"lines of a plain value", "model:\n  path: a\n    b\n  c: 1\n",
     "model:\n  path: models/new\n  c: 1\n", path_value},
    {"number", "steering:\n  strength: 12.0   # s\n", "steering:\n  strength: 8.5   # s\n",
     strength_value},
    {"number in quotes", "steering:\n  strength: '12.0'\n", "steering:\n  strength: 8.5\n",
     strength_value},
    {"text like a number",
     "model:\n  path: a\n",
     "model:\n  path: \"12\"\n",
     {"model", "path", "12", false}},
    {"text like a word",
     "model:\n  path: a\n",
     "model:\n  path: \"off\"\n",
     {"model", "path", "off", false}},
    {"text with everything",
     "model:\n  path: a\n",
     "model:\n  path: \"é # \\\"x\\\\: 'y'\\x09\"\n",
     {"model", "path", "é # \"x\\: 'y'\t", false}},
    {"quotes that cannot stay",
     "model:\n  path: 'a'\n",
     "model:\n  path: \"it's\"\n",
     {"model", "path", "it's", false}},
};

static void sets_the_value_and_nothing_else(void **state)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gyaru_error err;
        const struct edit_case *c = &cases[i];
        char *out;
        size_t len;
        if (config_edit_text("c.yaml", c->before, strlen(c->before), &c->value, 1, &out, &len,
                             &err))
            fail_msg("%s: %s", c->name, err.text);
        if (strcmp(out, c->after) || len != strlen(c->after))
            fail_msg("%s:\n%s", c->name, out);
        free(out);
    }
}

static const struct {
    const char *text, *line, *why;
} refusals[] = {
    {"a: 1\nmodel: {path: a}\n", "c.yaml:2:", "braces"},
    {"{model: {path: a}}\n", "c.yaml:1:", "braces"},
    {"model:\n  path: &p a\nb: *p\n", "c.yaml:2:", "anchor"},
    {"a: &p x\nmodel:\n  path: *p\n", "c.yaml:3:", "alias"},
    {"model: &m\n  path: a\nb: *m\n", "c.yaml:1:", "anchor"},
    {"b: &m\n  path: a\nmodel: *m\n", "c.yaml:3:", "alias"},
    {"model:\n  path: !!str a\n", "c.yaml:2:", "tag"},
    {"model:\n  path: |\n    a\n", "c.yaml:2:", "block"},
    {"model:\n  path: [a, b]\n", "c.yaml:2:", "list"},
    {"model:\n  path: a\n  path: b\n", "c.yaml:3:", "second time"},
    {"model:\n  path: a\nmodel:\n  path: b\n", "c.yaml:3:", "second time"},
    {"model:\n  path: a\n---\nmodel:\n  path: b\n", "c.yaml:3:", "second document"},
    {"b: 1\n...\n", "c.yaml:2:", "ends here"},
    {"- model\n", "c.yaml:1:", "key: value"},
    {"model: text\n", "c.yaml:1:", "key: value"},
    {"model:\n  path: \"a\n", "c.yaml:", "not valid YAML"},
    {"model:\n\tpath: a\n", "c.yaml:2:", "not valid YAML"},
    {"model:\n  path: \xFF\xFE\n", "c.yaml:", "not valid YAML"},
};

static void names_the_line_of_what_it_refuses(void **state)
{
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct gyaru_error err = {0};
        char *out;
        size_t len;
        const char *text = refusals[i].text;
        if (!config_edit_text("c.yaml", text, strlen(text), &path_value, 1, &out, &len, &err))
            fail_msg("accepted: %s\n%s", text, out);
        check_error(&err, GYARU_USAGE, refusals[i].line, refusals[i].why, NULL);
    }
}

/* ---- files ------------------------------------------------------------------------------------
 */

static const char old_text[] = "# 凛音\r\nmodel:\r\n  path: old   # keep\r\nextra: {a: 1}\r\n";

static const struct config_value both[] = {{"model", "path", "models/new", false},
                                           {"steering", "strength", "8.5", true}};

struct folder {
    char file[256], journal[300], backup[300];
};

static struct folder fresh(const char *name)
{
    struct folder f;
    struct gyaru_error err;
    char dir[300];
    snprintf(dir, sizeof dir, "%s", scratch_path(name));
    assert_int_equal(file_make_dirs(dir, &err), 0);
    snprintf(f.file, sizeof f.file, "%.200s/c.yaml", dir);
    snprintf(f.journal, sizeof f.journal, "%s.changes", f.file);
    snprintf(f.backup, sizeof f.backup, "%s.bak-1", f.file);
    return f;
}

static void put(const char *path, const char *text)
{
    struct gyaru_error err;
    if (file_write_atomic(path, text, strlen(text), &err))
        fail_msg("%s", err.text);
}

/* The file as a string (caller frees). */
static char *change(const char *path, bool *changed)
{
    struct gyaru_error err;
    char *backup;
    if (config_change(path, both, 2, &backup, changed, &err))
        fail_msg("%s", err.text);
    return backup;
}

static void take_back(const char *path)
{
    struct gyaru_error err;
    char *what;
    if (config_rollback(path, &what, &err))
        fail_msg("%s", err.text);
    free(what);
}

static void takes_back_to_the_byte(void **state)
{
    struct folder f = fresh("back");
    struct stat st;
    bool changed;
    put(f.file, old_text);
    assert_int_equal(chmod(f.file, 0600), 0);
    char *backup = change(f.file, &changed);
    assert_true(changed && scratch_holds(backup, old_text) && !scratch_holds(f.file, old_text));
    assert_int_equal(stat(f.file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    free(backup);
    backup = change(f.file, &changed); /* nothing new: no backup, no entry */
    assert_true(!changed && !backup);
    take_back(f.file);
    assert_true(scratch_holds(f.file, old_text));
    assert_false(file_exists(f.journal));
    struct gyaru_error err;
    char *what;
    assert_int_equal(config_rollback(f.file, &what, &err), -1);
    check_error(&err, GYARU_FAILED, "no change", NULL);
}

static void takes_back_several_changes(void **state)
{
    struct folder f = fresh("several");
    struct gyaru_error err;
    const struct config_value third = {"server", "port", "1", true};
    char *backup, *middle;
    bool changed;
    put(f.file, old_text);
    free(change(f.file, &changed));
    middle = scratch_text(f.file);
    assert_int_equal(config_change(f.file, &third, 1, &backup, &changed, &err), 0);
    assert_non_null(strstr(backup, ".bak-2"));
    free(backup);
    take_back(f.file);
    assert_true(scratch_holds(f.file, middle));
    take_back(f.file);
    assert_true(scratch_holds(f.file, old_text));
    free(middle);
}

static void a_missing_file_is_made_and_removed(void **state)
{
    struct folder f = fresh("missing");
    bool changed;
    assert_null(change(f.file, &changed));
    assert_true(
        changed &&
        scratch_holds(f.file, "model:\n  path: models/new\n\nsteering:\n  strength: 8.5\n"));
    take_back(f.file);
    assert_false(file_exists(f.file));
}

static void an_edited_file_is_left_alone(void **state)
{
    struct folder f = fresh("edited");
    struct gyaru_error err;
    char *what;
    bool changed;
    put(f.file, old_text);
    free(change(f.file, &changed));
    put(f.file, "model:\n  path: mine\n");
    assert_int_equal(config_rollback(f.file, &what, &err), -1);
    check_error(&err, GYARU_FAILED, "edited since", f.backup, NULL);
    assert_true(scratch_holds(f.file, "model:\n  path: mine\n"));
    put(f.file, old_text); /* taken back by hand */
    take_back(f.file);
    assert_false(file_exists(f.journal));
}

static void a_changed_backup_is_not_put_back(void **state)
{
    struct folder f = fresh("backup");
    struct gyaru_error err;
    char *what;
    bool changed;
    put(f.file, old_text);
    free(change(f.file, &changed));
    put(f.backup, "something else\n");
    assert_int_equal(config_rollback(f.file, &what, &err), -1);
    check_error(&err, GYARU_FAILED, f.backup, "not the copy", NULL);
    assert_false(scratch_holds(f.file, "something else\n"));
}

static void links_stay_links(void **state)
{
    struct folder f = fresh("links"), g = fresh("links/real");
    struct stat st;
    bool changed;
    put(g.file, old_text);
    assert_int_equal(symlink("real/c.yaml", f.file), 0);
    free(change(f.file, &changed));
    assert_int_equal(lstat(f.file, &st), 0);
    assert_true(S_ISLNK(st.st_mode) && !scratch_holds(g.file, old_text));
    take_back(f.file);
    assert_true(scratch_holds(g.file, old_text));
}

/* Changes and takes back for ever. */
static void work(const char *path)
{
    struct gyaru_error err;
    for (;;) {
        char *text = NULL;
        bool changed;
        if (config_change(path, both, 2, &text, &changed, &err))
            _exit(1);
        free(text);
        if (config_rollback(path, &text, &err))
            _exit(1);
        free(text);
    }
}

static void kill_9_at_50_moments(void **state)
{
    struct folder f = fresh("kill");
    bool changed;
    int seen_new = 0;
    put(f.file, old_text);
    free(change(f.file, &changed));
    char *new_text = scratch_text(f.file);
    take_back(f.file);
    srand(7);
    for (int i = 0; i < 50; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (!pid)
            work(f.file);
        usleep((useconds_t)(rand() % 30000));
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status)); /* it never failed on its own */
        bool is_new = scratch_holds(f.file, new_text);
        seen_new += is_new;
        assert_true(is_new || scratch_holds(f.file, old_text));
        if (is_new || file_exists(f.journal))
            take_back(f.file);
        assert_true(scratch_holds(f.file, old_text));
        assert_false(file_exists(f.journal));
    }
    assert_true(seen_new > 0);
    free(new_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_the_value_and_nothing_else),
        cmocka_unit_test(names_the_line_of_what_it_refuses),
        cmocka_unit_test(takes_back_to_the_byte),
        cmocka_unit_test(takes_back_several_changes),
        cmocka_unit_test(a_missing_file_is_made_and_removed),
        cmocka_unit_test(an_edited_file_is_left_alone),
        cmocka_unit_test(a_changed_backup_is_not_put_back),
        cmocka_unit_test(links_stay_links),
        cmocka_unit_test(kill_9_at_50_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
