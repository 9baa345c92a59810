/*
 * reason.h - stable names of the errors that people meet on the page, which says some of them in
 * other words and other languages: src/web/refusals.js has a text for every name in this list.
 *
 * A name stays what it is; messages may be reworded.
 */
#ifndef BASE_REASON_H
#define BASE_REASON_H

#define REASONS(X)                                                                                 \
    /* requests */                                                                                 \
    X(REASON_MESSAGE, "message_invalid")                                                           \
    X(REASON_CONTENT, "content_empty")                                                             \
    X(REASON_HISTORY, "history_invalid")                                                           \
    X(REASON_SAMPLING, "sampling_invalid")                                                         \
    X(REASON_ANSWERING, "answer_running")                                                          \
    X(REASON_QUEUE, "queue_full")                                                                  \
    X(REASON_STOPPING, "stopping")                                                                 \
    X(REASON_MEMORY, "no_memory")                                                                  \
    X(REASON_CONTEXT, "context_full")                                                              \
    X(REASON_OVERFLOW, "steering_overflow")                                                        \
    /* steering */                                                                                 \
    X(REASON_STRENGTH, "strength_invalid")                                                         \
    X(REASON_STEERING, "steering_invalid")                                                         \
    X(REASON_NO_VECTOR, "no_vector")                                                               \
    X(REASON_UNKNOWN_VECTOR, "vector_unknown")                                                     \
    X(REASON_UNUSABLE_VECTOR, "vector_unusable")                                                   \
    X(REASON_SAME_VECTOR, "vector_named_twice")                                                    \
    X(REASON_MANY_VECTORS, "vectors_too_many")                                                     \
    X(REASON_LAYERS, "layers_invalid")                                                             \
    X(REASON_LAYERS_OUTSIDE, "layers_outside")                                                     \
    X(REASON_FOLDER, "vectors_unread")                                                             \
    /* files of vectors */                                                                         \
    X(REASON_UNREADABLE, "vector_unreadable")                                                      \
    X(REASON_NOT_FINITE, "vector_not_finite")                                                      \
    X(REASON_NO_DIRECTION, "vector_zero")                                                          \
    X(REASON_TOO_LONG, "vector_too_long")                                                          \
    X(REASON_HIDDEN_SIZE, "vector_hidden_size")                                                    \
    X(REASON_DEPTH, "vector_depth")                                                                \
    X(REASON_FINGERPRINT, "vector_fingerprint")                                                    \
    X(REASON_UNVERIFIED, "vector_unverified")                                                      \
    X(REASON_NO_HOOK, "vector_no_hook")                                                            \
    X(REASON_FORCED, "vector_forced")

enum reason {
    REASON_NONE, /* "" */
#define REASON_ENUM(name, text) name,
    REASONS(REASON_ENUM)
#undef REASON_ENUM
        REASON_COUNT
};

const char *reason_name(enum reason reason);

#endif
