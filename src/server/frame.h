/*
 * frame.h - what an answer looks like on the wire: OpenAI's chunks, llama.cpp's completions.
 *
 * Pure functions from what is known about an answer to JSON; stream.c decides when.
 */
#ifndef SERVER_FRAME_H
#define SERVER_FRAME_H

#include "server/engine.h"

#include <jansson.h>

enum frame_style { FRAME_CHAT, FRAME_COMPLETION };

/* What is the same in every frame of one answer. */
struct frame {
    enum frame_style style;
    const struct engine_info *info;
    char id[40];
    int64_t created; /* seconds since 1970 */
    bool gauge;      /* the meter with every chunk */
    bool usage;      /* one more chunk with the counts */
};

/* Each returns a new document, NULL when out of memory. */

/* The first chunk of a chat: who speaks. */
json_t *frame_role(const struct frame *frame);

/* `meter` is the newest token's event, NULL before there is one. */
json_t *frame_text(const struct frame *frame, const char *text, size_t len,
                   const struct job_event *meter);
json_t *frame_end(const struct frame *frame, const struct job *job, const struct job_event *meter);
json_t *frame_usage(const struct frame *frame, const struct job *job);

/* A whole answer that is not streamed; `gauges` (may be NULL) is taken over. */
json_t *frame_whole(const struct frame *frame, const char *text, size_t len, const struct job *job,
                    json_t *gauges);

/* The meter of one token; null without one. */
json_t *frame_gauge(const struct frame *frame, const struct job_event *meter);

/* {"code","message","type"} */
json_t *frame_error(unsigned status, const char *type, const char *message);

#endif
