/*
 * jinja.c - see jinja.h. Cuts a template into chunks and runs its statements.
 */
#include "text/jinja_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum chunk_kind { CHUNK_TEXT, CHUNK_OUTPUT, CHUNK_STATEMENT };

struct chunk {
    enum chunk_kind kind;
    const char *text; /* [len] a part of the template */
    size_t len;
};

struct chunks {
    struct chunk *at; /* [n] */
    size_t n, cap;
};

/* ---- cutting ------------------------------------------------------------------------------ */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int add_chunk(struct chunks *chunks, enum chunk_kind kind, const char *text, size_t len,
                     struct gyaru_error *err)
{
    if (kind == CHUNK_TEXT && len == 0)
        return 0;
    if (chunks->n == chunks->cap) {
        size_t cap = chunks->cap ? 2 * chunks->cap : 128;
        struct chunk *at = realloc(chunks->at, cap * sizeof *at);
        if (!at)
            return error_memory(err, cap * sizeof *at, "the chat template");
        chunks->at = at;
        chunks->cap = cap;
    }
    chunks->at[chunks->n++] = (struct chunk){kind, text, len};
    return 0;
}

/* The next "{{", "{%" or "{#" at or after p, or NULL. */
static const char *find_tag(const char *p, const char *end)
{
    for (; end - p >= 2; p++)
        if (p[0] == '{' && (p[1] == '{' || p[1] == '%' || p[1] == '#'))
            return p;
    return NULL;
}

/* The closing delimiter of a tag whose inside begins at p, or NULL; strings are stepped over. */
static const char *find_tag_end(const char *p, const char *end, char kind)
{
    char closing = kind == '{' ? '}' : kind;
    char quote = 0;
    for (; end - p >= 2; p++) {
        if (quote) {
            if (*p == '\\')
                p++;
            else if (*p == quote)
                quote = 0;
        } else if (p[0] == closing && p[1] == '}') {
            return p;
        } else if (kind != '#' && (*p == '\'' || *p == '"')) {
            quote = *p;
        }
    }
    return NULL;
}

/* Length of the text before a tag, after what the tag strips from it. */
static size_t strip_before(const char *text, size_t len, const char *tag, bool at_line_start)
{
    size_t n = len;
    if (tag[2] == '-') {
        while (n && is_space(text[n - 1]))
            n--;
        return n;
    }
    if (tag[1] == '{' || tag[2] == '+')
        return len;
    while (n && is_space(text[n - 1]) && text[n - 1] != '\n')
        n--;
    return (n == 0 && at_line_start) || (n && text[n - 1] == '\n') ? n : len;
}

static int cut(const char *template, size_t len, struct chunks *chunks, struct gyaru_error *err)
{
    const char *p = template, *end = template + len, *tag;
    bool line_start = true;
    while ((tag = find_tag(p, end))) {
        if (end - tag < 4)
            return jinja_fail(err, "a tag without end");
        size_t n = strip_before(p, (size_t)(tag - p), tag, line_start);
        if (add_chunk(chunks, CHUNK_TEXT, p, n, err))
            return -1;
        char kind = tag[1];
        const char *inside = tag + 2 + (tag[2] == '-' || tag[2] == '+');
        const char *stop = find_tag_end(inside, end, kind);
        if (!stop)
            return jinja_fail(err, "a tag without end");
        p = stop + 2;
        char sign = stop > inside ? stop[-1] : 0;
        size_t inside_len = (size_t)(stop - inside) - (sign == '-' || sign == '+');
        if (sign == '-')
            while (p < end && is_space(*p))
                p++;
        else if (kind != '{' && sign != '+' && p < end && *p == '\n')
            p++;
        line_start = p[-1] == '\n';
        if (kind != '#' && add_chunk(chunks, kind == '{' ? CHUNK_OUTPUT : CHUNK_STATEMENT, inside,
                                     inside_len, err))
            return -1;
    }
    return add_chunk(chunks, CHUNK_TEXT, p, (size_t)(end - p), err);
}

/* ---- running ------------------------------------------------------------------------------ */

struct state {
    struct jinja_run run;
    struct chunks chunks;
    size_t at; /* chunk */
};

static int run_chunks(struct state *s, bool active, struct gyaru_error *err);

static int put(struct state *s, const char *text, size_t len, struct gyaru_error *err)
{
    if (len > JINJA_MAX_OUTPUT || s->run.out->len > JINJA_MAX_OUTPUT)
        return jinja_fail(err, "its output grows too long");
    str_append(s->run.out, text, len);
    return 0;
}

static int put_value(struct state *s, const struct jinja_value *v, struct gyaru_error *err)
{
    char number[32];
    switch (v->kind) {
    case JINJA_UNDEFINED:
        return 0;
    case JINJA_STRING:
        return put(s, v->text, v->len, err);
    case JINJA_INT:
        snprintf(number, sizeof number, "%lld", v->number);
        return put(s, number, strlen(number), err);
    default:
        return jinja_fail(err, "it prints something that is no text");
    }
}

/* Evaluates what fills the rest of a tag. */
static int eval_rest(struct state *s, struct jinja_source *source, struct jinja_value *v,
                     struct gyaru_error *err)
{
    if (jinja_eval(&s->run, source, v, err))
        return -1;
    if (jinja_at_end(source))
        return 0;
    size_t n = (size_t)(source->end - source->at);
    return jinja_fail(err, "cannot read '%.*s'", n > 40 ? 40 : (int)n, source->at);
}

static struct jinja_source source_of(const struct chunk *chunk)
{
    return (struct jinja_source){chunk->text, chunk->text + chunk->len};
}

/* Is the current chunk the statement that begins with `word`? Leaves *source behind the word. */
static bool statement_is(const struct state *s, const char *word, struct jinja_source *source)
{
    if (s->at == s->chunks.n || s->chunks.at[s->at].kind != CHUNK_STATEMENT)
        return false;
    *source = source_of(&s->chunks.at[s->at]);
    return jinja_take(source, word);
}

static int run_if(struct state *s, struct jinja_source source, bool active, struct gyaru_error *err)
{
    bool done = !active; /* a branch was taken, or none may be */
    bool has_condition = true;
    for (;;) {
        struct jinja_value condition;
        bool take = !done;
        if (take && has_condition) {
            if (eval_rest(s, &source, &condition, err))
                return -1;
            take = jinja_truth(&condition);
        }
        done |= take;
        s->at++;
        if (run_chunks(s, take, err))
            return -1;
        if (statement_is(s, "endif", &source)) {
            s->at++;
            return 0;
        }
        if (has_condition && statement_is(s, "elif", &source))
            continue;
        if (!has_condition || !statement_is(s, "else", &source))
            return jinja_fail(err, "an if without endif");
        has_condition = false;
    }
}

static int run_for(struct state *s, struct jinja_source source, bool active,
                   struct gyaru_error *err)
{
    const char *name = "";
    size_t name_len = 0, body = s->at + 1, n = 0;
    struct jinja_value list = {.kind = JINJA_UNDEFINED};
    if (active) {
        if (!jinja_take_name(&source, &name, &name_len) || !jinja_take(&source, "in"))
            return jinja_fail(err, "a for that is not supported");
        if (eval_rest(s, &source, &list, err))
            return -1;
        if (list.kind != JINJA_LIST)
            return jinja_fail(err, "a for over something other than messages");
        n = list.last - list.first;
    }
    size_t n_vars = s->run.n_vars;
    for (size_t i = 0; i < n; i++) {
        struct jinja_value item = {.kind = JINJA_MESSAGE, .first = list.first + i};
        struct jinja_value loop = list;
        loop.kind = JINJA_LOOP;
        loop.number = (long long)i;
        s->at = body;
        if (jinja_set_var(&s->run, name, name_len, &item, err) ||
            jinja_set_var(&s->run, "loop", 4, &loop, err) || run_chunks(s, true, err))
            return -1;
        s->run.n_vars = n_vars; /* what a loop sets ends with its round */
    }
    if (n == 0) {
        s->at = body;
        if (run_chunks(s, false, err))
            return -1;
    }
    if (!statement_is(s, "endfor", &source))
        return jinja_fail(err, "a for without endfor");
    s->at++;
    return 0;
}

static int run_set(struct state *s, struct jinja_source source, struct gyaru_error *err)
{
    const char *name;
    size_t len;
    struct jinja_value v;
    if (!jinja_take_name(&source, &name, &len) || !jinja_take(&source, "="))
        return jinja_fail(err, "a set that is not supported");
    if (eval_rest(s, &source, &v, err))
        return -1;
    s->at++;
    return jinja_set_var(&s->run, name, len, &v, err);
}

/* Runs, or skips if not active, up to the statement that ends the surrounding block. */
static int run_statement(struct state *s, bool active, bool *ends, struct gyaru_error *err)
{
    static const char *const closing[] = {"elif", "else", "endif", "endfor"};
    struct jinja_source source;
    for (size_t i = 0; i < sizeof closing / sizeof *closing; i++)
        if (statement_is(s, closing[i], &source)) {
            *ends = true;
            return 0;
        }
    if (statement_is(s, "if", &source))
        return run_if(s, source, active, err);
    if (statement_is(s, "for", &source))
        return run_for(s, source, active, err);
    if (active && statement_is(s, "set", &source))
        return run_set(s, source, err);
    /* Marks the assistant's words for training; renders as nothing. */
    if (active && !statement_is(s, "generation", &source) &&
        !statement_is(s, "endgeneration", &source)) {
        const struct chunk *chunk = &s->chunks.at[s->at];
        return jinja_fail(err, "the statement '%.*s' is not supported",
                          chunk->len > 40 ? 40 : (int)chunk->len, chunk->text);
    }
    s->at++;
    return 0;
}

static int run_chunks(struct state *s, bool active, struct gyaru_error *err)
{
    if (s->run.depth == JINJA_MAX_DEPTH)
        return jinja_fail(err, "nested too deeply");
    s->run.depth++;
    bool ends = false;
    while (s->at < s->chunks.n && !ends) {
        const struct chunk *chunk = &s->chunks.at[s->at];
        if (++s->run.steps > JINJA_MAX_STEPS)
            return jinja_fail(err, "it takes too many steps");
        if (chunk->kind == CHUNK_STATEMENT) {
            if (run_statement(s, active, &ends, err))
                return -1;
            continue;
        }
        s->at++;
        if (!active)
            continue;
        struct jinja_source source = source_of(chunk);
        struct jinja_value v = {.kind = JINJA_STRING, .text = chunk->text, .len = chunk->len};
        if (chunk->kind == CHUNK_OUTPUT && eval_rest(s, &source, &v, err))
            return -1;
        if (put_value(s, &v, err))
            return -1;
    }
    s->run.depth--;
    return 0;
}

/* The reference reads templates with Unix line ends and without the last one. */
static char *normalise(const char *template, size_t *len)
{
    char *text = malloc(*len + 1);
    if (!text)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < *len; i++) {
        if (template[i] == '\r') {
            text[n++] = '\n';
            i += i + 1 < *len && template[i + 1] == '\n';
        } else {
            text[n++] = template[i];
        }
    }
    if (n && text[n - 1] == '\n')
        n--;
    *len = n;
    return text;
}

int jinja_render(const char *template, size_t len, const struct jinja_input *input, struct str *out,
                 struct gyaru_error *err)
{
    char *text = normalise(template, &len);
    if (!text)
        return error_memory(err, len, "the chat template");
    struct state s = {.run = {.input = input, .out = out}};
    int rc = cut(text, len, &s.chunks, err);
    if (!rc)
        rc = run_chunks(&s, true, err);
    if (!rc && s.at < s.chunks.n)
        rc = jinja_fail(err, "an end without a beginning");
    for (size_t i = 0; i < s.run.n_kept; i++)
        free(s.run.kept[i]);
    free(s.run.kept);
    free(s.chunks.at);
    free(text);
    return rc;
}
