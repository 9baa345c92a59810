/* overlay.c - see overlay.h. */
#include "server/overlay.h"

#include "base/clock.h"
#include "base/json.h"
#include "talk/sentence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PERIOD  (1.0 / 30) /* seconds between messages, at least */
#define SILENCE 15         /* and at most: so a viewer knows that the connection lives */

/* The answer on show. */
struct floor {
    uint64_t answer, owner; /* 0: none yet */
    bool running;
    bool spoken;  /* its captions come from the page that plays it */
    bool metered; /* `meter` is set */
    struct job_event meter;
    bool own_strength; /* it does not follow the live one */
    float strength;    /* of its newest token */
    struct sentences sentences;
    struct str caption;
};

struct overlay {
    struct server *server;
    struct tap tap;
    struct broadcast broadcast;
    struct floor floor;
    uint64_t player; /* connection whose sentence is being played; 0: none */
    struct str played;
    enum engine_state state;         /* as shown */
    uint64_t version;                /* of the strength as shown */
    uint64_t seq;                    /* of the newest message */
    bool changed;                    /* since then */
    double said;                     /* seconds, clock: when it was sent */
    lws_sorted_usec_list_t deferred; /* sends what came too soon */
    bool is_deferred, stopped;
};

struct overlay *overlay_new(struct server *server)
{
    struct overlay *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    o->server = server;
    o->state = ENGINE_LOADING;
    o->played = o->floor.caption = (struct str)STR_INIT;
    sentences_init(&o->floor.sentences);
    tap_init(&o->tap);
    return o;
}

void overlay_stop(struct overlay *o)
{
    o->stopped = true;
    lws_sul_cancel(&o->deferred);
}

void overlay_free(struct overlay *o)
{
    if (!o)
        return;
    tap_release(&o->tap);
    sentences_release(&o->floor.sentences);
    str_release(&o->floor.caption);
    str_release(&o->played);
    free(o);
}

struct tap *overlay_tap(struct overlay *o)
{
    return &o->tap;
}

struct broadcast *overlay_broadcast(struct overlay *o)
{
    return &o->broadcast;
}

/* ---- the message ---------------------------------------------------------------------------- */

/* Of the meter, null where there is none. */
static json_t *reading(const struct floor *f, float value)
{
    return json_finite(f->metered ? (double)value : NAN);
}

static json_t *text_of(const struct str *text)
{
    return json_stringn(text->data ? text->data : "", text->len);
}

/* Caller frees; NULL when out of memory. */
static char *make_message(const struct overlay *o, size_t *len)
{
    const struct floor *f = &o->floor;
    static const char *const states[] = {
        [ENGINE_LOADING] = "loading", [ENGINE_READY] = "ready", [ENGINE_FAILED] = "failed"};
    float live = steering_get(&o->server->steering).strength;
    float strength = f->running && f->own_strength ? f->strength : live;
    bool plays = o->player != 0;
    json_t *json = json_pack("{s:s,s:I,s:s,s:f,s:f,s:f,s:o,s:o,s:I,s:b,s:b,s:o}", "type", "overlay",
                             "seq", (json_int_t)o->seq, "state", states[o->state], "strength",
                             (double)strength, "strength_min", (double)GYARU_STRENGTH_MIN,
                             "strength_max", (double)GYARU_STRENGTH_MAX, "value",
                             reading(f, f->meter.cosine), "calibrated", reading(f, f->meter.gauge),
                             "answer", (json_int_t)f->answer, "answering", f->running, "speaking",
                             plays, "caption", text_of(plays ? &o->played : &f->caption));
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(json);
    *len = text ? strlen(text) : 0;
    return text;
}

static void send_now(struct overlay *o)
{
    size_t len;
    o->changed = false;
    o->seq++;
    o->said = clock_seconds();
    if (!o->broadcast.viewers)
        return;
    char *text = make_message(o, &len);
    if (text)
        broadcast_say(&o->broadcast, text, len);
    free(text);
}

static void on_deferred(lws_sorted_usec_list_t *deferred)
{
    struct overlay *o = lws_container_of(deferred, struct overlay, deferred);
    o->is_deferred = false;
    if (o->changed)
        send_now(o);
}

static void send_soon(struct overlay *o)
{
    if (o->stopped)
        return;
    double wait = o->said + PERIOD - clock_seconds();
    if (wait <= 0) {
        send_now(o);
    } else if (!o->is_deferred) {
        o->is_deferred = true;
        lws_sul_schedule(o->server->context, 0, &o->deferred, on_deferred,
                         (lws_usec_t)(wait * LWS_US_PER_SEC) + 1);
    }
}

struct viewer *overlay_open(struct overlay *o, struct lws *wsi)
{
    size_t len;
    char *text = make_message(o, &len);
    struct viewer *viewer = text ? viewer_open(&o->broadcast, wsi, text, len) : NULL;
    free(text);
    return viewer;
}

/* ---- the answer on show --------------------------------------------------------------------- */

static void take_floor(struct overlay *o, const struct tap_event *event)
{
    struct floor *f = &o->floor;
    f->answer = event->answer;
    f->owner = event->owner;
    f->running = true;
    f->spoken = ws_speaks(o->server, event->owner);
    f->metered = false;
    f->own_strength = event->own_strength;
    sentences_clear(&f->sentences);
    str_clear(&f->caption);
}

/* The newest sentence that is complete, and what has come of the one after it. */
static void update_caption(struct floor *f, bool end)
{
    struct sentence sentence;
    struct str partial = STR_INIT;
    while (sentences_next(&f->sentences, end, &sentence)) {
        str_release(&f->caption);
        f->caption = sentence.shown;
        str_release(&sentence.spoken);
    }
    sentences_partial(&f->sentences, &partial);
    if (partial.len) {
        str_release(&f->caption);
        f->caption = partial;
    } else {
        str_release(&partial);
    }
}

static void take_event(struct overlay *o, const struct tap_event *event)
{
    struct floor *f = &o->floor;
    if (event->event.kind == JOB_PREFILL)
        take_floor(o, event);
    if (event->answer != f->answer)
        return;
    if (event->event.kind == JOB_PREFILL || event->event.kind == JOB_TOKEN)
        f->strength = event->event.strength;
    if (event->lost)
        sentences_clear(&f->sentences);
    if (event->event.kind == JOB_TOKEN) {
        f->meter = event->event;
        f->metered = true;
    }
    struct str text = STR_INIT;
    job_event_text(&event->event, &text);
    sentences_feed(&f->sentences, text.data, text.len);
    str_release(&text);
    f->running = event->event.kind != JOB_END;
    if (!f->spoken)
        update_caption(f, !f->running);
}

void overlay_update(struct overlay *o)
{
    struct tap_event event;
    enum engine_state state = engine_state(o->server->engine);
    uint64_t version = steering_get(&o->server->steering).version;
    o->changed = o->changed || state != o->state || version != o->version;
    o->state = state;
    o->version = version;
    while (tap_pop(&o->tap, &event)) {
        take_event(o, &event);
        o->changed = true;
    }
    if (o->changed)
        send_soon(o);
}

void overlay_tick(struct overlay *o)
{
    o->changed = o->changed || clock_seconds() - o->said >= SILENCE;
    overlay_update(o);
}

/* ---- captions of what is played ------------------------------------------------------------- */

void overlay_spoken(struct overlay *o, uint64_t owner, bool spoken)
{
    struct floor *f = &o->floor;
    bool gives_up = f->owner == owner && f->spoken && !spoken;
    if (f->owner == owner)
        f->spoken = spoken;
    if (!spoken)
        overlay_playing(o, owner, NULL, 0);
    if (!gives_up)
        return;
    /* What is not heard is read. */
    update_caption(f, !f->running);
    o->changed = true;
    send_soon(o);
}

void overlay_playing(struct overlay *o, uint64_t owner, const char *text, size_t len)
{
    if (!text && o->player != owner)
        return;
    if (text) {
        o->player = owner;
        str_clear(&o->played);
        str_append(&o->played, text, len);
    } else {
        o->player = 0;
        if (o->floor.spoken && o->floor.owner == owner) {
            /* It stays until something else is said; the overlay lets it fade. */
            str_clear(&o->floor.caption);
            str_append(&o->floor.caption, o->played.data, o->played.len);
        }
    }
    o->changed = true;
    send_soon(o);
}
