/*
 * dataset.h - contrastive pairs: on one topic, a text in the style and a plain one.
 *
 * Files, chosen by their name (.json, .jsonl or .ndjson, .csv), else by their first character:
 *
 *     JSON    [{"topic": ..., "standard": ..., "gyaru": ...}, ...]
 *     JSONL   one such object a line; blank lines are skipped
 *     CSV     RFC 4180, UTF-8, the first record names the columns
 *
 * Which keys hold the texts is data; keys beyond them are ignored. A row that cannot be used is an
 * error that names its line: no row is ever left out silently.
 */
#ifndef STEER_DATASET_H
#define STEER_DATASET_H

#include "base/error.h"
#include "base/sha256.h"

#define DATASET_FEW 64 /* pairs: with fewer, directions are noisy and the caller should warn */

struct dataset_keys {
    const char *topic, *positive, *negative;
};

struct dataset_pair {
    char *topic;    /* UTF-8, no NUL, not blank; like the texts */
    char *positive; /* in the style */
    char *negative; /* plain */
    size_t line;    /* where the row begins, 1-based */
    size_t same_as; /* index of the first pair with the same three texts; its own index if none */
};

struct dataset {
    char *path;
    struct dataset_pair *pairs; /* [n] */
    size_t n;
    size_t n_duplicates;     /* pairs whose same_as is another */
    char sha256[SHA256_HEX]; /* of the file's bytes */
};

int dataset_open(const char *path, const struct dataset_keys *keys, struct dataset *out,
                 struct gyaru_error *err);
void dataset_release(struct dataset *dataset);

enum dataset_part { PART_TRAIN, PART_VALIDATION, PART_TEST, DATASET_PARTS };

/* Assigns each pair to a part, parts[n]: shuffled by the seed, every topic spread over the parts
 * like the whole; copies of a pair stay with it, so that no part has seen another's texts. Shares
 * are in percent and sum to 100. The same pairs, shares and seed give the same parts. */
int dataset_split(const struct dataset *dataset, const int shares[DATASET_PARTS], uint64_t seed,
                  enum dataset_part *parts, struct gyaru_error *err);

/* What the user says before a pair's text (caller frees; NULL: out of memory): the prompt with the
 * topic in place of every "{topic}". */
char *dataset_message(const char *prompt, const char *topic);

/* ---- for the readers of the formats ---------------------------------------------------------- */

/* Takes what rows say while a file is read; bad rows are collected into one message. */
struct dataset_reader {
    const char *path;
    const struct dataset_keys *keys;
    struct dataset *dataset;
    size_t capacity;
    size_t n_rows, n_bad;
    struct gyaru_error *err; /* the first bad row, then the lines of the others */
};

struct dataset_text {
    const char *text; /* NULL: missing */
    size_t len;
};

/* Adds the row that begins at `line`, or notes what is wrong with it. -1 only when out of memory.
 */
int dataset_add_row(struct dataset_reader *reader, size_t line, const struct dataset_text *topic,
                    const struct dataset_text *positive, const struct dataset_text *negative);

/* Notes a bad row: what is wrong with it. */
__attribute__((format(printf, 3, 4))) void dataset_bad_row(struct dataset_reader *reader,
                                                           size_t line, const char *format, ...);

/* dataset_csv.c */
int dataset_read_csv(struct dataset_reader *reader, const char *text, size_t len);

#endif
