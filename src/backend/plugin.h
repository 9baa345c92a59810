/*
 * plugin.h - what a backend in a shared object exports, so that one program serves machines with
 * and without its device.
 *
 * The plug-in and the program are built from one tree; `sizes` refuses a plug-in of another one
 * before any structure is misread.
 */
#ifndef BACKEND_PLUGIN_H
#define BACKEND_PLUGIN_H

#include "backend/backend.h"

#define BACKEND_PLUGIN_SYMBOL "gyaru_backend_plugin"
#define BACKEND_PLUGIN_SIZES                                                                       \
    {                                                                                              \
        sizeof(struct backend), sizeof(struct backend_shape), sizeof(struct backend_row),          \
            sizeof(struct quant_source), sizeof(struct gyaru_error),                               \
            sizeof(struct backend_candidates)                                                      \
    }

struct backend_plugin {
    char version[16]; /* GYARU_VERSION */
    size_t sizes[6];  /* BACKEND_PLUGIN_SIZES */
    const struct backend *backend;
};

#endif
