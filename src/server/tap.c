/* tap.c - see tap.h. */
#include "server/tap.h"

#include <string.h>

void tap_init(struct tap *tap)
{
    pthread_mutex_init(&tap->lock, NULL);
    tap->head = tap->count = 0;
    tap->lost = false;
}

void tap_release(struct tap *tap)
{
    pthread_mutex_destroy(&tap->lock);
}

/* With the lock. */
static void push(struct tap *tap, const struct tap_event *event)
{
    if (tap->count == TAP_EVENTS) {
        tap->head = (tap->head + 1) % TAP_EVENTS;
        tap->count--;
        tap->lost = true;
    }
    tap->ring[(tap->head + tap->count) % TAP_EVENTS] = *event;
    tap->count++;
}

void tap_push(struct tap *tap, struct tap_event *event, const char *text, size_t len)
{
    pthread_mutex_lock(&tap->lock);
    do {
        size_t n = job_event_fill(&event->event, text, len);
        push(tap, event);
        event->event.kind = event->event.kind == JOB_TOKEN ? JOB_TEXT : event->event.kind;
        text += n;
        len -= n;
    } while (len);
    pthread_mutex_unlock(&tap->lock);
}

bool tap_pop(struct tap *tap, struct tap_event *event)
{
    pthread_mutex_lock(&tap->lock);
    bool any = tap->count > 0;
    if (any) {
        *event = tap->ring[tap->head];
        event->lost = tap->lost;
        tap->lost = false;
        tap->head = (tap->head + 1) % TAP_EVENTS;
        tap->count--;
    }
    pthread_mutex_unlock(&tap->lock);
    return any;
}
