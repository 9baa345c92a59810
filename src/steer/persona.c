/* persona.c - see persona.h. */
#include "steer/persona.h"

#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((size_t)4 << 20) /* bytes */

/* Blocks of letters (Unicode 15); what lies in none of them (digits, punctuation, emoji) counts for
 * no script. */
static const struct script_range {
    const char *name;
    uint32_t first, last;
} script_ranges[] = {
    {"latin", 'A', 'Z'},          {"latin", 'a', 'z'},          {"latin", 0xc0, 0x24f},
    {"latin", 0xff21, 0xff5a},    {"greek", 0x370, 0x3ff},      {"cyrillic", 0x400, 0x52f},
    {"hebrew", 0x590, 0x5ff},     {"arabic", 0x600, 0x6ff},     {"devanagari", 0x900, 0x97f},
    {"thai", 0xe00, 0xe7f},       {"hangul", 0x1100, 0x11ff},   {"hangul", 0xac00, 0xd7a3},
    {"hiragana", 0x3041, 0x309f}, {"katakana", 0x30a1, 0x30ff}, {"katakana", 0xff66, 0xff9d},
    {"han", 0x3005, 0x3005},      {"han", 0x3400, 0x4dbf},      {"han", 0x4e00, 0x9fff},
    {"han", 0xf900, 0xfaff},      {"han", 0x20000, 0x3134f},
};

#define N_RANGES (sizeof script_ranges / sizeof *script_ranges)

/* One bit per script: that of the first range of its name. */
static unsigned script_bit(const char *name)
{
    for (size_t i = 0; i < N_RANGES; i++)
        if (!strcmp(script_ranges[i].name, name))
            return 1u << i;
    return 0;
}

static unsigned script_of(uint32_t c)
{
    for (size_t i = 0; i < N_RANGES; i++)
        if (c >= script_ranges[i].first && c <= script_ranges[i].last)
            return script_bit(script_ranges[i].name);
    return 0;
}

/* The code point at *text, which is valid UTF-8; moves on. */
static uint32_t next_char(const char **text)
{
    const unsigned char *p = (const unsigned char *)*text;
    int more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : *p >= 0xc0 ? 1 : 0;
    uint32_t c = more ? *p & (0x3fu >> more) : *p;
    for (int i = 1; i <= more; i++)
        c = c << 6 | (p[i] & 0x3fu);
    *text += more + 1;
    return c;
}

/* ---- reading -------------------------------------------------------------------------------- */

static int bad(struct gyaru_error *err, const char *key, const char *what)
{
    return error_set(err, GYARU_FAILED, "'%.40s': %s", key, what);
}

static int read_string(const json_t *json, const char *key, const char **out,
                       struct gyaru_error *err)
{
    *out = json_string_value(json_object_get(json, key));
    return *out && **out ? 0 : bad(err, key, "missing, empty or no string");
}

static int read_strings(const json_t *json, const char *key, const json_t **out,
                        struct gyaru_error *err)
{
    *out = json_object_get(json, key);
    if (!json_is_array(*out) || !json_array_size(*out))
        return bad(err, key, "expected an array of strings");
    for (size_t i = 0; i < json_array_size(*out); i++)
        if (!json_string_length(json_array_get(*out, i)))
            return bad(err, key, "holds something else than strings, or an empty one");
    return 0;
}

static int read_size(const json_t *json, const char *key, size_t otherwise, size_t *out,
                     struct gyaru_error *err)
{
    const json_t *value = json_object_get(json, key);
    json_int_t n = json_integer_value(value);
    *out = value ? (size_t)n : otherwise;
    return !value || (json_is_integer(value) && n >= 0 && n <= 100000)
               ? 0
               : bad(err, key, "expected a whole number from 0 to 100000");
}

/* A string or an array of lines (caller frees). */
static int read_text(const json_t *json, const char *key, bool needed, char **out,
                     struct gyaru_error *err)
{
    const json_t *value = json_object_get(json, key);
    struct str text = STR_INIT;
    if ((!value && needed) || (value && !json_is_string(value) && !json_is_array(value)))
        return bad(err, key, "expected a string or an array of lines");
    if (json_is_string(value))
        str_puts(&text, json_string_value(value));
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *line = json_string_value(json_array_get(value, i));
        if (!line) {
            str_release(&text);
            return bad(err, key, "holds something else than strings");
        }
        str_printf(&text, "%s%s", i ? "\n" : "", line);
    }
    *out = str_take(&text);
    return *out ? 0 : error_memory(err, 1024, key);
}

static int read_script_names(const json_t *json, const char *key, unsigned *bits,
                             struct gyaru_error *err)
{
    const json_t *names = json_object_get(json, key);
    *bits = 0;
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        unsigned bit = name ? script_bit(name) : 0;
        if (!bit)
            return error_set(err, GYARU_FAILED, "'scripts': '%.40s' is no script known here",
                             name ? name : "(no string)");
        *bits |= bit;
    }
    return 0;
}

static int read_scripts(const json_t *json, struct persona *p, struct gyaru_error *err)
{
    const json_t *scripts = json_object_get(json, "scripts");
    const json_t *share = json_object_get(scripts, "share");
    p->share = share ? json_number_value(share) : 0.8;
    if ((scripts && !json_is_object(scripts)) || !(p->share >= 0 && p->share <= 1))
        return bad(err, "scripts", "expected {\"allowed\", \"required\", \"share\": 0..1}");
    return read_script_names(scripts, "allowed", &p->allowed, err) ||
                   read_script_names(scripts, "required", &p->required, err)
               ? -1
               : 0;
}

static int check_keys(json_t *json, struct gyaru_error *err)
{
    static const char *const known[] = {
        "name",      "description", "style_key",   "plain_key",
        "markers",   "topics",      "min_markers", "plain_may_have_markers",
        "min_chars", "max_chars",   "scripts",     "system",
        "prompt"};
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found = found || !strcmp(key, known[i]);
        if (!found)
            return bad(err, key, "no such key in a persona");
    }
    return 0;
}

static int read_all(json_t *json, struct persona *p, struct gyaru_error *err)
{
    if (!json_is_object(json))
        return error_set(err, GYARU_FAILED, "expected a JSON object");
    p->plain_may_have_markers = json_is_true(json_object_get(json, "plain_may_have_markers"));
    if (check_keys(json, err) || read_string(json, "name", &p->name, err) ||
        read_string(json, "description", &p->description, err) ||
        read_string(json, "style_key", &p->style_key, err) ||
        read_string(json, "plain_key", &p->plain_key, err) ||
        read_strings(json, "markers", &p->markers, err) ||
        read_strings(json, "topics", &p->topics, err) ||
        read_size(json, "min_markers", 1, &p->min_markers, err) ||
        read_size(json, "min_chars", 10, &p->min_chars, err) ||
        read_size(json, "max_chars", 200, &p->max_chars, err) || read_scripts(json, p, err) ||
        read_text(json, "system", false, &p->system, err) ||
        read_text(json, "prompt", true, &p->prompt, err))
        return -1;
    if (!strcmp(p->style_key, p->plain_key) || !strcmp(p->style_key, "topic") ||
        !strcmp(p->plain_key, "topic"))
        return bad(err, "style_key", "style_key, plain_key and 'topic' must differ");
    if (p->min_chars > p->max_chars)
        return bad(err, "min_chars", "exceeds max_chars");
    return strstr(p->prompt, "{topics}") ? 0 : bad(err, "prompt", "lacks {topics}");
}

int persona_open(const char *path, struct persona *out, struct gyaru_error *err)
{
    char *text;
    size_t len;
    if (file_read(path, FILE_LIMIT, &text, &len, err))
        return -1;
    struct persona p = {0};
    sha256_hex_of(text, len, p.sha256);
    p.json = json_parse(text, len, path, err);
    free(text);
    if (!p.json)
        return -1;
    if (read_all(p.json, &p, err)) {
        persona_release(&p);
        return error_prefix(err, path);
    }
    *out = p;
    return 0;
}

void persona_release(struct persona *p)
{
    json_decref(p->json);
    free(p->system);
    free(p->prompt);
    *p = (struct persona){0};
}

/* ---- rules ---------------------------------------------------------------------------------- */

struct census {
    size_t chars, letters, allowed;
    unsigned seen;
    bool control;
};

static struct census count_chars(const struct persona *p, const char *text)
{
    struct census c = {0};
    while (*text) {
        uint32_t character = next_char(&text);
        unsigned script = script_of(character);
        c.chars++;
        c.letters += script != 0;
        c.allowed += (script & p->allowed) != 0;
        c.seen |= script;
        c.control = c.control || (character < 0x20 && character != '\n') || character == 0x7f;
    }
    return c;
}

static size_t count_markers(const struct persona *p, const char *text, const char **first)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(p->markers); i++) {
        const char *marker = json_string_value(json_array_get(p->markers, i));
        if (!strstr(text, marker))
            continue;
        if (!n++)
            *first = marker;
    }
    return n;
}

static int check_markers(const struct persona *p, const char *text, bool style, struct str *why)
{
    const char *first = "";
    size_t n = count_markers(p, text, &first);
    if (style && n < p->min_markers)
        str_printf(why, "holds %zu markers of the style, fewer than %zu", n, p->min_markers);
    else if (!style && n && !p->plain_may_have_markers)
        str_printf(why, "is not plain: it holds '%s'", first);
    return why->len ? -1 : 0;
}

int persona_check_text(const struct persona *p, const char *text, bool style, struct str *why)
{
    struct census c = count_chars(p, text);
    if (c.chars < p->min_chars)
        str_printf(why, "has %zu characters, fewer than %zu", c.chars, p->min_chars);
    else if (c.chars > p->max_chars)
        str_printf(why, "has %zu characters, more than %zu", c.chars, p->max_chars);
    else if (c.control || strstr(text, "<|"))
        str_puts(why, "holds control characters or a template's marker");
    else if ((p->allowed && (double)c.allowed < p->share * (double)c.letters) ||
             (c.seen & p->required) != p->required)
        str_puts(why, "is not in the expected script");
    return why->len ? -1 : check_markers(p, text, style, why);
}

/* ---- prompt --------------------------------------------------------------------------------- */

static void join(struct str *out, const json_t *strings)
{
    for (size_t i = 0; i < json_array_size(strings); i++)
        str_printf(out, "%s%s", i ? ", " : "", json_string_value(json_array_get(strings, i)));
}

char *persona_prompt(const struct persona *p, size_t count, const char *topics, const char *avoid)
{
    char numbers[3][24];
    struct str markers = STR_INIT, out = STR_INIT;
    snprintf(numbers[0], sizeof numbers[0], "%zu", count);
    snprintf(numbers[1], sizeof numbers[1], "%zu", p->min_chars);
    snprintf(numbers[2], sizeof numbers[2], "%zu", p->max_chars);
    join(&markers, p->markers);
    const struct {
        const char *place, *text;
    } places[] = {{"{name}", p->name},           {"{description}", p->description},
                  {"{style_key}", p->style_key}, {"{plain_key}", p->plain_key},
                  {"{count}", numbers[0]},       {"{min_chars}", numbers[1]},
                  {"{max_chars}", numbers[2]},   {"{markers}", markers.data ? markers.data : ""},
                  {"{topics}", topics},          {"{avoid}", avoid}};
    for (const char *at = p->prompt; *at;) {
        size_t i = 0, n = sizeof places / sizeof *places;
        while (i < n && strncmp(at, places[i].place, strlen(places[i].place)))
            i++;
        if (i < n)
            str_puts(&out, places[i].text);
        else
            str_putc(&out, *at);
        at += i < n ? strlen(places[i].place) : 1;
    }
    bool failed = str_failed(&markers);
    str_release(&markers);
    char *text = str_take(&out);
    if (failed) {
        free(text);
        return NULL;
    }
    return text;
}
