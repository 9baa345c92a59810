/*
 * voice_room.h - a server with the bundled model and a stand-in for its voice engine, for all tests
 * of a program: cmocka's set-up and tear-down functions.
 */
#ifndef SUPPORT_VOICE_ROOM_H
#define SUPPORT_VOICE_ROOM_H

#include "support/test_server.h"
#include "support/voicevox.h"

extern struct voice_room {
    struct test_server server;
    struct voicevox_stand_in *engine;
} room;

/* Of the group. The server's environment names a proxy, which must not be asked. */
int voice_room_start(void **state);
int voice_room_stop(void **state);

/* Of each test: forgets what the engine was asked; asks whether the server still answers. */
int voice_room_begin(void **state);
int voice_room_end(void **state);

/* The n-th call of its kind that the engine got. */
const struct voicevox_call *voice_room_query(int n);
const struct voicevox_call *voice_room_synthesis(int n);

#endif
