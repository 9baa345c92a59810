/*
 * jinja_impl.h - shared by jinja.c (statements), jinja_expr.c (expressions), jinja_value.c (their
 * values) and jinja_read.c (words).
 */
#ifndef TEXT_JINJA_IMPL_H
#define TEXT_JINJA_IMPL_H

#include "text/jinja.h"

#define JINJA_MAX_DEPTH  32      /* nested blocks or parentheses */
#define JINJA_MAX_VARS   64      /* alive at once */
#define JINJA_MAX_STEPS  2000000 /* tokens looked at in one rendering */
#define JINJA_MAX_OUTPUT ((size_t)4 << 20)

enum jinja_kind {
    JINJA_UNDEFINED = 0,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_STRING,
    JINJA_LIST,    /* messages[first .. last-1] */
    JINJA_MESSAGE, /* messages[first] */
    JINJA_LOOP     /* the loop variable: item `number` of messages[first .. last-1] */
};

struct jinja_value {
    enum jinja_kind kind;
    const char *text; /* [len], not NUL-terminated; lives as long as the rendering */
    size_t len;
    bool from_content; /* has a message's content in it */
    long long number;
    size_t first, last;
};

struct jinja_var {
    const char *name;
    size_t len;
    struct jinja_value value;
};

struct jinja_run {
    const struct jinja_input *input;
    struct str *out;
    struct jinja_var vars[JINJA_MAX_VARS];
    size_t n_vars;
    char **kept; /* [n_kept] strings made by expressions */
    size_t n_kept, cap_kept;
    size_t kept_bytes;
    long steps;
    int depth;
};

/* The text of a tag, read from `at`. */
struct jinja_source {
    const char *at, *end;
};

/* Evaluates one expression and leaves `source` behind it. */
int jinja_eval(struct jinja_run *run, struct jinja_source *source, struct jinja_value *out,
               struct gyaru_error *err);

/* Takes a name (or the given word, operator or not) if it comes next. */
bool jinja_take_name(struct jinja_source *source, const char **name, size_t *len);
bool jinja_take(struct jinja_source *source, const char *word);
bool jinja_at_end(struct jinja_source *source);
bool jinja_same(const char *text, size_t len, const char *word);

/* Memory that lives as long as the rendering; NULL on failure. */
char *jinja_keep(struct jinja_run *run, size_t len, struct gyaru_error *err);
struct jinja_value jinja_bool(bool b);
struct jinja_value jinja_int(long long n);
struct jinja_value jinja_text(const char *text); /* kept by the caller */

/* A variable of the template, or what it gets from outside; else UNDEFINED. */
struct jinja_value jinja_look_up(const struct jinja_run *run, const char *name, size_t len);
int jinja_set_var(struct jinja_run *run, const char *name, size_t len,
                  const struct jinja_value *value, struct gyaru_error *err);
/* value = value.name */
int jinja_member(const struct jinja_run *run, struct jinja_value *value, const char *name,
                 size_t len, struct gyaru_error *err);

bool jinja_truth(const struct jinja_value *value);
/* left += right, both strings */
int jinja_concatenate(struct jinja_run *run, struct jinja_value *left,
                      const struct jinja_value *right, struct gyaru_error *err);
/* Equality of what may be compared: never a message's content. */
int jinja_equal(const struct jinja_value *a, const struct jinja_value *b, bool *equal,
                struct gyaru_error *err);
__attribute__((format(printf, 2, 3))) int jinja_fail(struct gyaru_error *err, const char *format,
                                                     ...);

#endif
