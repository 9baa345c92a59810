/* texts.c - see texts.h. */
#include "cli/texts.h"

#include "base/file.h"
#include "base/json.h"
#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((size_t)16 << 20) /* bytes */

static int add(struct text_list *list, size_t *cap, const char *text, size_t len,
               struct gyaru_error *err)
{
    if (list->n == *cap) {
        size_t grown = *cap ? 2 * *cap : 64;
        char **items = realloc(list->items, grown * sizeof *items);
        if (!items)
            return error_memory(err, grown * sizeof *items, "the messages");
        list->items = items;
        *cap = grown;
    }
    char *copy = strndup(text, len);
    if (!copy)
        return error_memory(err, len, "a message");
    list->items[list->n++] = copy;
    return 0;
}

static int read_json(struct text_list *list, const char *path, const char *data, size_t len,
                     struct gyaru_error *err)
{
    json_t *root = json_parse(data, len, path, err);
    const json_t *item;
    size_t i, cap = 0;
    int rc = root ? 0 : -1;
    json_array_foreach(root, i, item)
    {
        const char *text = json_string_value(item);
        if (!rc && (!text || !*text))
            rc = error_set(err, GYARU_FAILED, "%s: entry %zu is no text", path, i + 1);
        if (!rc)
            rc = add(list, &cap, text, strlen(text), err);
    }
    json_decref(root);
    return rc;
}

static int read_lines(struct text_list *list, const char *data, struct gyaru_error *err)
{
    size_t cap = 0;
    while (*data) {
        size_t len = strcspn(data, "\r\n");
        if (len && add(list, &cap, data, len, err))
            return -1;
        data += len;
        data += strspn(data, "\r\n");
    }
    return 0;
}

static int read_messages(const char *path, struct text_list *out, struct gyaru_error *err)
{
    struct text_list list = {0};
    char *data;
    size_t len;
    if (file_read(path, FILE_LIMIT, &data, &len, err))
        return -1;
    bool is_json = data[strspn(data, " \t\r\n")] == '[';
    int rc = is_json ? read_json(&list, path, data, len, err) : read_lines(&list, data, err);
    free(data);
    if (!rc && !list.n)
        rc = error_set(err, GYARU_FAILED, "%s: no messages", path);
    if (rc)
        text_list_release(&list);
    else
        *out = list;
    return rc;
}

void text_list_release(struct text_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct text_list){0};
}

static int read_prompt(const char *path, const char *name, int index, char **out,
                       struct gyaru_error *err)
{
    json_t *root = json_parse_file(path, FILE_LIMIT, err);
    if (!root)
        return -1;
    const json_t *list = json_object_get(root, name);
    const char *text = json_string_value(json_array_get(list, (size_t)index));
    char *copy = text ? strdup(text) : NULL;
    int rc = 0;
    if (!list)
        rc = error_set(err, GYARU_FAILED, "%s: no prompts named \"%.40s\"", path, name);
    else if (!text)
        rc = error_set(err, GYARU_FAILED, "%s: \"%.40s\" has %zu prompts, not %d", path, name,
                       json_array_size(list), index + 1);
    else if (!copy)
        rc = error_memory(err, strlen(text), "a prompt");
    json_decref(root);
    if (!rc)
        *out = copy;
    return rc;
}

int texts_messages(const char *file, struct text_list *out, struct gyaru_error *err)
{
    char *path;
    if (common_data_path(file ? file : TEXTS_MESSAGES, &path, err))
        return -1;
    int rc = read_messages(path, out, err);
    free(path);
    return rc;
}

int texts_prompt(const char *file, const char *name, int index, char **out, struct gyaru_error *err)
{
    char *path;
    if (common_data_path(file ? file : TEXTS_PROMPTS, &path, err))
        return -1;
    int rc = read_prompt(path, name, index, out, err);
    free(path);
    return rc;
}

int texts_style(const char *file, char **out, struct gyaru_error *err)
{
    return common_data_path(file ? file : TEXTS_STYLE, out, err);
}

int numbers_parse(const char *option, const char *text, float least, float most, float **out,
                  size_t *n, struct gyaru_error *err)
{
    size_t count = 1;
    for (const char *c = text; *c; c++)
        count += *c == ',';
    float *numbers = calloc(count, sizeof *numbers);
    if (!numbers)
        return error_memory(err, count * sizeof *numbers, "numbers");
    const char *at = text;
    for (size_t i = 0; i < count; i++) {
        char *end;
        double value = strtod(at, &end);
        if (end == at || (*end && *end != ',') || !(value >= (double)least) ||
            !(value <= (double)most)) {
            free(numbers);
            return error_set(err, GYARU_USAGE,
                             "--%s %.60s: expected numbers from %g to %g with commas between",
                             option, text, (double)least, (double)most);
        }
        numbers[i] = (float)value;
        at = end + 1;
    }
    *out = numbers;
    *n = count;
    return 0;
}

/* ---- the butler test --------------------------------------------------------------------------
 */

int butler_texts_read(const struct butler_files *files, struct butler_texts *out,
                      struct gyaru_error *err)
{
    if (texts_messages(files->messages, &out->messages, err) ||
        texts_style(files->style, &out->style, err))
        return -1;
    if (!files->system)
        return texts_prompt(files->prompts, files->prompt, files->prompt_index, &out->system, err);
    out->system = strdup(files->system);
    return out->system ? 0 : error_memory(err, strlen(files->system), "a prompt");
}

void butler_texts_release(struct butler_texts *texts)
{
    text_list_release(&texts->messages);
    free(texts->system);
    free(texts->style);
    *texts = (struct butler_texts){0};
}

size_t butler_texts_count(const struct butler_texts *texts, int limit)
{
    return limit > 0 && (size_t)limit < texts->messages.n ? (size_t)limit : texts->messages.n;
}
