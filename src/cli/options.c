/*
 * options.c - the parser behind the tables of options.h. What the shared tables mean for models
 * and vectors is in load.c.
 */
#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Column at which --help begins to explain. */
#define HELP_COLUMN 26
#define HELP_WIDTH  100

static void print_wrapped(const char *text)
{
    int column = HELP_COLUMN;
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column + len > HELP_WIDTH) {
            printf("\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        printf("%.*s%s", len, text, text[len] ? " " : "");
        column += len + 1;
        text += len;
        text += strspn(text, " ");
    }
    printf("\n");
}

static void print_spec(const struct option_spec *spec)
{
    char head[80];
    char letter[8] = "    ";
    if (spec->letter)
        snprintf(letter, sizeof letter, "-%c, ", spec->letter);
    int len = snprintf(head, sizeof head, "  %s--%s%s%s", letter, spec->name,
                       spec->argument ? " " : "", spec->argument ? spec->argument : "");
    if (len + 2 > HELP_COLUMN)
        printf("%s\n%*s", head, HELP_COLUMN, "");
    else
        printf("%-*s", HELP_COLUMN, head);
    print_wrapped(spec->text);
}

static void print_help(const struct option_help *help)
{
    printf("usage: gyaru %s %s\n%s\n\noptions:\n", help->command, help->usage, help->text);
    for (const struct option_group *g = help->groups; g->specs; g++) {
        for (const struct option_spec *spec = g->specs; spec->name; spec++)
            print_spec(spec);
    }
    printf("  %-*s%s\n", HELP_COLUMN - 2, "-h, --help", "this text");
}

static int bad_value(const struct option_spec *spec, const char *value, struct gyaru_error *err)
{
    const char *what = spec->kind == OPTION_NUMBER ? "a number" : "a whole number";
    return error_set(err, GYARU_USAGE, "--%s: '%s' is not %s from %g to %g", spec->name, value,
                     what, spec->min, spec->max);
}

static int set_number(const struct option_spec *spec, const char *value, void *field,
                      struct gyaru_error *err)
{
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    bool fits = end != value && !*end && !errno && number >= spec->min && number <= spec->max;
    if (spec->kind == OPTION_INT)
        fits = fits && number == floor(number);
    if (!fits)
        return bad_value(spec, value, err);
    if (spec->kind == OPTION_INT)
        *(int *)field = (int)number;
    else
        *(float *)field = (float)number;
    return 0;
}

static int set_seed(const struct option_spec *spec, const char *value, void *field,
                    struct gyaru_error *err)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (end == value || *end || errno || strchr(value, '-'))
        return error_set(err, GYARU_USAGE, "--%s: '%s' is not a whole number of 64 bits",
                         spec->name, value);
    *(uint64_t *)field = number;
    return 0;
}

int options_parse_layers(const char *name, const char *value, struct layer_range *out,
                         struct gyaru_error *err)
{
    char rest;
    int first, last;
    int n = sscanf(value, "%d-%d%c", &first, &last, &rest);
    if (n == 1 && !strchr(value, '-') && strspn(value, "0123456789") == strlen(value))
        last = first;
    else if (n != 2)
        first = -1;
    if (first < 0 || last < first || last > 100000)
        return error_set(err, GYARU_USAGE,
                         "--%s: '%s' is no range of layers such as 14-38 (0-based, ascending)",
                         name, value);
    *out = (struct layer_range){first, last};
    return 0;
}

static int set_field(const struct option_spec *spec, const char *value, void *field,
                     struct gyaru_error *err)
{
    switch (spec->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_TEXT:
        *(const char **)field = value;
        return 0;
    case OPTION_INT:
    case OPTION_NUMBER:
        return set_number(spec, value, field, err);
    case OPTION_SEED:
        return set_seed(spec, value, field, err);
    case OPTION_LAYERS:
        return options_parse_layers(spec->name, value, field, err);
    }
    return 0;
}

/* The option that `word` ("-m", "--model", "--model=X") names, and the struct it sets. */
static const struct option_spec *find_spec(const struct option_help *help, const char *word,
                                           void **base)
{
    bool is_long = word[1] == '-';
    size_t len = is_long ? strcspn(word + 2, "=") : 0;
    for (const struct option_group *g = help->groups; g->specs; g++) {
        for (const struct option_spec *spec = g->specs; spec->name; spec++) {
            bool found = is_long ? strlen(spec->name) == len && !memcmp(spec->name, word + 2, len)
                                 : spec->letter && word[1] == spec->letter;
            if (found) {
                *base = g->base;
                return spec;
            }
        }
    }
    return NULL;
}

/* Reads the option at argv[*i], moving *i past its value. */
static int parse_one(const struct option_help *help, int argc, char **argv, int *i,
                     struct gyaru_error *err)
{
    const char *word = argv[*i];
    void *base;
    const struct option_spec *spec = find_spec(help, word, &base);
    if (!spec)
        return error_set(err, GYARU_USAGE, "unknown option '%s'; see gyaru %s --help", word,
                         help->command);
    const char *value = NULL;
    bool is_long = word[1] == '-';
    if (is_long && strchr(word, '='))
        value = strchr(word, '=') + 1;
    else if (!is_long && word[2])
        value = word + 2;
    if (spec->kind == OPTION_FLAG && value)
        return error_set(err, GYARU_USAGE, "--%s takes no value", spec->name);
    if (spec->kind != OPTION_FLAG && !value) {
        if (*i + 1 >= argc)
            return error_set(err, GYARU_USAGE, "--%s: %s is missing; see gyaru %s --help",
                             spec->name, spec->argument, help->command);
        value = argv[++*i];
    }
    return set_field(spec, value, (char *)base + spec->offset, err);
}

enum option_result options_parse(const struct option_help *help, int *argc, char **argv,
                                 struct gyaru_error *err)
{
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        const char *word = argv[i];
        if (!strcmp(word, "--")) {
            while (++i < *argc)
                argv[kept++] = argv[i];
            break;
        }
        if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
            print_help(help);
            return OPTIONS_HELPED;
        }
        if (word[0] != '-' || !word[1])
            argv[kept++] = argv[i];
        else if (parse_one(help, *argc, argv, &i, err))
            return OPTIONS_BAD;
    }
    *argc = kept;
    return OPTIONS_OK;
}

bool options_japanese(const char *asked)
{
    if (asked)
        return !strcmp(asked, "ja");
    const char *const names[] = {"LC_ALL", "LC_MESSAGES", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return !strncmp(value, "ja", 2);
    }
    return false;
}

int options_fail(const char *command, const struct gyaru_error *err)
{
    fprintf(stderr, "gyaru %s: %s\n", command, err->text);
    return (int)err->status;
}

int options_run(const struct option_help *help, int argc, char **argv, options_work *work,
                void *user)
{
    struct gyaru_error err;
    enum option_result parsed = options_parse(help, &argc, argv, &err);
    if (parsed == OPTIONS_HELPED)
        return GYARU_OK;
    int rc = parsed;
    if (!rc && argc > 1)
        rc = error_set(&err, GYARU_USAGE, "%.80s: unexpected: see gyaru %s --help", argv[1],
                       help->command);
    if (!rc)
        rc = work(user, &err);
    return rc ? options_fail(help->command, &err) : GYARU_OK;
}

int options_check_language(const char *asked, struct gyaru_error *err)
{
    if (!asked || !strcmp(asked, "ja") || !strcmp(asked, "en"))
        return 0;
    return error_set(err, GYARU_USAGE, "--lang %.20s: expected ja or en", asked);
}
