/*
 * test_checkpoint.c - a directory is one checkpoint: single file or shards that agree with their
 * index in both directions.
 */
#include "format/checkpoint.h"
#include "format/safetensors.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A fresh directory of this name. */
static const char *make_dir(const char *name)
{
    const char *dir = scratch_path(name);
    if (mkdir(dir, 0777))
        fail_msg("cannot make %s", dir);
    return dir;
}

/* DIR/FILE with one U8 tensor of two elements for each name; the value tells the file. */
static void make_shard(const char *dir, const char *file, uint8_t value, const char *first,
                       const char *second)
{
    char name[128];
    struct gyaru_error err;
    const uint8_t data[2] = {value, value};
    const uint64_t dims[] = {2};
    const struct tensor tensors[] = {{first, DTYPE_U8, 1, dims, data, 2},
                                     {second ? second : "", DTYPE_U8, 1, dims, data, 2}};
    snprintf(name, sizeof name, "%s/%s", strrchr(dir, '/') + 1, file);
    if (safetensors_write(scratch_path(name), tensors, second ? 2 : 1, NULL, 0, &err))
        fail_msg("%s", err.text);
}

static void make_index(const char *dir, const char *text)
{
    char name[128];
    snprintf(name, sizeof name, "%s/model.safetensors.index.json", strrchr(dir, '/') + 1);
    scratch_write(name, text, strlen(text));
}

/* Two good shards a: {x, y}, b: {z}, and this index. */
static void with_index(const char *dir_name, const char *index, const char *cause)
{
    const char *dir = make_dir(dir_name);
    struct checkpoint *c;
    struct gyaru_error err;
    make_shard(dir, "a.safetensors", 1, "x", "y");
    make_shard(dir, "b.safetensors", 2, "z", NULL);
    make_index(dir, index);
    int rc = checkpoint_open(dir, &c, &err);
    if (cause) {
        assert_int_equal(rc, -1);
        check_error(&err, GYARU_FAILED, dir, cause, NULL);
        return;
    }
    if (rc)
        fail_msg("%s", err.text);
    assert_int_equal(checkpoint_count(c), 3);
    assert_int_equal(checkpoint_find(c, "x")->data[0], 1);
    assert_int_equal(checkpoint_find(c, "z")->data[0], 2);
    assert_null(checkpoint_find(c, "w"));
    assert_string_equal(checkpoint_at(c, 0)->name, "x");
    assert_string_equal(checkpoint_at(c, 2)->name, "z");
    checkpoint_close(c);
}

static void reads_one_file(void **state)
{
    const char *dir = make_dir("single");
    struct checkpoint *c;
    struct gyaru_error err;
    make_shard(dir, "model.safetensors", 5, "x", "y");
    make_index(dir, "not read");
    assert_int_equal(checkpoint_open(dir, &c, &err), 0);
    assert_int_equal(checkpoint_count(c), 2);
    assert_int_equal(checkpoint_find(c, "y")->data[1], 5);
    checkpoint_close(c);
}

static void reads_shards(void **state)
{
    with_index("shards",
               "{\"metadata\":{\"total_size\":6},\"weight_map\":{\"z\":\"b.safetensors\","
               "\"x\":\"a.safetensors\",\"y\":\"a.safetensors\"}}",
               NULL);
}

static void refuses_what_does_not_agree(void **state)
{
    with_index("lacks",
               "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"a.safetensors\","
               "\"z\":\"b.safetensors\",\"w\":\"b.safetensors\"}}",
               "'w' in b.safetensors, which lacks it");
    with_index("moved",
               "{\"weight_map\":{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\","
               "\"z\":\"b.safetensors\"}}",
               "a.safetensors holds it");
    with_index("extra", "{\"weight_map\":{\"x\":\"a.safetensors\",\"z\":\"b.safetensors\"}}",
               "does not name");
    with_index("missing",
               "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"a.safetensors\","
               "\"z\":\"c.safetensors\"}}",
               "c.safetensors");
}

static void refuses_a_tensor_in_two_shards(void **state)
{
    const char *dir = make_dir("twice");
    struct checkpoint *c;
    struct gyaru_error err;
    make_shard(dir, "a.safetensors", 1, "x", "y");
    make_shard(dir, "b.safetensors", 2, "y", "z");
    make_index(dir, "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"a.safetensors\","
                    "\"z\":\"b.safetensors\"}}");
    assert_int_equal(checkpoint_open(dir, &c, &err), -1);
    check_error(&err, GYARU_FAILED, dir, "'y'", "b.safetensors holds it", NULL);
}

static void refuses_names_that_leave_the_directory(void **state)
{
    with_index("up", "{\"weight_map\":{\"x\":\"../a.safetensors\"}}", "no plain file");
    with_index("dots", "{\"weight_map\":{\"x\":\"..\"}}", "no plain file");
    with_index("root", "{\"weight_map\":{\"x\":\"/etc/passwd\"}}", "no plain file");
    with_index("empty", "{\"weight_map\":{\"x\":\"\"}}", "no plain file");
    with_index("number", "{\"weight_map\":{\"x\":1}}", "no plain file");
}

static void refuses_a_bad_index(void **state)
{
    with_index("nojson", "{\"weight_map\":", "JSON");
    with_index("nomap", "{}", "weight_map");
    with_index("emptymap", "{\"weight_map\":{}}", "weight_map");
    with_index("array", "[]", "weight_map");
    with_index("double", "{\"weight_map\":{\"x\":\"a.safetensors\",\"x\":\"b.safetensors\"}}",
               "duplicate");
}

static void a_bad_shard_is_named(void **state)
{
    const char *dir = make_dir("badshard");
    struct checkpoint *c;
    struct gyaru_error err;
    scratch_write("badshard/a.safetensors", "12345678", 8);
    make_index(dir, "{\"weight_map\":{\"x\":\"a.safetensors\"}}");
    assert_int_equal(checkpoint_open(dir, &c, &err), -1);
    check_error(&err, GYARU_FAILED, "badshard/a.safetensors", "header", NULL);
}

static void says_what_is_missing(void **state)
{
    const char *dir = make_dir("nothing");
    struct checkpoint *c;
    struct gyaru_error err;
    assert_int_equal(checkpoint_open(dir, &c, &err), -1);
    check_error(&err, GYARU_FAILED, dir, "model.safetensors", NULL);
    assert_int_equal(checkpoint_open("/nonexistent", &c, &err), -1);
    check_error(&err, GYARU_FAILED, "/nonexistent", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_one_file),
        cmocka_unit_test(reads_shards),
        cmocka_unit_test(refuses_what_does_not_agree),
        cmocka_unit_test(refuses_a_tensor_in_two_shards),
        cmocka_unit_test(refuses_names_that_leave_the_directory),
        cmocka_unit_test(refuses_a_bad_index),
        cmocka_unit_test(a_bad_shard_is_named),
        cmocka_unit_test(says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
