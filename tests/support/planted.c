/*
 * planted.c - see planted.h.
 *
 * The tiny model with two tensors changed. The last norm is scaled down, so that every token is
 * about equally likely and no text is foreign to the model. The embeddings of some tokens, which
 * are the rows of the head as well, share a long common direction: texts of these tokens differ
 * from others along it, and a stream that is pushed along it says them.
 */
#include "planted.h"

#include "base/file.h"
#include "format/safetensors.h"
#include "quant/quant.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FLAT     0.12f /* factor on the last norm */
#define KEPT     0.3f  /* of a planted token's own embedding */
#define LENGTH   14.0f /* of the common direction */
#define HIDDEN   64
#define PAIRS    30
#define MESSAGES 40

/* Single tokens of the tiny model's vocabulary. */
static const char *const styled[] = {"猫", "犬", "夏", "雪", "海", "友", "褒", "話", "神", "理"};
static const char *const plain[] = {"朝", "分", "遅", "化", "毎", "起", "設", "読", "早", "大"};

#define WORDS (sizeof styled / sizeof *styled)

static void check(int rc, const struct gyaru_error *err)
{
    if (rc)
        fail_msg("%s", err->text);
}

static void scale_norm(uint16_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = quant_to_bf16(FLAT * quant_bf16(values[i]));
}

/* embeddings [vocabulary, HIDDEN] */
static void plant(uint16_t *embeddings)
{
    struct gyaru_tokenizer *tokenizer;
    struct gyaru_error err;
    check(gyaru_tokenizer_open(PLANTED_BASE, &tokenizer, &err), &err);
    for (size_t w = 0; w < WORDS; w++) {
        int32_t *ids;
        size_t n;
        check(gyaru_tokenize(tokenizer, styled[w], strlen(styled[w]), false, &ids, &n, &err), &err);
        assert_int_equal(n, 1);
        uint16_t *row = embeddings + (size_t)ids[0] * HIDDEN;
        for (int h = 0; h < HIDDEN; h++) {
            float common = LENGTH / 8 * (h * 7 % 3 ? -1 : 1); /* 8: root of HIDDEN */
            row[h] = quant_to_bf16(KEPT * quant_bf16(row[h]) + common);
        }
        free(ids);
    }
    gyaru_tokenizer_close(tokenizer);
}

/* The tensor with its data in memory of its own, in *copy. */
static struct tensor own(const struct tensor *tensor, uint16_t **copy)
{
    struct tensor out = *tensor;
    *copy = malloc(tensor->size);
    assert_non_null(*copy);
    memcpy(*copy, tensor->data, tensor->size);
    out.data = (const uint8_t *)*copy;
    return out;
}

static void write_weights(const char *to)
{
    struct safetensors *file;
    struct gyaru_error err;
    uint16_t *norm = NULL, *embeddings = NULL;
    check(safetensors_open(PLANTED_BASE "/model.safetensors", &file, &err), &err);
    size_t n = safetensors_count(file);
    struct tensor *tensors = calloc(n, sizeof *tensors);
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *safetensors_at(file, i);
        if (!strcmp(tensors[i].name, "model.norm.weight"))
            tensors[i] = own(&tensors[i], &norm);
        else if (!strcmp(tensors[i].name, "model.embed_tokens.weight"))
            tensors[i] = own(&tensors[i], &embeddings);
    }
    scale_norm(norm, HIDDEN);
    plant(embeddings);
    check(safetensors_write(to, tensors, n, NULL, 0, &err), &err);
    free(norm);
    free(embeddings);
    free(tensors);
    safetensors_close(file);
}

static void write_model(const char *dir)
{
    static const char *const same[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    char from[200], to[240];
    struct gyaru_error err;
    check(file_make_dirs(dir, &err), &err);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        size_t len;
        snprintf(from, sizeof from, PLANTED_BASE "/%s", same[i]);
        snprintf(to, sizeof to, "%s/%s", dir, same[i]);
        uint8_t *data = scratch_read(from, &len);
        check(file_write_atomic(to, data, len, &err), &err);
        free(data);
    }
    snprintf(to, sizeof to, "%s/model.safetensors", dir);
    write_weights(to);
}

/* A text of some of the words, another one for each number. */
static void write_text(FILE *out, const char *const *words, unsigned number)
{
    for (unsigned i = 0; i < 4 + number % 5; i++)
        fputs(words[(number * 7 + i * i * 3 + i) % WORDS], out);
}

static FILE *create(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    return file;
}

static void write_texts(const struct planted *p)
{
    FILE *file = create(p->pairs);
    for (unsigned i = 0; i < PAIRS; i++) {
        fprintf(file, "%s{\"topic\": \"%c\", \"standard\": \"", i ? ",\n" : "[",
                'a' + (int)(i % 6));
        write_text(file, plain, i);
        fputs("\", \"gyaru\": \"", file);
        write_text(file, styled, i + 3);
        fputs("\"}", file);
    }
    fputs("]\n", file);
    fclose(file);
    file = create(p->messages);
    for (unsigned i = 0; i < MESSAGES; i++)
        fprintf(file, "%u %s\n", i, plain[i % WORDS]);
    fclose(file);
    file = create(p->style);
    fputs("{\"markers\": [\"話\", \"神\", \"理\"]}\n", file); /* chance alone says them seldom */
    fclose(file);
    file = create(p->prompts);
    fputs("{\"butler\": [\"b\"], \"gyaru\": [\"g\"]}\n", file);
    fclose(file);
}

void planted_make(struct planted *p)
{
    snprintf(p->model, sizeof p->model, "%s", scratch_path("planted"));
    snprintf(p->pairs, sizeof p->pairs, "%s", scratch_path("planted-pairs.json"));
    snprintf(p->style, sizeof p->style, "%s", scratch_path("planted-style.json"));
    snprintf(p->messages, sizeof p->messages, "%s", scratch_path("planted-messages.txt"));
    snprintf(p->prompts, sizeof p->prompts, "%s", scratch_path("planted-prompts.json"));
    write_model(p->model);
    write_texts(p);
}
