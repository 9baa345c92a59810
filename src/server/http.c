/*
 * http.c - requests: checked (guard.h), routed by a table, answered as JSON or with an asset.
 *
 * A request with a body is checked before the body is read; what is refused then closes the
 * connection, so that the body is never mistaken for another request.
 */
#include "server/conn.h"

#include "server/frame.h"
#include "server/guard.h"
#include "server/route.h"
#include "server/voice_api.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX   1024       /* bytes of any header that we look at */
#define BODIES_BYTES (32 << 20) /* of all request bodies held at a time */

static const char page_policy[] = "default-src 'self'; img-src 'self' data:; media-src 'self' "
                                  "blob:; base-uri 'none'; form-action 'none'; "
                                  "frame-ancestors 'self'; object-src 'none'";

static const char *const security_headers[][2] = {
    {"x-content-type-options:", "nosniff"},
    {"referrer-policy:", "no-referrer"},
    {"cross-origin-resource-policy:", "same-origin"},
    {"cache-control:", "no-cache"},
};

/* ---- answers -------------------------------------------------------------------------------- */

void http_forget_body(struct server *server, struct conn *conn)
{
    server->body_bytes -= conn->exchange.request.len;
    str_release(&conn->exchange.request);
}

void http_release(struct server *server, struct conn *conn)
{
    free(conn->exchange.owned);
    free(conn->exchange.origin);
    http_forget_body(server, conn);
    memset(&conn->exchange, 0, sizeof conn->exchange);
}

static struct server *server_of(struct lws *wsi)
{
    return lws_context_user(lws_get_context(wsi));
}

static const struct {
    enum lws_token_indexes token;
    const char *name;
} methods[] = {
    {WSI_TOKEN_GET_URI, "GET"},         {WSI_TOKEN_HEAD_URI, "HEAD"},
    {WSI_TOKEN_POST_URI, "POST"},       {WSI_TOKEN_PUT_URI, "PUT"},
    {WSI_TOKEN_PATCH_URI, "PATCH"},     {WSI_TOKEN_DELETE_URI, "DELETE"},
    {WSI_TOKEN_OPTIONS_URI, "OPTIONS"},
};

/* The path without its query, where a key may stand. */
static void log_request(const struct server *server, struct lws *wsi, unsigned status)
{
    char path[HEADER_MAX], address[64];
    if (server->options.log.level < LOG_LEVEL_DEBUG)
        return;
    lws_get_peer_simple(wsi, address, sizeof address);
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (lws_hdr_copy(wsi, path, sizeof path, methods[i].token) <= 0)
            continue;
        /* Bytes that are no UTF-8 make the field, not the line, fail. */
        json_t *fields = json_pack("{s:s,s:i,s:s}", "method", methods[i].name, "status",
                                   (int)status, "address", address);
        json_object_set_new(fields, "path", json_string(path));
        log_event(&server->options.log, LOG_LEVEL_DEBUG, "request", fields);
        return;
    }
}

static int add_header(struct lws *wsi, const char *name, const char *value, uint8_t **p,
                      uint8_t *end)
{
    return lws_add_http_header_by_name(wsi, (const unsigned char *)name,
                                       (const unsigned char *)value, (int)strlen(value), p, end);
}

static int write_head(struct lws *wsi, const struct http_answer *answer, const char *origin,
                      bool close)
{
    uint8_t buffer[LWS_PRE + 4096], *start = buffer + LWS_PRE, *p = start;
    uint8_t *end = buffer + sizeof buffer - 1;
    if (lws_add_http_header_status(wsi, answer->status, &p, end))
        return -1;
    if (add_header(wsi, "content-security-policy:", answer->policy ? answer->policy : page_policy,
                   &p, end))
        return -1;
    for (size_t i = 0; i < sizeof security_headers / sizeof security_headers[0]; i++) {
        if (add_header(wsi, security_headers[i][0], security_headers[i][1], &p, end))
            return -1;
    }
    if (answer->type && add_header(wsi, "content-type:", answer->type, &p, end))
        return -1;
    if (answer->extra_name && add_header(wsi, answer->extra_name, answer->extra_value, &p, end))
        return -1;
    if (answer->preflight &&
        (add_header(wsi, "access-control-allow-methods:", "GET, POST, PUT", &p, end) ||
         add_header(wsi, "access-control-allow-headers:", "Authorization, Content-Type, X-Api-Key",
                    &p, end) ||
         add_header(wsi, "access-control-max-age:", "600", &p, end)))
        return -1;
    if (origin && (add_header(wsi, "access-control-allow-origin:", origin, &p, end) ||
                   add_header(wsi, "vary:", "origin", &p, end)))
        return -1;
    if (close && add_header(wsi, "connection:", "close", &p, end))
        return -1;
    if (answer->chunked && add_header(wsi, "transfer-encoding:", "chunked", &p, end))
        return -1;
    if (!answer->endless && lws_add_http_header_content_length(wsi, answer->len, &p, end))
        return -1;
    return lws_finalize_write_http_header(wsi, start, &p, end) ? -1 : 0;
}

int http_head(struct conn *conn, struct lws *wsi, const struct http_answer *answer)
{
    log_request(server_of(wsi), wsi, answer->status);
    return write_head(wsi, answer, conn->exchange.origin, conn->exchange.close);
}

int http_finish(struct conn *conn, struct lws *wsi)
{
    bool close = conn->exchange.close;
    http_release(server_of(wsi), conn);
    return close || lws_http_transaction_completed(wsi) ? -1 : 0;
}

/* Sends what the socket takes now; the rest when it is writable again. */
static int send_body(struct exchange *x, struct lws *wsi)
{
    while (x->sent < x->len && !lws_send_pipe_choked(wsi)) {
        uint8_t buffer[LWS_PRE + 4096];
        size_t n = x->len - x->sent;
        if (n > sizeof buffer - LWS_PRE)
            n = sizeof buffer - LWS_PRE;
        memcpy(buffer + LWS_PRE, x->body + x->sent, n);
        x->sent += n;
        enum lws_write_protocol kind = x->sent < x->len ? LWS_WRITE_HTTP : LWS_WRITE_HTTP_FINAL;
        if (lws_write(wsi, buffer + LWS_PRE, n, kind) < 0)
            return -1;
    }
    return 0;
}

int http_answer(struct conn *conn, struct lws *wsi, struct http_answer answer)
{
    struct exchange *x = &conn->exchange;
    bool head = lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI) > 0;
    free(x->owned);
    x->owned = answer.owned;
    x->body = answer.body;
    x->len = head ? 0 : answer.len;
    x->sent = 0;
    x->route = NULL;
    x->answering = true;
    if (http_head(conn, wsi, &answer))
        return -1;
    return http_writeable(conn, wsi);
}

int http_writeable(struct conn *conn, struct lws *wsi)
{
    struct exchange *x = &conn->exchange;
    if (conn->stream)
        return stream_writeable(conn);
    if (conn->voice)
        return voice_writeable(conn);
    if (!x->answering)
        return 0;
    if (send_body(x, wsi))
        return -1;
    if (x->sent == x->len)
        return http_finish(conn, wsi);
    lws_callback_on_writable(wsi);
    return 0;
}

int http_json(struct conn *conn, struct lws *wsi, unsigned status, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!text)
        return -1;
    struct http_answer answer = {.status = status,
                                 .type = "application/json",
                                 .body = (const unsigned char *)text,
                                 .len = strlen(text),
                                 .owned = text};
    if (status == 401) {
        answer.extra_name = "www-authenticate:";
        answer.extra_value = "Bearer";
    } else if (status == 503 || status == 429) {
        answer.extra_name = "retry-after:";
        answer.extra_value = "1";
    }
    return http_answer(conn, wsi, answer);
}

int http_refuse(struct conn *conn, struct lws *wsi, unsigned status, const char *type,
                const char *reason, const char *message)
{
    json_t *error = frame_error(status, type, message);
    if (error && *reason)
        json_object_set_new(error, "reason", json_string(reason));
    return http_json(conn, wsi, status, json_pack("{s:o}", "error", error));
}

int http_error(struct conn *conn, struct lws *wsi, unsigned status, const char *type,
               const char *message)
{
    return http_refuse(conn, wsi, status, type, reason_name(REASON_NONE), message);
}

/* ---- checks --------------------------------------------------------------------------------- */

/* Copies of the headers that guard.h judges. */
struct headers {
    char host[HEADER_MAX], origin[HEADER_MAX], authorization[HEADER_MAX], api_key[HEADER_MAX],
        cookie[4 * HEADER_MAX], query[HEADER_MAX];
};

/* NULL if the header is missing; what does not fit becomes "", which no check accepts. */
static const char *copy_header(struct lws *wsi, enum lws_token_indexes token, char *buffer,
                               size_t size)
{
    if (lws_hdr_total_length(wsi, token) <= 0)
        return NULL;
    if (lws_hdr_copy(wsi, buffer, (int)size, token) < 0)
        buffer[0] = '\0';
    return buffer;
}

static const char *copy_custom(struct lws *wsi, const char *name, char *buffer, size_t size)
{
    int len = (int)strlen(name);
    if (lws_hdr_custom_length(wsi, name, len) < 0)
        return NULL;
    if (lws_hdr_custom_copy(wsi, buffer, (int)size, name, len) < 0)
        buffer[0] = '\0';
    return buffer;
}

static void read_headers(struct lws *wsi, struct headers *h, struct guard_request *request)
{
    *request = (struct guard_request){
        .host = copy_header(wsi, WSI_TOKEN_HOST, h->host, sizeof h->host),
        .origin = copy_header(wsi, WSI_TOKEN_ORIGIN, h->origin, sizeof h->origin),
        .authorization = copy_header(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, h->authorization,
                                     sizeof h->authorization),
        .api_key = copy_custom(wsi, "x-api-key:", h->api_key, sizeof h->api_key),
        .cookie = copy_header(wsi, WSI_TOKEN_HTTP_COOKIE, h->cookie, sizeof h->cookie),
        .query_key = lws_get_urlarg_by_name(wsi, "key=", h->query, sizeof h->query),
    };
}

/* 0: may pass; else an answer was begun and *rc is the callback's result. */
static bool refused(struct server *server, struct conn *conn, struct lws *wsi, bool public, int *rc)
{
    struct headers headers;
    struct guard_request request;
    read_headers(wsi, &headers, &request);
    conn->exchange.close = true;
    switch (guard_check(&request, server->options.host, server->options.allow_origin)) {
    case GUARD_BAD_HOST:
        *rc = http_error(conn, wsi, 400, "invalid_request_error", "the Host header is not valid");
        return true;
    case GUARD_FOREIGN_HOST:
        *rc = http_error(conn, wsi, 403, "permission_error",
                         "this name is not the server's; use http://127.0.0.1 or localhost");
        return true;
    case GUARD_FOREIGN_ORIGIN:
        *rc = http_error(conn, wsi, 403, "permission_error",
                         "pages of another origin may not use this server");
        return true;
    case GUARD_ALLOWED_ORIGIN:
        conn->exchange.origin = strdup(request.origin);
        if (!conn->exchange.origin) {
            *rc = -1;
            return true;
        }
        break;
    case GUARD_PASS:
        break;
    }
    if (!public && !guard_key(&request, server->options.api_key)) {
        *rc = http_error(conn, wsi, 401, "authentication_error", "an API key is needed");
        return true;
    }
    conn->exchange.close = false;
    return false;
}

/* Does the request announce a body in a way that we can bound? Refuses it otherwise. */
static bool bad_body(struct server *server, struct conn *conn, struct lws *wsi, int *rc)
{
    char length[32], type[128];
    bool chunked = lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING) > 0;
    const char *announced = copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, length, sizeof length);
    conn->exchange.close = true;
    if (chunked && announced)
        *rc = http_error(conn, wsi, 400, "invalid_request_error",
                         "both Content-Length and Transfer-Encoding");
    else if (chunked || !announced)
        *rc = http_error(conn, wsi, 411, "invalid_request_error", "a Content-Length is needed");
    else if (!*length || strspn(length, "0123456789") != strlen(length) || strlen(length) > 15)
        *rc = http_error(conn, wsi, 400, "invalid_request_error", "Content-Length is no number");
    else if (strtoull(length, NULL, 10) > server->options.body_bytes)
        *rc = http_error(conn, wsi, 413, "invalid_request_error", "the request is too large");
    else if (strtoull(length, NULL, 10) > BODIES_BYTES - server->body_bytes)
        *rc = http_error(conn, wsi, 503, "unavailable_error", "too many large requests; try again");
    else if (strtoull(length, NULL, 10) &&
             (!copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, type, sizeof type) ||
              strncasecmp(type, "application/json", 16)))
        /* A page elsewhere may post text/plain without being asked for permission first. */
        *rc = http_error(conn, wsi, 403, "permission_error", "send application/json");
    else {
        conn->exchange.close = false;
        return false;
    }
    return true;
}

/* Does the request announce a body, be it an empty one? */
static bool has_body(struct lws *wsi)
{
    return lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH) > 0 ||
           lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING) > 0;
}

/* ---- dispatch ------------------------------------------------------------------------------- */

static const char *method_of(struct lws *wsi)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (lws_hdr_total_length(wsi, methods[i].token) > 0)
            return methods[i].name;
    }
    return "";
}

/* The arguments of the request except the key, encoded again for an attribute in HTML. */
static void add_arguments(struct lws *wsi, struct str *out)
{
    char argument[HEADER_MAX];
    const char *before = "?";
    int len;
    for (int i = 0; (len = lws_hdr_copy_fragment(wsi, argument, sizeof argument,
                                                 WSI_TOKEN_HTTP_URI_ARGS, i)) > 0;
         i++) {
        size_t name = strcspn(argument, "=");
        if (!strncmp(argument, "key=", 4))
            continue;
        str_puts(out, before);
        str_url(out, argument, name);
        if (argument[name]) {
            str_putc(out, '=');
            str_url(out, argument + name + 1, (size_t)len - name - 1);
        }
        before = "&amp;";
    }
}

/* A page opened with ?key= gets the key as a cookie, which its scripts and socket then carry. It
 * comes back to itself by its own request: a redirect would not carry a strict cookie. */
static int answer_with_cookie(struct server *server, struct conn *conn, struct lws *wsi,
                              const char *path)
{
    struct str cookie = STR_INIT, body = STR_INIT;
    str_printf(&cookie, "gyaru_key=%s; HttpOnly; SameSite=Strict; Path=/", server->options.api_key);
    str_printf(&body, "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url=%s", path);
    add_arguments(wsi, &body);
    str_puts(&body, "\">");
    size_t len = body.len;
    char *text = str_take(&cookie), *page = str_take(&body);
    if (!text || !page) {
        free(text);
        free(page);
        return -1;
    }
    int rc = http_answer(conn, wsi,
                         (struct http_answer){.status = 200,
                                              .type = "text/html; charset=utf-8",
                                              .body = (const unsigned char *)page,
                                              .len = len,
                                              .owned = page,
                                              .extra_name = "set-cookie:",
                                              .extra_value = text});
    free(text);
    return rc;
}

/* A browser asks first, without a key, whether another page may send what it wants to send. */
static int answer_preflight(struct conn *conn, struct lws *wsi)
{
    return http_answer(conn, wsi, (struct http_answer){.status = 204, .preflight = true});
}

static int not_allowed(struct conn *conn, struct lws *wsi)
{
    conn->exchange.close = true;
    return http_error(conn, wsi, 405, "invalid_request_error",
                      "this path does not know this method");
}

int http_request(struct server *server, struct conn *conn, struct lws *wsi, const char *path)
{
    if (conn->stream || conn->voice) /* one answer at a time */
        return -1;
    http_release(server, conn);
    const char *method = method_of(wsi);
    bool reads = !strcmp(method, "GET") || !strcmp(method, "HEAD");
    bool known_path;
    const struct route *route = route_find(reads ? "GET" : method, path, &known_path);
    int rc;
    bool preflight = !strcmp(method, "OPTIONS");
    if (refused(server, conn, wsi, preflight || (route && route->is_public), &rc))
        return rc;
    if (preflight)
        return answer_preflight(conn, wsi);
    bool wants_body =
        route && (route->body == BODY_JSON || (route->body == BODY_MAYBE && has_body(wsi)));
    if (!reads && (!route || wants_body) && bad_body(server, conn, wsi, &rc))
        return rc;
    /* libwebsockets goes on to wait for a body that nobody announced. */
    conn->exchange.close = !reads && !has_body(wsi);
    if (wants_body) {
        conn->exchange.route = route;
        return 0;
    }
    if (route) {
        conn->exchange.path = path;
        return route->answer(server, conn, wsi);
    }
    if (known_path || !reads)
        return not_allowed(conn, wsi);
    char key[HEADER_MAX];
    if (server->options.api_key && (!strcmp(path, "/") || !strcmp(path, "/overlay")) &&
        lws_get_urlarg_by_name(wsi, "key=", key, sizeof key))
        return answer_with_cookie(server, conn, wsi, path);
    if (asset_answer(conn, wsi, path, &rc))
        return rc;
    return http_error(conn, wsi, 404, "not_found_error", "there is nothing of this name");
}

int http_body(struct server *server, struct conn *conn, struct lws *wsi, const void *data,
              size_t len)
{
    struct exchange *x = &conn->exchange;
    if (!x->route) /* refused already */
        return -1;
    if (x->request.len + len > server->options.body_bytes ||
        server->body_bytes + len > BODIES_BYTES)
        return -1;
    size_t before = x->request.len;
    str_append(&x->request, data, len);
    server->body_bytes += x->request.len - before;
    return str_failed(&x->request) ? -1 : 0;
}

int http_body_end(struct server *server, struct conn *conn, struct lws *wsi)
{
    /* libwebsockets calls again when more arrives before the answer is complete, and would go on
     * without end: who sends a second request into an answer loses the connection. */
    const struct route *route = conn->exchange.route;
    conn->exchange.route = NULL;
    return route ? route->answer(server, conn, wsi) : -1;
}

bool http_is_path(struct lws *wsi, const char *path)
{
    char uri[64];
    const char *asked = copy_header(wsi, WSI_TOKEN_GET_URI, uri, sizeof uri);
    return asked && !strcmp(asked, path);
}

int http_upgrade(struct server *server, struct lws *wsi)
{
    /* libwebsockets has no place for us to keep anything yet. */
    struct conn conn = {.ws = NULL};
    int rc = 0;
    if (refused(server, &conn, wsi, false, &rc)) {
        http_release(server, &conn);
        return -1;
    }
    conn.exchange.close = true;
    bool watches = http_is_path(wsi, PATH_OVERLAY);
    if (!watches && !http_is_path(wsi, PATH_WS))
        rc = http_error(&conn, wsi, 404, "not_found_error", "the WebSocket is at " PATH_WS);
    else if (server->stopping)
        rc = http_error(&conn, wsi, 503, "unavailable_error", "Shutting down");
    else if (!watches && engine_state(server->engine) != ENGINE_READY)
        rc = http_error(&conn, wsi, 503, "unavailable_error", "Loading model");
    http_release(server, &conn);
    return rc;
}
