/*
 * native.c - what llama.cpp's and Ollama's clients ask for beside OpenAI's endpoints: raw
 * completions, the tokenizer, the properties, and Ollama's way to load a model.
 */
#include "server/api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

int api_completion(struct server *server, struct conn *conn, struct lws *wsi)
{
    return api_ask(server, conn, wsi, FRAME_COMPLETION);
}

/* ---- tokens --------------------------------------------------------------------------------- */

/* {"content", "parse_special"} -> ids; NULL on failure. */
static json_t *tokenize(const struct gyaru_tokenizer *tokenizer, const json_t *body,
                        struct gyaru_error *err)
{
    const json_t *content = json_object_get(body, "content");
    const json_t *special = json_object_get(body, "parse_special");
    int32_t *ids;
    size_t n;
    if (!json_is_string(content)) {
        error_set(err, GYARU_USAGE, "content: expected a text");
        return NULL;
    }
    if (gyaru_tokenize(tokenizer, json_string_value(content), json_string_length(content),
                       !json_is_false(special), &ids, &n, err))
        return NULL;
    json_t *tokens = json_array();
    for (size_t i = 0; tokens && i < n; i++)
        json_array_append_new(tokens, json_integer(ids[i]));
    free(ids);
    return json_pack("{s:o}", "tokens", tokens);
}

/* {"tokens"} -> text; NULL on failure. */
static json_t *detokenize(const struct gyaru_tokenizer *tokenizer, const json_t *body,
                          struct gyaru_error *err)
{
    const json_t *tokens = json_object_get(body, "tokens");
    size_t n = json_array_size(tokens), len;
    int32_t *ids = json_is_array(tokens) ? calloc(n ? n : 1, sizeof *ids) : NULL;
    char *text = NULL;
    if (!ids) {
        error_set(err, GYARU_USAGE, "tokens: expected a list of ids");
        return NULL;
    }
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *id = json_array_get(tokens, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
            rc = error_set(err, GYARU_USAGE, "tokens[%zu]: expected an id", i);
        ids[i] = (int32_t)value;
    }
    if (!rc)
        rc = gyaru_detokenize(tokenizer, ids, n, &text, &len, err);
    free(ids);
    json_t *json = rc ? NULL : json_pack("{s:s%}", "content", text, len);
    free(text);
    return json;
}

static int answer_with(struct server *server, struct conn *conn, struct lws *wsi,
                       json_t *(*make)(const struct gyaru_tokenizer *tokenizer, const json_t *body,
                                       struct gyaru_error *err))
{
    const struct engine_info *info = engine_info(server->engine);
    struct gyaru_error error;
    if (!info)
        return api_loading(server, conn, wsi);
    json_t *body = api_body(conn, &error);
    json_t *json = body ? make(info->tokenizer, body, &error) : NULL;
    json_decref(body);
    return json ? http_json(conn, wsi, 200, json) : api_refuse(conn, wsi, &error);
}

int api_tokenize(struct server *server, struct conn *conn, struct lws *wsi)
{
    return answer_with(server, conn, wsi, tokenize);
}

int api_detokenize(struct server *server, struct conn *conn, struct lws *wsi)
{
    return answer_with(server, conn, wsi, detokenize);
}

/* ---- properties ----------------------------------------------------------------------------- */

/* A template that renders what the model's own does: every template that can be used is ChatML
 * with or without a system prompt of its own. */
static char *equivalent_template(const struct gyaru_tokenizer *tokenizer)
{
    static const char head[] = "<|im_start|>system\n";
    const struct gyaru_message probe = {"user", "x"};
    struct gyaru_error error;
    struct str out = STR_INIT;
    char *text;
    if (gyaru_chat_render(tokenizer, &probe, 1, false, &text, &error))
        return strdup("");
    const char *end = strstr(text, "<|im_end|>");
    if (!strncmp(text, head, sizeof head - 1) && end) {
        str_puts(&out, "{% if messages[0]['role'] != 'system' %}{{ '");
        for (const char *p = text; p < end; p++) {
            if (*p == '\n')
                str_puts(&out, "\\n");
            else if (*p == '\'' || *p == '\\')
                str_printf(&out, "\\%c", *p);
            else
                str_putc(&out, *p);
        }
        str_puts(&out, "<|im_end|>\\n' }}{% endif %}");
    }
    free(text);
    str_puts(&out, "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
                   "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
                   "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
    return str_take(&out);
}

int api_props(struct server *server, struct conn *conn, struct lws *wsi)
{
    const struct engine_info *info = engine_info(server->engine);
    if (!info)
        return api_loading(server, conn, wsi);
    const struct gyaru_sampling *s = &info->sampling;
    char *chat_template = equivalent_template(info->tokenizer);
    json_t *json = json_pack(
        "{s:{s:i,s:{s:f,s:f,s:i,s:f,s:f}},s:i,s:s,s:s,s:s,s:b}", "default_generation_settings",
        "n_ctx", info->context, "params", "temperature", (double)s->temperature, "top_p",
        (double)s->top_p, "top_k", s->top_k, "min_p", (double)s->min_p, "repeat_penalty",
        (double)s->repeat_penalty, "total_slots", server->options.sessions, "model_alias",
        info->model_name, "chat_template", chat_template ? chat_template : "", "build_info",
        "gyaru " GYARU_VERSION, "is_sleeping", 0);
    free(chat_template);
    return http_json(conn, wsi, 200, json);
}

/* ---- Ollama --------------------------------------------------------------------------------- */

/* Without messages it asks to load the model, or to unload it (keep_alive 0): ours is loaded, and
 * stays. */
int api_ollama_chat(struct server *server, struct conn *conn, struct lws *wsi)
{
    const struct engine_info *info = engine_info(server->engine);
    struct gyaru_error error;
    if (!info)
        return api_loading(server, conn, wsi);
    json_t *body = api_body(conn, &error);
    if (!body)
        return api_refuse(conn, wsi, &error);
    const json_t *keep = json_object_get(body, "keep_alive");
    bool unload = json_is_number(keep) && json_number_value(keep) == 0;
    bool asks = json_array_size(json_object_get(body, "messages")) > 0;
    bool valid = json_is_object(body);
    json_decref(body);
    char created[32];
    struct tm tm;
    time_t loaded = (time_t)info->loaded_at;
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&loaded, &tm));
    if (!valid || asks)
        return http_error(conn, wsi, 400, "invalid_request_error",
                          valid ? "here only the model is loaded; ask at /v1/chat/completions"
                                : "the request must be a JSON object");
    return http_json(conn, wsi, 200,
                     json_pack("{s:s,s:s,s:{s:s,s:s},s:s,s:b}", "model", info->model_name,
                               "created_at", created, "message", "role", "assistant", "content", "",
                               "done_reason", unload ? "unload" : "load", "done", 1));
}
