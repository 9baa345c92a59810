/*
 * jinja_expr.c - expressions of jinja.h, evaluated while they are read.
 *
 * What must not be evaluated (the right of a decided `and`, the branch not taken) is read with
 * `dry` set: its form is checked, its values are undefined and nothing in it is an error.
 */
#include "text/jinja_impl.h"

#include <string.h>

struct expr {
    struct jinja_run *run;
    struct jinja_source *source;
    int dry;
};

typedef struct jinja_value value;

static int eval_ternary(struct expr *e, value *out, struct gyaru_error *err);

/* ---- reading ------------------------------------------------------------------------------ */

static int unexpected(struct expr *e, struct gyaru_error *err)
{
    jinja_at_end(e->source); /* steps over spaces */
    size_t n = (size_t)(e->source->end - e->source->at);
    return jinja_fail(err, "cannot read '%.*s'", n > 40 ? 40 : (int)n, e->source->at);
}

static int count_step(struct expr *e, struct gyaru_error *err)
{
    if (++e->run->steps > JINJA_MAX_STEPS)
        return jinja_fail(err, "it takes too many steps");
    return 0;
}

/* All recursion passes through here. Not undone on errors, which end the rendering. */
static int deeper(struct expr *e, struct gyaru_error *err)
{
    if (e->run->depth == JINJA_MAX_DEPTH)
        return jinja_fail(err, "nested too deeply");
    e->run->depth++;
    return 0;
}

/* ---- literals and names ------------------------------------------------------------------- */

static int eval_string(struct expr *e, value *out, struct gyaru_error *err)
{
    struct jinja_source *s = e->source;
    char quote = *s->at++;
    char *text = jinja_keep(e->run, (size_t)(s->end - s->at), err);
    if (!text)
        return -1;
    size_t n = 0;
    for (; s->at < s->end && *s->at != quote; s->at++) {
        char c = *s->at;
        if (c == '\\') {
            static const char from[] = "ntr\\'\"", to[] = "\n\t\r\\'\"";
            const char *found = ++s->at < s->end && *s->at ? strchr(from, *s->at) : NULL;
            if (!found && !e->dry)
                return jinja_fail(err, "a string escape other than \\n \\t \\r \\\\ \\' \\\"");
            if (s->at == s->end)
                break;
            c = found ? to[found - from] : '?';
        }
        text[n++] = c;
    }
    if (s->at == s->end)
        return jinja_fail(err, "a string without end");
    s->at++;
    *out = (value){.kind = JINJA_STRING, .text = text, .len = n};
    return 0;
}

/* Arguments of a call that is not made. */
static int skip_arguments(struct expr *e, struct gyaru_error *err)
{
    e->dry++;
    value unused;
    while (!jinja_take(e->source, ")")) {
        struct jinja_source before = *e->source;
        const char *name;
        size_t len;
        if (!(jinja_take_name(e->source, &name, &len) && jinja_take(e->source, "=")))
            *e->source = before;
        if (eval_ternary(e, &unused, err))
            return -1;
        if (!jinja_take(e->source, ",") && !jinja_take(e->source, ")"))
            return unexpected(e, err);
        else if (e->source->at[-1] == ')')
            break;
    }
    e->dry--;
    return 0;
}

static int eval_name(struct expr *e, value *out, struct gyaru_error *err)
{
    const char *name;
    size_t len;
    if (!jinja_take_name(e->source, &name, &len))
        return unexpected(e, err);
    if (jinja_take(e->source, "(")) {
        if (!e->dry)
            return jinja_same(name, len, "raise_exception")
                       ? jinja_fail(err, "it refuses these messages")
                       : jinja_fail(err, "the function '%.*s' is not supported", (int)len, name);
        return skip_arguments(e, err);
    }
    if (jinja_same(name, len, "true") || jinja_same(name, len, "True"))
        *out = jinja_bool(true);
    else if (jinja_same(name, len, "false") || jinja_same(name, len, "False"))
        *out = jinja_bool(false);
    else if (jinja_same(name, len, "none") || jinja_same(name, len, "None"))
        *out = (value){.kind = JINJA_NONE};
    else
        *out = jinja_look_up(e->run, name, len);
    return 0;
}

static int eval_primary(struct expr *e, value *out, struct gyaru_error *err)
{
    struct jinja_source *s = e->source;
    *out = (value){.kind = JINJA_UNDEFINED};
    if (count_step(e, err))
        return -1;
    if (jinja_at_end(s))
        return jinja_fail(err, "an expression ends too early");
    if (*s->at == '\'' || *s->at == '"')
        return eval_string(e, out, err);
    if (*s->at >= '0' && *s->at <= '9') {
        long long n = 0;
        for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
            if (n < 1000000)
                n = 10 * n + (*s->at - '0');
        *out = jinja_int(n);
        return 0;
    }
    if (!jinja_take(s, "("))
        return eval_name(e, out, err);
    if (eval_ternary(e, out, err))
        return -1;
    return jinja_take(s, ")") ? 0 : unexpected(e, err);
}

/* ---- members, indices, tests, filters ----------------------------------------------------- */

static int get_member(struct expr *e, value *v, const char *name, size_t len,
                      struct gyaru_error *err)
{
    if (!e->dry)
        return jinja_member(e->run, v, name, len, err);
    *v = (value){.kind = JINJA_UNDEFINED};
    return 0;
}

static int get_item(struct expr *e, value *v, const value *key, struct gyaru_error *err)
{
    if (key->kind == JINJA_STRING && !key->from_content)
        return get_member(e, v, key->text, key->len, err);
    value from = *v;
    *v = (value){.kind = JINJA_UNDEFINED};
    if (e->dry)
        return 0;
    if (from.kind != JINJA_LIST || key->kind != JINJA_INT)
        return jinja_fail(err, "an index that is not supported");
    long long n = (long long)(from.last - from.first);
    long long i = key->number < 0 ? key->number + n : key->number;
    if (i >= 0 && i < n)
        *v = (value){.kind = JINJA_MESSAGE, .first = from.first + (size_t)i};
    return 0;
}

/* list[start:]; other slices are not in use. */
static int get_slice(struct expr *e, value *v, const value *start, struct gyaru_error *err)
{
    if (!jinja_take(e->source, "]"))
        return e->dry ? unexpected(e, err) : jinja_fail(err, "a slice other than [n:]");
    if (e->dry)
        return 0;
    if (v->kind != JINJA_LIST || start->kind != JINJA_INT || start->number < 0)
        return jinja_fail(err, "a slice other than messages[n:]");
    size_t n = v->last - v->first;
    v->first += (size_t)start->number < n ? (size_t)start->number : n;
    return 0;
}

static int eval_index(struct expr *e, value *v, struct gyaru_error *err)
{
    value key;
    if (eval_ternary(e, &key, err))
        return -1;
    if (jinja_take(e->source, ":"))
        return get_slice(e, v, &key, err);
    if (!jinja_take(e->source, "]"))
        return unexpected(e, err);
    return get_item(e, v, &key, err);
}

static int eval_test(struct expr *e, value *v, struct gyaru_error *err)
{
    bool negate = jinja_take(e->source, "not"), yes;
    const char *name;
    size_t len;
    if (!jinja_take_name(e->source, &name, &len))
        return unexpected(e, err);
    if (jinja_same(name, len, "defined"))
        yes = v->kind != JINJA_UNDEFINED;
    else if (jinja_same(name, len, "undefined"))
        yes = v->kind == JINJA_UNDEFINED;
    else if (jinja_same(name, len, "none"))
        yes = v->kind == JINJA_NONE;
    else if (jinja_same(name, len, "string"))
        yes = v->kind == JINJA_STRING;
    else if (jinja_same(name, len, "mapping"))
        yes = v->kind == JINJA_MESSAGE;
    else if (e->dry)
        yes = false;
    else
        return jinja_fail(err, "the test '%.*s' is not supported", (int)len, name);
    *v = jinja_bool(yes != negate);
    return 0;
}

static int eval_filter(struct expr *e, value *v, struct gyaru_error *err)
{
    const char *name;
    size_t len;
    if (!jinja_take_name(e->source, &name, &len))
        return unexpected(e, err);
    if (e->dry) {
        *v = (value){.kind = JINJA_UNDEFINED};
        return jinja_take(e->source, "(") ? skip_arguments(e, err) : 0;
    }
    if (jinja_same(name, len, "string") && v->kind == JINJA_STRING)
        return 0;
    if ((jinja_same(name, len, "length") || jinja_same(name, len, "count")) &&
        v->kind == JINJA_LIST) {
        *v = jinja_int((long long)(v->last - v->first));
        return 0;
    }
    return jinja_fail(err, "the filter '%.*s' is not supported here", (int)len, name);
}

static int eval_postfix(struct expr *e, value *v, struct gyaru_error *err)
{
    if (jinja_take(e->source, "-")) {
        if (deeper(e, err) || eval_postfix(e, v, err))
            return -1;
        e->run->depth--;
        if (v->kind != JINJA_INT && !e->dry)
            return jinja_fail(err, "minus of something that is no number");
        v->number = -v->number;
        return 0;
    }
    if (eval_primary(e, v, err))
        return -1;
    for (;;) {
        const char *name;
        size_t len;
        int rc;
        if (count_step(e, err))
            return -1;
        if (jinja_take(e->source, "."))
            rc = jinja_take_name(e->source, &name, &len) ? get_member(e, v, name, len, err)
                                                         : unexpected(e, err);
        else if (jinja_take(e->source, "["))
            rc = eval_index(e, v, err);
        else if (jinja_take(e->source, "|"))
            rc = eval_filter(e, v, err);
        else if (jinja_take(e->source, "is"))
            rc = eval_test(e, v, err);
        else if (e->dry && jinja_take(e->source, "("))
            rc = skip_arguments(e, err);
        else
            return 0;
        if (rc)
            return -1;
    }
}

/* ---- operators ---------------------------------------------------------------------------- */

static int eval_sum(struct expr *e, value *out, struct gyaru_error *err)
{
    if (eval_postfix(e, out, err))
        return -1;
    for (;;) {
        bool minus = false, tilde = false;
        if (!jinja_take(e->source, "+") && !(minus = jinja_take(e->source, "-")) &&
            !(tilde = jinja_take(e->source, "~")))
            return 0;
        value right;
        if (eval_postfix(e, &right, err))
            return -1;
        if (e->dry)
            continue;
        if (out->kind == JINJA_STRING && right.kind == JINJA_STRING && !minus) {
            if (jinja_concatenate(e->run, out, &right, err))
                return -1;
        } else if (out->kind == JINJA_INT && right.kind == JINJA_INT && !tilde) {
            out->number += minus ? -right.number : right.number;
        } else {
            return jinja_fail(err, "adding values that do not go together");
        }
    }
}

/* X in ['a', 'b'] or ('a', 'b'). */
static int eval_in(struct expr *e, value *v, bool negate, struct gyaru_error *err)
{
    const char *close = jinja_take(e->source, "[") ? "]" : jinja_take(e->source, "(") ? ")" : NULL;
    if (!close) {
        value unused;
        if (!e->dry)
            return jinja_fail(err, "'in' is supported only before a list of values");
        return eval_sum(e, &unused, err);
    }
    bool found = false;
    while (!jinja_take(e->source, close)) {
        value item;
        bool equal = false;
        if (eval_sum(e, &item, err) || (!e->dry && jinja_equal(v, &item, &equal, err)))
            return -1;
        found |= equal;
        if (jinja_take(e->source, close))
            break;
        if (!jinja_take(e->source, ","))
            return unexpected(e, err);
    }
    *v = jinja_bool(found != negate);
    return 0;
}

static int eval_order(struct expr *e, value *v, const char *op, struct gyaru_error *err)
{
    value right;
    if (eval_sum(e, &right, err))
        return -1;
    if (e->dry)
        return 0;
    bool equal;
    if (op[0] == '=' || op[0] == '!') {
        if (jinja_equal(v, &right, &equal, err))
            return -1;
        *v = jinja_bool(equal == (op[0] == '='));
        return 0;
    }
    if (v->kind != JINJA_INT || right.kind != JINJA_INT)
        return jinja_fail(err, "'%s' of values that are no numbers", op);
    long long difference = v->number - right.number;
    bool yes = op[0] == '<' ? difference < 0 : difference > 0;
    *v = jinja_bool(yes || (op[1] == '=' && difference == 0));
    return 0;
}

static int eval_comparison(struct expr *e, value *out, struct gyaru_error *err)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">"};
    if (eval_sum(e, out, err))
        return -1;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (jinja_take(e->source, ops[i]))
            return eval_order(e, out, ops[i], err);
    if (jinja_take(e->source, "in"))
        return eval_in(e, out, false, err);
    struct jinja_source before = *e->source;
    if (jinja_take(e->source, "not") && jinja_take(e->source, "in"))
        return eval_in(e, out, true, err);
    *e->source = before;
    return 0;
}

static int eval_not(struct expr *e, value *out, struct gyaru_error *err)
{
    bool negate = false, any = false;
    while (jinja_take(e->source, "not")) {
        negate = !negate;
        any = true;
    }
    if (eval_comparison(e, out, err))
        return -1;
    if (any)
        *out = jinja_bool(jinja_truth(out) != negate);
    return 0;
}

/* `and` and `or`: the right is dry once the left decides. */
static int eval_and(struct expr *e, value *out, struct gyaru_error *err)
{
    if (eval_not(e, out, err))
        return -1;
    while (jinja_take(e->source, "and")) {
        bool decided = !jinja_truth(out);
        value right;
        e->dry += decided;
        if (eval_not(e, &right, err))
            return -1;
        e->dry -= decided;
        if (!decided)
            *out = right;
    }
    return 0;
}

static int eval_or(struct expr *e, value *out, struct gyaru_error *err)
{
    if (eval_and(e, out, err))
        return -1;
    while (jinja_take(e->source, "or")) {
        bool decided = jinja_truth(out);
        value right;
        e->dry += decided;
        if (eval_and(e, &right, err))
            return -1;
        e->dry -= decided;
        if (!decided)
            *out = right;
    }
    return 0;
}

/* A, or A if CONDITION else B: A is read dry first, since what decides stands behind it. */
static int read_ternary(struct expr *e, value *out, struct gyaru_error *err)
{
    struct jinja_source start = *e->source, after;
    value condition, unused;
    e->dry++;
    if (eval_or(e, &unused, err))
        return -1;
    e->dry--;
    if (!jinja_take(e->source, "if")) {
        *e->source = start;
        return eval_or(e, out, err);
    }
    if (eval_or(e, &condition, err))
        return -1;
    bool yes = jinja_truth(&condition);
    *out = (value){.kind = JINJA_UNDEFINED};
    if (jinja_take(e->source, "else")) {
        e->dry += yes;
        if (eval_ternary(e, out, err))
            return -1;
        e->dry -= yes;
    }
    if (!yes)
        return 0;
    after = *e->source;
    *e->source = start;
    if (eval_or(e, out, err))
        return -1;
    *e->source = after;
    return 0;
}

static int eval_ternary(struct expr *e, value *out, struct gyaru_error *err)
{
    if (deeper(e, err) || read_ternary(e, out, err))
        return -1;
    e->run->depth--;
    return 0;
}

int jinja_eval(struct jinja_run *run, struct jinja_source *source, value *out,
               struct gyaru_error *err)
{
    struct expr e = {run, source, 0};
    return eval_ternary(&e, out, err);
}
