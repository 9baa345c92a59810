/*
 * ask_messages.c - the messages of a chat request, and the fields that only chats have.
 */
#include "server/ask_impl.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGES_MAX 4096

/* ---- contents ------------------------------------------------------------------------------- */

/* A text, a list of text parts, or null (an assistant's turn that only called tools). */
static int read_content(const json_t *content, size_t nth, struct str *out, struct gyaru_error *err)
{
    size_t i;
    json_t *part;
    if (json_is_string(content)) {
        str_puts(out, json_string_value(content));
        return 0;
    }
    if (content && !json_is_null(content) && !json_is_array(content))
        return error_set(err, GYARU_USAGE,
                         "messages[%zu].content: expected a text or a list of text parts", nth);
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const char *text = json_string_value(json_object_get(part, "text"));
        if (!type || strcmp(type, "text") || !text)
            return error_set(err, GYARU_USAGE,
                             "messages[%zu].content[%zu]: expected {\"type\":\"text\",\"text\"}; "
                             "this model reads text only",
                             nth, i);
        str_puts(out, text);
    }
    return 0;
}

/* The roles that the templates know; "developer" is OpenAI's newer name of "system". */
static const char *role_of(const json_t *message)
{
    static const char *const roles[][2] = {{"system", "system"},
                                           {"developer", "system"},
                                           {"user", "user"},
                                           {"assistant", "assistant"}};
    const char *role = json_string_value(json_object_get(message, "role"));
    for (size_t i = 0; role && i < sizeof roles / sizeof roles[0]; i++) {
        if (!strcmp(role, roles[i][0]))
            return roles[i][1];
    }
    return NULL;
}

static int add_message(struct ask *ask, const char *role, const char *text, struct gyaru_error *err)
{
    struct gyaru_message *message = &ask->messages[ask->n_messages];
    message->role = role;
    message->content = strdup(text);
    if (!message->content)
        return error_memory(err, strlen(text), "a message");
    ask->n_messages++;
    return 0;
}

static int read_message(struct ask *ask, const json_t *message, size_t nth, struct gyaru_error *err)
{
    struct str text = STR_INIT;
    const char *role = role_of(message);
    if (!role)
        return error_set(err, GYARU_USAGE, "messages[%zu].role: expected system, user or assistant",
                         nth);
    int rc = read_content(json_object_get(message, "content"), nth, &text, err);
    if (!rc && str_failed(&text))
        rc = error_memory(err, text.len, "a message");
    if (!rc)
        rc = add_message(ask, role, text.data ? text.data : "", err);
    str_release(&text);
    return rc;
}

/* As a conversation on the page does it: past the limit the oldest turns go, a quarter of it at a
 * time, a leading system prompt and the last turn stay. */
static void drop_oldest(struct ask *ask, size_t limit)
{
    size_t bytes = 0, first = !strcmp(ask->messages[0].role, "system") ? 1 : 0, n = 0;
    for (size_t i = 0; i < ask->n_messages; i++)
        bytes += strlen(ask->messages[i].content);
    size_t block = limit / 4 + 1, excess = bytes > limit ? bytes - limit : 0;
    size_t target = bytes - (excess + block - 1) / block * block;
    while (bytes > target && first + n + 1 < ask->n_messages) {
        bytes -= strlen(ask->messages[first + n].content);
        free((char *)ask->messages[first + n].content);
        n++;
    }
    ask->n_messages -= n;
    memmove(ask->messages + first, ask->messages + first + n,
            (ask->n_messages - first) * sizeof *ask->messages);
    ask->dropped = n;
}

static int read_messages(struct ask *ask, const struct ask_rules *rules, const json_t *body,
                         struct gyaru_error *err)
{
    const json_t *messages = json_object_get(body, "messages");
    size_t n = json_array_size(messages), i;
    json_t *message;
    if (!json_is_array(messages) || !n || n > MESSAGES_MAX)
        return error_set(err, GYARU_USAGE, "messages: expected a list of 1 to %d messages",
                         MESSAGES_MAX);
    ask->messages = calloc(n + 1, sizeof *ask->messages);
    if (!ask->messages)
        return error_memory(err, n * sizeof *ask->messages, "the messages");
    const char *first = role_of(json_array_get(messages, 0));
    if (rules->system && first && strcmp(first, "system") &&
        add_message(ask, "system", rules->system, err))
        return -1;
    json_array_foreach(messages, i, message)
    {
        if (read_message(ask, message, i, err))
            return -1;
    }
    drop_oldest(ask, rules->history_bytes);
    return 0;
}

/* ---- fields of chats ------------------------------------------------------------------------ */

static bool is_word(const json_t *value, const char *word)
{
    const char *text = json_string_value(value);
    return text && !strcmp(text, word);
}

/* Clients that offer tools by default look for these words and go on without them. */
static int refuse_tools(const struct ask_rules *rules, const json_t *body, struct gyaru_error *err)
{
    static const char *const fields[] = {"tools", "functions"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *tools = json_object_get(body, fields[i]);
        if (tools && !json_is_null(tools) && !json_is_array(tools))
            return ask_refuse(err, fields[i], "a list");
        if (json_array_size(tools) && !is_word(json_object_get(body, "tool_choice"), "none"))
            return error_set(err, GYARU_USAGE, "%s does not support tools",
                             rules->info->model_name);
    }
    return 0;
}

static int refuse_formats(const json_t *body, struct gyaru_error *err)
{
    const json_t *format = json_object_get(body, "response_format");
    if (format && !json_is_null(format) && !is_word(json_object_get(format, "type"), "text"))
        return ask_refuse(err, "response_format", "{\"type\":\"text\"}");
    if (json_is_true(json_object_get(body, "logprobs")))
        return ask_refuse(err, "logprobs", "false: there are none");
    return 0;
}

static int read_stream_options(struct ask *ask, const json_t *body, struct gyaru_error *err)
{
    const json_t *options = json_object_get(body, "stream_options");
    if (!options || json_is_null(options))
        return 0;
    const json_t *usage = json_object_get(options, "include_usage");
    if (!json_is_object(options) || (usage && !json_is_boolean(usage) && !json_is_null(usage)))
        return ask_refuse(err, "stream_options", "{\"include_usage\":true}");
    ask->usage = json_is_true(usage);
    return 0;
}

int ask_chat(struct ask *ask, const struct ask_rules *rules, const json_t *body,
             struct gyaru_error *err)
{
    static const char *const counts[] = {"max_completion_tokens", "max_tokens", NULL};
    *ask = (struct ask){0};
    int rc = ask_common(ask, rules, body, err) || ask_max_tokens(ask, counts, body, err) ||
                     refuse_tools(rules, body, err) || refuse_formats(body, err) ||
                     read_stream_options(ask, body, err) || read_messages(ask, rules, body, err)
                 ? -1
                 : 0;
    if (rc)
        ask_release(ask);
    return rc;
}
