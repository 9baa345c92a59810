/*
 * config_edit.c - see config_edit.h.
 *
 * libyaml says where each value begins and ends; the text between is replaced. Its marks count
 * characters, so they are turned into byte offsets first. A document forgets anchors, but a node
 * that has one begins with '&' (or with '!', if it has a tag), and an alias leads to a node that
 * stands before its key.
 */
#include "cli/config_edit.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define LEAVES_MAX 100000 /* values compared after an edit; aliases may multiply them */
#define INDENT     2      /* spaces before the key of a section that had none */

/* One setting in one text. */
struct edit {
    const char *name, *text;
    size_t len;
    const struct config_value *value;
    yaml_document_t document;
    const yaml_node_t *root;
    struct gyaru_error *err;
};

/* The bytes of the text that an edit replaces: [start, end) becomes `with`. */
struct patch {
    size_t start, end;
    struct str with;
};

static int refuse(const struct edit *e, const yaml_mark_t *mark, const char *why)
{
    return error_set(e->err, GYARU_USAGE, "%s:%zu: cannot set %s.%s safely: %s; change it by hand",
                     e->name, mark->line + 1, e->value->section, e->value->key, why);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Byte offset of the character that a mark counts; a byte order mark is not counted. */
static size_t offset_of(const struct edit *e, const yaml_mark_t *mark)
{
    size_t i = e->len >= 3 && !memcmp(e->text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    for (size_t left = mark->index; left && i < e->len; left--)
        for (i++; i < e->len && ((unsigned char)e->text[i] & 0xC0) == 0x80;)
            i++;
    return i;
}

static char first_char(const struct edit *e, const yaml_node_t *node)
{
    size_t at = offset_of(e, &node->start_mark);
    return at < e->len ? e->text[at] : '\0';
}

static int not_yaml(const struct edit *e, const yaml_parser_t *parser)
{
    return error_set(e->err, GYARU_USAGE, "%s:%zu: not valid YAML: %s", e->name,
                     parser->problem_mark.line + 1, parser->problem ? parser->problem : "?");
}

/* The settings are in the first document; one that follows would be read by nobody. */
static int check_single(struct edit *e, yaml_parser_t *parser)
{
    yaml_document_t next;
    if (!yaml_parser_load(parser, &next))
        return not_yaml(e, parser);
    const yaml_node_t *root = yaml_document_get_root_node(&next);
    int rc = root ? refuse(e, &next.start_mark, "a second document begins here") : 0;
    yaml_document_delete(&next);
    return rc;
}

static int load(struct edit *e)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return error_memory(e->err, sizeof parser, "the YAML parser");
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    bool marked = e->len >= 3 && !memcmp(e->text, "\xEF\xBB\xBF", 3);
    size_t skip = marked ? 3 : 0; /* with the encoding given, libyaml takes it for a character */
    yaml_parser_set_input_string(&parser, (const unsigned char *)e->text + skip, e->len - skip);
    int rc = yaml_parser_load(&parser, &e->document) ? 0 : not_yaml(e, &parser);
    if (!rc) {
        e->root = yaml_document_get_root_node(&e->document);
        if (e->root && check_single(e, &parser)) {
            yaml_document_delete(&e->document);
            rc = -1;
        }
    }
    yaml_parser_delete(&parser);
    return rc;
}

static bool is_text(const yaml_node_t *node, const char *text)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == strlen(text) &&
           !memcmp(node->data.scalar.value, text, strlen(text));
}

static bool is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (is_text(node, "") || is_text(node, "~") || is_text(node, "null"));
}

/* The pair with this key, NULL in *out if there is none. */
static int find_pair(const struct edit *e, const yaml_node_t *mapping, const char *name,
                     const yaml_node_pair_t **out)
{
    *out = NULL;
    const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
    for (; pair < mapping->data.mapping.pairs.top; pair++) {
        yaml_document_t *document = (yaml_document_t *)&e->document;
        const yaml_node_t *key = yaml_document_get_node(document, pair->key);
        if (!is_text(key, name))
            continue;
        if (*out)
            return refuse(e, &key->start_mark, "the key stands there a second time");
        *out = pair;
    }
    return 0;
}

static const yaml_node_t *node_at(const struct edit *e, int index)
{
    return yaml_document_get_node((yaml_document_t *)&e->document, index);
}

/* Is what `pair` leads to written out there, without anchor and tag? */
static int check_plain(const struct edit *e, const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = node_at(e, pair->key), *value = node_at(e, pair->value);
    char first = first_char(e, value), key_first = first_char(e, key);
    if (value->start_mark.index < key->end_mark.index)
        return refuse(e, &key->start_mark, "the value is an alias");
    if (key_first == '&' || key_first == '!')
        return refuse(e, &key->start_mark, "the key has an anchor or a tag");
    bool empty = value->start_mark.index == value->end_mark.index;
    if (!empty && (first == '&' || first == '!'))
        return refuse(e, &value->start_mark, "the value has an anchor or a tag");
    return 0;
}

static int check_block(const struct edit *e, const yaml_node_t *mapping)
{
    if (mapping->type != YAML_MAPPING_NODE)
        return refuse(e, &mapping->start_mark, "'key: value' lines are expected here");
    if (mapping->data.mapping.style == YAML_FLOW_MAPPING_STYLE)
        return refuse(e, &mapping->start_mark, "a mapping in braces");
    char first = first_char(e, mapping);
    if (first == '&' || first == '!' || first == '?')
        return refuse(e, &mapping->start_mark, "an anchor, a tag or an explicit key");
    return 0;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static const char *line_end(const struct edit *e)
{
    const char *lf = memchr(e->text, '\n', e->len);
    return lf && lf > e->text && lf[-1] == '\r' ? "\r\n" : "\n";
}

/* Would every YAML reader take the bare word for this text? */
static bool plain_is_safe(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on",
                                        "off",  "y",    "n",     "inf", "nan"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i]))
            return false;
    bool letter = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z');
    if (!letter && !strchr(text, '/')) /* 12, .5, 1e3, 0x1f, 2026-01-09 */
        return false;
    if (!letter && *text != '/' && *text != '.' && !(*text >= '0' && *text <= '9'))
        return false;
    for (; *text; text++) {
        bool ok = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
                  (*text >= '0' && *text <= '9') || strchr("_./+-", *text);
        if (!ok)
            return false;
    }
    return true;
}

static void put_double_quoted(struct str *out, const char *text)
{
    str_putc(out, '"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            str_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7F)
            str_printf(out, "\\x%02X", c);
        else
            str_putc(out, (char)c);
    }
    str_putc(out, '"');
}

/* In the quotes that were there, if the text allows them. */
static void put_value(struct str *out, const struct config_value *value, yaml_scalar_style_t style)
{
    bool printable = true;
    for (const char *c = value->text; *c; c++)
        printable = printable && (unsigned char)*c >= 0x20 && *c != 0x7F && *c != '\'';
    if (value->number)
        str_puts(out, value->text);
    else if (style == YAML_SINGLE_QUOTED_SCALAR_STYLE && printable)
        str_printf(out, "'%s'", value->text);
    else if (style != YAML_DOUBLE_QUOTED_SCALAR_STYLE && plain_is_safe(value->text))
        str_puts(out, value->text);
    else
        put_double_quoted(out, value->text);
}

static void put_line(const struct edit *e, struct str *out, size_t indent)
{
    str_printf(out, "%*s%s: ", (int)indent, "", e->value->key);
    put_value(out, e->value, YAML_PLAIN_SCALAR_STYLE);
    str_puts(out, line_end(e));
}

/* Where the line after the one with `at` begins; at the end of a text without a last line end that
 * is put first. */
static size_t next_line(const struct edit *e, size_t at, struct str *with)
{
    const char *lf = at < e->len ? memchr(e->text + at, '\n', e->len - at) : NULL;
    if (lf)
        return (size_t)(lf - e->text) + 1;
    if (e->len && e->text[e->len - 1] != '\n' && !with->len)
        str_puts(with, line_end(e));
    return e->len;
}

/* Past the comment lines that go on with a setting's comment: no less indented than it. */
static size_t skip_comments(const struct edit *e, size_t at, size_t indent, struct str *with)
{
    for (;;) {
        size_t i = at;
        while (i < e->len && e->text[i] == ' ')
            i++;
        if (i >= e->len || e->text[i] != '#' || i - at < indent || i == at)
            return at;
        at = next_line(e, i, with);
    }
}

/* "key: OLD" or "key:". */
static int replace_value(const struct edit *e, const yaml_node_pair_t *pair, struct patch *patch)
{
    const yaml_node_t *value = node_at(e, pair->value);
    if (check_plain(e, pair))
        return -1;
    if (value->type != YAML_SCALAR_NODE)
        return refuse(e, &value->start_mark, "the value is a list or a mapping");
    yaml_scalar_style_t style = value->data.scalar.style;
    if (style == YAML_LITERAL_SCALAR_STYLE || style == YAML_FOLDED_SCALAR_STYLE)
        return refuse(e, &value->start_mark, "the value is a block of lines");
    patch->start = offset_of(e, &value->start_mark);
    patch->end = offset_of(e, &value->end_mark);
    if (patch->start == patch->end) {
        char before = patch->start ? e->text[patch->start - 1] : '\0';
        if (before == ':')
            str_putc(&patch->with, ' ');
    }
    put_value(&patch->with, e->value, style);
    return 0;
}

/* Below the section's last setting that is a value on its line. */
static int add_key(const struct edit *e, const yaml_node_t *section, struct patch *patch)
{
    const yaml_node_pair_t *pair = section->data.mapping.pairs.top;
    while (pair-- > section->data.mapping.pairs.start) {
        const yaml_node_t *key = node_at(e, pair->key), *value = node_at(e, pair->value);
        bool alias = value->start_mark.index < key->end_mark.index;
        if (alias || value->type != YAML_SCALAR_NODE ||
            value->data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
            value->data.scalar.style == YAML_FOLDED_SCALAR_STYLE)
            continue;
        size_t indent = section->start_mark.column;
        size_t at = next_line(e, offset_of(e, &value->end_mark), &patch->with);
        patch->start = patch->end = skip_comments(e, at, indent, &patch->with);
        put_line(e, &patch->with, indent);
        return 0;
    }
    return refuse(e, &section->start_mark, "no simple setting that a new one could follow");
}

/* "section:", "section: ~". */
static int fill_section(const struct edit *e, const yaml_node_pair_t *pair, struct patch *patch)
{
    const yaml_node_t *key = node_at(e, pair->key), *value = node_at(e, pair->value);
    if (check_plain(e, pair))
        return -1;
    if (value->data.scalar.length)
        return refuse(e, &value->start_mark, "the section is said to be empty");
    size_t indent = key->start_mark.column + INDENT;
    size_t at = next_line(e, offset_of(e, &value->end_mark), &patch->with);
    patch->start = patch->end = skip_comments(e, at, indent, &patch->with);
    put_line(e, &patch->with, indent);
    return 0;
}

static int add_section(const struct edit *e, struct patch *patch)
{
    if (e->root && !e->document.end_implicit)
        return refuse(e, &e->document.end_mark, "the document ends here, before a new section");
    size_t indent = e->root && !is_null(e->root) ? e->root->start_mark.column : 0;
    patch->start = patch->end = next_line(e, e->len, &patch->with);
    str_printf(&patch->with, "%s%*s%s:%s", e->len ? line_end(e) : "", (int)indent, "",
               e->value->section, line_end(e));
    put_line(e, &patch->with, indent + INDENT);
    return 0;
}

static int make_patch(const struct edit *e, struct patch *patch)
{
    if (!e->root || is_null(e->root))
        return add_section(e, patch);
    const yaml_node_pair_t *pair;
    if (check_block(e, e->root) || find_pair(e, e->root, e->value->section, &pair))
        return -1;
    if (!pair)
        return add_section(e, patch);
    const yaml_node_t *section = node_at(e, pair->value);
    if (is_null(section))
        return fill_section(e, pair, patch);
    if (check_plain(e, pair) || check_block(e, section) ||
        find_pair(e, section, e->value->key, &pair))
        return -1;
    return pair ? replace_value(e, pair, patch) : add_key(e, section, patch);
}

/* ---- comparing --------------------------------------------------------------------------------
 */

/* All that a document says but for one setting, as a string of lengths and bytes. */
struct content {
    const struct edit *edit;
    struct str out, found; /* found: the setting's value */
    size_t n_leaves;
    bool too_many;
};

static void add_node(struct content *c, const yaml_node_t *node);

static void add_pairs(struct content *c, const yaml_node_t *mapping, const char *section)
{
    const struct edit *e = c->edit;
    const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
    for (; pair < mapping->data.mapping.pairs.top && !c->too_many; pair++) {
        const yaml_node_t *key = node_at(e, pair->key), *value = node_at(e, pair->value);
        if (section && is_text(key, e->value->key) && value->type == YAML_SCALAR_NODE) {
            str_append(&c->found, value->data.scalar.value, value->data.scalar.length);
            continue;
        }
        bool top = mapping == e->root && is_text(key, e->value->section);
        if (top && is_null(value))
            continue;
        if (top && value->type == YAML_MAPPING_NODE) {
            /* The section that the setting makes holds nothing else. */
            size_t len = c->out.len;
            add_node(c, key);
            str_putc(&c->out, '{');
            size_t empty = c->out.len;
            add_pairs(c, value, e->value->section);
            if (c->out.len == empty)
                c->out.len = len;
            continue;
        }
        add_node(c, key);
        add_node(c, value);
    }
}

static void add_node(struct content *c, const yaml_node_t *node)
{
    c->too_many = c->too_many || ++c->n_leaves > LEAVES_MAX;
    if (c->too_many)
        return;
    if (node->type == YAML_SCALAR_NODE) {
        str_printf(&c->out, "%zu:%d:", node->data.scalar.length,
                   node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE);
        str_append(&c->out, node->data.scalar.value, node->data.scalar.length);
    } else if (node->type == YAML_SEQUENCE_NODE) {
        str_putc(&c->out, '[');
        const yaml_node_item_t *item = node->data.sequence.items.start;
        for (; item < node->data.sequence.items.top && !c->too_many; item++)
            add_node(c, node_at(c->edit, *item));
        str_putc(&c->out, ']');
    } else {
        str_putc(&c->out, '{');
        add_pairs(c, node, NULL);
        str_putc(&c->out, '}');
    }
}

static void content_make(struct content *c, const struct edit *e)
{
    *c = (struct content){.edit = e, .out = STR_INIT, .found = STR_INIT};
    if (e->root && e->root->type == YAML_MAPPING_NODE)
        add_pairs(c, e->root, NULL);
}

static void content_release(struct content *c)
{
    str_release(&c->out);
    str_release(&c->found);
}

static bool same_bytes(const struct str *s, const char *data, size_t len)
{
    return s->len == len && (!len || !memcmp(s->data, data, len));
}

/* Does `after` say what `before` says, but for the setting, and that as it should be? */
static int compare(const struct edit *before, const struct edit *after)
{
    struct content old, new;
    content_make(&old, before);
    content_make(&new, after);
    bool failed = str_failed(&old.out) || str_failed(&new.out) || str_failed(&new.found);
    bool same = !old.too_many && !new.too_many &&same_bytes(&new.out, old.out.data, old.out.len) &&
                same_bytes(&new.found, after->value->text, strlen(after->value->text));
    content_release(&old);
    content_release(&new);
    if (failed)
        return error_memory(before->err, after->len, "the settings");
    return same ? 0
                : error_set(before->err, GYARU_USAGE,
                            "%s: cannot set %s.%s to '%.80s' without changing other settings; "
                            "change it by hand",
                            before->name, before->value->section, before->value->key,
                            before->value->text);
}

/* ---- all --------------------------------------------------------------------------------------
 */

static int edit_once(struct edit *e, char **out, size_t *out_len)
{
    struct patch patch = {.with = STR_INIT};
    struct str result = STR_INIT;
    if (load(e))
        return -1;
    int rc = make_patch(e, &patch);
    if (!rc) {
        str_append(&result, e->text, patch.start);
        str_append(&result, patch.with.data, patch.with.len);
        str_append(&result, e->text + patch.end, e->len - patch.end);
        if (str_failed(&result) || str_failed(&patch.with))
            rc = error_memory(e->err, e->len, "the settings");
    }
    if (!rc) {
        struct edit after = *e;
        after.text = result.data;
        after.len = result.len;
        rc = load(&after);
        if (!rc) {
            rc = compare(e, &after);
            yaml_document_delete(&after.document);
        }
    }
    if (!rc) {
        *out_len = result.len;
        *out = str_take(&result);
    }
    str_release(&result);
    str_release(&patch.with);
    yaml_document_delete(&e->document);
    return rc;
}

int config_edit_text(const char *name, const char *text, size_t len,
                     const struct config_value *values, size_t n, char **out, size_t *out_len,
                     struct gyaru_error *err)
{
    char *now = malloc(len + 1);
    size_t now_len = len;
    if (!now)
        return error_memory(err, len, "the settings");
    memcpy(now, text, len);
    now[len] = '\0';
    for (size_t i = 0; i < n; i++) {
        struct edit edit = {
            .name = name, .text = now, .len = now_len, .value = &values[i], .err = err};
        char *next;
        int rc = edit_once(&edit, &next, &now_len);
        free(now);
        if (rc)
            return -1;
        now = next;
    }
    *out = now;
    *out_len = now_len;
    return 0;
}
