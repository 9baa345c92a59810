/*
 * tune.h - a run of gyaru_tune() from the inside, shared by its steps.
 *
 *     tune_setup.c    pairs, texts, messages; candidate layer sets and the vectors made of them
 *     tune_measure.c  what a vector does at one strength; the journal of what is measured
 *     tune.c          the search: scan, bisection, selection, confirmation, the file
 *     tune_report.c   the JSON document, and tune_html.c the page made from it
 *
 * Every figure is a float, because the journal holds floats: a resumed run decides on the same
 * numbers as one that was never interrupted.
 *
 * Candidates differ in their layers only. Their directions are scaled so that strength s moves the
 * stream by the same summed fraction of its typical length as the whole vector does: one ladder
 * fits all of them.
 */
#ifndef STEER_TUNE_H
#define STEER_TUNE_H

#include "base/json.h"
#include "steer/dataset.h"
#include "steer/journal.h"
#include "steer/measure_report.h"
#include "steer/measure.h"
#include "steer/passage.h"
#include "steer/vector.h"

/* A strength is safe if, against no steering: */
#define TUNE_NLL        0.5f  /* nats per token more, at most */
#define TUNE_REPETITION 2.0f  /* times the repeated 4-grams, at most ... */
#define TUNE_REPEATED   0.05f /* ... or this share: two in forty are no damage */
#define TUNE_SCRIPT     0.02f /* more answers with unexpected characters, at most */
#define TUNE_GARBLED    0.05f /* more broken answers of any kind, at most */
#define TUNE_WRONG      0.20f /* pairs steered the wrong way, at most */

#define TUNE_TRIES 4 /* strengths that confirmation tries, downwards */

enum tune_figure {
    /* Read: texts of held-out pairs, with and without steering. */
    FIGURE_KL_MEAN,
    FIGURE_KL_P95,      /* per-token KL(steered || base), nats */
    FIGURE_GAIN,        /* log-probability of styled over plain text, against base, nats/token */
    FIGURE_WRONG,       /* share of pairs whose gain has the other sign than the strength */
    FIGURE_READ_COSINE, /* raw meter over those texts */
    /* Answered: messages. Shares of the answers but for the last seven. */
    FIGURE_MARKER,
    FIGURE_SIGNATURE,
    FIGURE_POLITE,
    FIGURE_GARBLED,
    FIGURE_NO_END,
    FIGURE_INVALID,
    FIGURE_SCRIPT,
    FIGURE_LOOP,
    FIGURE_REPETITION,
    FIGURE_DISTINCT_1,
    FIGURE_DISTINCT_2,
    FIGURE_NLL, /* unsteered, under the prompt that expects it more, nats per token */
    FIGURE_COSINE,
    FIGURE_GAUGE,
    FIGURE_TOKENS,
    FIGURES
};
#define FIGURES_READ FIGURE_MARKER /* how many of them are read */

extern const char *const tune_figure_names[FIGURES]; /* keys of the report */

struct tune_point {
    float strength;
    bool read, answered;
    float figures[FIGURES]; /* NaN: not measured, or does not exist */
    char fault[160];        /* why it is not safe; "" if it is, or not answered */
};

struct tune_candidate {
    char name[32];             /* "all", "range", "window 3" */
    int first, last;           /* the vector's layers from .. to */
    int n_layers;              /* of them */
    double factor;             /* on the stored directions */
    struct tune_point *points; /* [n_points] ascending; owned */
    size_t n_points;
    float budget_strength; /* largest strength found whose KL keeps the budget; NaN: none */
    float budget_gain;     /* gain there */
    bool finalist;         /* answers were measured */
};

enum tune_control { CONTROL_NONE, CONTROL_PROMPT, CONTROL_RANDOM, CONTROL_STEERED, TUNE_CONTROLS };

/* One of the parts that the material is divided into. */
struct tune_material {
    struct passage (*pairs)[2]; /* [n_pairs] styled, plain; owned */
    size_t n_pairs;
    const char **messages; /* [n_messages] the array is owned, the texts are not */
    size_t n_messages;
};

struct tuning {
    struct gyaru_model *model;
    const struct gyaru_tune_options *options;
    const char *path, *out;
    struct gyaru_vector *vector; /* as it is in the file */
    char *warning;               /* about vector and model; NULL: none */
    struct text_style *style;
    struct dataset dataset;
    enum dataset_part *parts; /* [dataset.n] */
    bool same_split;          /* the vector was made from the training part of these pairs */
    char **topics;            /* [n_topics] messages made of the pairs' topics; owned */
    size_t n_topics;
    struct tune_material search, confirm;
    struct journal journal;
    size_t n_used;                     /* records of the journal that this run has taken */
    size_t n_resumed;                  /* records that an earlier run had left */
    struct tune_candidate *candidates; /* [n_candidates] */
    size_t n_candidates;
    struct tune_point base;   /* no steering */
    struct tune_point prompt; /* the control's prompt, no steering */
    int best;                 /* candidate; -1: no strength is safe */
    size_t best_point;
    float max_strength;
    struct tune_point controls[TUNE_CONTROLS]; /* on the confirming part */
    struct tune_point rejected[TUNE_TRIES];    /* what did damage there */
    int n_rejected;
    bool confirmed, written;
    double scaled;        /* factor on the file's directions; 1: as they were */
    json_t *answers;      /* a few of the confirming answers by control; NULL: none */
    uint64_t done, total; /* progress, measurements */
    double seconds;
};

/* tune_setup.c */
int tune_setup(struct tuning *t, struct gyaru_error *err);
void tune_release(struct tuning *t);
/* The vector's layers first..last, each times factor; with `seed`, random directions of the same
 * lengths in their place. */
int tune_make_vector(const struct tuning *t, int first, int last, double factor,
                     const uint64_t *seed, struct gyaru_vector **out, struct gyaru_error *err);

/* Writes the chosen candidate to `out` with its strengths, rescaled if that was asked for. */
int tune_write(struct tuning *t, struct gyaru_error *err);

/* tune_measure.c. `who` is the candidate's number or a control's, for the journal. */
enum tune_who { WHO_BASE = 1000, WHO_PROMPT, WHO_CONTROL };
int tune_journal_open(struct tuning *t, struct gyaru_error *err);
int tune_read_pairs(struct tuning *t, const struct tune_material *m, int who, int vector,
                    struct tune_point *point, struct gyaru_error *err);
/* `answers`: NULL, or where the first answers go. */
int tune_answer(struct tuning *t, const struct tune_material *m, int who, const char *system,
                int vector, struct tune_point *point, json_t **answers, struct gyaru_error *err);

/* tune_report.c: the JSON document; NULL when out of memory. */
json_t *tune_report(const struct tuning *t);

#endif
