/* voice_room.c - see voice_room.h. */
#include "support/voice_room.h"

#include "support/ws_client.h"

#include <stdlib.h>

struct voice_room room;

int voice_room_start(void **state)
{
    room.engine = voicevox_start(0);
    const char *const options[] = {"--voicevox-url",
                                   room.engine->base,
                                   "--voice-timeout",
                                   "2",
                                   "--max-tokens",
                                   "1000",
                                   "--max-body",
                                   "65536",
                                   "--drain",
                                   "2",
                                   NULL};
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    test_server_start(&room.server, true, options);
    unsetenv("http_proxy");
    return 0;
}

int voice_room_stop(void **state)
{
    test_server_stop(&room.server);
    voicevox_stop(room.engine);
    return 0;
}

int voice_room_begin(void **state)
{
    voicevox_reset(room.engine);
    return 0;
}

int voice_room_end(void **state)
{
    return http_get(room.server.port, "/health", NULL) == 200 ? 0 : -1;
}

const struct voicevox_call *voice_room_query(int n)
{
    return voicevox_nth(room.engine, VOICEVOX_QUERY, n);
}

const struct voicevox_call *voice_room_synthesis(int n)
{
    return voicevox_nth(room.engine, VOICEVOX_SYNTHESIS, n);
}
