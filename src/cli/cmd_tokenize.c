/*
 * cmd_tokenize.c - `gyaru tokenize`: JSON on stdin, JSON on stdout, through the model's tokenizer.
 */
#include "cli/cli.h"
#include "cli/options.h"

#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_LIMIT ((size_t)1 << 30) /* bytes */

struct tokenize_options {
    bool decode, chat, json;
};

static const struct option_spec tokenize_specs[] = {
    {0, "decode", OPTION_FLAG, offsetof(struct tokenize_options, decode), 0, 0, NULL,
     "arrays of token ids -> strings"},
    {0, "chat", OPTION_FLAG, offsetof(struct tokenize_options, chat), 0, 0, NULL,
     "{\"messages\": [{\"role\", \"content\"}], \"add_generation_prompt\": bool} -> strings, as "
     "the model's chat template renders them"},
    {0, "json", OPTION_FLAG, offsetof(struct tokenize_options, json), 0, 0, NULL,
     "the result is JSON in any case"},
    OPTION_END};

/* One entry of the input -> one of the output (new reference), NULL on failure. */
typedef json_t *convert(const struct gyaru_tokenizer *tokenizer, const json_t *entry,
                        struct gyaru_error *err);

static json_t *out_of_memory(struct gyaru_error *err)
{
    error_memory(err, 0, "the output");
    return NULL;
}

static json_t *encode_entry(const struct gyaru_tokenizer *tokenizer, const json_t *entry,
                            struct gyaru_error *err)
{
    if (!json_is_string(entry)) {
        error_set(err, GYARU_FAILED, "expected a string");
        return NULL;
    }
    int32_t *ids;
    size_t n;
    if (gyaru_tokenize(tokenizer, json_string_value(entry), json_string_length(entry), true, &ids,
                       &n, err))
        return NULL;
    json_t *out = json_array();
    for (size_t i = 0; i < n && out; i++)
        if (json_array_append_new(out, json_integer(ids[i]))) {
            json_decref(out);
            out = NULL;
        }
    free(ids);
    return out ? out : out_of_memory(err);
}

static json_t *decode_entry(const struct gyaru_tokenizer *tokenizer, const json_t *entry,
                            struct gyaru_error *err)
{
    if (!json_is_array(entry)) {
        error_set(err, GYARU_FAILED, "expected an array of token ids");
        return NULL;
    }
    size_t n = json_array_size(entry), len;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    if (!ids)
        return out_of_memory(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(entry, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < INT32_MIN || value > INT32_MAX) {
            error_set(err, GYARU_FAILED, "ids[%zu] is not a token id", i);
            free(ids);
            return NULL;
        }
        ids[i] = (int32_t)value;
    }
    char *text;
    int rc = gyaru_detokenize(tokenizer, ids, n, &text, &len, err);
    free(ids);
    if (rc)
        return NULL;
    json_t *out = json_stringn(text, len);
    free(text);
    return out ? out : out_of_memory(err);
}

/* A string of a message, which travels NUL-terminated. */
static const char *message_text(const json_t *message, const char *key, size_t i,
                                struct gyaru_error *err)
{
    const json_t *value = json_object_get(message, key);
    const char *text = json_string_value(value);
    if (!text)
        error_set(err, GYARU_FAILED, "messages[%zu]: '%s' must be a string", i, key);
    else if (strlen(text) != json_string_length(value))
        error_set(err, GYARU_FAILED, "messages[%zu]: '%s' contains a NUL", i, key);
    else
        return text;
    return NULL;
}

static json_t *chat_entry(const struct gyaru_tokenizer *tokenizer, const json_t *entry,
                          struct gyaru_error *err)
{
    const json_t *list = json_object_get(entry, "messages");
    const json_t *prompt = json_object_get(entry, "add_generation_prompt");
    if (!json_is_array(list) || (prompt && !json_is_boolean(prompt))) {
        error_set(err, GYARU_FAILED,
                  "expected {\"messages\": [...], \"add_generation_prompt\": true or false}");
        return NULL;
    }
    size_t n = json_array_size(list);
    struct gyaru_message *messages = calloc(n + 1, sizeof *messages);
    if (!messages)
        return out_of_memory(err);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *message = json_array_get(list, i);
        messages[i].role = message_text(message, "role", i, err);
        messages[i].content = messages[i].role ? message_text(message, "content", i, err) : NULL;
        rc = messages[i].content ? 0 : -1;
    }
    char *text = NULL;
    if (!rc)
        rc = gyaru_chat_render(tokenizer, messages, n, json_is_true(prompt), &text, err);
    free(messages);
    if (rc)
        return NULL;
    json_t *out = json_string(text);
    free(text);
    return out ? out : out_of_memory(err);
}

static json_t *convert_all(const struct gyaru_tokenizer *tokenizer, const json_t *input,
                           convert *one, struct gyaru_error *err)
{
    if (!json_is_array(input)) {
        error_set(err, GYARU_FAILED, "standard input: expected a JSON array");
        return NULL;
    }
    json_t *output = json_array();
    if (!output)
        return out_of_memory(err);
    for (size_t i = 0; i < json_array_size(input); i++) {
        json_t *made = one(tokenizer, json_array_get(input, i), err);
        char where[64];
        snprintf(where, sizeof where, "standard input: entry %zu", i);
        if (!made)
            error_prefix(err, where);
        else if (json_array_append_new(output, made) == 0)
            continue;
        else
            out_of_memory(err);
        json_decref(output);
        return NULL;
    }
    return output;
}

static json_t *read_input(struct gyaru_error *err)
{
    struct str text = STR_INIT;
    char buffer[1 << 16];
    ssize_t n;
    while ((n = read(STDIN_FILENO, buffer, sizeof buffer)) > 0 && text.len < INPUT_LIMIT)
        str_append(&text, buffer, (size_t)n);
    json_t *input = NULL;
    if (n < 0)
        error_errno(err, "standard input", "cannot read");
    else if (n > 0)
        error_set(err, GYARU_FAILED, "standard input: more than %zu bytes", INPUT_LIMIT);
    else if (str_failed(&text))
        error_memory(err, text.len, "standard input");
    else
        input = json_parse_text(text.data ? text.data : "", text.len, "standard input", err);
    str_release(&text);
    return input;
}

static int run_conversion(const char *model, convert *one, struct gyaru_error *err)
{
    struct gyaru_tokenizer *tokenizer;
    if (gyaru_tokenizer_open(model, &tokenizer, err))
        return -1;
    json_t *input = read_input(err);
    json_t *output = input ? convert_all(tokenizer, input, one, err) : NULL;
    json_decref(input);
    gyaru_tokenizer_close(tokenizer);
    if (!output)
        return -1;
    int rc = 0;
    if (json_dumpf(output, stdout, JSON_COMPACT) || putchar('\n') == EOF || fflush(stdout))
        rc = error_errno(err, "standard output", "cannot write");
    json_decref(output);
    return rc;
}

static int tokenize(const struct tokenize_options *options, struct common_options *common,
                    struct gyaru_error *err)
{
    char *model;
    if (options->decode && options->chat)
        return error_set(err, GYARU_USAGE, "--decode and --chat exclude each other");
    if (common_options_finish(common, err) || common_model_dir(common, &model, err))
        return -1;
    int rc = run_conversion(model,
                            options->decode ? decode_entry
                            : options->chat ? chat_entry
                                            : encode_entry,
                            err);
    free(model);
    return rc;
}

static int main_tokenize(int argc, char **argv)
{
    struct gyaru_error err;
    struct tokenize_options options = {false, false, false};
    struct common_options common;
    common_options_init(&common);
    const struct option_group groups[] = {
        {tokenize_specs, &options}, {common_model_options, &common}, {NULL, NULL}};
    const struct option_help help = {
        "tokenize", "[-m DIR] [--decode | --chat] < INPUT.json",
        "Reads one JSON array from standard input and writes one, entry for entry: strings become\n"
        "arrays of token ids, special tokens in them parsed. The model's directory needs no more\n"
        "than tokenizer.json and tokenizer_config.json.",
        groups};
    int rc = -1;
    enum option_result parsed = options_parse(&help, &argc, argv, &err);
    if (parsed == OPTIONS_OK && argc > 1)
        error_set(&err, GYARU_USAGE, "unexpected '%s': the input comes from standard input",
                  argv[1]);
    else if (parsed == OPTIONS_OK)
        rc = tokenize(&options, &common, &err);
    common_options_release(&common);
    return parsed == OPTIONS_HELPED || !rc ? GYARU_OK : options_fail("tokenize", &err);
}

const struct command cmd_tokenize = {
    "tokenize", "text to token ids and back; chat templates (JSON in, JSON out)", main_tokenize};
