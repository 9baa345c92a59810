/*
 * sound_client.h - requests whose answers may be sounds, on connections of their own.
 *
 * Functions fail the running test on what no client could read.
 */
#ifndef TESTS_SOUND_CLIENT_H
#define TESTS_SOUND_CLIENT_H

#include <stddef.h>

#define SOUND_SPEECH "/v1/audio/speech"

struct sound {
    int status;
    size_t len;
    unsigned char *bytes; /* of the body */
    char *all;            /* head and body; caller frees */
    double seconds;       /* of the sound */
};

/* Sends a request that closes the connection; the socket. `headers`: "Name: value\r\n" lines. */
int sound_send(int port, const char *method, const char *path, const char *headers,
               const char *body);

/* The same for POST /v1/audio/speech. */
int sound_begin(int port, const char *body);

/* Reads the answer to its end and closes the socket. */
void sound_read(int fd, struct sound *sound);
void sound_speak(int port, const char *body, struct sound *sound);

/* The stand-in's sound of this many characters comes of it. */
void sound_expect(int port, const char *body, int characters);

/* This status, with an error that says this. */
void sound_expect_error(int port, const char *body, int status, const char *says);

#endif
