/*
 * test_dataset.c - pairs from three formats are the same pairs; every bad row is named by its line;
 * splits keep topics together in proportion and copies in one part.
 */
#include "steer/dataset.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct dataset_keys keys = {"topic", "gyaru", "standard"};
static const int shares[DATASET_PARTS] = {60, 20, 20};

static void open_text(const char *name, const char *text, struct dataset *out)
{
    struct gyaru_error err;
    if (dataset_open(scratch_write(name, text, strlen(text)), &keys, out, &err))
        fail_msg("%s: %s", name, err.text);
}

static void refused(const char *name, const char *text, const char *first, const char *second)
{
    struct gyaru_error err = {0};
    struct dataset dataset;
    const char *path = scratch_write(name, text, strlen(text));
    if (!dataset_open(path, &keys, &dataset, &err))
        fail_msg("accepted: %s", text);
    check_error(&err, GYARU_FAILED, path, first, second, NULL);
}

static void formats_agree(void **state)
{
    static const struct {
        const char *name, *text;
        size_t lines[2];
    } files[] = {
        {"a.json",
         "\n[{\"topic\":\"t\",\"standard\":\"a \\\"b\\\",\\n]c\",\n\"gyaru\":\"x\"},\n\n"
         "  {\"standard\":\"雨\",\"gyaru\":\"あーし\",\"topic\":\"天気\",\"more\":[{},1]}]",
         {2, 5}},
        {"a.jsonl",
         "{\"topic\":\"t\",\"standard\":\"a \\\"b\\\",\\n]c\",\"gyaru\":\"x\"}\n  \r\n"
         "{\"topic\":\"天気\",\"standard\":\"雨\",\"gyaru\":\"あーし\"}",
         {1, 3}},
        {"a.csv",
         "\xef\xbb\xbfgyaru,\"topic\",id,standard\r\nx,t,1,\"a \"\"b\"\",\n]c\"\r\n\r\n"
         "あーし,天気,2,雨",
         {2, 5}},
        {"a.list",
         "{\"topic\":\"t\",\"standard\":\"a \\\"b\\\",\\n]c\",\"gyaru\":\"x\"}\n"
         "{\"topic\":\"天気\",\"standard\":\"雨\",\"gyaru\":\"あーし\"}\n",
         {1, 2}},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct dataset d;
        open_text(files[i].name, files[i].text, &d);
        assert_int_equal(d.n, 2);
        assert_string_equal(d.pairs[0].topic, "t");
        assert_string_equal(d.pairs[0].negative, "a \"b\",\n]c");
        assert_string_equal(d.pairs[0].positive, "x");
        assert_string_equal(d.pairs[1].topic, "天気");
        assert_string_equal(d.pairs[1].positive, "あーし");
        assert_int_equal(d.pairs[0].line, files[i].lines[0]);
        assert_int_equal(d.pairs[1].line, files[i].lines[1]);
        assert_int_equal(strlen(d.sha256), 64);
        dataset_release(&d);
    }
}

static void other_keys_can_hold_the_texts(void **state)
{
    struct gyaru_error err;
    struct dataset d;
    const struct dataset_keys others = {"subject", "butler", "plain"};
    const char *text = "[{\"subject\":\"s\",\"butler\":\"b\",\"plain\":\"p\"}]";
    assert_int_equal(dataset_open(scratch_write("k.json", text, strlen(text)), &others, &d, &err),
                     0);
    assert_string_equal(d.pairs[0].positive, "b");
    dataset_release(&d);
}

#define GOOD "{\"topic\":\"t\",\"standard\":\"s\",\"gyaru\":\"g\"}"

static void bad_rows_are_named(void **state)
{
    refused("b.json", "[" GOOD ",\n{\"topic\":\"t\",\"standard\":\"s\"}]",
            ":2: pair 2:", "'gyaru' is missing");
    refused("b.json", "[" GOOD ",\n\n{\"topic\":\"t\",\"standard\":\"s\",\"gyaru\":7}]",
            ":3: pair 2:", "'gyaru' is missing or no string");
    refused("b.json", "[" GOOD ",\n7]", ":2: pair 2:", "no object");
    refused("b.json", "[{\"topic\":\" \",\"standard\":\"s\",\"gyaru\":\"g\"}]",
            ":1: pair 1:", "'topic' is blank");
    refused("b.json", "[{\"topic\":\"t\",\"standard\":\"s\",\"gyaru\":\"a\\u0000b\"}]",
            ":1: pair 1:", "NUL");
    refused("b.json", "[{\"topic\":\"t\",\"standard\":\"s\",\"gyaru\":\"s\"}]",
            ":1: pair 1:", "same text");
    refused("b.json", "[\n1,\n2,\n3,\n4,\n5,\n6,\n7]",
            ":2: pair 1:", "also bad: line 3, 4, 5, 6 and 2 more");
    refused("b.jsonl", GOOD "\n\n{\"topic\":\n" GOOD, ":3: pair 2:", "invalid JSON");
    refused("b.jsonl", GOOD "\n[]\n", ":2: pair 2:", "no object");
    refused("b.csv", "topic,standard,gyaru\nt,s,g\nt,s\n", ":3: pair 2:", "2 fields");
    refused("b.csv", "topic,standard,gyaru\n\"t\nt\",s,g\nt,\"s,g\n", ":4: pair 2:", "never ends");
    refused("b.csv", "topic,standard,gyaru\nt,\"s\"s,g\n", ":2: pair 1:", "closing quote");
    refused("b.csv", "topic,standard,gyaru\nt,s\"s,g\n", ":2: pair 1:", "quote inside");
    refused("b.csv", "topic,standard,gyaru\nt,\xff,g\n", ":2: pair 1:", "valid UTF-8");
}

static void unusable_files_are_refused(void **state)
{
    refused("c.json", "{\"topic\":1}", "array of pairs", "[{");
    refused("c.json", "[", "invalid JSON", "line 1");
    refused("c.json", "[]", "no pairs", "");
    refused("c.jsonl", "\n", "no pairs", "");
    refused("c.csv", "", ":1:", "no column is named 'topic'");
    refused("c.csv", "topic,standard\nt,s\n", ":1:", "no column is named 'gyaru'");
    refused("c.csv", "topic,topic,standard,gyaru\n", ":1:", "two columns are named 'topic'");
}

/* n pairs over n_topics topics; pair 1 is a copy of pair 0. */
static void make_pairs(size_t n, size_t n_topics, struct dataset *out)
{
    char text[20000], *at = text;
    at += sprintf(at, "[");
    for (size_t i = 0; i < n; i++)
        at += sprintf(at, "%s{\"topic\":\"t%zu\",\"standard\":\"s%zu\",\"gyaru\":\"g\"}\n",
                      i ? "," : "", i == 1 ? 0 : i % n_topics, i == 1 ? 0 : i);
    sprintf(at, "]");
    open_text("many.json", text, out);
}

static void split_is_stratified(void **state)
{
    struct gyaru_error err;
    struct dataset d;
    make_pairs(201, 10, &d);
    enum dataset_part parts[201], again[201], other[201];
    assert_int_equal(dataset_split(&d, shares, 7, parts, &err), 0);
    assert_int_equal(dataset_split(&d, shares, 7, again, &err), 0);
    assert_int_equal(dataset_split(&d, shares, 8, other, &err), 0);
    assert_memory_equal(parts, again, sizeof parts);
    assert_memory_not_equal(parts, other, sizeof parts);
    assert_int_equal(d.n_duplicates, 1);
    assert_int_equal(d.pairs[1].same_as, 0);
    assert_int_equal(parts[1], parts[0]);
    size_t counts[10][DATASET_PARTS] = {{0}}, all[DATASET_PARTS] = {0};
    for (size_t i = 0; i < d.n; i++) {
        counts[i == 1 ? 0 : i % 10][parts[i]]++;
        all[parts[i]]++;
    }
    assert_in_range(all[PART_TRAIN], 119, 122);
    assert_in_range(all[PART_VALIDATION], 39, 42);
    for (size_t t = 0; t < 10; t++) {
        assert_in_range(counts[t][PART_TRAIN], 10, 14);
        assert_in_range(counts[t][PART_VALIDATION], 3, 6);
        assert_in_range(counts[t][PART_TEST], 3, 6);
    }
    dataset_release(&d);
}

static void shares_must_sum_to_100(void **state)
{
    struct gyaru_error err;
    struct dataset d;
    enum dataset_part parts[12];
    make_pairs(12, 3, &d);
    assert_int_equal(dataset_split(&d, (const int[]){60, 20, 30}, 1, parts, &err), -1);
    check_error(&err, GYARU_USAGE, "60/20/30", NULL);
    assert_int_equal(dataset_split(&d, (const int[]){80, 20, 0}, 1, parts, &err), 0);
    for (size_t i = 0; i < 12; i++)
        assert_int_not_equal(parts[i], PART_TEST);
    dataset_release(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_agree),       cmocka_unit_test(other_keys_can_hold_the_texts),
        cmocka_unit_test(bad_rows_are_named),  cmocka_unit_test(unusable_files_are_refused),
        cmocka_unit_test(split_is_stratified), cmocka_unit_test(shares_must_sum_to_100),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
