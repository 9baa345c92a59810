/*
 * shelf.h - the vectors that the server may use, by name: read from files, checked against the
 * model, never named by path to anybody.
 *
 * An entry never changes and is counted: whoever uses one holds a reference, so that reading the
 * folder again disturbs nobody. A file that changed becomes another entry; one that did not keeps
 * its entry. The shelf itself belongs to one thread at a time: the engine's while it loads, the
 * event loop's from then on.
 */
#ifndef SERVER_SHELF_H
#define SERVER_SHELF_H

#include "base/error.h"
#include "server/log.h"

#include <jansson.h>
#include <stdatomic.h>
#include <sys/stat.h>

/* Longest name, bytes, and most entries; what goes past them is left out with a line in the log. */
#define SHELF_NAME_MAX 100
#define SHELF_MAX      256

enum shelf_state {
    SHELF_MATCH,      /* the fingerprint is the model's */
    SHELF_UNVERIFIED, /* usable; `reason` says what could not be checked */
    SHELF_MISMATCH,   /* of another model: listed, not usable */
    SHELF_UNREADABLE  /* no vector, or a broken one: listed, not usable */
};

struct shelf_vector {
    atomic_int refs;
    char *name; /* file name without directory and extension */
    char *path;
    struct stat stat; /* of the file that was read */
    enum shelf_state state;
    char *reason;                /* NULL: nothing to say */
    const char *reason_code;     /* its stable name, "": none; see base/reason.h */
    struct gyaru_vector *vector; /* NULL unless usable; constant */
    struct gyaru_attach_options options;
    int gauge_layer; /* -1 unless usable */
};

struct shelf_vector *shelf_ref(struct shelf_vector *vector);
void shelf_unref(struct shelf_vector *vector); /* NULL: nothing */
bool shelf_usable(const struct shelf_vector *vector);

/* Where vectors come from; the strings outlive the shelf. */
struct shelf_sources {
    const char *main;                         /* the vector to begin with; NULL: none */
    struct gyaru_attach_options main_options; /* for that one alone */
    const char *folder;                       /* NULL: none; it may be missing */
    const char *own;                          /* the model's own; NULL: none; it may be missing */
    const struct log_options *log;            /* outlives the shelf */
};

struct shelf {
    const struct gyaru_model *model;
    struct shelf_sources sources;
    struct shelf_vector **vectors; /* [n] the main one first, then by name */
    size_t n;
};

/* Opens the shelf; a main vector that cannot be used is an error. */
int shelf_open(struct shelf *shelf, const struct gyaru_model *model,
               const struct shelf_sources *sources, struct gyaru_error *err);
void shelf_close(struct shelf *shelf);

/* Reads the folder again. On failure everything stays. *changed: some entry is another one now. */
int shelf_reload(struct shelf *shelf, bool *changed, struct gyaru_error *err);

/* Could a vector have this name? */
bool shelf_name_valid(const char *name);

/* NULL if there is none of this name. */
struct shelf_vector *shelf_find(const struct shelf *shelf, const char *name);

/* {"id", "object", "fingerprint", "reason", "layer", ...}; NULL when out of memory. */
json_t *shelf_json(const struct shelf_vector *vector);

/* The same with what the file says of each layer. */
json_t *shelf_details(const struct shelf_vector *vector);

#endif
