/*
 * ws_client.h - a small HTTP and WebSocket client for tests, able to misbehave.
 *
 * Functions fail the running test on what no test expects (cannot connect, no answer in time).
 */
#ifndef TESTS_WS_CLIENT_H
#define TESTS_WS_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* A connected TCP socket; receive_buffer 0: the system's default. */
int tcp_connect(int port, int receive_buffer);

/* Sends all of it; false if the peer has closed. */
bool tcp_send(int fd, const void *data, size_t len);

/* True if the peer closes within `seconds`; what it sends before is thrown away. */
bool tcp_closes(int fd, double seconds);

/* Sends raw bytes as a request and gives the status of the answer (0: closed without one);
 * *answer (caller frees; may be NULL) gets head and body. The connection is closed. */
int http_raw(int port, const char *request, size_t len, char **answer);

/* GET with the right Host, and `headers` ("Name: value\r\n" lines or NULL). */
int http_get_with(int port, const char *path, const char *headers, char **answer);
int http_get(int port, const char *path, char **answer);

/* GETs what must answer with 200; the number that follows `before` in the answer. */
double http_number(int port, const char *path, const char *before);

/* Of /metrics, by name and labels. */
double http_metric(int port, const char *name);

struct ws_client {
    int fd;
    int status; /* of the upgrade; 101: open */
    unsigned char buffer[1 << 17];
    size_t len;
};

/* `headers` as above. The client is usable if the status is 101. */
struct ws_client *ws_connect_with(int port, const char *headers, int receive_buffer);

/* The same at another path than /ws. */
struct ws_client *ws_connect_path(int port, const char *path, const char *headers,
                                  int receive_buffer);

/* Connects, expects 101 and takes the hello (caller frees *hello; may be NULL). */
struct ws_client *ws_connect(int port, json_t **hello);
void ws_disconnect(struct ws_client *ws); /* without a close frame */

/* A text message. The format is printf's. */
__attribute__((format(printf, 2, 3))) void ws_say(struct ws_client *ws, const char *format, ...);

/* One frame with this first byte (0x81: a whole text); false if the peer has closed. */
bool ws_frame(struct ws_client *ws, unsigned first, const void *data, size_t len, bool masked);

/* The next message; NULL when the connection closed: *code is then the close code, 0 without. */
json_t *ws_next(struct ws_client *ws, int *code);

/* The next message of this type (caller frees); others are thrown away. */
json_t *ws_wait(struct ws_client *ws, const char *type);

/* Reads to the end of the connection and gives the close code, 0 without. */
int ws_close_code(struct ws_client *ws);

/* Fields of messages; fail the test if they are absent. */
const char *ws_text(const json_t *message, const char *key);
double ws_number(const json_t *message, const char *key);

#endif
