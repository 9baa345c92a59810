/*
 * figures.h - what a device is judged by: decode at several contexts, a question with its answer,
 * first tokens, prefill, several streams, memory, the cost of steering.
 */
#ifndef CLI_FIGURES_H
#define CLI_FIGURES_H

#include "base/error.h"

#define FIGURES_MAX 48

struct figure {
    char key[40];     /* of the JSON document */
    char what[48];    /* of the table */
    const char *unit; /* "tok/s", "s", "GB/s", "GiB", "" */
    double value;     /* in that unit */
    char note[200];   /* "" if there is nothing to add */
};

struct figures {
    struct figure list[FIGURES_MAX];
    int n;
};

/* Opens a model with `sessions` KV slots of `context` positions. */
struct figures_source {
    int (*open)(void *user, int sessions, int context, struct gyaru_model **out,
                struct gyaru_error *err);
    void *user;
    const char *only; /* decode, prefill, streams, steering, or how keys begin; NULL: all */
    int runs; /* each figure is their median, after one run that does not count; 1: just one */
    bool (*stop)(void);
    char title[160]; /* "MODEL on DEVICE", filled */
};

/* Is there such a part or figure? */
bool figures_known(const char *only);

/* Three times a model is opened: as a conversation needs it, with a long context, with many slots.
 * What does not fit is left out with a line of its reason as the figure's note. */
int figures_measure(struct figures_source *source, struct figures *out, struct gyaru_error *err);

#endif
