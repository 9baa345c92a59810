/* client.c - see client.h. */
#include "client.h"

#include "base/clock.h"
#include "text/utf8.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE 120 /* seconds for anything that must come */

/* ---- the server ----------------------------------------------------------------------------- */

static void launch(const char *const *options, const char *port_file, const char *log)
{
    char program[512];
    const char *build = getenv("BUILD"),
               *arguments[40] = {"gyaru", "serve", "--port", "0", "--port-file", port_file};
    size_t n = 6;
    snprintf(program, sizeof program, "%s/gyaru", build && *build ? build : "build");
    for (; options && *options && n < 39; options++)
        arguments[n++] = *options;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execv(program, (char *const *)arguments);
    _exit(127);
}

static int read_port(const char *path)
{
    int port = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%d", &port) != 1)
        port = 0;
    fclose(file);
    return port;
}

int host_start(struct host *host, const char *const *options)
{
    char port_file[64];
    snprintf(host->log, sizeof host->log, "/tmp/gyaru-bench-%d.log", (int)getpid());
    snprintf(port_file, sizeof port_file, "/tmp/gyaru-bench-%d.port", (int)getpid());
    unlink(port_file);
    host->port = 0;
    host->pid = fork();
    if (host->pid == 0)
        launch(options, port_file, host->log);
    for (double end = clock_seconds() + PATIENCE; clock_seconds() < end; usleep(20000)) {
        if (waitpid(host->pid, NULL, WNOHANG) == host->pid)
            break;
        if (!host->port)
            host->port = read_port(port_file);
        if (host->port && client_get(host->port, "/health", NULL) == 200) {
            unlink(port_file);
            return 0;
        }
    }
    fprintf(stderr, "the server does not start; see %s\n", host->log);
    return -1;
}

int host_stop(struct host *host)
{
    int status;
    kill(host->pid, SIGTERM);
    for (double end = clock_seconds() + PATIENCE; clock_seconds() < end; usleep(10000)) {
        if (waitpid(host->pid, &status, WNOHANG) == host->pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    kill(host->pid, SIGKILL);
    waitpid(host->pid, &status, 0);
    return -1;
}

double host_memory(const struct host *host)
{
    char path[64];
    long total = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)host->pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%ld %ld", &total, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

/* ---- sockets -------------------------------------------------------------------------------- */

bool wire_open(struct wire *wire, int port, int receive_buffer)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {PATIENCE, 0};
    *wire = (struct wire){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .in = STR_INIT};
    if (wire->fd < 0)
        return false;
    if (receive_buffer)
        setsockopt(wire->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    setsockopt(wire->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(wire->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!connect(wire->fd, (struct sockaddr *)&address, sizeof address))
        return true;
    wire_close(wire);
    return false;
}

void wire_close(struct wire *wire)
{
    if (wire->fd >= 0)
        close(wire->fd);
    wire->fd = -1;
    str_release(&wire->in);
    wire->at = 0;
}

void wire_reset(struct wire *wire)
{
    struct linger reset = {1, 0};
    if (wire->fd >= 0)
        setsockopt(wire->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    wire_close(wire);
}

bool wire_send(struct wire *wire, const void *data, size_t len)
{
    for (const char *p = data; len;) {
        ssize_t n = send(wire->fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

bool wire_more(struct wire *wire, double seconds)
{
    struct pollfd poll_fd = {.fd = wire->fd, .events = POLLIN};
    char byte;
    return poll(&poll_fd, 1, (int)(seconds * 1000)) > 0 && recv(wire->fd, &byte, 1, MSG_PEEK) > 0;
}

/* Are `n` unused bytes there, or can they be read? */
static bool need(struct wire *wire, size_t n)
{
    char buffer[4096];
    if (wire->at > 65536) {
        memmove(wire->in.data, wire->in.data + wire->at, wire->in.len - wire->at);
        wire->in.len -= wire->at;
        wire->at = 0;
    }
    while (wire->in.len - wire->at < n) {
        ssize_t got = recv(wire->fd, buffer, sizeof buffer, 0);
        if (got <= 0)
            return false;
        str_append(&wire->in, buffer, (size_t)got);
    }
    return true;
}

static const char *unused(const struct wire *wire)
{
    return wire->in.data + wire->at;
}

/* A line without its CRLF, to be used before the next read; NULL at the end of the connection. */
static const char *line_of(struct wire *wire)
{
    for (size_t n = 2; need(wire, n); n++) {
        char *p = wire->in.data + wire->at;
        if (p[n - 2] == '\r' && p[n - 1] == '\n') {
            p[n - 2] = '\0';
            wire->at += n;
            return p;
        }
    }
    return NULL;
}

/* ---- HTTP ----------------------------------------------------------------------------------- */

struct head {
    int status;
    long length; /* -1: not said */
    bool chunked;
};

static bool read_head(struct wire *wire, struct head *head)
{
    const char *line = line_of(wire);
    *head = (struct head){.length = -1};
    if (!line || sscanf(line, "HTTP/1.%*d %d", &head->status) != 1)
        return false;
    while ((line = line_of(wire)) && *line) {
        if (!strncasecmp(line, "content-length:", 15))
            head->length = atol(line + 15);
        else if (!strncasecmp(line, "transfer-encoding:", 18))
            head->chunked = true;
    }
    return line != NULL;
}

/* Appends the next piece of a body to *out; false at its end. *broken: the framing is wrong. */
static bool read_chunk(struct wire *wire, struct str *out, bool *broken)
{
    const char *line = line_of(wire);
    char *end = NULL;
    size_t n = line ? strtoul(line, &end, 16) : 0;
    *broken = !line || end == line || *end || !need(wire, n + 2) ||
              memcmp(unused(wire) + n, "\r\n", 2) != 0;
    if (*broken)
        return false;
    str_append(out, unused(wire), n);
    wire->at += n + 2;
    return n > 0;
}

int client_raw(int port, const char *request, size_t len)
{
    struct wire wire;
    struct head head = {0};
    if (!wire_open(&wire, port, 0))
        return 0;
    /* A server that refuses early need not read all of it. */
    wire_send(&wire, request, len);
    if (!read_head(&wire, &head))
        head.status = 0;
    wire_close(&wire);
    return head.status;
}

int client_get(int port, const char *path, char **body)
{
    char request[512];
    struct wire wire;
    struct head head = {0};
    int len = snprintf(request, sizeof request,
                       "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    if (!wire_open(&wire, port, 0))
        return 0;
    bool fine = wire_send(&wire, request, (size_t)len) && read_head(&wire, &head) &&
                head.length >= 0 && need(&wire, (size_t)head.length);
    if (fine && body)
        *body = strndup(head.length ? unused(&wire) : "", (size_t)head.length);
    wire_close(&wire);
    return fine ? head.status : 0;
}

/* ---- one answer ----------------------------------------------------------------------------- */

void answer_release(struct answer *answer)
{
    str_release(&answer->text);
}

static bool send_chat(struct wire *wire, int port, json_t *body)
{
    struct str request = STR_INIT;
    json_object_set_new(body, "gauge", json_true());
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (!text || !wire_open(wire, port, 0)) {
        free(text);
        return false;
    }
    str_printf(&request,
               "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
               "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
               strlen(text));
    str_puts(&request, text);
    free(text);
    bool sent = wire_send(wire, request.data, request.len);
    str_release(&request);
    if (!sent)
        wire_close(wire);
    return sent;
}

bool client_begin(struct wire *wire, int port, json_t *body, size_t n_bytes)
{
    if (!send_chat(wire, port, body))
        return false;
    need(wire, n_bytes);
    return true;
}

static void take_usage(struct answer *answer, const json_t *usage)
{
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    size_t n = (size_t)json_integer_value(json_object_get(usage, "completion_tokens"));
    answer->n_prompt = (size_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
    answer->n_cached = (size_t)json_integer_value(json_object_get(details, "cached_tokens"));
    /* A token of much text takes two chunks, so that there may be more of them. */
    if (n > answer->n_tokens)
        answer->fault = ANSWER_LOST;
}

/* One event of a stream; *done at its last. */
static void take_event(struct answer *answer, const char *text, size_t len, double asked,
                       bool *usage, bool *done)
{
    if (!len || *text == ':')
        return;
    if (len == 12 && !memcmp(text, "data: [DONE]", 12)) {
        *done = true;
        return;
    }
    json_t *json = len > 6 && !memcmp(text, "data: ", 6)
                       ? json_loadb(text + 6, len - 6, JSON_REJECT_DUPLICATES, NULL)
                       : NULL;
    if (!json || *done || json_object_get(json, "error"))
        answer->fault = ANSWER_INVALID;
    const json_t *delta =
        json_object_get(json_array_get(json_object_get(json, "choices"), 0), "delta");
    const char *content = json_string_value(json_object_get(delta, "content"));
    if (content) {
        if (answer->seen)
            atomic_fetch_add(answer->seen, 1);
        if (!answer->n_tokens++)
            answer->first = clock_seconds() - asked;
        str_puts(&answer->text, content);
    }
    if (json_object_get(json, "usage")) {
        *usage = true;
        take_usage(answer, json_object_get(json, "usage"));
    }
    json_decref(json);
}

static void read_events(struct wire *wire, struct answer *answer, double asked)
{
    struct str body = STR_INIT;
    bool broken = false, done = false, usage = false;
    size_t at = 0;
    while (!answer->fault && read_chunk(wire, &body, &broken)) {
        for (size_t i = at; i < body.len; i++) {
            if (body.data[i] != '\n')
                continue;
            take_event(answer, body.data + at, i - at, asked, &usage, &done);
            at = i + 1;
        }
    }
    if (broken)
        answer->fault = ANSWER_CLOSED;
    else if (!answer->fault && (!done || !usage || at != body.len))
        answer->fault = ANSWER_LOST;
    str_release(&body);
}

static void read_document(struct wire *wire, long length, struct answer *answer)
{
    if (length < 0 || !need(wire, (size_t)length)) {
        answer->fault = ANSWER_CLOSED;
        return;
    }
    json_t *json = json_loadb(unused(wire), (size_t)length, JSON_REJECT_DUPLICATES, NULL);
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    const char *content =
        json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
    if (answer->status == 200 && !content)
        answer->fault = ANSWER_INVALID;
    else if (answer->status == 200) {
        str_puts(&answer->text, content);
        answer->n_tokens = json_array_size(json_object_get(json, "gauge"));
        take_usage(answer, json_object_get(json, "usage"));
    }
    json_decref(json);
}

void client_chat(int port, json_t *body, struct answer *answer)
{
    client_chat_seen(port, body, NULL, answer);
}

void client_chat_seen(int port, json_t *body, atomic_size_t *seen, struct answer *answer)
{
    struct wire wire;
    struct head head;
    double asked = clock_seconds();
    *answer = (struct answer){.fault = ANSWER_CLOSED, .text = STR_INIT, .seen = seen};
    if (!send_chat(&wire, port, body))
        return;
    if (read_head(&wire, &head)) {
        answer->status = head.status;
        answer->fault = ANSWER_FINE;
        if (head.chunked)
            read_events(&wire, answer, asked);
        else
            read_document(&wire, head.length, answer);
    }
    answer->whole = clock_seconds() - asked;
    wire_close(&wire);
}

/* ---- WebSocket ------------------------------------------------------------------------------ */

static bool send_frame(struct wire *wire, unsigned first, const char *data, size_t len)
{
    struct str frame = STR_INIT;
    unsigned char head[8] = {(unsigned char)first, 0x80 | 126, (unsigned char)(len >> 8),
                             (unsigned char)len};
    size_t n = 4;
    if (len < 126) {
        head[1] = (unsigned char)(0x80 | len);
        n = 2;
    }
    str_append(&frame, head, n);
    str_append(&frame, "\x12\x34\x56\x78", 4);
    for (size_t i = 0; i < len; i++)
        str_putc(&frame, (char)(data[i] ^ "\x12\x34\x56\x78"[i & 3]));
    bool sent = len < 65536 && wire_send(wire, frame.data, frame.len);
    str_release(&frame);
    return sent;
}

bool socket_say(struct socket *ws, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    bool sent = text && send_frame(&ws->wire, 0x81, text, strlen(text));
    free(text);
    return sent;
}

/* The payload of the next text frame (to be used before the next read); pings are answered. */
static const char *next_text(struct wire *wire, size_t *len, enum answer_fault *fault)
{
    for (;;) {
        size_t head = 2;
        if (!need(wire, 2))
            return NULL;
        unsigned first = (unsigned char)unused(wire)[0];
        *len = (unsigned char)unused(wire)[1] & 127;
        if (*len >= 126) {
            head = *len == 126 ? 4 : 10;
            if (!need(wire, head))
                return NULL;
            *len = 0;
            for (size_t i = 2; i < head; i++)
                *len = *len << 8 | (unsigned char)unused(wire)[i];
        }
        if (!need(wire, head + *len))
            return NULL;
        const char *data = unused(wire) + head;
        wire->at += head + *len;
        if (first == 0x81)
            return data;
        if (first == 0x89) {
            send_frame(wire, 0x8a, data, *len);
        } else {
            if (first != 0x88)
                *fault = ANSWER_INVALID;
            return NULL;
        }
    }
}

json_t *socket_next(struct socket *ws, enum answer_fault *fault)
{
    size_t len;
    const char *text = next_text(&ws->wire, &len, fault);
    json_t *json = NULL;
    if (text &&
        (!utf8_valid(text, len) || !(json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL))))
        *fault = ANSWER_INVALID;
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type && (!strcmp(type, "strength_updated") || !strcmp(type, "hello"))) {
        double version = json_number_value(json_object_get(json, "version"));
        if (version < ws->version)
            *fault = ANSWER_LOST;
        ws->version = version;
        ws->strength =
            json_number_value(json_object_get(json, *type == 'h' ? "strength" : "value"));
    }
    return json;
}

bool socket_open(struct socket *ws, int port, int receive_buffer)
{
    static const char request[] =
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    struct head head = {0};
    enum answer_fault fault = ANSWER_FINE;
    *ws = (struct socket){.version = -1};
    if (!wire_open(&ws->wire, port, receive_buffer))
        return false;
    json_t *hello = NULL;
    if (wire_send(&ws->wire, request, sizeof request - 1) && read_head(&ws->wire, &head) &&
        head.status == 101)
        hello = socket_next(ws, &fault);
    if (!hello)
        wire_close(&ws->wire);
    json_decref(hello);
    return hello != NULL;
}

/* The end of an answer: does all that came fit together? */
static void take_done(struct answer *answer, const json_t *done)
{
    const json_t *timings = json_object_get(done, "timings");
    const char *text = json_string_value(json_object_get(done, "full_response"));
    answer->n_prompt = (size_t)json_integer_value(json_object_get(timings, "prompt_tokens"));
    answer->n_cached = (size_t)json_integer_value(json_object_get(timings, "cached_tokens"));
    if (!text || strcmp(text, answer->text.data ? answer->text.data : "") ||
        answer->n_tokens !=
            (size_t)json_integer_value(json_object_get(timings, "generated_tokens")))
        answer->fault = ANSWER_LOST;
}

void socket_chat(struct socket *ws, const char *question, struct answer *answer)
{
    double asked = clock_seconds();
    json_t *json;
    *answer = (struct answer){.fault = ANSWER_FINE, .text = STR_INIT};
    socket_say(ws, json_pack("{s:s,s:s}", "type", "message", "content", question));
    while (!answer->fault && (json = socket_next(ws, &answer->fault))) {
        const char *type = json_string_value(json_object_get(json, "type"));
        bool done = type && !strcmp(type, "done");
        if (type && !strcmp(type, "gauge")) {
            if (!answer->n_tokens++)
                answer->first = clock_seconds() - asked;
        } else if (type && !strcmp(type, "token")) {
            str_puts(&answer->text, json_string_value(json_object_get(json, "content")));
        } else if (done) {
            take_done(answer, json);
            answer->whole = clock_seconds() - asked;
            answer->status = 200;
        } else if (type && !strcmp(type, "error")) {
            const char *code = json_string_value(json_object_get(json, "code"));
            answer->status = code && !strcmp(code, "busy") ? 429 : 500;
            done = true;
        }
        json_decref(json);
        if (done)
            return;
    }
    if (!answer->fault)
        answer->fault = ANSWER_CLOSED;
}
