/*
 * test_journal.c - the journal of long work: whole records count, torn ones do not. Whole commands
 * that are killed: test_kill.c.
 */
#include "base/file.h"
#include "steer/journal.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FLOATS 5
#define TOTAL  4

static const uint8_t key[SHA256_BYTES] = {1, 2, 3}, other_key[SHA256_BYTES] = {1, 2, 4};
static const float values[TOTAL * FLOATS] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                             11, 12, 13, 14, 15, 16, 17, 18, 19, 20};

static struct journal open_journal(const char *path, const uint8_t *with, size_t expected)
{
    struct journal j;
    struct gyaru_error err;
    if (journal_open(path, with, FLOATS, TOTAL, &j, &err))
        fail_msg("%s", err.text);
    assert_int_equal(j.n_done, expected);
    return j;
}

static void append(struct journal *j, size_t first, size_t n)
{
    struct gyaru_error err;
    if (journal_append(j, values + first * FLOATS, n, &err))
        fail_msg("%s", err.text);
}

static void whole_records_come_back(void **state)
{
    struct gyaru_error err;
    const char *path = scratch_path("whole");
    struct journal j = open_journal(path, key, 0);
    append(&j, 0, 2);
    append(&j, 2, 1);
    journal_close(&j, false);
    j = open_journal(path, key, 3);
    append(&j, 3, 1);
    assert_int_equal(journal_map(&j, &err), 0);
    for (size_t i = 0; i < TOTAL; i++)
        assert_memory_equal(journal_record(&j, i), values + i * FLOATS, FLOATS * sizeof(float));
    journal_close(&j, true);
    assert_false(file_exists(path));
}

/* Cut at every byte: what is whole before the cut counts, and the rest is written anew. */
static void torn_records_do_not_count(void **state)
{
    const char *path = scratch_path("torn");
    struct journal j = open_journal(path, key, 0);
    append(&j, 0, TOTAL);
    journal_close(&j, false);
    size_t size, record = 64 + FLOATS * sizeof(float);
    uint8_t *bytes = scratch_read(path, &size);
    assert_int_equal(size, 64 + TOTAL * record);
    for (size_t cut = 0; cut <= size; cut++) {
        scratch_write("torn", bytes, cut);
        j = open_journal(path, key, cut < 64 ? 0 : (cut - 64) / record);
        append(&j, j.n_done, TOTAL - j.n_done);
        journal_close(&j, false);
        size_t len;
        uint8_t *again = scratch_read(path, &len);
        assert_int_equal(len, size);
        assert_memory_equal(again, bytes, size);
        free(again);
    }
    for (size_t at = 64; at < size; at++) { /* one bit wrong */
        bytes[at] ^= 0x10;
        scratch_write("torn", bytes, size);
        bytes[at] ^= 0x10;
        j = open_journal(path, key, (at - 64) / record);
        journal_close(&j, false);
    }
    free(bytes);
}

static void other_work_begins_anew(void **state)
{
    const char *path = scratch_path("other");
    struct journal j = open_journal(path, key, 0);
    append(&j, 0, 3);
    journal_close(&j, false);
    j = open_journal(path, other_key, 0);
    assert_true(j.discarded);
    journal_close(&j, false);
    j = open_journal(path, other_key, 0);
    assert_false(j.discarded);
    journal_close(&j, true);
}

static void foreign_files_are_left_alone(void **state)
{
    struct journal j;
    struct gyaru_error err;
    const char *text = "my diary";
    const char *path = scratch_write("foreign", text, strlen(text));
    assert_int_equal(journal_open(path, key, FLOATS, TOTAL, &j, &err), -1);
    check_error(&err, GYARU_FAILED, path, "move it away", NULL);
    size_t len;
    char *now = (char *)scratch_read(path, &len);
    assert_memory_equal(now, text, len);
    free(now);
}

static void one_at_a_time(void **state)
{
    struct journal first = open_journal(scratch_path("busy"), key, 0), second;
    struct gyaru_error err;
    assert_int_equal(journal_open(first.path, key, FLOATS, TOTAL, &second, &err), -1);
    check_error(&err, GYARU_FAILED, "another run", NULL);
    journal_close(&first, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_records_come_back), cmocka_unit_test(torn_records_do_not_count),
        cmocka_unit_test(other_work_begins_anew),  cmocka_unit_test(foreign_files_are_left_alone),
        cmocka_unit_test(one_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
