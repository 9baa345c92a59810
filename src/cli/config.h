/*
 * config.h - config/generation_config.yaml: the settings that the command line may override.
 *
 * Whatever the file does not say stays "unset": NULL, NaN or CONFIG_UNSET. So a command can tell
 * a setting from a default, and the order is always: command line, file, the model's own default.
 */
#ifndef CLI_CONFIG_H
#define CLI_CONFIG_H

#include "base/error.h"

#include <limits.h>

#define CONFIG_DEFAULT_PATH "config/generation_config.yaml"
#define CONFIG_UNSET        INT_MIN

struct config {
    char *model_path, *device; /* model.path, model.device */
    char *vector;              /* steering.vector: a file */
    char *vectors, *reports;   /* steering.vectors, .reports: folders */
    float strength;            /* steering.strength */
    int visualise_layer;       /* steering.visualise_layer: 0-based block */
    float temperature, top_p;  /* generation.* */
    float min_p, repetition_penalty;
    int top_k, max_tokens;
    char *system_prompt;
    char *host; /* server.* */
    int port;
    char *voice_url;   /* voice.url */
    int voice_speaker; /* voice.speaker */
};

void config_init(struct config *config);
void config_release(struct config *config);

/*
 * Reads `path`; NULL means CONFIG_DEFAULT_PATH, which may be missing. Unknown keys are ignored
 * with a warning on stderr that names their line; a value of the wrong kind is an error. The
 * config must be initialised; on failure it stays as it was.
 */
int config_read(const char *path, struct config *config, struct gyaru_error *err);

#endif
