/*
 * test_tokenizer_files.c - tokenizer files that are not what we read are refused by name, those
 * that say the same in other words are read, broken ones are errors.
 */
#include "support/random.h"
#include "support/text_dir.h"
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

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
    random_seed(5);
    for (int round = 0; round < 500; round++) {
        size_t at = random_bits() % len;
        char saved = text[at];
        text[at] = (char)(saved ^ 1 << random_bits() % 8);
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
    return cmocka_run_group_tests(tests, NULL, NULL);
}
