/* llm_server.c - see llm_server.h. */
#include "llm_server.h"

#include "base/str.h"
#include "support/stand_in.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include <cmocka.h>

#define N_BAD 9

/* ---- pairs ---------------------------------------------------------------------------------- */

/* One pair on the topic; `fault` 0: none, else which rule it breaks. */
static json_t *make_pair(struct llm_server *s, const char *topic, int fault)
{
    char style[512], plain[512];
    int n = ++s->n_pairs;
    snprintf(style, sizeof style, "拙者は%sがまことに好きでござるよ、その%d。", topic, n);
    snprintf(plain, sizeof plain, "私は%sがとても好きなのです、その%d。", topic, n);
    if (fault == 2)
        strcpy(style, "ござる。");
    if (fault == 3)
        for (int i = 0; i < 12; i++)
            strcat(plain, "とても長い文です。");
    if (fault == 4)
        strcpy(plain, style);
    if (fault == 5)
        strcpy(style, "私はそれがとても好きなのですよ。");
    if (fault == 6)
        strcpy(plain, "私もときどき拙者と言ってみたいのです。");
    if (fault == 7)
        strcpy(plain, "I like this topic very much indeed.");
    if (fault == 9)
        strcpy(style, "拙者は同じことを二度も言うのでござる。");
    json_t *pair = json_pack("{s:s, s:s, s:s}", "topic", fault == 8 ? "誰も頼まぬ話" : topic,
                             "standard", plain, "bushi", style);
    if (fault == 1)
        json_object_del(pair, "bushi");
    return pair;
}

/* One pair for each "N. TOPIC" of the prompt. */
static json_t *make_pairs(struct llm_server *s, bool bad)
{
    json_t *pairs = json_array();
    char *prompt = strdup(s->prompt);
    int n = 0;
    for (char *line = strtok(prompt, "\n"); line; line = strtok(NULL, "\n")) {
        size_t digits = strspn(line, "0123456789");
        if (!digits || strncmp(line + digits, ". ", 2))
            continue;
        n++;
        json_array_append_new(pairs, make_pair(s, line + digits + 2, bad && n <= N_BAD ? n : 0));
    }
    if (bad) /* the ninth text twice */
        json_array_append_new(pairs, make_pair(s, "刀", N_BAD));
    free(prompt);
    return pairs;
}

static void put_slips(const json_t *pairs, struct str *out)
{
    str_putc(out, '[');
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        const json_t *pair = json_array_get(pairs, i);
        str_printf(out, "{\"topic\": \"%s\", \"standard\": \"%s\n\", \"bushi\": \"%s\",},",
                   json_string_value(json_object_get(pair, "topic")),
                   json_string_value(json_object_get(pair, "standard")),
                   json_string_value(json_object_get(pair, "bushi")));
    }
    str_putc(out, ']');
}

/* What the model says. */
static void make_content(struct llm_server *s, enum llm_reply reply, struct str *out)
{
    json_t *pairs = make_pairs(s, reply == LLM_BAD_PAIRS);
    char *text = json_dumps(pairs, JSON_INDENT(1));
    switch (reply) {
    case LLM_FENCED:
        str_printf(out, "承知しました！以下が{結果}です。\n```json\n%s\n```\nいかがでしょうか？",
                   text);
        break;
    case LLM_THOUGHT:
        str_printf(out, "<think>{\"bushi\": \"試し書き\"} or {?</think>\n%s", text);
        break;
    case LLM_WRAPPED:
        str_printf(out, "{\"note\": \"ok\", \"pairs\": %s}", text);
        break;
    case LLM_LINES:
        for (size_t i = 0; i < json_array_size(pairs); i++) {
            char *line = json_dumps(json_array_get(pairs, i), JSON_COMPACT);
            str_printf(out, "%s\n", line);
            free(line);
        }
        break;
    case LLM_SLIPS:
        put_slips(pairs, out);
        break;
    case LLM_TRUNCATED:
        str_append(out, text, strlen(text) * 3 / 5);
        while (out->len && ((unsigned char)out->data[out->len - 1] & 0x80))
            out->data[--out->len] = '\0'; /* whole characters only */
        break;
    case LLM_REFUSAL:
        str_puts(out, "申し訳ありませんが、お手伝いできません。");
        break;
    default:
        str_puts(out, text);
    }
    free(text);
    json_decref(pairs);
}

/* ---- HTTP ----------------------------------------------------------------------------------- */

static void answer(int fd, const char *status, const char *headers, const char *body)
{
    struct str out = STR_INIT;
    str_printf(&out,
               "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s"
               "Connection: close\r\n\r\n%s",
               status, strlen(body), headers, body);
    stand_in_send(fd, out.data, out.len);
    str_release(&out);
}

static void answer_completion(struct llm_server *s, int fd, enum llm_reply reply)
{
    struct str content = STR_INIT;
    make_content(s, reply, &content);
    json_t *json =
        json_pack("{s:s, s:[{s:i, s:{s:s, s:s}, s:s}]}", "object", "chat.completion", "choices",
                  "index", 0, "message", "role", "assistant", "content", content.data,
                  "finish_reason", reply == LLM_TRUNCATED ? "length" : "stop");
    char *text = json_dumps(json, JSON_COMPACT);
    answer(fd, "200 OK", "", text);
    free(text);
    json_decref(json);
    str_release(&content);
}

static void answer_chat(struct llm_server *s, int fd)
{
    int n = s->n_requests++;
    enum llm_reply reply = s->script[n < s->n_script ? n : s->n_script - 1];
    if (reply == LLM_SLOW)
        sleep(2);
    if (reply == LLM_429)
        answer(fd, "429 Too Many Requests", "Retry-After: 1\r\n",
               "{\"error\": {\"message\": \"slow down\"}}");
    else if (reply == LLM_500)
        answer(fd, "500 Internal Server Error", "", "{\"error\": \"out of order\"}");
    else if (reply == LLM_401)
        answer(fd, "401 Unauthorized", "", "{\"error\": {\"message\": \"who are you?\"}}");
    else if (reply == LLM_GARBAGE)
        answer(fd, "200 OK", "", "<html>not what you think</html>");
    else if (reply == LLM_NO_CHOICES)
        answer(fd, "200 OK", "", "{\"choices\": []}");
    else if (reply != LLM_CLOSED)
        answer_completion(s, fd, reply);
}

static void answer_models(const struct llm_server *s, int fd)
{
    struct str body = STR_INIT;
    str_puts(&body, "{\"object\": \"list\", \"data\": [");
    for (int i = 0; i < s->n_models; i++)
        str_printf(&body, "%s{\"id\": \"model-%d\"}", i ? "," : "", i);
    str_puts(&body, "]}");
    answer(fd, "200 OK", "", body.data);
    str_release(&body);
}

static void keep_request(struct llm_server *s, const char *head, const char *body)
{
    const char *key = strcasestr(head, "\r\nAuthorization: ");
    snprintf(s->authorization, sizeof s->authorization, "%.*s",
             key ? (int)strcspn(key + 17, "\r") : 0, key ? key + 17 : "");
    json_t *json = json_loads(body, 0, NULL);
    const json_t *messages = json_object_get(json, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *prompt = json_string_value(json_object_get(last, "content"));
    snprintf(s->prompt, sizeof s->prompt, "%s", prompt ? prompt : "");
    json_decref(json);
}

static void serve(void *state, int listener)
{
    struct llm_server *s = state;
    char *buffer = malloc(STAND_IN_REQUEST + 1);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        char *body = fd >= 0 && buffer ? stand_in_read(fd, buffer) : NULL;
        if (body && !strncmp(buffer, "GET /v1/models ", 15)) {
            answer_models(s, fd);
        } else if (body && !strncmp(buffer, "POST /v1/chat/completions ", 26)) {
            keep_request(s, buffer, body);
            answer_chat(s, fd);
        } else if (body) {
            answer(fd, "404 Not Found", "", "{}");
        }
        close(fd);
    }
}

/* ---- the process ---------------------------------------------------------------------------- */

struct llm_server *llm_server_start(const int *replies)
{
    struct llm_server *s = stand_in_share(sizeof *s);
    while (s->n_script < LLM_SCRIPT_MAX && replies[s->n_script] >= 0) {
        s->script[s->n_script] = (enum llm_reply)replies[s->n_script];
        s->n_script++;
    }
    s->n_models = 1;
    s->pid = stand_in_start(&s->port, serve, s);
    snprintf(s->base, sizeof s->base, "http://127.0.0.1:%d/v1", s->port);
    return s;
}

void llm_server_stop(struct llm_server *s)
{
    stand_in_end(s->pid);
    munmap(s, sizeof *s);
}
