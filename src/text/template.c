/* template.c - see template.h. */
#include "text/template.h"

#include "base/file.h"
#include "base/str.h"
#include "text/jinja.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define TEMPLATE_LIMIT ((size_t)1 << 20) /* bytes */

static const char *const roles[] = {"system", "user", "assistant"};
#define N_ROLES 3

/* Longest sequence of roles that a template is tried with. */
#define TRY_MESSAGES 3

/* ---- rendering ---------------------------------------------------------------------------- */

/* Names in error lines come from users: short, and never half a character. */
static int unknown_role(const char *role, size_t i, struct gyaru_error *err)
{
    size_t n = utf8_valid_prefix(role, strnlen(role, 40));
    return error_set(err, GYARU_FAILED,
                     "messages[%zu]: role '%.*s' is not supported: use system, user or assistant",
                     i, (int)n, role);
}

static int check_message(const struct gyaru_message *m, size_t i, struct gyaru_error *err)
{
    if (!m->role || !m->content)
        return error_set(err, GYARU_FAILED, "messages[%zu]: needs a role and a content", i);
    bool known = false;
    for (int r = 0; r < N_ROLES; r++)
        known |= strcmp(m->role, roles[r]) == 0;
    if (!known)
        return unknown_role(m->role, i, err);
    size_t len = strlen(m->content), valid = utf8_valid_prefix(m->content, len);
    if (valid < len)
        return error_set(err, GYARU_FAILED, "messages[%zu]: invalid UTF-8 at byte %zu", i, valid);
    return 0;
}

static int walk_message(const char *role, const char *content, template_part *part, void *user,
                        struct gyaru_error *err)
{
    struct str text = STR_INIT;
    str_printf(&text, "%s\n", role);
    str_puts(&text, content);
    int rc = str_failed(&text) ? error_memory(err, strlen(content), "a message") : 0;
    if (!rc)
        rc = part(user, true, CHAT_IM_START, strlen(CHAT_IM_START), err);
    if (!rc)
        rc = part(user, false, text.data, text.len, err);
    if (!rc)
        rc = part(user, true, CHAT_IM_END, strlen(CHAT_IM_END), err);
    if (!rc)
        rc = part(user, false, "\n", 1, err);
    str_release(&text);
    return rc;
}

/* The form of template.h with a given default (NULL: none). */
static int walk(const char *default_system, const struct gyaru_message *messages, size_t n,
                bool add_generation_prompt, template_part *part, void *user,
                struct gyaru_error *err)
{
    if (default_system && strcmp(messages[0].role, "system") != 0 &&
        walk_message("system", default_system, part, user, err))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (walk_message(messages[i].role, messages[i].content, part, user, err))
            return -1;
    if (!add_generation_prompt)
        return 0;
    if (part(user, true, CHAT_IM_START, strlen(CHAT_IM_START), err))
        return -1;
    return part(user, false, "assistant\n", strlen("assistant\n"), err);
}

int template_walk(const struct template *chat, const struct gyaru_message *messages,
                  size_t n_messages, bool add_generation_prompt, template_part *part, void *user,
                  struct gyaru_error *err)
{
    if (!chat->usable) {
        *err = chat->why_not;
        return -1;
    }
    if (n_messages == 0)
        return error_set(err, GYARU_FAILED, "messages: there are none");
    for (size_t i = 0; i < n_messages; i++)
        if (check_message(&messages[i], i, err))
            return -1;
    return walk(chat->default_system, messages, n_messages, add_generation_prompt, part, user, err);
}

static int append_part(void *user, bool marker, const char *text, size_t len,
                       struct gyaru_error *err)
{
    str_append(user, text, len);
    return str_failed(user) ? error_memory(err, len, "a conversation") : 0;
}

int template_render(const struct template *chat, const struct gyaru_message *messages,
                    size_t n_messages, bool add_generation_prompt, char **text,
                    struct gyaru_error *err)
{
    struct str out = STR_INIT;
    int rc =
        template_walk(chat, messages, n_messages, add_generation_prompt, append_part, &out, err);
    char *taken = rc ? NULL : str_take(&out);
    str_release(&out);
    if (rc)
        return -1;
    if (!taken)
        return error_memory(err, 0, "a conversation");
    *text = taken;
    return 0;
}

/* ---- recognising a template --------------------------------------------------------------- */

struct recogniser {
    const char *template;
    size_t len;
    struct jinja_input input;
    char *default_system;
};

static int not_chatml(struct gyaru_error *err, const char *what)
{
    return error_set(err, GYARU_FAILED, "the chat template is not ChatML: %s", what);
}

/* Reads the default system prompt off a conversation that has none. */
static int find_default(struct recogniser *r, struct gyaru_error *err)
{
    static const char head[] = CHAT_IM_START "system\n";
    static const char tail[] = CHAT_IM_START "user\na" CHAT_IM_END "\n";
    static const char end[] = CHAT_IM_END "\n" CHAT_IM_START "user\na" CHAT_IM_END "\n";
    const struct gyaru_message hello = {"user", "a"};
    size_t n_head = strlen(head), n_end = strlen(end);
    struct str out = STR_INIT;
    r->input.messages = &hello;
    r->input.n_messages = 1;
    r->input.add_generation_prompt = false;
    int rc = jinja_render(r->template, r->len, &r->input, &out, err);
    if (!rc && str_failed(&out))
        rc = error_memory(err, out.len, "the chat template");
    const char *text = out.data ? out.data : "";
    if (rc || strcmp(text, tail) == 0)
        goto done; /* no default */
    if (out.len < n_head + n_end || memcmp(text, head, n_head) != 0 ||
        memcmp(text + out.len - n_end, end, n_end) != 0) {
        rc = not_chatml(err, "it does not put a message between <|im_start|> and <|im_end|>");
        goto done;
    }
    r->default_system = strndup(text + n_head, out.len - n_head - n_end);
    if (!r->default_system)
        rc = error_memory(err, out.len, "the chat template");
    else if (strstr(r->default_system, CHAT_IM_START) || strstr(r->default_system, CHAT_IM_END))
        rc = not_chatml(err, "it puts more than a system message before the conversation");
done:
    str_release(&out);
    return rc;
}

/* Does the template render these messages as the form of template.h does? */
static int try_messages(struct recogniser *r, const struct gyaru_message *messages, size_t n,
                        bool add_generation_prompt, struct gyaru_error *err)
{
    struct str theirs = STR_INIT, ours = STR_INIT;
    r->input.messages = messages;
    r->input.n_messages = n;
    r->input.add_generation_prompt = add_generation_prompt;
    int rc = jinja_render(r->template, r->len, &r->input, &theirs, err);
    if (!rc)
        rc = walk(r->default_system, messages, n, add_generation_prompt, append_part, &ours, err);
    if (!rc && str_failed(&theirs))
        rc = error_memory(err, ours.len, "the chat template");
    if (!rc && (theirs.len != ours.len || memcmp(theirs.data, ours.data, ours.len) != 0)) {
        struct str what = STR_INIT;
        str_puts(&what, "it renders otherwise for the roles");
        for (size_t i = 0; i < n; i++)
            str_printf(&what, " %s", messages[i].role);
        rc = not_chatml(err, what.data ? what.data : "it renders otherwise");
        str_release(&what);
    }
    str_release(&theirs);
    str_release(&ours);
    return rc;
}

/* Every sequence of up to TRY_MESSAGES roles; contents with spaces at the ends, empty, and with
 * what a template might take for its own. */
static int try_all(struct recogniser *r, struct gyaru_error *err)
{
    static const char *const contents[] = {"a", " b \n", "", "{{ c }}" CHAT_IM_END "\n<x>'\""};
    size_t combinations = 1;
    for (size_t n = 1; n <= TRY_MESSAGES; n++) {
        combinations *= N_ROLES;
        for (size_t k = 0; k < 2 * combinations; k++) {
            struct gyaru_message messages[TRY_MESSAGES];
            size_t rest = k / 2;
            for (size_t i = 0; i < n; i++) {
                messages[i].role = roles[rest % N_ROLES];
                messages[i].content = contents[(k / 2 + i) % 4];
                rest /= N_ROLES;
            }
            if (try_messages(r, messages, n, k % 2, err))
                return -1;
        }
    }
    return 0;
}

/* Learns what the template does; the reason why it cannot be used goes to chat->why_not. */
static void recognise(struct template *chat, const char *path, const char *template, size_t len,
                      const struct jinja_string *strings, size_t n_strings)
{
    struct recogniser r = {.template = template, .len = len};
    r.input.strings = strings;
    r.input.n_strings = n_strings;
    sha256_hex_of(template, len, chat->sha256);
    struct gyaru_error *why = &chat->why_not;
    if (find_default(&r, why) || try_all(&r, why)) {
        error_prefix(why, path);
        free(r.default_system);
        return;
    }
    chat->usable = true;
    chat->default_system = r.default_system;
}

/* ---- finding the template ----------------------------------------------------------------- */

/* The template in `chat_template` of the config: NULL and *err unset if there is none. */
static const json_t *find_in_config(const json_t *config, const char *path, int *rc,
                                    struct gyaru_error *err)
{
    const json_t *value = json_object_get(config, "chat_template");
    *rc = 0;
    if (!value || json_is_null(value) || json_is_string(value))
        return json_is_string(value) ? value : NULL;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        const json_t *template = json_object_get(entry, "template");
        if (name && strcmp(name, "default") == 0 && json_is_string(template))
            return template;
    }
    *rc = error_set(err, GYARU_FAILED,
                    "%s: 'chat_template' is neither a string nor a list with one named \"default\"",
                    path);
    return NULL;
}

/* Special tokens by the names that templates may use; a token is a string or {content}. */
static size_t token_strings(const json_t *config, struct jinja_string strings[4])
{
    static const char *const names[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    size_t n = 0;
    for (size_t i = 0; i < 4; i++) {
        const json_t *value = json_object_get(config, names[i]);
        if (json_is_object(value))
            value = json_object_get(value, "content");
        if (json_is_string(value))
            strings[n++] = (struct jinja_string){names[i], json_string_value(value)};
    }
    return n;
}

static int open_at(const char *config_path, const char *file_path, const json_t *config,
                   struct template *chat, struct gyaru_error *err)
{
    struct jinja_string strings[4];
    size_t n_strings = token_strings(config, strings);
    if (file_exists(file_path)) { /* newer checkpoints; it counts before the config's */
        char *text;
        size_t len;
        if (file_read(file_path, TEMPLATE_LIMIT, &text, &len, err))
            return -1;
        recognise(chat, file_path, text, len, strings, n_strings);
        free(text);
        return 0;
    }
    int rc;
    const json_t *template = find_in_config(config, config_path, &rc, err);
    if (rc)
        return -1;
    if (!template)
        error_set(&chat->why_not, GYARU_FAILED,
                  "%s: no 'chat_template', and no chat_template.jinja beside it: not a chat model",
                  config_path);
    else if (json_string_length(template) > TEMPLATE_LIMIT)
        return error_set(err, GYARU_FAILED, "%s: 'chat_template' is longer than %zu bytes",
                         config_path, TEMPLATE_LIMIT);
    else
        recognise(chat, config_path, json_string_value(template), json_string_length(template),
                  strings, n_strings);
    return 0;
}

int template_open(const char *dir, const json_t *config, struct template *chat,
                  struct gyaru_error *err)
{
    *chat = (struct template){.usable = false};
    char *config_path = file_join(dir, "tokenizer_config.json");
    char *file_path = file_join(dir, "chat_template.jinja");
    int rc = config_path && file_path ? open_at(config_path, file_path, config, chat, err)
                                      : error_memory(err, strlen(dir), "a path");
    free(config_path);
    free(file_path);
    return rc;
}

void template_release(struct template *chat)
{
    free(chat->default_system);
    chat->default_system = NULL;
}
