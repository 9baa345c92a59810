/* ws_client.c - see ws_client.h. */
#include "ws_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE 20000 /* ms for anything that must come */

int tcp_connect(int port, int receive_buffer)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (receive_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        fail_msg("cannot connect to port %d: %s", port, strerror(errno));
    return fd;
}

bool tcp_send(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool readable(int fd, int ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, ms) > 0;
}

bool tcp_closes(int fd, double seconds)
{
    char buffer[4096];
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double end = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec + seconds;
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        double left = end - ((double)t.tv_sec + 1e-9 * (double)t.tv_nsec);
        if (left <= 0 || !readable(fd, (int)(left * 1000) + 1))
            return false;
        if (recv(fd, buffer, sizeof buffer, 0) <= 0)
            return true;
    }
}

/* ---- HTTP ---- */

int http_raw(int port, const char *request, size_t len, char **answer)
{
    int fd = tcp_connect(port, 0);
    char *text = NULL;
    size_t n = 0;
    /* A server that refuses early need not read all of it. */
    tcp_send(fd, request, len);
    for (;;) {
        text = realloc(text, n + 65537);
        ssize_t got = readable(fd, PATIENCE) ? recv(fd, text + n, 65536, 0) : -1;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = '\0';
    close(fd);
    int status = 0;
    sscanf(text, "HTTP/%*d.%*d %d", &status);
    if (answer)
        *answer = text;
    else
        free(text);
    return status;
}

int http_get_with(int port, const char *path, const char *headers, char **answer)
{
    char request[4096];
    int len = snprintf(request, sizeof request,
                       "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sConnection: close\r\n\r\n", path,
                       port, headers ? headers : "");
    return http_raw(port, request, (size_t)len, answer);
}

int http_get(int port, const char *path, char **answer)
{
    return http_get_with(port, path, NULL, answer);
}

double http_number(int port, const char *path, const char *before)
{
    char *answer;
    assert_int_equal(http_get(port, path, &answer), 200);
    const char *at = strstr(answer, before);
    if (!at)
        fail_msg("%s lacks '%s'", path, before);
    double value = atof(at + strlen(before));
    free(answer);
    return value;
}

double http_metric(int port, const char *name)
{
    char line[100];
    assert_in_range(snprintf(line, sizeof line, "\n%s ", name), 1, sizeof line - 1);
    return http_number(port, "/metrics", line);
}

/* ---- WebSocket ---- */

/* Waits until `n` bytes are buffered; false if the connection ends first. */
static bool need(struct ws_client *ws, size_t n)
{
    while (ws->len < n) {
        if (n > sizeof ws->buffer)
            fail_msg("a message of %zu bytes", n);
        if (!readable(ws->fd, PATIENCE))
            fail_msg("no message in %d ms", PATIENCE);
        ssize_t got = recv(ws->fd, ws->buffer + ws->len, sizeof ws->buffer - ws->len, 0);
        if (got <= 0)
            return false;
        ws->len += (size_t)got;
    }
    return true;
}

static void drop(struct ws_client *ws, size_t n)
{
    ws->len -= n;
    memmove(ws->buffer, ws->buffer + n, ws->len);
}

struct ws_client *ws_connect_with(int port, const char *headers, int receive_buffer)
{
    return ws_connect_path(port, "/ws", headers, receive_buffer);
}

struct ws_client *ws_connect_path(int port, const char *path, const char *headers,
                                  int receive_buffer)
{
    struct ws_client *ws = calloc(1, sizeof *ws);
    char request[2048];
    int len = snprintf(request, sizeof request,
                       "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                       "Sec-WebSocket-Version: 13\r\n%s\r\n",
                       path, port, headers ? headers : "");
    ws->fd = tcp_connect(port, receive_buffer);
    tcp_send(ws->fd, request, (size_t)len);
    size_t n = 4;
    while (need(ws, n) && memcmp(ws->buffer + n - 4, "\r\n\r\n", 4))
        n++;
    if (ws->len < n)
        return ws;
    sscanf((char *)ws->buffer, "HTTP/1.%*d %d", &ws->status);
    drop(ws, n);
    return ws;
}

struct ws_client *ws_connect(int port, json_t **hello)
{
    struct ws_client *ws = ws_connect_with(port, NULL, 0);
    assert_int_equal(ws->status, 101);
    json_t *message = ws_wait(ws, "hello");
    if (hello)
        *hello = message;
    else
        json_decref(message);
    return ws;
}

void ws_disconnect(struct ws_client *ws)
{
    close(ws->fd);
    free(ws);
}

bool ws_frame(struct ws_client *ws, unsigned first, const void *data, size_t len, bool masked)
{
    static const unsigned char mask[4] = {0x12, 0x34, 0x56, 0x78};
    unsigned char *frame = malloc(len + 14);
    size_t n = 2;
    frame[0] = (unsigned char)first;
    if (len < 126) {
        frame[1] = (unsigned char)len;
    } else if (len < 65536) {
        frame[1] = 126;
        frame[n++] = (unsigned char)(len >> 8);
        frame[n++] = (unsigned char)len;
    } else {
        frame[1] = 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            frame[n++] = (unsigned char)((uint64_t)len >> shift);
    }
    if (masked) {
        frame[1] |= 0x80;
        memcpy(frame + n, mask, 4);
        n += 4;
    }
    for (size_t i = 0; i < len; i++)
        frame[n + i] = ((const unsigned char *)data)[i] ^ (masked ? mask[i & 3] : 0);
    bool sent = tcp_send(ws->fd, frame, n + len);
    free(frame);
    return sent;
}

void ws_say(struct ws_client *ws, const char *format, ...)
{
    char text[8192];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    assert_in_range(len, 1, sizeof text - 1);
    if (!ws_frame(ws, 0x81, text, (size_t)len, true))
        fail_msg("the connection is closed");
}

/* The payload of the next frame lies at *start in the buffer; returns its opcode, -1 at the end. */
static int next_frame(struct ws_client *ws, size_t *start, size_t *len)
{
    *start = 2;
    *len = 0;
    if (!need(ws, 2))
        return -1;
    *len = ws->buffer[1] & 127;
    if (*len >= 126) {
        size_t bytes = *len == 126 ? 2 : 8;
        if (!need(ws, 2 + bytes))
            return -1;
        *len = 0;
        for (size_t i = 0; i < bytes; i++)
            *len = *len << 8 | ws->buffer[2 + i];
        *start += bytes;
    }
    if (!need(ws, *start + *len))
        return -1;
    if (!(ws->buffer[0] & 0x80) || ws->buffer[0] & 0x70)
        fail_msg("a fragmented or compressed frame: %02x", ws->buffer[0]);
    return ws->buffer[0] & 15;
}

json_t *ws_next(struct ws_client *ws, int *code)
{
    size_t start = 0, len = 0;
    int opcode;
    while ((opcode = next_frame(ws, &start, &len)) == 9 || opcode == 10) {
        if (opcode == 9)
            ws_frame(ws, 0x8a, ws->buffer + start, len, true);
        drop(ws, start + len);
    }
    if (opcode != 1) {
        if (code)
            *code = opcode == 8 && len >= 2 ? ws->buffer[start] << 8 | ws->buffer[start + 1] : 0;
        return NULL;
    }
    json_error_t why;
    json_t *json = json_loadb((char *)ws->buffer + start, len, 0, &why);
    if (!json)
        fail_msg("not JSON: %s", why.text);
    drop(ws, start + len);
    return json;
}

json_t *ws_wait(struct ws_client *ws, const char *type)
{
    for (;;) {
        int code = 0;
        json_t *message = ws_next(ws, &code);
        if (!message)
            fail_msg("closed with %d while waiting for %s", code, type);
        if (!strcmp(ws_text(message, "type"), type))
            return message;
        json_decref(message);
    }
}

int ws_close_code(struct ws_client *ws)
{
    int code = 0;
    json_t *message;
    while ((message = ws_next(ws, &code)))
        json_decref(message);
    return code;
}

const char *ws_text(const json_t *message, const char *key)
{
    const char *text = json_string_value(json_object_get(message, key));
    if (!text)
        fail_msg("a message without the text '%s'", key);
    return text;
}

double ws_number(const json_t *message, const char *key)
{
    const json_t *value = json_object_get(message, key);
    if (!json_is_number(value))
        fail_msg("a message without the number '%s'", key);
    return json_number_value(value);
}
