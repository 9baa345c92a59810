/*
 * jinja_value.c - the values of jinja.h's expressions: made, looked up, joined, compared.
 */
#include "text/jinja_impl.h"

#include <stdlib.h>
#include <string.h>

typedef struct jinja_value value;

/* ---- made ------------------------------------------------------------------------------------ */

char *jinja_keep(struct jinja_run *run, size_t len, struct gyaru_error *err)
{
    if (len > JINJA_MAX_OUTPUT || run->kept_bytes > 4 * JINJA_MAX_OUTPUT) {
        jinja_fail(err, "its strings grow too long");
        return NULL;
    }
    if (run->n_kept == run->cap_kept) {
        size_t cap = run->cap_kept ? 2 * run->cap_kept : 64;
        char **kept = realloc(run->kept, cap * sizeof *kept);
        if (!kept) {
            error_memory(err, cap * sizeof *kept, "the chat template");
            return NULL;
        }
        run->kept = kept;
        run->cap_kept = cap;
    }
    char **slot = &run->kept[run->n_kept];
    *slot = malloc(len + 1);
    if (!*slot) {
        error_memory(err, len, "the chat template");
        return NULL;
    }
    run->n_kept++;
    run->kept_bytes += len;
    return *slot;
}

value jinja_bool(bool b)
{
    return (value){.kind = JINJA_BOOL, .number = b};
}

value jinja_int(long long n)
{
    return (value){.kind = JINJA_INT, .number = n};
}

value jinja_text(const char *text)
{
    return (value){.kind = JINJA_STRING, .text = text, .len = strlen(text)};
}

/* ---- looked up ------------------------------------------------------------------------------- */

value jinja_look_up(const struct jinja_run *run, const char *name, size_t len)
{
    for (size_t i = run->n_vars; i-- > 0;)
        if (run->vars[i].len == len && memcmp(run->vars[i].name, name, len) == 0)
            return run->vars[i].value;
    const struct jinja_input *in = run->input;
    if (jinja_same(name, len, "messages"))
        return (value){.kind = JINJA_LIST, .last = in->n_messages};
    if (jinja_same(name, len, "add_generation_prompt"))
        return jinja_bool(in->add_generation_prompt);
    /* The reference passes these two, as None, when there are none. */
    if (jinja_same(name, len, "tools") || jinja_same(name, len, "documents"))
        return (value){.kind = JINJA_NONE};
    for (size_t i = 0; i < in->n_strings; i++)
        if (jinja_same(name, len, in->strings[i].name))
            return jinja_text(in->strings[i].value);
    return (value){.kind = JINJA_UNDEFINED};
}

int jinja_set_var(struct jinja_run *run, const char *name, size_t len, const value *v,
                  struct gyaru_error *err)
{
    if (run->n_vars == JINJA_MAX_VARS)
        return jinja_fail(err, "more than %d variables", JINJA_MAX_VARS);
    run->vars[run->n_vars++] = (struct jinja_var){name, len, *v};
    return 0;
}

int jinja_member(const struct jinja_run *run, value *v, const char *name, size_t len,
                 struct gyaru_error *err)
{
    value from = *v;
    *v = (value){.kind = JINJA_UNDEFINED};
    if (from.kind == JINJA_MESSAGE) {
        const struct gyaru_message *m = &run->input->messages[from.first];
        if (jinja_same(name, len, "role"))
            *v = jinja_text(m->role);
        else if (jinja_same(name, len, "content")) {
            *v = jinja_text(m->content);
            v->from_content = true;
        }
        return 0;
    }
    if (from.kind == JINJA_LOOP) {
        long long n = (long long)(from.last - from.first);
        if (jinja_same(name, len, "first"))
            *v = jinja_bool(from.number == 0);
        else if (jinja_same(name, len, "last"))
            *v = jinja_bool(from.number == n - 1);
        else if (jinja_same(name, len, "index0"))
            *v = jinja_int(from.number);
        else if (jinja_same(name, len, "index"))
            *v = jinja_int(from.number + 1);
        else if (jinja_same(name, len, "length"))
            *v = jinja_int(n);
        else
            return jinja_fail(err, "loop.%.*s is not supported", (int)len, name);
        return 0;
    }
    return jinja_fail(err, "'.%.*s' of something that has no members", (int)len, name);
}

/* ---- used ------------------------------------------------------------------------------------ */

bool jinja_truth(const value *v)
{
    switch (v->kind) {
    case JINJA_BOOL:
    case JINJA_INT:
        return v->number != 0;
    case JINJA_STRING:
        return v->len > 0;
    case JINJA_LIST:
        return v->last > v->first;
    case JINJA_MESSAGE:
    case JINJA_LOOP:
        return true;
    default:
        return false;
    }
}

int jinja_concatenate(struct jinja_run *run, value *left, const value *right,
                      struct gyaru_error *err)
{
    char *text = jinja_keep(run, left->len + right->len, err);
    if (!text)
        return -1;
    if (left->len)
        memcpy(text, left->text, left->len);
    if (right->len)
        memcpy(text + left->len, right->text, right->len);
    left->text = text;
    left->len += right->len;
    left->from_content |= right->from_content;
    return 0;
}

int jinja_equal(const value *a, const value *b, bool *equal, struct gyaru_error *err)
{
    if (a->from_content || b->from_content)
        return jinja_fail(err, "it decides by what a message says");
    *equal = false;
    if (a->kind == JINJA_STRING && b->kind == JINJA_STRING)
        *equal = a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
    else if (a->kind == JINJA_LIST || a->kind == JINJA_MESSAGE || b->kind == JINJA_LIST ||
             b->kind == JINJA_MESSAGE)
        return jinja_fail(err, "it compares whole messages");
    else if ((a->kind == JINJA_INT || a->kind == JINJA_BOOL) &&
             (b->kind == JINJA_INT || b->kind == JINJA_BOOL))
        *equal = a->number == b->number;
    else
        *equal = a->kind == b->kind;
    return 0;
}
