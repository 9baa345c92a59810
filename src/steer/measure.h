/*
 * measure.h - answers to many messages at one strength, and what they are worth together.
 *
 * Answers are generated side by side in the model's free sessions. Each has random numbers of its
 * own, drawn from the seed and its message's place, and rows of a step do not see each other: an
 * answer is the same however many are generated together.
 */
#ifndef STEER_MEASURE_H
#define STEER_MEASURE_H

#include "base/error.h"
#include "steer/text_stats.h"

struct measure_plan {
    struct gyaru_model *model;
    const struct text_style *style;
    const char *system; /* NULL: the template's own */
    const char *const *messages;
    size_t n_messages;
    int vector;     /* index of the attached vector, -1: none */
    float strength; /* of it */
    struct gyaru_sampling sampling;
    int max_tokens; /* an answer that is not over by then has no end */
    int batch;      /* answers generated together; 0: all free sessions */
    gyaru_progress *progress;
    void *progress_user;
    const char *what;               /* the progress's line */
    uint64_t done_before, all_work; /* answers, for the progress */
};

struct measure_answer {
    char *text; /* UTF-8; bytes that are none are U+FFFD; special tokens as their names; owned */
    size_t len;
    int32_t *ids; /* [n_tokens] without the closing token; owned */
    size_t n_tokens;
    enum gyaru_finish finish;
    double cosine, gauge; /* means over the tokens; NaN without a meter */
    struct text_judgement judged;
};

struct measure_set {
    struct measure_answer *answers; /* [n] in the order of the messages */
    size_t n;
    size_t n_tokens; /* generated */
    double seconds;
};

/* All shares are of the answers, 0..1. */
struct measure_figures {
    double signature, marker, polite, garbled;
    double faults[TEXT_FAULTS];  /* share of each first fault; [TEXT_FINE]: not garbled */
    double invalid_utf8, script; /* whatever the first fault is */
    double repetition;           /* mean share of repeated 4-grams */
    double distinct[2];          /* distinct-1, distinct-2 over all answers */
    double cosine, gauge;        /* means; NaN without a meter */
    double length;               /* mean tokens of an answer */
    double tokens_per_second;
};

int measure_run(const struct measure_plan *plan, struct measure_set *out, struct gyaru_error *err);
void measure_set_release(struct measure_set *set);
int measure_figures(const struct measure_set *set, struct measure_figures *out,
                    struct gyaru_error *err);

/* Standard error of a share of n answers; one answer of doubt where the share is 0 or 1. */
double measure_share_error(double share, size_t n);

/* The model's system and user messages up to where the answer begins (caller frees). */
int measure_prompt(const struct gyaru_model *model, const char *system, const char *message,
                   int32_t **ids, size_t *n, struct gyaru_error *err);

#endif
