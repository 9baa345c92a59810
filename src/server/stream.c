/* stream.c - see stream.h. */
#include "server/stream.h"

#include "base/clock.h"
#include "server/log.h"
#include "server/route.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECE_BYTES   4096 /* of one write; so much is made before it is sent */
#define ADDRESS_BYTES 64

struct stream {
    struct server *server;
    struct conn *conn;
    struct lws *wsi;
    struct stream *next;
    char address[ADDRESS_BYTES]; /* of the client */
    struct job *job;
    struct frame frame;
    bool events;          /* server-sent events; else one document at the end */
    bool chunked;         /* HTTP/1.1 */
    bool begun;           /* the head is sent */
    bool ended;           /* the last byte is in `out` */
    bool ping;            /* one is due */
    struct str body, out; /* events being made; the same in HTTP's framing, to be sent */
    size_t sent;          /* of out */
    struct str text;      /* so far; of an answer that is not streamed */
    json_t *gauges;       /* the same of the meter, NULL: not asked for */
    bool has_meter;
    struct job_event meter; /* of the newest token */
    double blocked_since;   /* seconds, clock: asked for a writable socket; 0: not waiting */
    double last_said;       /* seconds, clock */
};

/* ---- writing events ------------------------------------------------------------------------- */

/* Appends a document (taken over) as one event. */
static void add_event(struct stream *s, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (text) {
        str_puts(&s->body, "data: ");
        str_puts(&s->body, text);
        str_puts(&s->body, "\n\n");
    } else {
        s->body.failed = true;
    }
    free(text);
}

static int begin_events(struct stream *s)
{
    if (s->begun)
        return 0;
    s->begun = true;
    if (!s->chunked)
        s->conn->exchange.close = true;
    struct http_answer head = {.status = 200,
                               .type = "text/event-stream",
                               .endless = true,
                               .chunked = s->chunked,
                               .extra_name = "x-accel-buffering:",
                               .extra_value = "no"};
    if (http_head(s->conn, s->wsi, &head))
        return -1;
    if (s->frame.style == FRAME_CHAT)
        add_event(s, frame_role(&s->frame));
    return 0;
}

static void add_token(struct stream *s, const struct job_event *event)
{
    if (s->events)
        str_clear(&s->text);
    job_event_text(event, &s->text);
    if (event->kind == JOB_TOKEN) {
        s->meter = *event;
        s->has_meter = true;
    }
    const struct job_event *meter = s->has_meter ? &s->meter : NULL;
    if (s->events && (event->text_len || (s->frame.gauge && event->kind == JOB_TOKEN)))
        add_event(s, frame_text(&s->frame, s->text.data ? s->text.data : "", s->text.len, meter));
    else if (!s->events && s->gauges && event->kind == JOB_TOKEN)
        json_array_append_new(s->gauges, frame_gauge(&s->frame, meter));
}

/* ---- the end -------------------------------------------------------------------------------- */

/* What went wrong: its status, 0 if nothing did. */
static unsigned end_status(const struct stream *s, const char **type, const char **message)
{
    const struct job_end *end = &s->job->end;
    *type = "server_error";
    *message = end->error.text;
    if (end->failed && end->error.status == GYARU_USAGE) {
        *type = "invalid_request_error";
        return 400;
    }
    if (end->failed && end->error.status == GYARU_NO_MEMORY) {
        *type = "unavailable_error";
        return 503;
    }
    if (end->failed)
        return 500;
    if (end->finish == GYARU_CANCELLED) {
        *type = "unavailable_error";
        *message = "Shutting down";
        return 503;
    }
    return 0;
}

static void end_events(struct stream *s)
{
    const char *type, *message;
    unsigned status = end_status(s, &type, &message);
    s->ended = true;
    if (status) {
        add_event(s, json_pack("{s:o}", "error", frame_error(status, type, message)));
        return;
    }
    add_event(s, frame_end(&s->frame, s->job, s->has_meter ? &s->meter : NULL));
    if (s->frame.style != FRAME_CHAT)
        return;
    if (s->frame.usage)
        add_event(s, frame_usage(&s->frame, s->job));
    str_puts(&s->body, "data: [DONE]\n\n");
}

/* A whole answer, or an error that came before anything else. The stream is gone afterwards. */
static int answer_at_once(struct stream *s)
{
    struct conn *conn = s->conn;
    struct lws *wsi = s->wsi;
    const char *type, *message;
    unsigned status = end_status(s, &type, &message);
    json_t *json;
    if (status) {
        json = json_pack("{s:o}", "error", frame_error(status, type, message));
    } else {
        json = frame_whole(&s->frame, s->text.data ? s->text.data : "", s->text.len, s->job,
                           s->gauges);
        s->gauges = NULL;
    }
    int seconds = s->server->options.send_seconds;
    stream_close(conn);
    lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, seconds);
    return http_json(conn, wsi, status ? status : 200, json);
}

/* ---- the socket ----------------------------------------------------------------------------- */

static void want_write(struct stream *s)
{
    if (!s->blocked_since)
        s->blocked_since = clock_seconds();
    lws_callback_on_writable(s->wsi);
}

static void kill_connection(struct stream *s, const char *why)
{
    log_event(&s->server->options.log, LOG_LEVEL_WARN, "closed",
              json_pack("{s:s,s:s}", "address", s->address, "reason", why));
    job_cancel(s->job);
    engine_wake(s->server->engine);
    lws_set_timeout(s->wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
}

/* Puts what was made into HTTP's framing. */
static int wrap(struct stream *s)
{
    str_clear(&s->out);
    s->sent = 0;
    if (s->body.len && s->chunked)
        str_printf(&s->out, "%zx\r\n", s->body.len);
    str_append(&s->out, s->body.data, s->body.len);
    if (s->body.len && s->chunked)
        str_puts(&s->out, "\r\n");
    if (s->ended && s->chunked)
        str_puts(&s->out, "0\r\n\r\n");
    bool failed = str_failed(&s->body) || str_failed(&s->out);
    str_clear(&s->body);
    return failed ? -1 : 0;
}

/* Makes the next piece of a streamed answer; *at_once: it turned out to be an error instead. */
static int make_events(struct stream *s, bool *at_once)
{
    struct job_event event;
    while (!s->ended && s->body.len < PIECE_BYTES && job_pop(s->job, &event)) {
        const char *type, *message;
        if (event.kind == JOB_PREFILL)
            continue;
        if (event.kind == JOB_END && !s->begun && end_status(s, &type, &message)) {
            *at_once = true;
            return 0;
        }
        if (begin_events(s))
            return -1;
        if (event.kind == JOB_END)
            end_events(s);
        else
            add_token(s, &event);
    }
    if (s->ping && !s->body.len && !s->ended) {
        if (begin_events(s))
            return -1;
        str_puts(&s->body, ":\n\n");
    }
    s->ping = false;
    return wrap(s);
}

static int write_piece(struct stream *s)
{
    uint8_t buffer[LWS_PRE + PIECE_BYTES];
    size_t n = s->out.len - s->sent;
    if (n > PIECE_BYTES)
        n = PIECE_BYTES;
    memcpy(buffer + LWS_PRE, s->out.data + s->sent, n);
    s->sent += n;
    bool last = s->ended && s->sent == s->out.len;
    return lws_write(s->wsi, buffer + LWS_PRE, n, last ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) < 0
               ? -1
               : 0;
}

static int write_events(struct stream *s)
{
    struct conn *conn = s->conn;
    struct lws *wsi = s->wsi;
    while (!lws_send_pipe_choked(wsi)) {
        bool at_once = false;
        if (s->sent == s->out.len) {
            if (s->ended) {
                stream_close(conn);
                return http_finish(conn, wsi);
            }
            if (make_events(s, &at_once))
                return -1;
            if (at_once)
                return answer_at_once(s);
            if (!s->out.len)
                return 0;
            s->last_said = clock_seconds();
        }
        if (s->out.len && write_piece(s))
            return -1;
    }
    want_write(s);
    return 0;
}

int stream_writeable(struct conn *conn)
{
    struct stream *s = conn->stream;
    s->blocked_since = 0;
    if (s->events)
        return write_events(s);
    struct job_event event;
    while (job_pop(s->job, &event)) {
        if (event.kind == JOB_END)
            return answer_at_once(s);
        if (event.kind != JOB_PREFILL)
            add_token(s, &event);
    }
    return str_failed(&s->text) ? -1 : 0;
}

/* ---- beginning ------------------------------------------------------------------------------ */

static int count_of(const struct server *server, const char *address)
{
    int n = 0;
    for (const struct stream *s = server->streams; s; s = s->next)
        n += !strcmp(s->address, address);
    return n;
}

static bool speaks_http_1_0(struct lws *wsi)
{
    char version[16];
    return lws_hdr_copy(wsi, version, sizeof version, WSI_TOKEN_HTTP) > 0 &&
           !strcmp(version, "HTTP/1.0");
}

static struct stream *stream_new(struct server *server, struct conn *conn, struct lws *wsi,
                                 struct ask *ask, enum frame_style style)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    *s = (struct stream){.server = server,
                         .conn = conn,
                         .wsi = wsi,
                         .events = ask->stream,
                         .chunked = !speaks_http_1_0(wsi),
                         .last_said = clock_seconds(),
                         .frame = {.style = style,
                                   .info = engine_info(server->engine),
                                   .created = (int64_t)time(NULL),
                                   .gauge = ask->gauge,
                                   .usage = ask->usage}};
    snprintf(s->frame.id, sizeof s->frame.id, "chatcmpl-%llx-%llx",
             (unsigned long long)s->frame.created, (unsigned long long)++server->next_answer);
    lws_get_peer_simple(wsi, s->address, sizeof s->address);
    if (ask->gauge && !ask->stream)
        s->gauges = json_array();
    s->job = job_new(ask->messages, ask->n_messages, ask->max_tokens, server->options.ring_events);
    ask->messages = NULL;
    ask->n_messages = 0;
    if (!s->job) {
        json_decref(s->gauges);
        free(s);
        return NULL;
    }
    s->job->options = ask->options;
    ask->options = (struct job_options){0};
    return s;
}

static void stream_free(struct stream *s)
{
    job_unref(s->job);
    str_release(&s->body);
    str_release(&s->out);
    str_release(&s->text);
    json_decref(s->gauges);
    free(s);
}

int stream_begin(struct server *server, struct conn *conn, struct lws *wsi, struct ask *ask,
                 enum frame_style style)
{
    struct stream *s = stream_new(server, conn, wsi, ask, style);
    ask_release(ask);
    if (!s)
        return http_error(conn, wsi, 503, "unavailable_error", "out of memory; try again");
    if (count_of(server, s->address) >= server->options.per_address ||
        engine_submit(server->engine, s->job)) {
        bool many = count_of(server, s->address) >= server->options.per_address;
        stream_free(s);
        return http_error(conn, wsi, 429, "rate_limit_error",
                          many ? "too many requests from this address; try again in a moment"
                               : "too many requests are waiting; try again in a moment");
    }
    http_forget_body(server, conn);
    conn->stream = s;
    s->next = server->streams;
    server->streams = s;
    /* The answer may take as long as it takes; stream_tick_all() judges its reader. */
    lws_set_timeout(wsi, NO_PENDING_TIMEOUT, 0);
    return 0;
}

void stream_close(struct conn *conn)
{
    struct stream *s = conn->stream;
    struct stream **link = &s->server->streams;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    conn->stream = NULL;
    job_cancel(s->job);
    engine_wake(s->server->engine);
    stream_free(s);
}

/* ---- all of them ---------------------------------------------------------------------------- */

void stream_notify_all(struct server *server)
{
    for (struct stream *s = server->streams; s; s = s->next) {
        if (job_overflowed(s->job))
            kill_connection(s, "it is read too slowly");
        else if (job_pending(s->job))
            want_write(s);
    }
}

void stream_tick_all(struct server *server)
{
    double now = clock_seconds();
    for (struct stream *s = server->streams; s; s = s->next) {
        if (s->blocked_since && now - s->blocked_since > server->options.send_seconds) {
            kill_connection(s, "nothing of it is read");
        } else if (s->events && now - s->last_said >= server->options.ping_seconds) {
            s->ping = true;
            want_write(s);
        }
    }
}

size_t stream_go_away(struct server *server, bool now)
{
    size_t n = 0;
    for (struct stream *s = server->streams; s; s = s->next, n++) {
        if (now && !job_cancelled(s->job)) {
            job_cancel(s->job);
            engine_wake(server->engine);
        }
    }
    return n;
}
