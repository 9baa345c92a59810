/* sound_client.c - see sound_client.h. */
#include "sound_client.h"

#include "base/wav.h"
#include "voicevox.h"
#include "ws_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include <cmocka.h>

int sound_send(int port, const char *method, const char *path, const char *headers,
               const char *body)
{
    char request[70000];
    int fd = tcp_connect(port, 0);
    int n = snprintf(request, sizeof request,
                     "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n%s\r\n%s",
                     method, path, port, headers, body);
    assert_true(tcp_send(fd, request, (size_t)n));
    return fd;
}

int sound_begin(int port, const char *body)
{
    char headers[128];
    snprintf(headers, sizeof headers, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
             strlen(body));
    return sound_send(port, "POST", SOUND_SPEECH, headers, body);
}

void sound_read(int fd, struct sound *sound)
{
    size_t cap = 1 << 20, len = 0;
    char *all = malloc(cap + 1);
    ssize_t n;
    while ((n = read(fd, all + len, cap - len)) > 0) {
        len += (size_t)n;
        if (len == cap)
            all = realloc(all, (cap *= 2) + 1);
    }
    close(fd);
    all[len] = '\0';
    *sound = (struct sound){.all = all};
    sscanf(all, "HTTP/1.1 %d", &sound->status);
    char *body = strstr(all, "\r\n\r\n");
    assert_non_null(body);
    sound->bytes = (unsigned char *)body + 4;
    sound->len = len - (size_t)(body + 4 - all);
    struct gyaru_error err;
    struct wav wav;
    if (sound->status == 200 && !wav_read(sound->bytes, sound->len, &wav, &err))
        sound->seconds = wav_seconds(&wav);
}

void sound_speak(int port, const char *body, struct sound *sound)
{
    sound_read(sound_begin(port, body), sound);
}

void sound_expect(int port, const char *body, int characters)
{
    struct sound sound;
    sound_speak(port, body, &sound);
    if (sound.status != 200)
        fail_msg("%s: %s", body, sound.all);
    assert_non_null(strstr(sound.all, "content-type: audio/wav\r\n"));
    assert_float_equal(sound.seconds, VOICEVOX_CHAR * characters, 0.001);
    free(sound.all);
}

void sound_expect_error(int port, const char *body, int status, const char *says)
{
    struct sound sound;
    sound_speak(port, body, &sound);
    if (sound.status != status || !strstr((char *)sound.bytes, says))
        fail_msg("%.300s: expected %d with '%s', not %.600s", body, status, says, sound.all);
    json_t *json = json_loads((char *)sound.bytes, 0, NULL);
    assert_true(json_is_string(json_object_get(json_object_get(json, "error"), "message")));
    json_decref(json);
    free(sound.all);
}
