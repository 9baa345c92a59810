/* api_client.c - see api_client.h. */
#include "api_client.h"

#include "text/utf8.h"
#include "ws_client.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE 20000 /* ms */

/* Reads until `n` bytes are there; false at the end of the connection. */
static bool need(int fd, struct str *in, size_t n)
{
    char buffer[4096];
    while (in->len < n) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (poll(&poll_fd, 1, PATIENCE) <= 0)
            fail_msg("no answer in %d ms; so far: %s", PATIENCE, in->data ? in->data : "");
        ssize_t got = recv(fd, buffer, sizeof buffer, 0);
        if (got <= 0)
            return false;
        str_append(in, buffer, (size_t)got);
    }
    return true;
}

/* Reads up to the next CRLF after `at`: its position; 0 at the end of the connection. */
static size_t need_line(int fd, struct str *in, size_t at)
{
    for (size_t end = at + 2; need(fd, in, end); end++) {
        if (!memcmp(in->data + end - 2, "\r\n", 2))
            return end - 2;
    }
    return 0;
}

static const char *header(const char *head, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (!strncasecmp(line + 2, name, len) && line[2 + len] == ':')
            return line + 2 + len + 1 + strspn(line + 2 + len + 1, " ");
    }
    return NULL;
}

static void read_chunks(int fd, struct str *in, size_t at, struct str *body)
{
    for (;;) {
        size_t line = need_line(fd, in, at);
        if (!line)
            fail_msg("the connection ended between chunks");
        size_t size = strtoul(in->data + at, NULL, 16);
        if (!need(fd, in, line + 2 + size + 2))
            fail_msg("the connection ended in a chunk");
        if (memcmp(in->data + line + 2 + size, "\r\n", 2))
            fail_msg("a chunk that is longer than it says");
        str_append(body, in->data + line + 2, size);
        at = line + 2 + size + 2;
        if (!size)
            return;
    }
}

static void read_body(int fd, struct str *in, size_t at, struct api_answer *answer)
{
    struct str body = STR_INIT;
    const char *length = header(answer->head, "content-length");
    const char *coding = header(answer->head, "transfer-encoding");
    if (coding) {
        read_chunks(fd, in, at, &body);
    } else if (length) {
        size_t n = strtoul(length, NULL, 10);
        if (!need(fd, in, at + n))
            fail_msg("the connection ended in the body");
        str_append(&body, in->data + at, n);
    } else {
        while (need(fd, in, in->len + 1))
            ;
        str_append(&body, in->data + at, in->len - at);
        answer->closed = true;
    }
    if (!utf8_valid(body.data ? body.data : "", body.len))
        fail_msg("invalid UTF-8 in: %s", body.data);
    answer->body = str_take(&body);
}

/* One line of a stream of events, as the clients' parsers split them. */
static void read_event_line(struct api_answer *answer, const char *line, size_t len)
{
    json_error_t why;
    if (!len)
        return;
    if (line[0] == ':') {
        answer->comments++;
        return;
    }
    if (len < 6 || strncmp(line, "data: ", 6))
        fail_msg("not an event: %.*s", (int)len, line);
    if (answer->done)
        fail_msg("an event after [DONE]: %.*s", (int)len, line);
    if (len == 12 && !strncmp(line, "data: [DONE]", 12)) {
        answer->done = true;
        return;
    }
    json_t *json = json_loadb(line + 6, len - 6, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        fail_msg("an event that is no JSON (%s): %.*s", why.text, (int)len, line);
    json_array_append_new(answer->events, json);
}

void api_read(int fd, struct api_answer *answer)
{
    struct str in = STR_INIT;
    size_t n = 4;
    *answer = (struct api_answer){.events = json_array()};
    while (need(fd, &in, n) && memcmp(in.data + n - 4, "\r\n\r\n", 4))
        n++;
    if (in.len < n) {
        str_release(&in);
        answer->closed = true;
        return;
    }
    answer->head = strndup(in.data, n);
    sscanf(answer->head, "HTTP/1.%*d %d", &answer->status);
    read_body(fd, &in, n, answer);
    str_release(&in);
    const char *type = header(answer->head, "content-type");
    if (type && !strncmp(type, "application/json", 16))
        answer->json = json_loads(answer->body, JSON_REJECT_DUPLICATES, NULL);
    if (type && !strncmp(type, "text/event-stream", 17)) {
        for (const char *line = answer->body; *line;) {
            size_t len = strcspn(line, "\n");
            if (line[len] != '\n')
                fail_msg("an event without end: %s", line);
            read_event_line(answer, line, len);
            line += len + 1;
        }
    }
}

void api_call(int port, const char *method, const char *path, const char *headers, const char *body,
              struct api_answer *answer)
{
    struct str request = STR_INIT;
    str_printf(&request, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s", method, path, port,
               headers ? headers : "");
    if (body)
        str_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                   strlen(body));
    str_printf(&request, "\r\n%s", body ? body : "");
    int fd = tcp_connect(port, 0);
    tcp_send(fd, request.data, request.len);
    str_release(&request);
    api_read(fd, answer);
    close(fd);
}

void api_release(struct api_answer *answer)
{
    free(answer->head);
    free(answer->body);
    json_decref(answer->json);
    json_decref(answer->events);
    *answer = (struct api_answer){0};
}

void api_send(int fd, const char *path, const char *body)
{
    struct str request = STR_INIT;
    str_printf(&request,
               "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               "Content-Length: %zu\r\n\r\n%s",
               path, strlen(body), body);
    assert_true(tcp_send(fd, request.data, request.len));
    str_release(&request);
}

int api_ask(int port, const char *path, const char *body)
{
    int fd = tcp_connect(port, 0);
    api_send(fd, path, body);
    return fd;
}

const char *api_expect(int port, const char *path, const char *body, int status)
{
    static char message[1024];
    struct api_answer answer;
    api_call(port, "POST", path, NULL, body, &answer);
    if (answer.status != status)
        fail_msg("%d instead of %d for %.300s: %.300s", answer.status, status, body,
                 answer.body ? answer.body : "");
    message[0] = '\0';
    if (status >= 400) {
        const json_t *error = json_object_get(answer.json, "error");
        snprintf(message, sizeof message, "%s", ws_text(error, "message"));
        assert_true(ws_number(error, "code") == status);
        assert_true(strlen(ws_text(error, "type")) > 0);
        assert_null(strchr(message, '\n'));
    }
    api_release(&answer);
    return message;
}

/* The same in every chunk of an answer. */
static void check_constants(const json_t *chunk, const json_t *first)
{
    static const char *const names[] = {"id", "object", "created", "model", "system_fingerprint"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_true(json_equal(json_object_get(chunk, names[i]), json_object_get(first, names[i])));
    assert_string_equal(ws_text(chunk, "object"), "chat.completion.chunk");
    assert_int_equal(strncmp(ws_text(chunk, "id"), "chatcmpl-", 9), 0);
    assert_true(json_is_array(json_object_get(chunk, "choices")));
}

const char *api_whole_text(const struct api_answer *answer)
{
    assert_int_equal(answer->status, 200);
    assert_string_equal(ws_text(answer->json, "object"), "chat.completion");
    const json_t *choice = json_array_get(json_object_get(answer->json, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    assert_string_equal(ws_text(message, "role"), "assistant");
    return ws_text(message, "content");
}

char *api_chat_text(const struct api_answer *answer, const char **finish)
{
    struct str text = STR_INIT;
    size_t i;
    json_t *chunk, *first = json_array_get(answer->events, 0);
    *finish = NULL;
    assert_true(answer->done);
    json_array_foreach(answer->events, i, chunk)
    {
        check_constants(chunk, first);
        json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
        if (!choice) /* the counts, after everything else */
            continue;
        if (*finish)
            fail_msg("a choice after finish_reason");
        json_t *delta = json_object_get(choice, "delta");
        assert_true(json_is_object(delta));
        assert_true(ws_number(choice, "index") == 0);
        if (i == 0) {
            assert_string_equal(ws_text(delta, "role"), "assistant");
            assert_true(json_is_null(json_object_get(delta, "content")));
        } else {
            assert_null(json_object_get(delta, "role"));
            const char *content = json_string_value(json_object_get(delta, "content"));
            str_puts(&text, content ? content : "");
        }
        *finish = json_string_value(json_object_get(choice, "finish_reason"));
    }
    return str_take(&text);
}
