/*
 * voicevox.h - the HTTP interface of VOICEVOX ENGINE, which AivisSpeech and COEIROINK's bridge
 * speak too: /speakers, /audio_query, /synthesis.
 *
 * Calls block and belong to the voice threads (voice.h). Nothing but the configured address is ever
 * asked; an engine's answer is checked for size and kind before anybody gets it.
 */
#ifndef SERVER_VOICEVOX_H
#define SERVER_VOICEVOX_H

#include "base/error.h"
#include "base/str.h"

#include <jansson.h>

#define VOICEVOX_JSON_BYTES  ((size_t)8 << 20) /* of one answer; /speakers is the longest */
#define VOICEVOX_SOUND_BYTES ((size_t)16 << 20)

struct voicevox {
    const char *base; /* "http://127.0.0.1:50021" */
    double timeout;   /* seconds for one call */
    gyaru_progress *stopped;
    void *user;
};

/*
 * One call: `path` with its arguments, body NULL for GET. Gives the status for our own client: 200
 * with *out (caller releases); 4xx with what the engine said; 502 for what is no answer, 503 if
 * there is no engine, 504 if it is too slow, 0 if stopped, each with a message in err.
 */
unsigned voicevox_call(const struct voicevox *engine, const char *path, const char *body,
                       bool sound, struct str *out, struct gyaru_error *err);

/* "/audio_query?text=...&speaker=..."; what the engine makes of it goes to /synthesis as it is,
 * except for the speed (1: as the speaker speaks). The status as above. */
unsigned voicevox_say(const struct voicevox *engine, const char *text, size_t len, int64_t speaker,
                      double speed, struct str *wav, struct gyaru_error *err);

/* Finds a style in the list of /speakers: by "NAME" (its first style) or "NAME/STYLE"; NULL: the
 * first of all. False if there is none. */
bool voicevox_find(const json_t *speakers, const char *name, int64_t *id);

#endif
