/*
 * generate.h - inside gyaru_generate() (gyaru.h): contrastive pairs from a language model behind an
 * OpenAI-compatible endpoint.
 *
 *     generate.c         slots, batches, the result
 *     generate_ask.c     one question to the endpoint: retries, backoff, what the model said
 *     generate_read.c    objects in a model's answer, however it is wrapped
 *     generate_log.c     finished pairs on disk, so that a killed run goes on where it was
 *
 * A slot is one pair that is wanted, on a topic; a run fills all of them.
 */
#ifndef STEER_GENERATE_H
#define STEER_GENERATE_H

#include "base/error.h"
#include "steer/persona.h"

struct generate_pair {
    char *topic, *style, *plain; /* owned */
};

/* ---- generate_read.c ------------------------------------------------------------------------ */

/* The objects in `text` that have at least one of the `n` keys, in order: bare, in an array, one a
 * line, in a code fence, after a preface or a <think> block, or up to where the text was cut off.
 * Small slips are mended: raw line breaks in strings, a comma before a closing bracket. A new
 * array; *cut says that an object at the end is not whole. NULL when out of memory. */
json_t *generate_read(const char *text, const char *const *keys, size_t n, bool *cut);

/* ---- generate_log.c ------------------------------------------------------------------------- */

/* OUT.partial: a line on what it belongs to, then one JSON object a line. */
struct generate_log {
    char *path;
    int fd; /* locked */
};

/* Takes up the log of an earlier run with the same persona, or begins one; `pairs` (an array) gets
 * the objects that are whole, what lies behind them is cut off. */
int generate_log_open(const char *path, const struct persona *persona, struct generate_log *log,
                      json_t *pairs, struct gyaru_error *err);

/* Adds the lines of `text` and waits until the disk has them. */
int generate_log_add(struct generate_log *log, const char *text, size_t len,
                     struct gyaru_error *err);

/* `done`: the file goes; else it stays for the next run. */
void generate_log_close(struct generate_log *log, bool done);

/* ---- generate_ask.c ------------------------------------------------------------------------- */

struct generate_asker {
    const struct gyaru_generate_options *options;
    char *url;            /* of chat/completions; owned */
    char *model;          /* owned */
    uint64_t done, total; /* pairs, for the progress */
    uint64_t jitter;      /* state of the random waits */
    size_t n_requests, n_retries;
    bool stopped; /* by the progress callback */
};

/* Finds out which model answers, unless the options name one. */
int generate_ask_open(struct generate_asker *asker, const struct gyaru_generate_options *options,
                      struct gyaru_error *err);
void generate_ask_close(struct generate_asker *asker);

/* What the model says (caller frees); *cut: the endpoint says that it ran into the token limit. */
int generate_ask(struct generate_asker *asker, const char *system, const char *prompt,
                 size_t max_tokens, char **answer, bool *cut, struct gyaru_error *err);

#endif
