/*
 * voicevox.h - a stand-in for VOICEVOX ENGINE in a process of its own, one more for each call.
 *
 * It is as strict as the engine: wrong methods, missing arguments, unknown speakers and foreign
 * origins are refused as the engine refuses them. Besides, it only synthesises a query that it made
 * itself: what comes has to be equal byte for byte, or differ in speedScale alone. Its sounds are
 * real WAV files, a tone of a fixed time for every character.
 */
#ifndef TESTS_VOICEVOX_H
#define TESTS_VOICEVOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum voicevox_fault {
    VOICEVOX_GOOD = 0,
    VOICEVOX_BAD_QUERY,  /* HTML instead of a query */
    VOICEVOX_BAD_SOUND,  /* text instead of a sound */
    VOICEVOX_CUT_SOUND,  /* ends before its Content-Length */
    VOICEVOX_LONG_SOUND, /* never ends */
    VOICEVOX_LONG_QUERY,
    VOICEVOX_500,
    VOICEVOX_CLOSED,   /* the connection ends without an answer */
    VOICEVOX_REDIRECT, /* to `elsewhere` */
    VOICEVOX_NO_SPEAKERS
};

enum voicevox_kind { VOICEVOX_VERSION, VOICEVOX_SPEAKERS, VOICEVOX_QUERY, VOICEVOX_SYNTHESIS };

struct voicevox_call {
    enum voicevox_kind kind;
    /* Seconds, clock_seconds(). The caller may have the whole sound, and go on, before `end`. */
    double begin, made, end; /* made: the sound is, none of it sent; end 0: not over */
    int status;              /* as answered */
    int speaker;
    double speed;   /* of a synthesis */
    bool left;      /* the caller went away before the answer */
    char text[512]; /* of a query, and of a synthesis through its query */
};

#define VOICEVOX_CALLS 512
#define VOICEVOX_CHAR  0.05 /* seconds of sound for a character at speed 1 */

/* Shared with the processes. */
struct voicevox_stand_in {
    pid_t pid;
    int port;
    char base[64]; /* "http://127.0.0.1:PORT" */
    volatile enum voicevox_fault fault;
    volatile int delay_ms; /* of a synthesis */
    char elsewhere[100];
    volatile int n_calls; /* begun */
    struct voicevox_call calls[VOICEVOX_CALLS];
};

/* The styles there are: two of ずんだもん (3, 1), one of 四国めたん (2). */
#define VOICEVOX_FIRST 3

/* port 0: a free one. */
struct voicevox_stand_in *voicevox_start(int port);

/* The process ends; what it noted stays. */
void voicevox_leave(struct voicevox_stand_in *v);
void voicevox_come_back(struct voicevox_stand_in *v);
void voicevox_stop(struct voicevox_stand_in *v);

/* Forgets the calls and the faults. */
void voicevox_reset(struct voicevox_stand_in *v);

/* How many calls of this kind have begun. */
int voicevox_count(const struct voicevox_stand_in *v, enum voicevox_kind kind);

/* The n-th of them (from 0) once it has ended; fails if it does not in ten seconds. */
const struct voicevox_call *voicevox_nth(const struct voicevox_stand_in *v, enum voicevox_kind kind,
                                         int n);

#endif
