/*
 * test_torch_pt.c - torch.save files: the real one is read, what is written has the shape that
 * torch.load wants, and every attempt to run, inflate or reach anything is refused by name.
 */
#include "base/half.h"
#include "format/pickle.h"
#include "format/torch_pt.h"
#include "support/scratch.h"

#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include <cmocka.h>

#define DATA "tests/data/vector/vectors.pt"

/* Pieces of a pickle: {KEY: tensor of two halves in storage '0'}. */
#define HEAD    "\x80\x02}("
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define HALF    "ctorch\nHalfStorage\n"
#define TEXT(n) "X" n "\0\0\0"
#define ID      "((" TEXT("\x07") "storage" HALF TEXT("\x01") "0" TEXT("\x03") "cpuK\x02tQ"
#define HOOKS                                                                                      \
    "\x89"                                                                                         \
    "ccollections\nOrderedDict\n)R"
#define TAIL   "K\0K\x02\x85K\x01\x85" HOOKS "tR"
#define TENSOR REBUILD ID TAIL
#define GOOD   HEAD "K\x05" TENSOR "u."

struct piece {
    const char *name;
    const void *data;
    size_t len;
    int method; /* ZIP_CM_... */
};

/* A zip of these members. */
static const char *make_zip(const struct piece *pieces, size_t n)
{
    const char *path = scratch_path("made.pt");
    int why;
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &why);
    assert_non_null(zip);
    for (size_t i = 0; i < n; i++) {
        zip_source_t *source = zip_source_buffer(zip, pieces[i].data, pieces[i].len, 0);
        zip_int64_t at = zip_file_add(zip, pieces[i].name, source, 0);
        assert_true(at >= 0);
        zip_set_file_compression(zip, (zip_uint64_t)at, pieces[i].method, 0);
    }
    assert_int_equal(zip_close(zip), 0);
    return path;
}

static void refused_file(const char *path, const char *cause, const char *more)
{
    struct torch_pt pt = {0};
    struct gyaru_error err = {0};
    if (!torch_pt_read(path, &pt, &err))
        fail_msg("accepted, expected: %s", cause);
    assert_null(pt.entries);
    check_error(&err, GYARU_FAILED, path, cause, more, NULL);
}

/* Values 1 and -2 as halves. */
static const uint8_t halves[4] = {0x00, 0x3c, 0x00, 0xc0};

static const char *with_pickle(const char *pickle, size_t len)
{
    const struct piece pieces[] = {{"v/data.pkl", pickle, len, ZIP_CM_STORE},
                                   {"v/data/0", halves, sizeof halves, ZIP_CM_STORE}};
    return make_zip(pieces, 2);
}

#define REFUSED(pickle, cause, more)                                                               \
    refused_file(with_pickle(pickle, sizeof(pickle) - 1), cause, more)

static void reads_a_real_file(void **state)
{
    struct torch_pt pt;
    struct gyaru_error err;
    assert_int_equal(torch_pt_read(DATA, &pt, &err), 0);
    assert_int_equal(pt.n_entries, 4);
    for (int i = 0; i < 4; i++) {
        double sum = 0;
        assert_int_equal(pt.entries[i].key, i);
        assert_int_equal(pt.entries[i].n, 192);
        for (size_t k = 0; k < 192; k++)
            sum += (double)pt.entries[i].values[k] * (double)pt.entries[i].values[k];
        assert_true(fabs(sum - 1) < 1e-2);
    }
    torch_pt_release(&pt);
}

static void reads_the_made_one(void **state)
{
    struct torch_pt pt;
    struct gyaru_error err;
    if (torch_pt_read(with_pickle(GOOD, sizeof(GOOD) - 1), &pt, &err))
        fail_msg("%s", err.text);
    assert_int_equal(pt.n_entries, 1);
    assert_int_equal(pt.entries[0].key, 5);
    assert_int_equal(pt.entries[0].n, 2);
    assert_true(pt.entries[0].values[0] == 1 && pt.entries[0].values[1] == -2);
    torch_pt_release(&pt);
}

/* The same bytes as bfloat16 and float, with SETITEM, a view into a storage, a negative key. */
static void reads_other_storages(void **state)
{
    static const char bf16[] =
        "\x80\x02}J\xff\xff\xff\xff" REBUILD
        "((" TEXT("\x07") "storagectorch\nBFloat16Storage\n" TEXT("\x01") "0" TEXT(
            "\x06") "cuda:0K\x04tQK\x01K\x02\x85K\x01\x85\x88"
                    "ccollections\nOrderedDict\n)RtRs.";
    static const char f32[] =
        HEAD "M\x00\x01" REBUILD "((" TEXT("\x07") "storagectorch\nFloatStorage\n" TEXT(
            "\x01") "0" TEXT("\x03") "cpuK\x02tQK\x01K\x01\x85K\x01\x85" HOOKS "tRu.";
    static const uint8_t four[8] = {0, 0, 0x80, 0x3f, 0, 0, 0x20, 0x40}; /* 1.0f 2.5f */
    struct torch_pt pt;
    struct gyaru_error err;
    struct piece pieces[] = {{"a/data.pkl", bf16, sizeof bf16 - 1, ZIP_CM_STORE},
                             {"a/data/0", four, sizeof four, ZIP_CM_STORE},
                             {"a/byteorder", "little", 6, ZIP_CM_STORE},
                             {"a/version", "3\n", 2, ZIP_CM_STORE}};
    if (torch_pt_read(make_zip(pieces, 4), &pt, &err))
        fail_msg("%s", err.text);
    assert_int_equal(pt.entries[0].key, -1);
    assert_true(pt.entries[0].values[0] == 1 && pt.entries[0].values[1] == 0);
    torch_pt_release(&pt);
    pieces[0] = (struct piece){"a/data.pkl", f32, sizeof f32 - 1, ZIP_CM_STORE};
    if (torch_pt_read(make_zip(pieces, 4), &pt, &err))
        fail_msg("%s", err.text);
    assert_int_equal(pt.entries[0].key, 256);
    assert_true(pt.entries[0].values[0] == 2.5f);
    torch_pt_release(&pt);
}

static void executes_nothing(void **state)
{
    REFUSED("\x80\x02"
            "cposix\nsystem\n" TEXT("\x09") "touch pwnd\x85R.",
            "GLOBAL", "posix system");
    REFUSED("\x80\x02"
            "cos\nsystem\n" TEXT("\x01") "x\x85R.",
            "GLOBAL", "byte 2: global 'os system'");
    REFUSED("\x80\x02"
            "c__builtin__\neval\n" TEXT("\x01") "1\x85R.",
            "GLOBAL", "__builtin__ eval");
    REFUSED("\x80\x02"
            "ctorch\nDoubleStorage\n.",
            "GLOBAL", "torch DoubleStorage");
    REFUSED("\x80\x02"
            "ctorch\nload\n.",
            "GLOBAL", "torch load");
    REFUSED("\x80\x02"
            "ctorch._utils\n_rebuild_tensor_v3\n.",
            "GLOBAL", "_rebuild_tensor_v3");
    REFUSED("\x80\x02"
            "ccollections\nOrderedDict\n}b.",
            "BUILD", "byte 28");
    REFUSED("\x80\x02(iposix\nsystem\n.", "INST", "not allowed");
    REFUSED("\x80\x02(" HALF "o.", "OBJ", "not allowed");
    REFUSED("\x80\x02" HALF ")\x81.", "NEWOBJ", "not allowed");
    REFUSED("\x80\x02" HALF ")}\x92.", "NEWOBJ_EX", "not allowed");
    REFUSED("\x80\x02\x8c\x05posix\x8c\x06system\x93.", "SHORT_BINUNICODE", "not allowed");
    REFUSED("\x80\x02\x82\x01.", "EXT1", "not allowed");
    REFUSED("\x80\x02]a.", "EMPTY_LIST", "not allowed");
    REFUSED("\x80\x02" HALF ")R.", "REDUCE", "neither");
    REFUSED("\x80\x02K\x01K\x02\x85R.", "REDUCE", "neither");
    REFUSED("\x80\x02"
            "ccollections\nOrderedDict\nK\x01\x85R.",
            "REDUCE", "neither");
}

static void refuses_every_other_opcode(void **state)
{
    const char allowed[] = "\x80(.JKMN\x88\x89X})t\x85\x86\x87qrhjcQRsu";
    for (int code = 0; code < 256; code++) {
        if (memchr(allowed, code, sizeof allowed - 1))
            continue;
        const char pickle[] = {'\x80', 2, (char)code, '.'};
        refused_file(with_pickle(pickle, sizeof pickle),
                     code == 0 || code == 255 ? "is unknown" : "byte 2", NULL);
    }
}

static void refuses_broken_machines(void **state)
{
    REFUSED("", "0 left", NULL);
    REFUSED("\x80", "PROTO", NULL);
    REFUSED("\x80\x04.", "protocol 4", NULL);
    REFUSED("\x80\x02\x80\x02.", "protocol 2", NULL);
    REFUSED("\x80\x02.", "STOP", NULL);
    REFUSED("\x80\x02N.", "STOP", "something else");
    REFUSED("\x80\x02}.x", "STOP", "1 bytes follow");
    REFUSED("\x80\x02}.", "empty", NULL);
    REFUSED("\x80\x02}}.", "EMPTY_DICT", "more than one");
    REFUSED("\x80\x02t.", "TUPLE", "no mark");
    REFUSED("\x80\x02u.", "SETITEMS", "no mark");
    REFUSED("\x80\x02(u.", "SETITEMS", "nothing");
    REFUSED("\x80\x02s.", "SETITEM", "nothing");
    REFUSED("\x80\x02\x85.", "TUPLE1", "nothing");
    REFUSED("\x80\x02(\x85.", "TUPLE1", "nothing");
    REFUSED("\x80\x02K\x01\x86.", "TUPLE2", "nothing");
    REFUSED("\x80\x02R.", "REDUCE", "nothing");
    REFUSED("\x80\x02Q.", "BINPERSID", "nothing");
    REFUSED("\x80\x02q\0.", "BINPUT", "nothing");
    REFUSED("\x80\x02K", "BININT1", "0 left");
    REFUSED("\x80\x02X\xff\xff\xff\xff"
            "ab",
            "BINUNICODE", "4294967295 bytes");
    REFUSED("\x80\x02"
            "ctorch",
            "GLOBAL", "without end");
    REFUSED("\x80\x02}h\0.", "BINGET", "slot 0");
    REFUSED("\x80\x02}q\x01h\0.", "BINGET", "slot 0");
    REFUSED("\x80\x02}j\xff\xff\xff\xff.", "LONG_BINGET", "4294967295");
    REFUSED("\x80\x02}r\xff\xff\xff\xff.", "LONG_BINPUT", "out of range");
    REFUSED("\x80\x02}q\xff.", "BINPUT", "out of range");
}

static void refuses_other_contents(void **state)
{
    REFUSED(HEAD "K\x05K\x06u.", "SETITEMS", "no tensor");
    REFUSED(HEAD TEXT("\x01") "a" TENSOR "u.", "SETITEMS", "no integer");
    REFUSED(HEAD "K\x05" TENSOR "K\x06u.", "SETITEMS", "without a value");
    REFUSED(HEAD "K\x05" TENSOR "K\x05" TENSOR "u.", "SETITEMS", "twice");
    REFUSED("\x80\x02NK\x05" TENSOR "s.", "SETITEM", "no dict");
    REFUSED("\x80\x02K\x05Q.", "BINPERSID", "persistent id");
    REFUSED("\x80\x02" TEXT("\x01") "0Q.", "BINPERSID", "persistent id");
    REFUSED("\x80\x02((" HALF "tQ.", "BINPERSID", "persistent id");
    REFUSED("\x80\x02(NNNNNtQ.", "BINPERSID", "persistent id");
    REFUSED("\x80\x02(" TEXT("\x07") "storage" TEXT("\x01") "h" TEXT("\x01") "0" TEXT(
                "\x03") "cpuK\x02tQ.",
            "BINPERSID", "storage class");
    REFUSED("\x80\x02(" TEXT("\x07") "storage" REBUILD TEXT("\x01") "0" TEXT("\x03") "cpuK\x02tQ.",
            "BINPERSID", "storage class");
    REFUSED("\x80\x02(" TEXT("\x07") "storage" HALF TEXT("\x04") "../0" TEXT("\x03") "cpuK\x02tQ.",
            "BINPERSID", "plain key");
    REFUSED("\x80\x02(" TEXT("\x07") "storage" HALF "K\0" TEXT("\x03") "cpuK\x02tQ.", "BINPERSID",
            "plain key");
    REFUSED("\x80\x02(" TEXT("\x07") "storage" HALF TEXT("\x01") "0" TEXT(
                "\x03") "cpuJ\xff\xff\xff\xfftQ.",
            "BINPERSID", "size");
    REFUSED(HEAD "K\x05" REBUILD ID "K\0K\x03\x85K\x01\x85" HOOKS "tRu.", "REDUCE", "of 2");
    REFUSED(HEAD "K\x05" REBUILD ID "K\x01K\x02\x85K\x01\x85" HOOKS "tRu.", "REDUCE", "from 1");
    REFUSED(HEAD "K\x05" REBUILD ID "J\xff\xff\xff\xffK\x02\x85K\x01\x85" HOOKS "tRu.", "REDUCE",
            "too small");
    REFUSED(HEAD "K\x05" REBUILD ID "K\0K\0\x85K\x01\x85" HOOKS "tRu.", "REDUCE", "too small");
    REFUSED(HEAD "K\x05" REBUILD ID "K\0K\x02\x85K\x02\x85" HOOKS "tRu.", "REDUCE", "stride");
    REFUSED(HEAD "K\x05" REBUILD ID "K\0K\x01K\x02\x86K\x02K\x01\x86" HOOKS "tRu.", "REDUCE",
            "one dimension");
    REFUSED(HEAD "K\x05" REBUILD ID "K\0))" HOOKS "tRu.", "REDUCE", "one dimension");
    REFUSED(HEAD "K\x05" REBUILD ID "K\0K\x02\x85K\x01\x85\x89NtRu.", "REDUCE", "arguments");
    REFUSED(HEAD "K\x05" REBUILD ")Ru.", "REDUCE", "_rebuild_tensor_v2");
}

static void refuses_wrong_members(void **state)
{
    static const char good[] = GOOD;
    struct piece p[4] = {{"v/data.pkl", good, sizeof good - 1, ZIP_CM_STORE},
                         {"v/data/0", halves, sizeof halves, ZIP_CM_STORE},
                         {"v/byteorder", "big", 3, ZIP_CM_STORE}};
    refused_file(make_zip(p, 3), "byteorder", NULL);
    refused_file(make_zip(p, 1), "data/0", "missing");
    p[1].len = 2;
    refused_file(make_zip(p, 2), "data/0", "2 bytes");
    p[1].len = 3;
    refused_file(make_zip(p, 2), "data/0", "3 bytes");
    p[1] = (struct piece){"w/data/0", halves, sizeof halves, ZIP_CM_STORE};
    refused_file(make_zip(p, 2), "outside", "w/data/0");
    p[1] = (struct piece){"../data/0", halves, sizeof halves, ZIP_CM_STORE};
    refused_file(make_zip(p, 2), "outside", NULL);
    p[0].name = "data.pkl";
    refused_file(make_zip(p, 1), "data.pkl", "torch.save");
}

static void refuses_zip_bombs(void **state)
{
    static const char good[] = GOOD;
    static uint8_t zeros[1 << 20];
    struct piece p[2] = {{"v/data.pkl", good, sizeof good - 1, ZIP_CM_STORE},
                         {"v/data/0", zeros, sizeof zeros, ZIP_CM_DEFLATE}};
    refused_file(make_zip(p, 2), "compressed", "data/0");
    p[0] = (struct piece){"v/data.pkl", zeros, sizeof zeros, ZIP_CM_DEFLATE};
    refused_file(make_zip(p, 1), "compressed", "data.pkl");
    p[0] = (struct piece){"v/data.pkl", zeros, sizeof zeros, ZIP_CM_STORE};
    refused_file(make_zip(p, 1), "unknown", NULL);
}

/* A megabyte storage seen a thousand times: a gigabyte out of a file of one. */
static void views_cannot_multiply_memory(void **state)
{
    static uint8_t storage[1 << 20];
    static char pickle[200000];
    size_t n = 0, before = mallinfo2().arena + mallinfo2().hblkhd;
    const char head[] = HEAD;
    const char each[] = REBUILD "((" TEXT("\x07") "storage" HALF TEXT("\x01") "0" TEXT(
        "\x03") "cpuJ\0\0\x08\0tQK\0J\0\0\x08\0\x85K\x01\x85" HOOKS "tR";
    memcpy(pickle, head, sizeof head - 1);
    n = sizeof head - 1;
    for (int i = 0; i < 1000; i++) {
        const char key[3] = {'M', (char)(i & 255), (char)(i >> 8)};
        memcpy(pickle + n, key, 3);
        memcpy(pickle + n + 3, each, sizeof each - 1);
        n += 3 + sizeof each - 1;
    }
    memcpy(pickle + n, "u.", 2);
    const struct piece p[] = {{"v/data.pkl", pickle, n + 2, ZIP_CM_STORE},
                              {"v/data/0", storage, sizeof storage, ZIP_CM_STORE}};
    refused_file(make_zip(p, 2), "more than the file holds", NULL);
    assert_true(mallinfo2().arena + mallinfo2().hblkhd < before + (8 << 20));
}

/* Members whose directory lies about their size, and names that appear twice. */
static void refuses_lying_directories(void **state)
{
    size_t len;
    const char *path = with_pickle(GOOD, sizeof(GOOD) - 1);
    uint8_t *bytes = scratch_read(path, &len);
    size_t entry = 0;
    for (size_t i = 0; i + 46 < len; i++) {
        if (!memcmp(bytes + i, "PK\1\2", 4) && !memcmp(bytes + i + 46, "v/data/0", 8))
            entry = i;
    }
    assert_true(entry > 0);
    const uint32_t sizes[] = {0xfffffff0, 1 << 20, 5, 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int k = 0; k < 4; k++)
            bytes[entry + 20 + k] = bytes[entry + 24 + k] = (uint8_t)(sizes[i] >> (8 * k));
        refused_file(scratch_write("lie.pt", bytes, len), "lie.pt", NULL);
    }
    for (int k = 0; k < 4; k++)
        bytes[entry + 20 + k] = bytes[entry + 24 + k] = k ? 0 : 4;
    bytes[entry + 16] ^= 1; /* CRC */
    refused_file(scratch_write("lie.pt", bytes, len), "data/0", "damaged");
    free(bytes);

    static const char good[] = GOOD;
    const struct piece p[] = {{"v/data.pkl", good, sizeof good - 1, ZIP_CM_STORE},
                              {"v/data/0", halves, sizeof halves, ZIP_CM_STORE},
                              {"v/data/1", halves, sizeof halves, ZIP_CM_STORE}};
    bytes = scratch_read(make_zip(p, 3), &len);
    for (size_t i = 0; i + 8 < len; i++) {
        if (!memcmp(bytes + i, "v/data/1", 8))
            bytes[i + 7] = '0';
    }
    refused_file(scratch_write("twice.pt", bytes, len), "twice.pt", "twice");
    free(bytes);
}

static void refuses_every_truncation(void **state)
{
    size_t len;
    uint8_t *bytes = scratch_read(DATA, &len);
    for (size_t cut = 0; cut < len; cut++)
        refused_file(scratch_write("cut.pt", bytes, cut), "cut.pt", NULL);
    free(bytes);
}

static void writes_what_torch_reads(void **state)
{
    struct torch_pt pt, again;
    struct gyaru_error err;
    zip_stat_t st;
    int why;
    char text[8] = {0};
    const char *path = scratch_path("written.pt");
    assert_int_equal(torch_pt_read(DATA, &pt, &err), 0);
    pt.entries[0].key = 300;
    pt.entries[1].key = -70000;
    assert_int_equal(torch_pt_write(path, &pt, &err), 0);
    assert_int_equal(torch_pt_read(path, &again, &err), 0);
    assert_int_equal(again.n_entries, pt.n_entries);
    for (size_t i = 0; i < pt.n_entries; i++) {
        assert_int_equal(again.entries[i].key, pt.entries[i].key);
        assert_int_equal(again.entries[i].n, pt.entries[i].n);
        assert_memory_equal(again.entries[i].values, pt.entries[i].values, 4 * pt.entries[i].n);
    }
    zip_t *zip = zip_open(path, ZIP_RDONLY | ZIP_CHECKCONS, &why);
    assert_non_null(zip);
    assert_int_equal(zip_get_num_entries(zip, 0), 3 + pt.n_entries);
    for (zip_uint64_t i = 0; i < 3 + pt.n_entries; i++) {
        assert_int_equal(zip_stat_index(zip, i, 0, &st), 0);
        assert_int_equal(st.comp_method, ZIP_CM_STORE);
        assert_true(!strncmp(st.name, "archive/", 8));
    }
    zip_file_t *file = zip_fopen(zip, "archive/byteorder", 0);
    assert_int_equal(zip_fread(file, text, sizeof text), 6);
    assert_memory_equal(text, "little", 6);
    zip_fclose(file);
    file = zip_fopen(zip, "archive/version", 0);
    assert_int_equal(zip_fread(file, text, sizeof text), 2);
    assert_memory_equal(text, "3\n", 2);
    zip_fclose(file);
    assert_true(zip_name_locate(zip, "archive/data/3", 0) >= 0);
    zip_discard(zip);
    torch_pt_release(&pt);
    torch_pt_release(&again);
}

static void equal_vectors_give_equal_files(void **state)
{
    float values[3] = {1, 0.5f, -2};
    struct torch_pt_entry entry = {7, 3, values};
    struct torch_pt pt = {&entry, 1};
    struct gyaru_error err;
    size_t a_len, b_len;
    const char *a_path = scratch_path("a.pt"), *b_path = scratch_path("b.pt");
    assert_int_equal(torch_pt_write(a_path, &pt, &err), 0);
    assert_int_equal(torch_pt_write(b_path, &pt, &err), 0);
    uint8_t *a = scratch_read(a_path, &a_len), *b = scratch_read(b_path, &b_len);
    assert_int_equal(a_len, b_len);
    assert_memory_equal(a, b, a_len);
    free(a);
    free(b);
}

static void refuses_to_write_what_does_not_fit(void **state)
{
    float values[2] = {1, 65520};
    struct torch_pt_entry entry = {7, 2, values};
    struct torch_pt pt = {&entry, 1};
    struct gyaru_error err;
    const char *path = scratch_path("no.pt");
    assert_int_equal(torch_pt_write(path, &pt, &err), -1);
    check_error(&err, GYARU_FAILED, path, "key 7", "float16", NULL);
    values[1] = 0;
    entry.key = (int64_t)1 << 31;
    assert_int_equal(torch_pt_write(path, &pt, &err), -1);
    check_error(&err, GYARU_FAILED, path, "2147483648", NULL);
    pt.n_entries = 0;
    assert_int_equal(torch_pt_write(path, &pt, &err), -1);
    check_error(&err, GYARU_FAILED, path, NULL);
}

static void halves_round_to_even(void **state)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = half_to_float((uint16_t)bits);
        if (!isnan(value))
            assert_int_equal(half_from_float(value), bits);
    }
    assert_true(half_to_float(1) == 0x1p-24f);
    assert_true(half_to_float(0xfbff) == -65504);
    assert_true(isinf(half_to_float(0x7c00)) && isnan(half_to_float(0x7c01)));
    assert_int_equal(half_from_float(65519.996f), 0x7bff);
    assert_int_equal(half_from_float(65520), 0x7c00);
    assert_int_equal(half_from_float(0x1p-25f), 0);          /* tie to even */
    assert_int_equal(half_from_float(0x1.8p-24f), 2);        /* tie to even */
    assert_int_equal(half_from_float(1 + 0x1p-11f), 0x3c00); /* tie to even */
    assert_int_equal(half_from_float(1 + 0x3p-11f), 0x3c02);
    assert_int_equal(half_from_float(NAN) & 0x7e00, 0x7e00);
    assert_true(bf16_to_float(0xc049) == -3.140625f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_real_file),
        cmocka_unit_test(reads_the_made_one),
        cmocka_unit_test(reads_other_storages),
        cmocka_unit_test(executes_nothing),
        cmocka_unit_test(refuses_every_other_opcode),
        cmocka_unit_test(refuses_broken_machines),
        cmocka_unit_test(refuses_other_contents),
        cmocka_unit_test(refuses_wrong_members),
        cmocka_unit_test(refuses_zip_bombs),
        cmocka_unit_test(views_cannot_multiply_memory),
        cmocka_unit_test(refuses_lying_directories),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(writes_what_torch_reads),
        cmocka_unit_test(equal_vectors_give_equal_files),
        cmocka_unit_test(refuses_to_write_what_does_not_fit),
        cmocka_unit_test(halves_round_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
