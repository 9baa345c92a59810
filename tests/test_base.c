/*
 * test_base.c - errors are one line of UTF-8 whatever the names in them; files are replaced whole
 * or not at all.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/reason.h"
#include "support/scratch.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void errors_are_one_line_of_utf8(void **state)
{
    const struct {
        const char *name, *shown;
    } cases[] = {{"a\nb\tc\x1b[31m\x7f", "a b c [31m "},
                 {"あーし", "あーし"},
                 {"\xff"
                  "a\xe3\x81",
                  "?a??"},
                 {"\xed\xa0\x80", "???"},
                 {"x\xc2\x85y\xe2\x80\xa8z", "x  y   z"}};
    struct gyaru_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(error_set(&err, GYARU_MISMATCH, "%s", cases[i].name), -1);
        assert_string_equal(err.text, cases[i].shown);
        assert_int_equal(err.status, GYARU_MISMATCH);
    }
}

/* Three-byte characters cut at every place: what is left can go into JSON. */
static void long_errors_are_cut_into_utf8(void **state)
{
    char name[700] = "";
    struct gyaru_error err;
    for (int i = 0; i < 200; i++)
        strcat(name, "ギ");
    for (int i = 0; i < 6; i++) {
        error_set(&err, GYARU_FAILED, "%s: %.*s", name + 3 * i, 10 + i, name);
        json_t *json = json_string(err.text);
        assert_non_null(json);
        json_decref(json);
        error_set(&err, GYARU_FAILED, "%.*s", 10 + i, name);
        json = json_string(err.text);
        assert_non_null(json);
        json_decref(json);
    }
}

/* The page has words for every reason: its table names them all. */
static void reasons_have_japanese_words(void **state)
{
    char *table = scratch_text("src/web/refusals.js"), entry[64];
    assert_string_equal(reason_name(REASON_NONE), "");
    for (int r = 1; r < REASON_COUNT; r++) {
        snprintf(entry, sizeof entry, " %s: '", reason_name((enum reason)r));
        if (!strstr(table, entry))
            fail_msg("src/web/refusals.js has no text for %s", reason_name((enum reason)r));
        for (int other = 1; other < r; other++)
            assert_string_not_equal(reason_name((enum reason)r), reason_name((enum reason)other));
    }
    free(table);
}

static void reasons_travel_with_errors(void **state)
{
    struct gyaru_error err;
    assert_int_equal(error_reason(&err, GYARU_USAGE, REASON_LAYERS, "layers: %d", 7), -1);
    assert_string_equal(err.text, "layers: 7");
    assert_int_equal(err.status, GYARU_USAGE);
    error_prefix(&err, "steering");
    assert_string_equal(err.reason, "layers_invalid");
    error_set(&err, GYARU_USAGE, "another");
    assert_string_equal(err.reason, "");
    error_memory(&err, 5, "it");
    assert_string_equal(err.reason, "no_memory");
}

static void prefixes_keep_the_status(void **state)
{
    struct gyaru_error err;
    error_set(&err, GYARU_NO_MEMORY, "too large");
    assert_int_equal(error_prefix(&err, "file"), -1);
    assert_string_equal(err.text, "file: too large");
    assert_int_equal(err.status, GYARU_NO_MEMORY);
    errno = ENOENT;
    error_errno(&err, "x", "cannot open");
    assert_string_equal(err.text, "x: cannot open: No such file or directory");
}

static void check_content(const char *path, const char *text)
{
    size_t len;
    uint8_t *data = scratch_read(path, &len);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(data, text, len);
    free(data);
}

static void writers_replace_or_leave(void **state)
{
    const char *path = scratch_write("file", "old", 3);
    struct file_writer writer;
    struct gyaru_error err;
    struct stat st;
    assert_int_equal(file_writer_open(&writer, path, &err), 0);
    assert_int_equal(file_writer_write(&writer, "ne", 2, &err), 0);
    check_content(path, "old");
    assert_int_equal(file_writer_write(&writer, "w!", 2, &err), 0);
    assert_int_equal(file_writer_commit(&writer, &err), 0);
    check_content(path, "new!");

    assert_int_equal(file_writer_open(&writer, path, &err), 0);
    char *temp = strdup(writer.temp);
    assert_int_equal(file_writer_write(&writer, "half", 4, &err), 0);
    assert_true(file_exists(temp));
    file_writer_abort(&writer);
    assert_false(file_exists(temp));
    free(temp);
    check_content(path, "new!");

    /* A new file follows the umask, a replaced one keeps its mode. */
    mode_t mask = umask(027);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_write_atomic(path, "x", 1, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(file_write_atomic(path, "y", 1, &err), 0);
    umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void impossible_writes_are_named(void **state)
{
    struct gyaru_error err;
    assert_int_equal(file_write_atomic("/nonexistent/x", "x", 1, &err), -1);
    check_error(&err, GYARU_FAILED, "/nonexistent/x", "No such file", NULL);
    const char *dir = scratch_path("dir");
    assert_int_equal(mkdir(dir, 0777), 0);
    assert_int_equal(file_write_atomic(dir, "x", 1, &err), -1); /* renaming over it fails */
    check_error(&err, GYARU_FAILED, dir, "cannot replace", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_one_line_of_utf8),
        cmocka_unit_test(long_errors_are_cut_into_utf8),
        cmocka_unit_test(prefixes_keep_the_status),
        cmocka_unit_test(reasons_have_japanese_words),
        cmocka_unit_test(reasons_travel_with_errors),
        cmocka_unit_test(writers_replace_or_leave),
        cmocka_unit_test(impossible_writes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
