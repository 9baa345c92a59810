/*
 * crowd.c - what many clients at a time cost one server.
 *
 *     make build/bench/crowd
 *     build/bench/crowd streams [-- OPTION ...]   tokens/s of 1, 2, 4, 8 streams
 *     build/bench/crowd idle [-- OPTION ...]      1000 open WebSockets: memory, and a new request
 *     build/bench/crowd prefix [-- OPTION ...]    first token of clients that send everything again
 *
 * Options go to gyaru serve. Fails where a figure misses what the project asks of two cores and the
 * bundled model: 8 streams with three times the tokens of one (docs/operations.md says how far that
 * is), 1000 sockets in less than 32 MiB, and beside them 99 of 100 requests within 0.1 s.
 */
#include "client.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define STREAMS        8
#define STREAM_KINDS   4 /* 1, 2, 4, 8 */
#define STREAM_ROUNDS  5
#define STREAM_SECONDS 2.0
#define STREAM_RATIO   3.0
#define IDLE           1000
#define IDLE_MIB       32.0
#define IDLE_MS        100.0
#define REQUESTS       500
#define VIEWERS        4
#define TURNS          12

static struct host host;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the values; `share` of them are at most the result. */
static double percentile(double *values, size_t n, double share)
{
    qsort(values, n, sizeof *values, by_value);
    return n ? values[(size_t)(share * (double)(n - 1))] : 0;
}

static void say(json_t *messages, const char *role, const char *content)
{
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", role, "content", content));
}

static json_t *body_of(json_t *messages, bool stream, int max_tokens)
{
    return json_pack("{s:s,s:O,s:i,s:b,s:{s:b}}", "model", "rinne", "messages", messages,
                     "max_tokens", max_tokens, "stream", stream, "stream_options", "include_usage",
                     1);
}

/* ---- streams -------------------------------------------------------------------------------- */

static atomic_bool streaming;
static atomic_size_t n_tokens;
static atomic_int n_faults;

static void *stream_main(void *arg)
{
    json_t *messages = json_array();
    say(messages, "user", "こんにちは");
    while (atomic_load(&streaming)) {
        struct answer answer;
        json_t *body = body_of(messages, true, 200);
        /* Random text does not end early, so that decoding is what is timed. */
        json_object_set_new(body, "temperature", json_real(2));
        json_object_set_new(body, "top_p", json_real(1));
        client_chat_seen(host.port, body, &n_tokens, &answer);
        if (answer.fault || answer.status != 200)
            atomic_fetch_add(&n_faults, 1);
        answer_release(&answer);
    }
    json_decref(messages);
    return NULL;
}

/* Tokens per second of n streams together. */
static double rate_of(int n)
{
    pthread_t threads[STREAMS];
    atomic_store(&streaming, true);
    for (int i = 0; i < n; i++)
        pthread_create(&threads[i], NULL, stream_main, NULL);
    usleep(500000);
    size_t before = atomic_load(&n_tokens);
    double start = clock_seconds();
    usleep((useconds_t)(STREAM_SECONDS * 1e6));
    double rate = (double)(atomic_load(&n_tokens) - before) / (clock_seconds() - start);
    atomic_store(&streaming, false);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return rate;
}

/* Rounds take turns with the numbers of streams, so that what else the machine does meets all. */
static bool streams(void)
{
    static double rates[STREAM_KINDS][STREAM_ROUNDS];
    double ratio = 0;
    for (int round = 0; round < STREAM_ROUNDS; round++) {
        for (int kind = 0; kind < STREAM_KINDS; kind++)
            rates[kind][round] = rate_of(1 << kind);
    }
    puts("| streams | tokens/s together, median | of one |\n|---|---|---|");
    for (int kind = 0; kind < STREAM_KINDS; kind++) {
        double rate = percentile(rates[kind], STREAM_ROUNDS, 0.5);
        ratio = rate / rates[0][STREAM_ROUNDS / 2];
        printf("| %d | %.0f | %.2f |\n", 1 << kind, rate, ratio);
    }
    int faults = atomic_load(&n_faults);
    printf("\n%d streams: %.2f times one (%g wanted), %d broken answers\n", STREAMS, ratio,
           STREAM_RATIO, faults);
    return ratio >= STREAM_RATIO && !faults;
}

/* ---- idle sockets --------------------------------------------------------------------------- */

static bool idle(void)
{
    static struct socket sockets[IDLE];
    static double health[REQUESTS], chat[REQUESTS / 10];
    int n_open = 0, faults = 0;
    /* What the first of each kind costs is not the sockets'. */
    for (int i = 0; i < 20; i++) {
        socket_open(&sockets[0], host.port, 0);
        wire_close(&sockets[0].wire);
        client_get(host.port, "/health", NULL);
    }
    double before = host_memory(&host);
    for (int i = 0; i < IDLE; i++)
        n_open += socket_open(&sockets[i], host.port, 0);
    double cost = (host_memory(&host) - before) / (1 << 20);
    for (int i = 0; i < REQUESTS; i++) {
        double start = clock_seconds();
        faults += client_get(host.port, "/health", NULL) != 200;
        health[i] = 1e3 * (clock_seconds() - start);
    }
    json_t *messages = json_array();
    say(messages, "user", "こんにちは");
    for (int i = 0; i < REQUESTS / 10; i++) {
        struct answer answer;
        client_chat(host.port, body_of(messages, true, 8), &answer);
        faults += answer.fault || answer.status != 200;
        chat[i] = 1e3 * answer.first;
        answer_release(&answer);
    }
    json_decref(messages);
    double p99 = percentile(health, REQUESTS, 0.99), first = percentile(chat, REQUESTS / 10, 0.99);
    printf("%d idle WebSockets: %.1f MiB (%g allowed), %.1f KiB each\n", n_open, cost, IDLE_MIB,
           1024 * cost / n_open);
    printf(
        "a new request beside them: p50 %.2f ms, p99 %.2f ms (%g allowed); a chat's first token: "
        "p99 %.2f ms\n",
        percentile(health, REQUESTS, 0.5), p99, IDLE_MS, first);
    printf("%d requests went wrong\n", faults);
    for (int i = 0; i < IDLE; i++)
        wire_close(&sockets[i].wire);
    return n_open == IDLE && !faults && cost < IDLE_MIB && p99 < IDLE_MS && first < IDLE_MS;
}

/* ---- conversations over the API -------------------------------------------------------------- */

/* Conversations that begin alike (one character, one greeting) take turns, with everything sent
 * again each time. */
static bool prefix(void)
{
    static double first[VIEWERS * TURNS];
    json_t *messages[VIEWERS];
    size_t n = 0, prompt = 0, cached = 0;
    int faults = 0;
    for (int v = 0; v < VIEWERS; v++) {
        struct str system = STR_INIT;
        messages[v] = json_array();
        for (int i = 0; i < 10; i++)
            str_printf(&system, "決まりその%d。いつも笑顔で答えます。", i);
        say(messages[v], "system", system.data);
        str_release(&system);
    }
    for (int t = 0; t < TURNS; t++) {
        for (int v = 0; v < VIEWERS; v++) {
            struct answer answer;
            char text[200];
            snprintf(text, sizeof text, "視聴者%dです。今日は%d回目ですが、何をしていましたか？", v,
                     t);
            say(messages[v], "user", t ? text : "こんにちは");
            client_chat(host.port, body_of(messages[v], true, 24), &answer);
            faults += answer.fault || answer.status != 200;
            say(messages[v], "assistant", answer.text.data ? answer.text.data : "");
            if (t > 0) {
                first[n++] = 1e3 * answer.first;
                prompt += answer.n_prompt;
                cached += answer.n_cached;
            }
            answer_release(&answer);
        }
    }
    for (int v = 0; v < VIEWERS; v++)
        json_decref(messages[v]);
    printf("%d viewers, %d follow-ups each, prompts of %.0f tokens: %.0f%% cached; first token p50 "
           "%.1f ms, p99 %.1f ms; %d broken answers\n",
           VIEWERS, TURNS - 1, (double)prompt / (double)n, 100.0 * (double)cached / (double)prompt,
           percentile(first, n, 0.5), percentile(first, n, 0.99), faults);
    return !faults && cached * 2 > prompt;
}

/* ---- command -------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        bool (*run)(void);
    } modes[] = {{"streams", streams}, {"idle", idle}, {"prefix", prefix}};
    const char *options[32] = {"--sessions", argc > 1 && !strcmp(argv[1], "streams") ? "8" : "4"};
    int n = 2;
    for (int i = 3; i < argc && n < 31; i++)
        options[n++] = argv[i];
    struct rlimit files = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &files);
    for (size_t m = 0; argc > 1 && m < sizeof modes / sizeof modes[0]; m++) {
        if (strcmp(argv[1], modes[m].name) || (argc > 2 && strcmp(argv[2], "--")))
            continue;
        if (host_start(&host, options))
            return 1;
        bool passed = modes[m].run();
        int code = host_stop(&host);
        if (!passed || code)
            printf("FAILED (the server ended with %d)\n", code);
        return passed && !code ? 0 : 1;
    }
    fprintf(stderr, "usage: crowd streams | idle | prefix [-- OPTION OF gyaru serve ...]\n");
    return 2;
}
