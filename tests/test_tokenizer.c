/*
 * test_tokenizer.c - ids and texts as the reference gives them, round trips, speed, and refusal of
 * tokenizer files that are not what we read.
 */
#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"
#include "support/text_dir.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Generous: a loaded machine under sanitizers. Measured without them: 0.02 to 0.7 s. */
#define SECONDS_PER_MEGABYTE 3.0

static struct gyaru_tokenizer *open_dir(const char *dir)
{
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    if (gyaru_tokenizer_open(dir, &t, &err))
        fail_msg("%s", err.text);
    return t;
}

static int open_reference(void **state)
{
    *state = open_dir(REFERENCE_TOKENIZER);
    return 0;
}

static int close_reference(void **state)
{
    gyaru_tokenizer_close(*state);
    return 0;
}

static json_t *load(const char *path)
{
    struct gyaru_error err;
    char *text;
    size_t len;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    len = (size_t)ftell(f);
    rewind(f);
    text = malloc(len);
    assert_int_equal(fread(text, 1, len, f), len);
    fclose(f);
    json_t *json = json_parse_text(text, len, path, &err);
    free(text);
    if (!json)
        fail_msg("%s", err.text);
    return json;
}

/* ---- against the reference ---------------------------------------------------------------- */

static void check_encode(const struct gyaru_tokenizer *t, const json_t *text,
                         const json_t *expected, size_t i)
{
    struct gyaru_error err;
    int32_t *ids;
    size_t n;
    if (gyaru_tokenize(t, json_string_value(text), json_string_length(text), true, &ids, &n, &err))
        fail_msg("case %zu: %s", i, err.text);
    bool same = n == json_array_size(expected);
    for (size_t k = 0; same && k < n; k++)
        same = ids[k] == json_integer_value(json_array_get(expected, k));
    free(ids);
    if (!same)
        fail_msg("case %zu: '%s' gives other ids", i, json_string_value(text));
}

static void check_decode(const struct gyaru_tokenizer *t, const json_t *list,
                         const json_t *expected, size_t i)
{
    struct gyaru_error err;
    int32_t *ids = calloc(json_array_size(list) + 1, sizeof *ids);
    char *text;
    size_t len;
    for (size_t k = 0; k < json_array_size(list); k++)
        ids[k] = (int32_t)json_integer_value(json_array_get(list, k));
    if (gyaru_detokenize(t, ids, json_array_size(list), &text, &len, &err))
        fail_msg("case %zu: %s", i, err.text);
    if (len != json_string_length(expected) || memcmp(text, json_string_value(expected), len) != 0)
        fail_msg("case %zu: decodes to '%s'", i, text);
    free(text);
    free(ids);
}

static size_t check_cases(const struct gyaru_tokenizer *t, const char *path)
{
    json_t *cases = load(path);
    size_t n = json_array_size(cases);
    for (size_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(cases, i), *ids = json_object_get(c, "ids");
        if (json_object_get(c, "text"))
            check_encode(t, json_object_get(c, "text"), ids, i);
        check_decode(t, ids, json_object_get(c, "decoded"), i);
    }
    json_decref(cases);
    return n;
}

static void reference_cases(void **state)
{
    assert_true(check_cases(*state, REFERENCE_TOKENIZER "/cases.json") > 400);
}

static void qwen_cases(void **state)
{
    char cases[4096];
    const char *path = shared_file("reference/qwen2.5-tokenizer-cases.json");
    if (!path)
        skip();
    snprintf(cases, sizeof cases, "%s", path);
    double start = clock_seconds();
    struct gyaru_tokenizer *t = open_dir(shared_file("reference/qwen2.5-tokenizer"));
    printf("opening Qwen2.5's tokenizer: %.0f ms\n", 1e3 * (clock_seconds() - start));
    assert_int_equal(gyaru_tokenizer_size(t), 151665);
    assert_int_equal(check_cases(t, cases), 437);
    gyaru_tokenizer_close(t);
}

/* ---- what the interface promises ---------------------------------------------------------- */

static void special_text_is_ordinary_unless_asked_for(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    static const char text[] = "a<|im_end|>b";
    int32_t end = tokenizer_find_added(t, "<|im_end|>"), *ids;
    size_t n, len;
    char *back;
    struct gyaru_error err;
    assert_true(end >= 0 && tokenizer_is_special(t, end));
    assert_int_equal(gyaru_tokenize(t, text, strlen(text), true, &ids, &n, &err), 0);
    assert_int_equal(n, 3);
    assert_int_equal(ids[1], end);
    free(ids);
    assert_int_equal(gyaru_tokenize(t, text, strlen(text), false, &ids, &n, &err), 0);
    for (size_t i = 0; i < n; i++)
        assert_false(tokenizer_is_special(t, ids[i]));
    assert_int_equal(gyaru_detokenize(t, ids, n, &back, &len, &err), 0);
    assert_string_equal(back, text);
    free(ids);
    free(back);
}

static void invalid_text_is_an_error_with_its_place(void **state)
{
    struct gyaru_error err;
    int32_t *ids = NULL;
    size_t n = 77;
    assert_int_equal(gyaru_tokenize(*state, "abc\xe3\x81", 5, false, &ids, &n, &err), -1);
    assert_non_null(strstr(err.text, "byte 3"));
    assert_null(ids);
    assert_int_equal(n, 77);
    assert_int_equal(gyaru_tokenize(*state, "\xed\xa0\x80", 3, false, &ids, &n, &err), -1);
}

static void unknown_ids_are_errors(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    const int32_t wrong[] = {-1, INT32_MIN, INT32_MAX, gyaru_tokenizer_size(t)};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct gyaru_error err;
        const uint8_t *bytes;
        char *text;
        size_t n;
        assert_int_equal(tokenizer_bytes(t, wrong[i], &bytes, &n), -1);
        assert_false(tokenizer_is_special(t, wrong[i]));
        const int32_t ids[] = {1, wrong[i]};
        assert_int_equal(gyaru_detokenize(t, ids, 2, &text, &n, &err), -1);
        assert_non_null(strstr(err.text, "ids[1]"));
    }
    assert_int_equal(tokenizer_find_added(t, "<|im_end|"), -1);
    assert_int_equal(tokenizer_find_added(t, "<|im_end|>x"), -1);
    assert_int_equal(tokenizer_find_added(t, ""), -1);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Any bytes, made valid and normal by a first round trip, come back as they are. */
static void random_text_comes_back(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    uint32_t seed = 42;
    for (int round = 0; round < 3000; round++) {
        uint8_t bytes[64];
        size_t n = next_random(&seed) % (sizeof bytes + 1);
        int kind = (int)(next_random(&seed) % 3);
        for (size_t i = 0; i < n; i++) {
            static const uint8_t of_interest[] = "\xe3\x81\x82\xcc\x80\xcc\x96 \n'sA<|";
            uint32_t r = next_random(&seed);
            bytes[i] = (uint8_t)(kind == 0 ? r % 0x80 : kind == 1 ? r : of_interest[r % 14]);
        }
        struct utf8_stream stream = {{0}, 0};
        struct str text = STR_INIT;
        utf8_stream_push(&stream, bytes, n, &text);
        utf8_stream_finish(&stream, &text);
        char *first = NULL, *second = NULL;
        size_t first_len, second_len, n_ids;
        int32_t *ids;
        struct gyaru_error err;
        bool special = round % 2;
        const char *from = text.data ? text.data : "";
        assert_int_equal(gyaru_tokenize(t, from, text.len, special, &ids, &n_ids, &err), 0);
        assert_int_equal(gyaru_detokenize(t, ids, n_ids, &first, &first_len, &err), 0);
        if (kind == 0) { /* ASCII is its own normal form */
            assert_int_equal(first_len, n);
            assert_memory_equal(first, bytes, n);
        }
        free(ids);
        assert_int_equal(gyaru_tokenize(t, first, first_len, special, &ids, &n_ids, &err), 0);
        assert_int_equal(gyaru_detokenize(t, ids, n_ids, &second, &second_len, &err), 0);
        assert_int_equal(first_len, second_len);
        assert_memory_equal(first, second, first_len);
        free(ids);
        free(first);
        free(second);
        str_release(&text);
    }
}

static void every_token_has_its_bytes(void **state)
{
    const struct gyaru_tokenizer *t = *state;
    for (int32_t id = 0; id < gyaru_tokenizer_size(t); id++) {
        const uint8_t *bytes;
        size_t n;
        assert_int_equal(tokenizer_bytes(t, id, &bytes, &n), 0);
        assert_true(n > 0);
    }
}

/* ---- speed -------------------------------------------------------------------------------- */

static void check_megabyte(const struct gyaru_tokenizer *t, const char *name, const char *text,
                           size_t len)
{
    struct gyaru_error err;
    int32_t *ids;
    size_t n;
    double start = clock_seconds();
    if (gyaru_tokenize(t, text, len, true, &ids, &n, &err))
        fail_msg("%s: %s", name, err.text);
    double seconds = clock_seconds() - start;
    printf("%s: %zu bytes, %zu ids, %.0f ms\n", name, len, n, 1e3 * seconds);
    assert_true(n > 0);
    free(ids);
    if (seconds > SECONDS_PER_MEGABYTE)
        fail_msg("%s: %.1f s", name, seconds);
}

static void a_megabyte_takes_no_time(void **state)
{
    static const char *const units[] = {"Hello world, this is text. ",
                                        "あーし、マジでテンション上がってるんだけど！",
                                        "a",
                                        " ",
                                        "\n",
                                        "! ",
                                        "'",
                                        " \n",
                                        "\xcc\x80\xcc\x96",
                                        "각",
                                        "<|im_",
                                        "<|im_end|>",
                                        "\xf0\x9f\x91\xa9\xe2\x80\x8d"};
    const size_t size = 1 << 20;
    char *text = malloc(size);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t unit = strlen(units[i]), len = 0;
        for (; len + unit <= size; len += unit)
            memcpy(text + len, units[i], unit);
        check_megabyte(*state, units[i], text, len);
    }
    uint32_t seed = 1;
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + next_random(&seed) % 26);
    check_megabyte(*state, "one random word", text, size);
    memset(text, ' ', size);
    text[size - 1] = 'x';
    check_megabyte(*state, "spaces before a letter", text, size);
    free(text);
}

/* ---- files that are not what we read ------------------------------------------------------- */

/* A tokenizer of single bytes, "ab", and one added token; the parts may be replaced. */
static json_t *small_tokenizer(void)
{
    json_t *vocab = json_object();
    int id = 0;
    for (int c = 0; c < 0x144; c++) {
        char name[3] = {(char)c, 0, 0};
        if (c < 0x21 || (c >= 0x7f && c < 0xa1) || c == 0xad)
            continue;
        if (c >= 0x80) {
            name[0] = (char)(0xc0 | c >> 6);
            name[1] = (char)(0x80 | (c & 0x3f));
        }
        json_object_set_new(vocab, name, json_integer(id++));
    }
    assert_int_equal(id, 256);
    json_object_set_new(vocab, "ab", json_integer(256));
    json_object_set_new(vocab, "abc", json_integer(257));
    return json_pack(
        "{s:s, s:[{s:i,s:s,s:b,s:b,s:b,s:b,s:b}], s:n, s:{s:s,s:b,s:b,s:b}, s:{s:s}, s:{s:s,s:[s],"
        "s:o}}",
        "version", "1.0", "added_tokens", "id", 258, "content", "<|x|>", "special", 1,
        "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "normalizer", "pre_tokenizer",
        "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 0, "decoder",
        "type", "ByteLevel", "model", "type", "BPE", "merges", "a b", "vocab", vocab);
}

static int open_json(const char *text, size_t len, struct gyaru_tokenizer **t,
                     struct gyaru_error *err)
{
    char *dir = text_dir_new();
    text_dir_put(dir, "tokenizer.json", text, len);
    text_dir_put(dir, "tokenizer_config.json", "{}", 2);
    *t = NULL;
    int rc = gyaru_tokenizer_open(dir, t, err);
    text_dir_free(dir);
    return rc;
}

/* Sets root.PATH (dots between keys, numbers index arrays) to the JSON text; NULL removes it. */
static void edit(json_t *root, const char *path, const char *value)
{
    char copy[200];
    snprintf(copy, sizeof copy, "%s", path);
    json_t *at = root;
    char *key = copy;
    for (char *dot; (dot = strchr(key, '.')); key = dot + 1) {
        *dot = '\0';
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
        assert_non_null(at);
    }
    json_t *json = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_true(json || !value);
    if (!value)
        json_object_del(at, key);
    else if (json_is_array(at))
        json_array_append_new(at, json);
    else
        json_object_set_new(at, key, json);
}

static int open_edited(const char *path, const char *value, struct gyaru_tokenizer **t,
                       struct gyaru_error *err)
{
    json_t *root = small_tokenizer();
    if (path)
        edit(root, path, value);
    char *text = json_dumps(root, 0);
    int rc = open_json(text, strlen(text), t, err);
    free(text);
    json_decref(root);
    return rc;
}

#define SPLIT(regex, more)                                                                         \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"        \
    "\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false" more                               \
    "},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"

/* Edits of the tiny tokenizer.json, and what the error has to name. */
static const struct {
    const char *path, *value, *named;
} refused[] = {
    {"version", "\"2.0\"", "version"},
    {"version", "7", "version"},
    {"surprise", "1", "surprise"},
    {"model", NULL, "model"},
    {"model", "[]", "model"},
    {"model.type", "\"WordPiece\"", "WordPiece"},
    {"model.type", "3", "model"},
    {"model.dropout", "0.1", "dropout"},
    {"model.byte_fallback", "true", "byte_fallback"},
    {"model.end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
    {"model.ignore_merges", "\"yes\"", "ignore_merges"},
    {"model.novelty", "1", "novelty"},
    {"model.vocab", "[]", "vocab"},
    {"model.vocab", "{}", "'a' 'b'"},
    {"model.vocab.x", "-1", "'x'"},
    {"model.vocab.x", "1.5", "'x'"},
    {"model.vocab.x", "\"1\"", "'x'"},
    {"model.vocab.xyz", "99999999999", "'xyz'"},
    {"model.vocab.xyz", "2147483647", "'xyz'"},
    {"model.vocab.xyz", "256", "256"},
    {"model.vocab.z", NULL, "0x7a"},
    {"model.merges", "{}", "merges"},
    {"model.merges", "[\"a\"]", "merges[0]"},
    {"model.merges", "[\"a b c\"]", "merges[0]"},
    {"model.merges", "[[\"a\"]]", "merges[0]"},
    {"model.merges", "[[\"a\",1]]", "merges[0]"},
    {"model.merges", "[7]", "merges[0]"},
    {"model.merges", "[\"a b\",\"zz b\"]", "'zz'"},
    {"model.merges", "[\"b a\"]", "'b' 'a'"},
    {"model.merges", "[\" b\"]", "merge 0"},
    {"model.merges", "[\"a b\",\"a b\"]", "twice"},
    {"added_tokens", "{}", "added_tokens"},
    {"added_tokens", "[1]", "added_tokens[0]"},
    {"added_tokens.1", "{\"id\":300}", "added_tokens[1]"},
    {"added_tokens.1", "{\"id\":300,\"content\":\"\"}", "added_tokens[1]"},
    {"added_tokens.1", "{\"id\":\"a\",\"content\":\"q\"}", "'q'"},
    {"added_tokens.1", "{\"id\":258,\"content\":\"<|y|>\"}", "<|y|>"},
    {"added_tokens.1", "{\"id\":259,\"content\":\"<|x|>\"}", "<|x|>"},
    {"added_tokens.1", "{\"id\":3,\"content\":\"<|y|>\"}", "<|y|>"},
    {"added_tokens.1", "{\"id\":259,\"content\":\"ab\"}", "'ab'"},
    {"added_tokens.1", "{\"id\":64,\"content\":\"a\",\"special\":true}", "0x61"},
    {"added_tokens.1", "{\"id\":256,\"content\":\"ab\",\"special\":true}", "added token"},
    {"added_tokens.0.lstrip", "true", "lstrip"},
    {"added_tokens.0.rstrip", "true", "rstrip"},
    {"added_tokens.0.single_word", "true", "single_word"},
    {"added_tokens.0.normalized", "true", "normalized"},
    {"added_tokens.0.special", "1", "special"},
    {"added_tokens.0.odd", "1", "odd"},
    {"normalizer", "{\"type\":\"NFKC\"}", "NFKC"},
    {"normalizer", "{\"type\":\"NFC\",\"x\":1}", "'x'"},
    {"normalizer", "\"NFC\"", "normalizer"},
    {"decoder", NULL, "decoder"},
    {"decoder.type", "\"WordPiece\"", "WordPiece"},
    {"post_processor", "{\"type\":\"TemplateProcessing\"}", "post_processor"},
    {"pre_tokenizer", "null", "pre_tokenizer"},
    {"pre_tokenizer.type", "\"Whitespace\"", "Whitespace"},
    {"pre_tokenizer.add_prefix_space", "true", "add_prefix_space"},
    {"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":[]}", "sequence"},
    {"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":7}", "sequence"},
    {"pre_tokenizer", SPLIT("a", ",\"x\":1"), "'x'"},
    {"pre_tokenizer", SPLIT("(", ""), "split pattern"},
    {"pre_tokenizer", SPLIT("a*", ""), "empty"},
    {"pre_tokenizer", SPLIT("", ""), "empty"},
    {"pre_tokenizer", SPLIT("\\\\w+", ""), "\\w"},
    {"pre_tokenizer", SPLIT("\\\\Ka", ""), "\\K"},
    {"pre_tokenizer", SPLIT("(?R)a", ""), "(?R)"},
    {"pre_tokenizer", SPLIT("(*ACCEPT)a", ""), "(*AC"},
    {"pre_tokenizer", SPLIT("[a[b]]", ""), "[b"},
    {"pre_tokenizer", SPLIT("[a&&b]", ""), "&&"},
    {"pre_tokenizer", SPLIT("^a", ""), "^a"},
    {"pre_tokenizer", SPLIT("a\\\\", ""), "split pattern"},
    {"pre_tokenizer", SPLIT("[a", ""), "split pattern"},
    {"pre_tokenizer", SPLIT("\\\\p{Nonsense}", ""), "split pattern"},
    {"pre_tokenizer", SPLIT("\\\\p{L", ""), "split pattern"},
};

static void other_tokenizers_are_refused_by_name(void **state)
{
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    if (open_edited(NULL, NULL, &t, &err))
        fail_msg("%s", err.text);
    gyaru_tokenizer_close(t);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (open_edited(refused[i].path, refused[i].value, &t, &err) == 0)
            fail_msg("accepted: %s = %s", refused[i].path, refused[i].value);
        assert_int_equal(err.status, GYARU_FAILED);
        assert_null(t);
        if (!strstr(err.text, "tokenizer.json") || !strstr(err.text, refused[i].named))
            fail_msg("%s = %s: '%s' does not name %s", refused[i].path, refused[i].value, err.text,
                     refused[i].named);
    }
}

static void other_spellings_are_read(void **state)
{
    static const struct {
        const char *path, *value;
    } cases[] = {
        {"model.merges", "[[\"a\",\"b\"]]"},
        {"model.merges", "[]"},
        {"model.ignore_merges", "true"},
        {"model.dropout", "null"},
        {"model.unk_token", "null"},
        {"model.continuing_subword_prefix", "\"\""},
        {"normalizer", "{\"type\":\"NFC\"}"},
        {"post_processor", "{\"type\":\"ByteLevel\",\"trim_offsets\":false}"},
        {"pre_tokenizer.use_regex", "true"},
        {"pre_tokenizer", SPLIT("\\\\s+(?!\\\\S)|\\\\S{1,3}|[^\\\\S\\\\n]", "")},
        {"truncation", "null"},
        {"added_tokens", "[]"},
        {"added_tokens.1", "{\"id\":400,\"content\":\"<|sparse|>\",\"special\":true}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gyaru_tokenizer *t;
        struct gyaru_error err;
        static const char text[] = "ab abc  d\n\xe3\x81\x82";
        int32_t *ids;
        char *back;
        size_t n, len;
        if (open_edited(cases[i].path, cases[i].value, &t, &err))
            fail_msg("%s = %s: %s", cases[i].path, cases[i].value, err.text);
        assert_int_equal(gyaru_tokenize(t, text, strlen(text), true, &ids, &n, &err), 0);
        assert_int_equal(gyaru_detokenize(t, ids, n, &back, &len, &err), 0);
        assert_string_equal(back, text);
        free(ids);
        free(back);
        gyaru_tokenizer_close(t);
    }
}

static void check_ids(struct gyaru_tokenizer *t, const char *text, size_t n,
                      const int32_t *expected)
{
    struct gyaru_error err;
    int32_t *ids;
    size_t found;
    assert_int_equal(gyaru_tokenize(t, text, strlen(text), true, &ids, &found, &err), 0);
    assert_int_equal(found, n);
    assert_memory_equal(ids, expected, n * sizeof *ids);
    free(ids);
}

static void whole_pieces_ignore_merges(void **state)
{
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    assert_int_equal(open_edited(NULL, NULL, &t, &err), 0);
    check_ids(t, "abc", 2, (const int32_t[]){256, 66}); /* no merge leads to 257 */
    gyaru_tokenizer_close(t);
    assert_int_equal(open_edited("model.ignore_merges", "true", &t, &err), 0);
    check_ids(t, "abc", 1, (const int32_t[]){257});
    check_ids(t, "abcd", 3, (const int32_t[]){256, 66, 67});
    gyaru_tokenizer_close(t);
}

/* Of several added tokens at one place the longest counts. */
static void the_longest_added_token_counts(void **state)
{
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    const char *more = "[{\"id\":258,\"content\":\"<|x|>\"},{\"id\":259,\"content\":\"<|x|>y\"},"
                       "{\"id\":260,\"content\":\"<|\"},{\"id\":261,\"content\":\"<|x|>yzz\"}]";
    assert_int_equal(open_edited("added_tokens", more, &t, &err), 0);
    check_ids(t, "<|x|>yz", 2, (const int32_t[]){259, 89});
    check_ids(t, "<|x|>yzz<|x", 3, (const int32_t[]){261, 260, 87});
    check_ids(t, "<|x|><", 2, (const int32_t[]){258, 27});
    gyaru_tokenizer_close(t);
}

static void ids_between_tokens_are_unused(void **state)
{
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    const uint8_t *bytes;
    size_t n;
    assert_int_equal(open_edited("model.vocab.xyz", "300", &t, &err), 0);
    assert_int_equal(gyaru_tokenizer_size(t), 301);
    assert_int_equal(tokenizer_bytes(t, 300, &bytes, &n), 0);
    assert_memory_equal(bytes, "xyz", 3);
    assert_int_equal(tokenizer_bytes(t, 299, &bytes, &n), -1);
    gyaru_tokenizer_close(t);
}

/* Every way of cutting the file short, and flips of its bits: an error or a tokenizer, no crash. */
static void broken_files_are_errors(void **state)
{
    json_t *root = small_tokenizer();
    edit(root, "pre_tokenizer", SPLIT("\\\\s+|[^\\\\s]+", ""));
    char *text = json_dumps(root, JSON_COMPACT);
    size_t len = strlen(text);
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    for (size_t n = 0; n < len; n += 1 + n / 40) {
        assert_int_equal(open_json(text, n, &t, &err), -1);
        assert_non_null(strstr(err.text, "tokenizer.json"));
    }
    uint32_t seed = 5;
    for (int round = 0; round < 500; round++) {
        size_t at = next_random(&seed) % len;
        char saved = text[at];
        text[at] = (char)(saved ^ 1 << next_random(&seed) % 8);
        if (open_json(text, len, &t, &err) == 0)
            gyaru_tokenizer_close(t);
        text[at] = saved;
    }
    free(text);
    json_decref(root);
}

/* A pattern that would backtrack for ever ends as an error. */
static void endless_patterns_give_up(void **state)
{
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    int32_t *ids;
    size_t n;
    assert_int_equal(open_edited("pre_tokenizer", SPLIT("(?:a|b|ab)+[cd]", ""), &t, &err), 0);
    char text[200];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "ab"[i % 2];
    assert_int_equal(gyaru_tokenize(t, text, sizeof text, true, &ids, &n, &err), -1);
    assert_non_null(strstr(err.text, "split pattern"));
    gyaru_tokenizer_close(t);
}

static void the_two_files_must_agree(void **state)
{
    json_t *root = small_tokenizer();
    char *text = json_dumps(root, 0);
    json_decref(root);
    static const struct {
        const char *config, *named;
    } cases[] = {
        {"[]", "object"},
        {"{", "JSON"},
        {"{\"added_tokens_decoder\":{\"258\":{\"content\":\"<|y|>\",\"special\":true}}}", "<|y|>"},
        {"{\"added_tokens_decoder\":{\"259\":{\"content\":\"<|x|>\",\"special\":true}}}", "<|x|>"},
        {"{\"added_tokens_decoder\":{\"258\":{\"content\":\"<|x|>\",\"special\":false}}}",
         "special"},
        {"{\"added_tokens_decoder\":{\"258\":7}}", "258"},
        {"{\"chat_template\":7}", "chat_template"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = text_dir_new();
        struct gyaru_tokenizer *t = NULL;
        struct gyaru_error err;
        text_dir_put(dir, "tokenizer.json", text, strlen(text));
        text_dir_put(dir, "tokenizer_config.json", cases[i].config, strlen(cases[i].config));
        if (gyaru_tokenizer_open(dir, &t, &err) == 0)
            fail_msg("accepted: %s", cases[i].config);
        assert_non_null(strstr(err.text, "tokenizer_config.json"));
        assert_non_null(strstr(err.text, cases[i].named));
        text_dir_free(dir);
    }
    free(text);
}

static void missing_files_are_named(void **state)
{
    char *dir = text_dir_new();
    struct gyaru_tokenizer *t = NULL;
    struct gyaru_error err;
    assert_int_equal(gyaru_tokenizer_open(dir, &t, &err), -1);
    assert_non_null(strstr(err.text, "tokenizer.json"));
    text_dir_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_cases),
        cmocka_unit_test(qwen_cases),
        cmocka_unit_test(special_text_is_ordinary_unless_asked_for),
        cmocka_unit_test(invalid_text_is_an_error_with_its_place),
        cmocka_unit_test(unknown_ids_are_errors),
        cmocka_unit_test(random_text_comes_back),
        cmocka_unit_test(every_token_has_its_bytes),
        cmocka_unit_test(a_megabyte_takes_no_time),
        cmocka_unit_test(other_tokenizers_are_refused_by_name),
        cmocka_unit_test(other_spellings_are_read),
        cmocka_unit_test(whole_pieces_ignore_merges),
        cmocka_unit_test(the_longest_added_token_counts),
        cmocka_unit_test(ids_between_tokens_are_unused),
        cmocka_unit_test(broken_files_are_errors),
        cmocka_unit_test(endless_patterns_give_up),
        cmocka_unit_test(the_two_files_must_agree),
        cmocka_unit_test(missing_files_are_named),
    };
    return cmocka_run_group_tests(tests, open_reference, close_reference);
}
