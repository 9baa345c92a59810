/*
 * config.c - see config.h.
 *
 * The file is read as a libyaml document: every node knows its line, which is what a person needs
 * to find a typing error. (libcyaml, which sits on the same parser, ignores unknown keys without
 * saying where they stand.) One table describes all settings; the walk over sections and keys
 * consults nothing else.
 */
#include "cli/config.h"

#include "base/file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define CONFIG_LIMIT ((size_t)1 << 20) /* bytes of a config file */

enum kind { TEXT, NUMBER, INTEGER };

struct setting {
    const char *section, *key;
    enum kind kind;
    size_t offset; /* in struct config */
    double min, max;
};

#define AT(field) offsetof(struct config, field)

static const struct setting settings[] = {
    {"model", "path", TEXT, AT(model_path), 0, 0},
    {"model", "device", TEXT, AT(device), 0, 0},
    {"steering", "vector", TEXT, AT(vector), 0, 0},
    {"steering", "vectors", TEXT, AT(vectors), 0, 0},
    {"steering", "reports", TEXT, AT(reports), 0, 0},
    {"steering", "strength", NUMBER, AT(strength), GYARU_STRENGTH_MIN, GYARU_STRENGTH_MAX},
    {"steering", "visualise_layer", INTEGER, AT(visualise_layer), 0, 1000},
    {"generation", "temperature", NUMBER, AT(temperature), 0, 5},
    {"generation", "top_p", NUMBER, AT(top_p), 0, 1},
    {"generation", "min_p", NUMBER, AT(min_p), 0, 1},
    {"generation", "top_k", INTEGER, AT(top_k), 0, 1000000},
    {"generation", "repetition_penalty", NUMBER, AT(repetition_penalty), 0.1, 10},
    {"generation", "max_tokens", INTEGER, AT(max_tokens), 0, 1000000},
    {"generation", "system_prompt", TEXT, AT(system_prompt), 0, 0},
    {"server", "host", TEXT, AT(host), 0, 0},
    {"server", "port", INTEGER, AT(port), 0, 65535},
    {"voice", "url", TEXT, AT(voice_url), 0, 0},
    {"voice", "speaker", INTEGER, AT(voice_speaker), 0, 2147483647},
};

#define N_SETTINGS (sizeof settings / sizeof settings[0])

void config_init(struct config *config)
{
    *config = (struct config){
        .strength = NAN,
        .visualise_layer = CONFIG_UNSET,
        .temperature = NAN,
        .top_p = NAN,
        .min_p = NAN,
        .repetition_penalty = NAN,
        .top_k = CONFIG_UNSET,
        .max_tokens = CONFIG_UNSET,
        .port = CONFIG_UNSET,
        .voice_speaker = CONFIG_UNSET,
    };
}

void config_release(struct config *config)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if (settings[i].kind == TEXT)
            free(*(char **)((char *)config + settings[i].offset));
    }
    config_init(config);
}

/* One reading of one file. */
struct reading {
    const char *path;
    yaml_document_t *document;
    struct config *config;
    struct gyaru_error *err;
};

static size_t line_of(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

static const char *text_of(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : "(not a word)";
}

/* "key:" and "key: ~" say nothing, which is the same as leaving the key out. */
static bool is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = text_of(node);
    return !*text || !strcmp(text, "~") || !strcmp(text, "null");
}

static int read_number(struct reading *r, const struct setting *setting, const yaml_node_t *node,
                       double *out)
{
    const char *text = text_of(node);
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    bool whole = setting->kind == NUMBER || value == floor(value);
    /* The comparison also refuses NaN. */
    if (end == text || *end || errno || !whole || !(value >= setting->min && value <= setting->max))
        return error_set(r->err, GYARU_USAGE, "%s:%zu: %s.%s: '%s' is not %s from %g to %g",
                         r->path, line_of(node), setting->section, setting->key, text,
                         setting->kind == NUMBER ? "a number" : "a whole number", setting->min,
                         setting->max);
    *out = value;
    return 0;
}

static int read_setting(struct reading *r, const struct setting *setting, const yaml_node_t *node)
{
    void *field = (char *)r->config + setting->offset;
    if (is_null(node))
        return 0;
    if (node->type != YAML_SCALAR_NODE)
        return error_set(r->err, GYARU_USAGE, "%s:%zu: %s.%s: a single value is expected", r->path,
                         line_of(node), setting->section, setting->key);
    if (setting->kind == TEXT) {
        if (strlen(text_of(node)) != node->data.scalar.length)
            return error_set(r->err, GYARU_USAGE, "%s:%zu: %s.%s: a NUL in the text", r->path,
                             line_of(node), setting->section, setting->key);
        char *copy = strdup(text_of(node));
        if (!copy)
            return error_memory(r->err, node->data.scalar.length, "a setting");
        free(*(char **)field);
        *(char **)field = copy;
        return 0;
    }
    double value = 0;
    if (read_number(r, setting, node, &value))
        return -1;
    if (setting->kind == NUMBER)
        *(float *)field = (float)value;
    else
        *(int *)field = (int)value;
    return 0;
}

static void warn_unknown(const struct reading *r, const char *section, const yaml_node_t *key)
{
    fprintf(stderr, "warning: %s:%zu: unknown key '%s%s%s' is ignored\n", r->path, line_of(key),
            section, *section ? "." : "", text_of(key));
}

static bool section_exists(const char *name)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if (!strcmp(settings[i].section, name))
            return true;
    }
    return false;
}

static const struct setting *find_setting(const char *section, const char *key)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if (!strcmp(settings[i].section, section) && !strcmp(settings[i].key, key))
            return &settings[i];
    }
    return NULL;
}

static int read_section(struct reading *r, const char *name, const yaml_node_t *node)
{
    if (is_null(node))
        return 0;
    if (node->type != YAML_MAPPING_NODE)
        return error_set(r->err, GYARU_USAGE, "%s:%zu: '%s' must hold indented 'key: value' lines",
                         r->path, line_of(node), name);
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(r->document, pair->value);
        const struct setting *setting = find_setting(name, text_of(key));
        if (!setting)
            warn_unknown(r, name, key);
        else if (read_setting(r, setting, value))
            return -1;
    }
    return 0;
}

static int read_document(struct reading *r)
{
    const yaml_node_t *root = yaml_document_get_root_node(r->document);
    if (!root || is_null(root)) /* an empty file */
        return 0;
    if (root->type != YAML_MAPPING_NODE)
        return error_set(r->err, GYARU_USAGE, "%s:%zu: sections such as 'model:' are expected",
                         r->path, line_of(root));
    const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
    for (; pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(r->document, pair->value);
        if (!section_exists(text_of(key)))
            warn_unknown(r, "", key);
        else if (read_section(r, text_of(key), value))
            return -1;
    }
    return 0;
}

static int parse(const char *path, const char *text, size_t len, struct config *config,
                 struct gyaru_error *err)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return error_memory(err, sizeof parser, "the YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    yaml_document_t document;
    int rc;
    if (yaml_parser_load(&parser, &document)) {
        struct reading r = {path, &document, config, err};
        rc = read_document(&r);
        yaml_document_delete(&document);
    } else {
        rc = error_set(err, GYARU_USAGE, "%s:%zu: not valid YAML: %s", path,
                       parser.problem_mark.line + 1, parser.problem ? parser.problem : "?");
    }
    yaml_parser_delete(&parser);
    return rc;
}

int config_read(const char *path, struct config *config, struct gyaru_error *err)
{
    if (!path) {
        path = CONFIG_DEFAULT_PATH;
        if (!file_exists(path))
            return 0;
    }
    char *text;
    size_t len;
    if (file_read(path, CONFIG_LIMIT, &text, &len, err)) {
        err->status = GYARU_USAGE;
        return -1;
    }
    struct config fresh;
    config_init(&fresh);
    int rc = parse(path, text, len, &fresh, err);
    free(text);
    if (rc) {
        config_release(&fresh);
        return -1;
    }
    config_release(config);
    *config = fresh;
    return 0;
}
