/* job.c - see job.h. */
#include "server/job.h"

#include "talk/conversation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct job *job_new(struct gyaru_message *messages, size_t n_messages, int max_tokens,
                    int ring_events)
{
    struct job *job = calloc(1, sizeof *job);
    if (job)
        job->ring = calloc((size_t)ring_events + 1, sizeof *job->ring);
    if (!job || !job->ring) {
        free(job);
        messages_free(messages, n_messages);
        return NULL;
    }
    job->messages = messages;
    job->n_messages = n_messages;
    job->max_tokens = max_tokens;
    job->cap = (size_t)ring_events;
    atomic_init(&job->refs, 1);
    pthread_mutex_init(&job->lock, NULL);
    return job;
}

void job_options_release(struct job_options *options)
{
    for (size_t i = 0; i < options->n_stop; i++)
        free(options->stop[i]);
    free(options->stop);
    free(options->prompt);
    mix_release(&options->mix);
    *options = (struct job_options){0};
}

struct job *job_ref(struct job *job)
{
    atomic_fetch_add(&job->refs, 1);
    return job;
}

void job_unref(struct job *job)
{
    if (!job || atomic_fetch_sub(&job->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&job->lock);
    messages_free(job->messages, job->n_messages);
    job_options_release(&job->options);
    free(job->ring);
    free(job);
}

void job_cancel(struct job *job)
{
    atomic_store(&job->cancelled, true);
}

bool job_cancelled(struct job *job)
{
    return atomic_load(&job->cancelled);
}

/* With `last`, the place that is kept for JOB_END may be used. */
static bool push(struct job *job, const struct job_event *event, bool last)
{
    pthread_mutex_lock(&job->lock);
    size_t places = job->cap + 1;
    bool room = job->count < (last ? places : job->cap);
    if (room) {
        job->ring[(job->head + job->count) % places] = *event;
        job->count++;
    }
    pthread_mutex_unlock(&job->lock);
    return room;
}

void job_push(struct job *job, const struct job_event *event)
{
    if (!job_cancelled(job) && !push(job, event, false)) {
        atomic_store(&job->overflowed, true);
        job_cancel(job);
    }
}

/* The longest prefix of whole characters that fits an event. */
static size_t prefix_len(const char *text, size_t len)
{
    if (len <= JOB_TEXT_MAX)
        return len;
    size_t n = JOB_TEXT_MAX;
    while (n > 1 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

size_t job_event_fill(struct job_event *event, const char *text, size_t len)
{
    event->text_len = prefix_len(text, len);
    if (event->text_len)
        memcpy(event->text, text, event->text_len);
    return event->text_len;
}

void job_push_text(struct job *job, struct job_event *event, const char *text, size_t len)
{
    do {
        size_t n = job_event_fill(event, text, len);
        job_push(job, event);
        event->kind = JOB_TEXT;
        text += n;
        len -= n;
    } while (len);
}

void job_push_end(struct job *job)
{
    struct job_event event = {.kind = JOB_END, .cosine = NAN, .gauge = NAN};
    push(job, &event, true);
}

bool job_pop(struct job *job, struct job_event *event)
{
    pthread_mutex_lock(&job->lock);
    bool any = job->count > 0;
    if (any) {
        *event = job->ring[job->head];
        job->head = (job->head + 1) % (job->cap + 1);
        job->count--;
    }
    pthread_mutex_unlock(&job->lock);
    return any;
}

void job_event_text(const struct job_event *event, struct str *out)
{
    for (size_t i = 0; i < event->text_len; i++) {
        if (event->text[i])
            str_putc(out, event->text[i]);
        else
            str_puts(out, "\xef\xbf\xbd");
    }
}

bool job_pending(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    bool any = job->count > 0;
    pthread_mutex_unlock(&job->lock);
    return any;
}

bool job_overflowed(struct job *job)
{
    return atomic_load(&job->overflowed);
}
