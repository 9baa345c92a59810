/*
 * ws.c - the protocol of the page over one WebSocket; docs/websocket.md describes it.
 *
 * A WebSocket is one conversation. At most one answer runs; its events are taken from the job's
 * ring only as fast as the reader takes them, so what a slow reader costs is bounded by the ring
 * and by `out`, which holds replies to what the client itself sent.
 *
 * Cancelling detaches the job at once: what has been sent so far is the answer, and the engine
 * ends the job at its next step.
 */
#include "server/conn.h"

#include "base/clock.h"
#include "base/json.h"
#include "server/ask.h"
#include "server/log.h"
#include "server/overlay.h"
#include "server/speech.h"
#include "server/ws_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OUT_MAX       256  /* unsent replies of one connection */
#define FRAGMENTS_MAX 1024 /* of one message */
#define WRITES_MAX    32   /* messages per turn of the loop, so that others get theirs */

struct out_message {
    struct out_message *next;
    size_t len;
    unsigned char data[]; /* LWS_PRE bytes of room, then the text */
};

struct ws {
    struct server *server;
    struct lws *wsi;
    struct ws *next;
    uint64_t id;

    struct str in; /* the message being received */
    int fragments;

    struct out_message *out, *out_last;
    int n_out;
    uint64_t strength_sent; /* version of the live steering that the client knows */
    uint64_t shelf_sent;    /* the same of the vectors there are */
    double blocked_since;   /* seconds, clock: asked for a writable socket; 0: not waiting */
    bool leaving;           /* close with 1001 once everything is sent */
    bool killed;            /* its end is on the way */

    struct conversation conversation;
    struct job *job;   /* the running answer; NULL: none */
    struct str answer; /* its text as sent */
    struct speech speech;
};

/* ---- sending -------------------------------------------------------------------------------- */

static void want_write(struct ws *ws)
{
    if (!ws->blocked_since)
        ws->blocked_since = clock_seconds();
    lws_callback_on_writable(ws->wsi);
}

/* The connection ends without another word: its reader would not take it. */
static void kill_connection(struct ws *ws, const char *why)
{
    if (ws->killed)
        return;
    ws->killed = true;
    log_event(&ws->server->options.log, LOG_LEVEL_WARN, "closed",
              json_pack("{s:I,s:s}", "socket", (json_int_t)ws->id, "reason", why));
    if (ws->job)
        job_cancel(ws->job);
    lws_set_timeout(ws->wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
}

/* Queues a document (taken over). */
static void send_json(struct ws *ws, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    size_t len = text ? strlen(text) : 0;
    struct out_message *message = text ? malloc(sizeof *message + LWS_PRE + len) : NULL;
    if (!message || ws->n_out >= OUT_MAX) {
        free(message);
        free(text);
        kill_connection(ws, message ? "too many unread replies" : "out of memory");
        return;
    }
    message->next = NULL;
    message->len = len;
    memcpy(message->data + LWS_PRE, text, len);
    free(text);
    if (ws->out_last)
        ws->out_last->next = message;
    else
        ws->out = message;
    ws->out_last = message;
    ws->n_out++;
    want_write(ws);
}

/* code: what it means for what is under way; reason: what it is, for those who say it themselves.
 */
static void send_error(struct ws *ws, const char *code, const char *reason, const char *message)
{
    send_json(ws, json_pack("{s:s,s:s,s:s,s:s}", "type", "error", "code", code, "reason", reason,
                            "message", message));
}

static void send_refusal(struct ws *ws, const struct gyaru_error *error)
{
    send_error(ws, "invalid", error->reason, error->text);
}

static void send_no_memory(struct ws *ws)
{
    send_error(ws, "no_memory", reason_name(REASON_MEMORY), "out of memory; try again");
}

/* ---- the answer ----------------------------------------------------------------------------- */

/* Lets go of the answer; its text becomes part of the conversation. */
static void keep_answer(struct ws *ws)
{
    job_unref(ws->job);
    ws->job = NULL;
    /* A question without any answer would only confuse the next prompt. */
    if (!ws->answer.len)
        conversation_pop(&ws->conversation);
    else if (conversation_add(&ws->conversation, true, ws->answer.data, ws->answer.len))
        send_error(ws, "no_memory", reason_name(REASON_MEMORY),
                   "the answer could not be kept in the conversation");
    str_clear(&ws->answer);
}

static void send_done(struct ws *ws, const char *reason, const struct gyaru_timings *t)
{
    size_t dropped = ws->conversation.dropped + atomic_load(&ws->job->dropped);
    send_json(ws, ws_done_json(&ws->answer, reason, dropped, t));
}

static void send_sentences(struct ws *ws, bool end)
{
    json_t *sentence;
    while ((sentence = speech_next(&ws->speech, end)))
        send_json(ws, sentence);
}

static void send_end(struct ws *ws)
{
    static const char *const reasons[] = {
        [GYARU_STOP] = "stop", [GYARU_LENGTH] = "length", [GYARU_CANCELLED] = "cancelled"};
    const struct job_end *end = &ws->job->end;
    if (end->failed)
        send_error(ws, "failed", end->error.reason, end->error.text);
    else {
        send_sentences(ws, true);
        send_done(ws, reasons[end->finish], &end->timings);
    }
    keep_answer(ws);
}

static void send_token(struct ws *ws, const struct job_event *event)
{
    size_t start = ws->answer.len;
    job_event_text(event, &ws->answer);
    if (str_failed(&ws->answer)) {
        kill_connection(ws, "out of memory");
        return;
    }
    if (event->text_len) {
        send_json(ws, json_pack("{s:s,s:s%}", "type", "token", "content", ws->answer.data + start,
                                ws->answer.len - start));
        speech_feed(&ws->speech, ws->answer.data + start, ws->answer.len - start);
        send_sentences(ws, false);
    }
    if (event->kind != JOB_TOKEN || !isfinite(event->cosine))
        return;
    send_json(ws, ws_gauge_json(event));
}

static void send_event(struct ws *ws, const struct job_event *event)
{
    switch (event->kind) {
    case JOB_PREFILL:
        send_json(ws, json_pack("{s:s,s:I,s:I,s:I}", "type", "prefill", "done",
                                (json_int_t)event->n_done, "total", (json_int_t)event->n_prompt,
                                "cached", (json_int_t)event->n_cached));
        break;
    case JOB_TOKEN:
    case JOB_TEXT:
        send_token(ws, event);
        break;
    case JOB_END:
        send_end(ws);
        break;
    }
}

/* Makes the next message if there is none: a changed strength goes before the answer's events. */
static void make_message(struct ws *ws)
{
    if (ws->shelf_sent != ws->server->shelf_version) {
        ws->shelf_sent = ws->server->shelf_version;
        send_json(ws, json_pack("{s:s}", "type", "vectors_changed"));
        return;
    }
    if (steering_get(&ws->server->steering).version != ws->strength_sent) {
        send_json(ws, ws_strength_json(ws->server, &ws->strength_sent));
        return;
    }
    struct job_event event;
    while (!ws->out && ws->job && job_pop(ws->job, &event))
        send_event(ws, &event);
}

static int write_first(struct ws *ws)
{
    struct out_message *message = ws->out;
    ws->out = message->next;
    if (!ws->out)
        ws->out_last = NULL;
    ws->n_out--;
    int rc = lws_write(ws->wsi, message->data + LWS_PRE, message->len, LWS_WRITE_TEXT);
    free(message);
    return rc < 0 ? -1 : 0;
}

int ws_writeable(struct ws *ws)
{
    int n = 0;
    ws->blocked_since = 0;
    for (; n < WRITES_MAX; n++) {
        if (!ws->out)
            make_message(ws);
        if (!ws->out || lws_send_pipe_choked(ws->wsi))
            break;
        if (write_first(ws))
            return -1;
    }
    if (ws->out) {
        want_write(ws);
        return 0;
    }
    ws->blocked_since = 0;
    if ((ws->job && job_pending(ws->job)) || (ws->leaving && !ws->job && n)) {
        /* A close frame gets lost behind data that is still buffered: it has its own turn. */
        want_write(ws);
    } else if (ws->leaving && !ws->job) {
        lws_close_reason(ws->wsi, LWS_CLOSE_STATUS_GOINGAWAY, NULL, 0);
        return -1;
    }
    return 0;
}

/* ---- what the client says ------------------------------------------------------------------- */

/* Takes over the options. */
static void start_answer(struct ws *ws, struct ask *ask)
{
    struct gyaru_message *messages;
    size_t n;
    struct job *job = NULL;
    if (!conversation_copy(&ws->conversation, &messages, &n))
        job = job_new(messages, n, ask->max_tokens, ws->server->options.ring_events);
    if (job) {
        job->options = ask->options;
        ask->options = (struct job_options){0};
    }
    ask_release(ask);
    if (!job) {
        conversation_pop(&ws->conversation);
        send_no_memory(ws);
        return;
    }
    job->connection = ws->id;
    if (engine_submit(ws->server->engine, job)) {
        job_unref(job);
        conversation_pop(&ws->conversation);
        send_error(ws, "busy", reason_name(REASON_QUEUE),
                   "too many requests are waiting; try again in a moment");
        return;
    }
    ws->job = job;
    str_clear(&ws->answer);
    speech_begin(&ws->speech);
}

static void on_message(struct ws *ws, const json_t *json)
{
    const json_t *content = json_object_get(json, "content");
    const json_t *history = json_object_get(json, "history");
    if (!json_is_string(content) || !json_string_length(content)) {
        send_error(ws, "invalid", reason_name(REASON_CONTENT), "message: content must be a text");
        return;
    }
    if (history && !ws_history_valid(history)) {
        send_error(ws, "invalid", reason_name(REASON_HISTORY),
                   "message: history must be a list of {role: user or assistant, content}");
        return;
    }
    if (ws->job) {
        send_error(ws, "busy", reason_name(REASON_ANSWERING),
                   "an answer is running; cancel it first");
        return;
    }
    if (ws->leaving) {
        send_error(ws, "stopping", reason_name(REASON_STOPPING), "the server is shutting down");
        return;
    }
    struct gyaru_error error;
    struct ask ask;
    const struct ask_rules rules = {.info = engine_info(ws->server->engine),
                                    .live = &ws->server->steering,
                                    .shelf = &ws->server->shelf,
                                    .max_tokens = ws->server->options.max_tokens};
    if (ask_options(&ask, &rules, json_object_get(json, "sampling"), json, &error)) {
        send_refusal(ws, &error);
        return;
    }
    if ((history && ws_history_take(&ws->conversation, history)) ||
        conversation_add(&ws->conversation, false, json_string_value(content),
                         json_string_length(content))) {
        ask_release(&ask);
        send_no_memory(ws);
        return;
    }
    start_answer(ws, &ask);
}

static void on_strength(struct ws *ws, const json_t *json)
{
    float strength;
    struct gyaru_error error;
    if (steering_parse(json_object_get(json, "value"), &strength, &error)) {
        send_refusal(ws, &error);
        return;
    }
    steering_set(&ws->server->steering, strength);
    ws_notify_all(ws->server);
}

/* As PUT /v1/steering. */
static void on_steering(struct ws *ws, const json_t *json)
{
    struct gyaru_error error;
    if (steering_change(&ws->server->steering, &ws->server->shelf, json, &error)) {
        send_refusal(ws, &error);
        return;
    }
    ws_notify_all(ws->server);
}

static void on_cancel(struct ws *ws, const json_t *json)
{
    if (!ws->job)
        return;
    job_cancel(ws->job);
    engine_wake(ws->server->engine);
    send_done(ws, "cancelled", NULL);
    keep_answer(ws);
}

static void on_reset(struct ws *ws, const json_t *json)
{
    on_cancel(ws, json);
    conversation_clear(&ws->conversation);
    send_json(ws, json_pack("{s:s}", "type", "reset_done"));
}

static void on_system(struct ws *ws, const json_t *json)
{
    const json_t *content = json_object_get(json, "content");
    if (!json_is_string(content) && !json_is_null(content)) {
        send_error(ws, "invalid", reason_name(REASON_MESSAGE),
                   "system: content must be a text, or null for the model's own");
        return;
    }
    if (conversation_set_system(&ws->conversation, json_string_value(content))) {
        send_no_memory(ws);
        return;
    }
    send_json(
        ws, json_pack("{s:s,s:s?}", "type", "system_updated", "content", ws->conversation.system));
}

static void on_voice(struct ws *ws, const json_t *json)
{
    const json_t *on = json_object_get(json, "on");
    if (!json_is_boolean(on)) {
        send_error(ws, "invalid", reason_name(REASON_MESSAGE), "voice: on must be true or false");
        return;
    }
    ws->speech.on = json_is_true(on);
    sentences_clear(&ws->speech.sentences);
    overlay_spoken(ws->server->overlay, ws->id, ws->speech.on);
    send_json(ws, json_pack("{s:s,s:b}", "type", "voice_updated", "on", ws->speech.on));
}

static void on_playing(struct ws *ws, const json_t *json)
{
    const json_t *index = json_object_get(json, "index");
    const json_t *text = speech_shown(&ws->speech, index);
    if (!text && !json_is_null(index)) {
        send_error(ws, "invalid", reason_name(REASON_MESSAGE),
                   "playing: index must be the number of a sentence, or null");
        return;
    }
    overlay_playing(ws->server->overlay, ws->id, json_string_value(text), json_string_length(text));
}

static const struct {
    const char *type;
    void (*handle)(struct ws *ws, const json_t *json);
} handlers[] = {
    {"message", on_message}, {"update_strength", on_strength},
    {"cancel", on_cancel},   {"reset", on_reset},
    {"system", on_system},   {"update_steering", on_steering},
    {"voice", on_voice},     {"playing", on_playing},
};

static void on_text(struct ws *ws, const char *text, size_t len)
{
    struct gyaru_error error;
    json_t *json = json_parse(text, len, "message", &error);
    if (!json) {
        send_error(ws, "invalid", reason_name(REASON_MESSAGE), error.text);
        return;
    }
    const char *type = json_string_value(json_object_get(json, "type"));
    size_t i = 0, n = sizeof handlers / sizeof handlers[0];
    while (i < n && (!type || strcmp(type, handlers[i].type)))
        i++;
    if (i < n)
        handlers[i].handle(ws, json);
    else
        send_error(ws, "invalid", reason_name(REASON_MESSAGE),
                   "the message must be an object with a known \"type\"");
    json_decref(json);
}

static int refuse(struct ws *ws, enum lws_close_status status, const char *why)
{
    lws_close_reason(ws->wsi, status, (unsigned char *)why, strlen(why));
    return -1;
}

int ws_receive(struct ws *ws, const void *data, size_t len)
{
    if (lws_is_first_fragment(ws->wsi)) {
        str_clear(&ws->in);
        ws->fragments = 0;
    }
    if (lws_frame_is_binary(ws->wsi))
        return refuse(ws, LWS_CLOSE_STATUS_UNACCEPTABLE_OPCODE, "text only");
    if (++ws->fragments > FRAGMENTS_MAX)
        return refuse(ws, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE, "too many fragments");
    if (ws->in.len + len > ws->server->options.message_bytes)
        return refuse(ws, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE, "message too large");
    str_append(&ws->in, data, len);
    if (str_failed(&ws->in))
        return -1;
    if (!lws_is_final_fragment(ws->wsi))
        return 0;
    on_text(ws, ws->in.data ? ws->in.data : "", ws->in.len);
    /* An idle connection holds no buffer. */
    str_release(&ws->in);
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------- */

struct ws *ws_open(struct server *server, struct lws *wsi)
{
    struct ws *ws = calloc(1, sizeof *ws);
    if (!ws)
        return NULL;
    ws->server = server;
    ws->wsi = wsi;
    ws->id = ++server->next_id;
    ws->in = ws->answer = (struct str)STR_INIT;
    speech_init(&ws->speech);
    conversation_init(&ws->conversation, server->options.history_bytes);
    if (conversation_set_system(&ws->conversation, server->options.system)) {
        free(ws);
        return NULL;
    }
    ws->next = server->ws_list;
    server->ws_list = ws;
    ws->shelf_sent = server->shelf_version;
    send_json(ws, ws_hello_json(server, ws->conversation.system, &ws->strength_sent));
    return ws;
}

void ws_close(struct ws *ws)
{
    struct ws **link = &ws->server->ws_list;
    while (*link != ws)
        link = &(*link)->next;
    *link = ws->next;
    overlay_spoken(ws->server->overlay, ws->id, false);
    if (ws->job) {
        job_cancel(ws->job);
        engine_wake(ws->server->engine);
        job_unref(ws->job);
    }
    while (ws->out) {
        struct out_message *message = ws->out;
        ws->out = message->next;
        free(message);
    }
    conversation_release(&ws->conversation);
    speech_release(&ws->speech);
    str_release(&ws->in);
    str_release(&ws->answer);
    free(ws);
}

bool ws_speaks(struct server *server, uint64_t id)
{
    const struct ws *ws = server->ws_list;
    while (ws && ws->id != id)
        ws = ws->next;
    return ws && ws->speech.on;
}

void ws_notify_all(struct server *server)
{
    uint64_t version = steering_get(&server->steering).version;
    for (struct ws *ws = server->ws_list; ws; ws = ws->next) {
        if (ws->job && job_overflowed(ws->job))
            kill_connection(ws, "it reads too slowly");
        else if (version != ws->strength_sent || server->shelf_version != ws->shelf_sent ||
                 (ws->job && job_pending(ws->job)))
            want_write(ws);
    }
    overlay_update(server->overlay);
}

void ws_tick_all(struct server *server)
{
    double limit = clock_seconds() - server->options.send_seconds;
    for (struct ws *ws = server->ws_list; ws; ws = ws->next) {
        if (ws->blocked_since && ws->blocked_since < limit)
            kill_connection(ws, "it reads nothing");
    }
}

size_t ws_go_away(struct server *server, bool now)
{
    size_t n = 0;
    for (struct ws *ws = server->ws_list; ws; ws = ws->next, n++) {
        if (!ws->leaving || (now && ws->job)) {
            ws->leaving = true;
            if (now && ws->job) {
                job_cancel(ws->job);
                engine_wake(server->engine);
            }
            want_write(ws);
        }
    }
    return n;
}
