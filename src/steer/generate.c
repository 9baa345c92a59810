/*
 * generate.c - gyaru_generate(); see generate.h.
 *
 * Slots are dealt to topics in turn, so that any number of pairs covers the topics evenly. A
 * request asks for one pair for each of the next open slots; what comes back fills a slot of its
 * topic if it passes the persona's rules, else it is named with the reason and the slot is asked
 * for again, as often as `retries` says.
 */
#include "steer/generate.h"

#include "base/file.h"
#include "base/json.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TOPICS_LIMIT ((size_t)1 << 20) /* bytes of a file of topics */
#define TOPICS_MAX   10000
#define PAIRS_MAX    100000
#define BATCH_MAX    100
#define PAIR_TOKENS  512 /* that one pair may take in an answer */
#define AVOID_MAX    4   /* earlier texts of a topic that a request shows */

struct slot {
    size_t topic;
    int asked; /* times */
    bool filled;
    struct generate_pair pair;
};

struct generate {
    const struct gyaru_generate_options *options;
    struct persona persona;
    json_t *topics; /* array of strings */
    size_t n_topics;
    struct slot *slots; /* [n] */
    size_t n, n_filled, n_resumed;
    json_t *texts; /* object: every text in use, blanks aside, as a key */
    json_t *rejected;
    struct generate_log log;
    struct generate_asker asker;
};

void gyaru_generate_options_init(struct gyaru_generate_options *options)
{
    *options = (struct gyaru_generate_options){
        .n_pairs = 120,
        .batch = 10,
        .retries = 3,
        .timeout = 120,
        .backoff = 1,
        .temperature = 0.9f,
    };
}

static void release(struct generate *g)
{
    for (size_t i = 0; g->slots && i < g->n; i++) {
        free(g->slots[i].pair.topic);
        free(g->slots[i].pair.style);
        free(g->slots[i].pair.plain);
    }
    free(g->slots);
    json_decref(g->topics);
    json_decref(g->texts);
    json_decref(g->rejected);
    persona_release(&g->persona);
    generate_ask_close(&g->asker);
}

static const char *topic_name(const struct generate *g, size_t topic)
{
    return json_string_value(json_array_get(g->topics, topic));
}

/* ---- topics and slots ----------------------------------------------------------------------- */

/* One topic a line; blank lines and lines that begin with '#' are skipped. */
static json_t *read_topic_lines(char *text)
{
    json_t *topics = json_array();
    for (char *line = text, *rest; line; line = rest) {
        rest = strchr(line, '\n');
        if (rest)
            *rest++ = '\0';
        line[strcspn(line, "\r")] = '\0';
        line += strspn(line, " \t");
        if (*line && *line != '#')
            json_array_append_new(topics, json_string(line));
    }
    return topics;
}

static int read_topics(const char *path, json_t **out, struct gyaru_error *err)
{
    char *text;
    size_t len;
    if (file_read(path, TOPICS_LIMIT, &text, &len, err))
        return -1;
    json_t *topics = text[strspn(text, " \t\r\n")] == '[' ? json_parse(text, len, path, err)
                                                          : read_topic_lines(text);
    free(text);
    if (!topics)
        return -1;
    bool good = json_array_size(topics) > 0;
    for (size_t i = 0; i < json_array_size(topics); i++)
        good = good && json_string_length(json_array_get(topics, i));
    if (!good) {
        json_decref(topics);
        return error_set(err, GYARU_FAILED,
                         "%s: expected topics: one a line in UTF-8, or a JSON array of strings",
                         path);
    }
    *out = topics;
    return 0;
}

static int open_topics(struct generate *g, struct gyaru_error *err)
{
    if (g->options->topics) {
        if (read_topics(g->options->topics, &g->topics, err))
            return -1;
    } else {
        g->topics = json_deep_copy(g->persona.topics);
    }
    size_t have = json_array_size(g->topics), wanted = (size_t)g->options->n_topics;
    if (!have || have > TOPICS_MAX)
        return error_set(err, GYARU_FAILED, "%zu topics: expected 1 to %d", have, TOPICS_MAX);
    if (wanted > have)
        return error_set(err, GYARU_USAGE,
                         "%zu topics are asked for, there are %zu: give more in a file: --topics "
                         "FILE",
                         wanted, have);
    g->n_topics = wanted ? wanted : have;
    return 0;
}

static int check_options(const struct gyaru_generate_options *o, struct gyaru_error *err)
{
    if (o->n_pairs < 1 || o->n_pairs > PAIRS_MAX || o->batch < 1 || o->batch > BATCH_MAX ||
        o->retries < 0 || o->n_topics < 0 || !(o->timeout > 0) || !(o->backoff >= 0))
        return error_set(err, GYARU_USAGE,
                         "pairs 1..%d, batch 1..%d, retries from 0, timeout above 0 s", PAIRS_MAX,
                         BATCH_MAX);
    return 0;
}

static int make_slots(struct generate *g, struct gyaru_error *err)
{
    g->n = (size_t)g->options->n_pairs;
    g->slots = calloc(g->n, sizeof *g->slots);
    g->texts = json_object();
    g->rejected = json_array();
    if (!g->slots || !g->texts || !g->rejected)
        return error_memory(err, g->n * sizeof *g->slots, "the pairs");
    for (size_t i = 0; i < g->n; i++)
        g->slots[i].topic = i % g->n_topics;
    return 0;
}

/* ---- one pair ------------------------------------------------------------------------------- */

/* The text without blanks, which is what makes two texts the same (caller frees). */
static char *squeeze(const char *text)
{
    struct str out = STR_INIT;
    for (; *text; text++)
        if (!strchr(" \t\r\n", *text))
            str_putc(&out, *text);
    return str_take(&out);
}

static bool is_used(const struct generate *g, const char *text)
{
    char *key = squeeze(text);
    bool used = !key || json_object_get(g->texts, key);
    free(key);
    return used;
}

static void mark_used(struct generate *g, const char *text)
{
    char *key = squeeze(text);
    if (key)
        json_object_set_new(g->texts, key, json_true());
    free(key);
}

static bool same_text(const char *a, const char *b)
{
    char *x = squeeze(a), *y = squeeze(b);
    bool same = !x || !y || !strcmp(x, y);
    free(x);
    free(y);
    return same;
}

/* A string under the key, or NULL with the reason. */
static const char *string_of(const json_t *object, const char *key, struct str *why)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text)
        str_printf(why, "'%s' is %s", key, json_object_get(object, key) ? "no string" : "missing");
    return text;
}

static int check_text(const struct generate *g, const char *key, const char *text, bool style,
                      struct str *why)
{
    struct str what = STR_INIT;
    int rc = persona_check_text(&g->persona, text, style, &what);
    if (rc)
        str_printf(why, "'%s' %s", key, what.data ? what.data : "cannot be used");
    str_release(&what);
    return rc;
}

/* A slot of this topic that is still open, NULL if none is. */
static struct slot *open_slot(struct generate *g, const char *topic)
{
    for (size_t i = 0; i < g->n; i++)
        if (!g->slots[i].filled && !strcmp(topic_name(g, g->slots[i].topic), topic))
            return &g->slots[i];
    return NULL;
}

/* Puts the pair into a slot; *why says why not. -1 only when out of memory. */
static int take_pair(struct generate *g, const json_t *object, struct str *why, struct slot **taken,
                     struct gyaru_error *err)
{
    const struct persona *p = &g->persona;
    const char *style = string_of(object, p->style_key, why);
    const char *plain = style ? string_of(object, p->plain_key, why) : NULL;
    const char *topic = plain ? string_of(object, "topic", why) : NULL;
    *taken = NULL;
    if (topic && same_text(style, plain))
        str_puts(why, "both texts are the same");
    if (!topic || why->len || check_text(g, p->style_key, style, true, why) ||
        check_text(g, p->plain_key, plain, false, why))
        return 0;
    struct slot *slot = open_slot(g, topic);
    if (is_used(g, style) || is_used(g, plain))
        str_puts(why, "duplicate: another pair has this text");
    else if (!slot)
        str_printf(why, "no pair on '%.80s' is wanted", topic);
    if (why->len)
        return 0;
    slot->pair = (struct generate_pair){strdup(topic), strdup(style), strdup(plain)};
    if (!slot->pair.topic || !slot->pair.style || !slot->pair.plain)
        return error_memory(err, strlen(style) + strlen(plain), "a pair");
    slot->filled = true;
    g->n_filled++;
    mark_used(g, style);
    mark_used(g, plain);
    *taken = slot;
    return 0;
}

static json_t *pair_json(const struct generate *g, const struct generate_pair *pair)
{
    return json_pack("{s:s, s:s, s:s}", "topic", pair->topic, g->persona.plain_key, pair->plain,
                     g->persona.style_key, pair->style);
}

__attribute__((format(printf, 2, 3))) static void notice(const struct generate *g,
                                                         const char *format, ...)
{
    struct str line = STR_INIT;
    va_list args;
    va_start(args, format);
    str_vprintf(&line, format, args);
    va_end(args);
    if (g->options->notice && !str_failed(&line))
        g->options->notice(g->options->notice_user, line.data);
    str_release(&line);
}

static void reject(struct generate *g, size_t number, const json_t *object, const char *why)
{
    const char *topic = json_string_value(json_object_get(object, "topic"));
    json_array_append_new(
        g->rejected, json_pack("{s:I, s:I, s:s*, s:s}", "request", (json_int_t)g->asker.n_requests,
                               "pair", (json_int_t)number, "topic", topic, "reason", why));
    notice(g, "request %zu: pair %zu (%.80s) rejected: %s", g->asker.n_requests, number,
           topic ? topic : "no topic", why);
}

/* ---- one request ---------------------------------------------------------------------------- */

/* Indexes of the open slots to ask for next: those asked for least come first. Counts them. */
static size_t choose_slots(const struct generate *g, size_t *chosen)
{
    size_t n = 0, most = (size_t)g->options->batch;
    for (int asked = 0; asked <= g->options->retries && n < most; asked++)
        for (size_t i = 0; i < g->n && n < most; i++)
            if (!g->slots[i].filled && g->slots[i].asked == asked)
                chosen[n++] = i;
    return n;
}

/* "1. TOPIC" lines, and under "avoid" the last texts that the same topics already have. */
static void list_topics(const struct generate *g, const size_t *chosen, size_t n,
                        struct str *topics, struct str *avoid)
{
    for (size_t i = 0; i < n; i++) {
        size_t topic = g->slots[chosen[i]].topic;
        int shown = 0;
        str_printf(topics, "%s%zu. %s", i ? "\n" : "", i + 1, topic_name(g, topic));
        for (size_t k = chosen[i]; k-- > 0 && shown < AVOID_MAX;)
            if (g->slots[k].filled && g->slots[k].topic == topic) {
                str_printf(avoid, "- %s\n", g->slots[k].pair.style);
                shown++;
            }
    }
}

static char *make_prompt(const struct generate *g, const size_t *chosen, size_t n)
{
    struct str topics = STR_INIT, avoid = STR_INIT;
    list_topics(g, chosen, n, &topics, &avoid);
    char *prompt = str_failed(&topics) || str_failed(&avoid)
                       ? NULL
                       : persona_prompt(&g->persona, n, topics.data ? topics.data : "",
                                        avoid.len ? avoid.data : "-");
    str_release(&topics);
    str_release(&avoid);
    return prompt;
}

/* Takes what can be used and writes it to the log, all at once. */
static int take_answer(struct generate *g, const json_t *objects, struct gyaru_error *err)
{
    struct str lines = STR_INIT;
    int rc = 0;
    for (size_t i = 0; i < json_array_size(objects) && !rc; i++) {
        struct str why = STR_INIT;
        struct slot *slot;
        const json_t *object = json_array_get(objects, i);
        rc = take_pair(g, object, &why, &slot, err);
        if (!rc && !slot)
            reject(g, i + 1, object, why.data ? why.data : "out of memory");
        json_t *line = rc || !slot ? NULL : pair_json(g, &slot->pair);
        char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
        if (text)
            str_printf(&lines, "%s\n", text);
        else if (line)
            rc = error_memory(err, 1024, "a pair");
        json_decref(line);
        free(text);
        str_release(&why);
    }
    if (!rc && str_failed(&lines))
        rc = error_memory(err, lines.len, "the pairs");
    if (!rc && lines.len)
        rc = generate_log_add(&g->log, lines.data, lines.len, err);
    str_release(&lines);
    return rc;
}

static int ask_for(struct generate *g, const size_t *chosen, size_t n, struct gyaru_error *err)
{
    const char *const keys[] = {g->persona.style_key, g->persona.plain_key};
    char *answer, *prompt = make_prompt(g, chosen, n);
    bool limit, cut = false;
    if (!prompt)
        return error_memory(err, 4096, "a prompt");
    g->asker.done = g->n_filled;
    int rc = generate_ask(&g->asker, g->persona.system, prompt, PAIR_TOKENS * (n + 1), &answer,
                          &limit, err);
    free(prompt);
    if (rc)
        return -1;
    json_t *objects = generate_read(answer, keys, 2, &cut);
    free(answer);
    if (!objects)
        return error_memory(err, 4096, "the pairs");
    if (cut || limit)
        notice(g, "request %zu: the answer was cut off after %zu pairs", g->asker.n_requests,
               json_array_size(objects));
    else if (json_array_size(objects) < n)
        notice(g, "request %zu: %zu pairs were asked for, %zu came", g->asker.n_requests, n,
               json_array_size(objects));
    rc = take_answer(g, objects, err);
    json_decref(objects);
    for (size_t i = 0; i < n; i++)
        g->slots[chosen[i]].asked++;
    return rc;
}

static int fill_slots(struct generate *g, struct gyaru_error *err)
{
    size_t chosen[BATCH_MAX];
    while (g->n_filled < g->n) {
        size_t n = choose_slots(g, chosen);
        if (!n)
            return error_set(err, GYARU_FAILED,
                             "%zu of %zu pairs are still missing after %d tries each: try another "
                             "model, or other rules in the persona; run again to go on",
                             g->n - g->n_filled, g->n, g->options->retries + 1);
        if (ask_for(g, chosen, n, err))
            return -1;
    }
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* Pairs of an earlier run; those that nobody wants any more (fewer pairs, other topics) are named.
 */
static int take_old(struct generate *g, const json_t *pairs, struct gyaru_error *err)
{
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        struct str why = STR_INIT;
        struct slot *slot;
        if (take_pair(g, json_array_get(pairs, i), &why, &slot, err)) {
            str_release(&why);
            return -1;
        }
        if (!slot)
            notice(g, "%s: pair %zu left out: %s", g->log.path, i + 1,
                   why.data ? why.data : "out of memory");
        str_release(&why);
    }
    g->n_resumed = g->n_filled;
    return 0;
}

static int write_pairs(const struct generate *g, const char *path, struct gyaru_error *err)
{
    struct str out = STR_INIT;
    for (size_t i = 0; i < g->n; i++) {
        json_t *pair = pair_json(g, &g->slots[i].pair);
        char *text = pair ? json_dumps(pair, 0) : NULL;
        if (!text)
            out.failed = true;
        else
            str_printf(&out, "%s  %s", i ? ",\n" : "[\n", text);
        json_decref(pair);
        free(text);
    }
    str_puts(&out, "\n]\n");
    int rc = str_failed(&out) ? error_memory(err, out.len, "the pairs")
                              : file_write_atomic(path, out.data, out.len, err);
    str_release(&out);
    return rc;
}

static char *make_report(const struct generate *g, const char *path)
{
    json_t *json =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s*, s:O}", "out", path, "pairs",
                  (json_int_t)g->n_filled, "resumed", (json_int_t)g->n_resumed, "topics",
                  (json_int_t)g->n_topics, "requests", (json_int_t)g->asker.n_requests, "retries",
                  (json_int_t)g->asker.n_retries, "model", g->asker.model, "rejected", g->rejected);
    char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    return text;
}

static int open_log(struct generate *g, const char *path, struct gyaru_error *err)
{
    struct str name = STR_INIT;
    json_t *pairs = json_array();
    str_printf(&name, "%s.partial", path);
    int rc = pairs && !str_failed(&name) ? 0 : error_memory(err, 256, "the log");
    if (!rc)
        rc = generate_log_open(name.data, &g->persona, &g->log, pairs, err);
    str_release(&name);
    if (!rc) {
        rc = take_old(g, pairs, err);
        if (rc)
            generate_log_close(&g->log, false);
    }
    json_decref(pairs);
    return rc;
}

static int run(struct generate *g, const char *path, struct gyaru_error *err)
{
    int rc = 0;
    if (g->n_filled < g->n)
        rc = generate_ask_open(&g->asker, g->options, err);
    g->asker.total = g->n;
    if (!rc)
        rc = fill_slots(g, err);
    if (!rc)
        return write_pairs(g, path, err);
    if (g->asker.stopped)
        error_set(err, GYARU_FAILED, "stopped: %zu of %zu pairs are kept in %s: run again to go on",
                  g->n_filled, g->n, g->log.path);
    return -1;
}

int gyaru_generate(const struct gyaru_generate_options *options, const char *path, char **report,
                   struct gyaru_error *err)
{
    struct generate g = {.options = options};
    *report = NULL;
    if (file_exists(path))
        return error_set(err, GYARU_FAILED,
                         "%s: exists already: name another file, or move it away first", path);
    if (check_options(options, err) || persona_open(options->persona, &g.persona, err) ||
        open_topics(&g, err) || make_slots(&g, err) || open_log(&g, path, err)) {
        release(&g);
        return -1;
    }
    int rc = run(&g, path, err);
    generate_log_close(&g.log, !rc || !g.n_filled);
    *report = make_report(&g, path);
    release(&g);
    return rc;
}
