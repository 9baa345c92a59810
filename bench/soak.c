/*
 * soak.c - hours of mixed load on one server, and a table of how it bears it.
 *
 *     make build/bench/soak && build/bench/soak [--minutes N] [-- OPTION OF gyaru serve ...]
 *
 * Each actor is a thread that does one thing again and again: chats over WebSockets and over the
 * API (streamed or not, history sent again each time), slider storms, leaving in mid-answer,
 * reading a byte at a time, sending what is malformed. Once a minute all of them pause between two
 * acts; then nothing may be running, waiting or connected that should not be, and a line of the
 * table is printed. Fails on a slot that stays busy, an event that is lost, text that is no UTF-8,
 * a wrong status, or memory that grows by more than GROWTH after the first five minutes.
 */
#include "client.h"

#include "base/clock.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROWTH        0.02 /* of resident memory */
#define SETTLE        5    /* minutes */
#define TIMES_MAX     20000
#define COMPLAINTS    20
#define STORM_UPDATES 500
#define SESSIONS      4
#define FILL_WORDS    1000 /* more than a context holds */
#define TURNS         8    /* of a conversation */

struct counts {
    unsigned long answers, tokens, cancelled, refused, malformed, updates, slow;
    unsigned long errors, invalid, lost;
};

static struct host host;
static atomic_bool stop;

/* Actors hold it for reading during an act, the minute's check for writing. */
static pthread_rwlock_t gate;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static struct counts minute, all;
static double first_times[TIMES_MAX]; /* seconds, of this minute */
static size_t n_times;
static int n_complaints;

static const char *const questions[] = {"こんにちは",
                                        "今日は何をしていましたか？",
                                        "好きな食べ物は何ですか？",
                                        "ゲームは好き？",
                                        "おすすめの曲を教えて",
                                        "明日の予定は？",
                                        "hello, how are you?",
                                        "眠いです 😴",
                                        "週末はどこへ行きましたか？"};
#define N_QUESTIONS (sizeof questions / sizeof questions[0])

/* ---- counting ------------------------------------------------------------------------------- */

static void complain(const char *who, const char *what, int status)
{
    pthread_mutex_lock(&lock);
    minute.errors++;
    if (n_complaints++ < COMPLAINTS)
        fprintf(stderr, "%s: %s (status %d)\n", who, what, status);
    pthread_mutex_unlock(&lock);
}

static void count(unsigned long *of_minute, unsigned long n)
{
    pthread_mutex_lock(&lock);
    *of_minute += n;
    pthread_mutex_unlock(&lock);
}

/* Counts an answer (and releases it); false if it was none. */
static bool count_answer(const char *who, struct answer *answer)
{
    static const char *const faults[] = {"", "closed too early", "broken", "an event is missing"};
    bool fine = !answer->fault && answer->status == 200;
    if (!fine && answer->status == 429 && !answer->fault) {
        count(&minute.refused, 1);
    } else if (!fine) {
        count(answer->fault == ANSWER_INVALID ? &minute.invalid : &minute.lost,
              answer->fault == ANSWER_INVALID || answer->fault == ANSWER_LOST);
        complain(who, answer->fault ? faults[answer->fault] : "refused", answer->status);
    } else {
        pthread_mutex_lock(&lock);
        minute.answers++;
        minute.tokens += answer->n_tokens;
        if (answer->first > 0 && n_times < TIMES_MAX)
            first_times[n_times++] = answer->first;
        pthread_mutex_unlock(&lock);
    }
    answer_release(answer);
    return fine;
}

/* ---- actors --------------------------------------------------------------------------------- */

static void pause_up_to(unsigned *seed, double seconds)
{
    usleep((useconds_t)(seconds * 1e6 * (double)rand_r(seed) / RAND_MAX));
}

static const char *any_question(unsigned *seed)
{
    return questions[(size_t)rand_r(seed) % N_QUESTIONS];
}

static json_t *chat_body(const json_t *messages, bool stream)
{
    return json_pack("{s:s,s:O,s:b,s:{s:b}}", "model", "rinne", "messages", messages, "stream",
                     stream, "stream_options", "include_usage", 1);
}

static json_t *ask_body(const char *question, bool stream)
{
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", question);
    json_t *body = chat_body(messages, stream);
    json_decref(messages);
    return body;
}

/* One WebSocket for the whole time; the conversation begins anew now and then. Storms move the
 * strength, so that hardly any prefix can be reused: long ones would only measure prefill. */
static void chat_on_socket(unsigned *seed)
{
    static _Thread_local struct socket ws = {.wire = {.fd = -1}};
    static _Thread_local int n;
    struct answer answer;
    if (ws.wire.fd < 0 && !socket_open(&ws, host.port, 0)) {
        complain("socket", "cannot connect", 0);
        return;
    }
    if (n++ % TURNS == 0)
        socket_say(&ws, json_pack("{s:s}", "type", "reset"));
    socket_chat(&ws, any_question(seed), &answer);
    if (!count_answer("socket", &answer) && answer.fault)
        wire_close(&ws.wire);
}

/* A client without memory in the server: it sends the whole conversation each time. */
static void chat_over_api(unsigned *seed)
{
    json_t *messages = json_array();
    for (int turn = 0; turn < 4 && !atomic_load(&stop); turn++) {
        struct answer answer;
        json_array_append_new(
            messages, json_pack("{s:s,s:s}", "role", "user", "content", any_question(seed)));
        client_chat(host.port, chat_body(messages, turn % 2 == 0), &answer);
        json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "assistant", "content",
                                                  answer.text.data ? answer.text.data : ""));
        if (!count_answer("api", &answer))
            break;
        pause_up_to(seed, 0.5);
    }
    json_decref(messages);
}

/* The last of many updates must come back, and no version may go back. */
static void storm(unsigned *seed)
{
    struct socket ws;
    double last = 0;
    enum answer_fault fault = ANSWER_FINE;
    if (!socket_open(&ws, host.port, 0)) {
        complain("slider", "cannot connect", 0);
        return;
    }
    for (int i = 0; i < STORM_UPDATES; i++) {
        last = (double)(rand_r(seed) % 200) / 10;
        if (i + 1 == STORM_UPDATES)
            last += 0.001 * (1 + rand_r(seed) % 90); /* nobody else's */
        if (!socket_say(&ws, json_pack("{s:s,s:f}", "type", "update_strength", "value", last)))
            fault = ANSWER_CLOSED;
        usleep(2000);
    }
    json_t *json;
    while (!fault && fabs(ws.strength - last) > 1e-4 && (json = socket_next(&ws, &fault)))
        json_decref(json);
    if (fabs(ws.strength - last) > 1e-4) {
        count(&minute.lost, 1);
        complain("slider", "the last update did not come back", 0);
    }
    count(&minute.updates, STORM_UPDATES);
    wire_close(&ws.wire);
}

static void leave(unsigned *seed)
{
    struct wire wire = {.fd = -1};
    struct socket ws = {.wire = {.fd = -1}};
    bool over_api = rand_r(seed) % 2;
    if (over_api) {
        size_t n = (size_t)(rand_r(seed) % 3) * 700;
        if (!client_begin(&wire, host.port, ask_body(any_question(seed), rand_r(seed) % 4), n))
            complain("leaver", "cannot connect", 0);
    } else if (socket_open(&ws, host.port, 0)) {
        socket_say(&ws, json_pack("{s:s,s:s}", "type", "message", "content", any_question(seed)));
        pause_up_to(seed, 0.1);
        wire = ws.wire;
    } else {
        complain("leaver", "cannot connect", 0);
    }
    if (rand_r(seed) % 2)
        wire_reset(&wire);
    else
        wire_close(&wire);
    count(&minute.cancelled, 1);
}

/* Asks for much and reads a byte at a time. Whether it gets all of it or is dropped is the server's
 * choice; it must do nothing to the others. */
static void read_slowly(unsigned *seed)
{
    struct socket ws;
    if (!socket_open(&ws, host.port, 2048)) {
        complain("slow reader", "cannot connect", 0);
        return;
    }
    for (int i = 0; i < 2000; i++) {
        if (!socket_say(&ws, json_pack("{s:s,s:n}", "type", "system", "content")))
            break;
    }
    socket_say(&ws, json_pack("{s:s,s:s}", "type", "message", "content", any_question(seed)));
    char byte;
    for (int i = 0; i < 20 && recv(ws.wire.fd, &byte, 1, 0) == 1; i++)
        usleep(250000);
    wire_close(&ws.wire);
    count(&minute.slow, 1);
}

#define JSON_POST                                                                                  \
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "                      \
    "application/json\r\nConnection: close\r\n"

static void malform(unsigned *seed)
{
    static const struct {
        const char *request;
        int status; /* that must come; 0: any refusal, also a closed connection */
    } bad[] = {
        {JSON_POST "Content-Length: 2\r\n\r\n[]", 400},
        {JSON_POST "Content-Length: 5\r\n\r\n{\"a\":", 400},
        {JSON_POST "Content-Length: 134217728\r\n\r\n{", 413},
        {JSON_POST "Content-Length: x\r\n\r\n{}", 0},
        {JSON_POST "Content-Length: 26\r\n\r\n{\"messages\":[{\"role\":\"\xff\"}]}", 400},
        {JSON_POST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 0},
        {"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403},
        {"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403},
        {"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 0},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
        {"GET\r\n\r\n", 0},
        {"PUT /v1/steering HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
         "Connection: close\r\nContent-Length: 17\r\n\r\n{\"strength\":1e99}",
         400},
    };
    static const char *const frames[] = {
        "\x81\x82\x01\x02\x03\x04zz",        /* no JSON */
        "\x83\x80\x01\x02\x03\x04",          /* reserved opcode */
        "\xc1\x80\x01\x02\x03\x04",          /* reserved bit */
        "\x81\xfe\xff\xff\x01\x02\x03\x04",  /* longer than a message may be */
        "\x89\xfe\x01\x01\x01\x02\x03\x04"}; /* a ping that is too long */
    size_t i = (size_t)rand_r(seed) % (sizeof bad / sizeof bad[0]);
    size_t len = strlen(bad[i].request) + (i == 10 ? 6 : 0);
    int status = client_raw(host.port, bad[i].request, len);
    if (bad[i].status ? status != bad[i].status : status && (status < 400 || status >= 500))
        complain("malformed", bad[i].request, status);
    struct socket ws;
    if (socket_open(&ws, host.port, 0)) {
        const char *frame = frames[(size_t)rand_r(seed) % (sizeof frames / sizeof frames[0])];
        wire_send(&ws.wire, frame, 8);
        wire_more(&ws.wire, 0.2);
        wire_close(&ws.wire);
    } else {
        complain("malformed", "cannot connect", 0);
    }
    count(&minute.malformed, 2);
}

struct actor {
    const char *name;
    int n;        /* threads */
    double pause; /* seconds between two acts, at most */
    void (*act)(unsigned *seed);
};

static const struct actor actors[] = {
    {"socket", 2, 1.5, chat_on_socket},
    {"api", 2, 1.5, chat_over_api},
    {"slider", 1, 8, storm},
    {"leaver", 1, 1, leave},
    {"slow", 1, 10, read_slowly},
    {"malformed", 1, 1, malform},
};
#define N_ACTORS (sizeof actors / sizeof actors[0])

static void *actor_main(void *arg)
{
    const struct actor *actor = arg;
    static atomic_uint count_seeds;
    unsigned seed = ++count_seeds;
    while (!atomic_load(&stop)) {
        pthread_rwlock_rdlock(&gate);
        if (!atomic_load(&stop))
            actor->act(&seed);
        pthread_rwlock_unlock(&gate);
        pause_up_to(&seed, actor->pause);
    }
    return NULL;
}

/* ---- the table ------------------------------------------------------------------------------ */

static double number_in(const char *text, const char *name)
{
    const char *at = text ? strstr(text, name) : NULL;
    return at ? atof(at + strlen(name)) : NAN;
}

/* Everybody pauses: slots that stay busy and requests that stay in the queue. */
static int stuck_slots(void)
{
    double stuck = NAN;
    for (double end = clock_seconds() + 10; clock_seconds() < end; usleep(20000)) {
        char *health = NULL;
        if (client_get(host.port, "/health", &health) != 200)
            complain("health", "does not answer 200", 0);
        stuck = number_in(health, "\"slots_busy\":") + number_in(health, "\"waiting\":");
        free(health);
        if (stuck == 0)
            return 0;
    }
    return isfinite(stuck) ? (int)stuck : 1;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double share)
{
    return n_times ? 1e3 * first_times[(size_t)(share * (double)(n_times - 1))] : NAN;
}

static void print_head(void)
{
    puts("| minute | RSS MiB | answers | tokens | refused | left | storms | slow | malformed | "
         "errors "
         "| bad UTF-8 | lost | stuck | first p50 ms | p99 ms |");
    puts("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
}

/* A line for this minute; adds it to the sum. */
static void print_minute(int n, double memory, int stuck)
{
    pthread_mutex_lock(&lock);
    qsort(first_times, n_times, sizeof *first_times, by_value);
    printf("| %d | %.2f | %lu | %lu | %lu | %lu | %lu | %lu | %lu | %lu | %lu | %lu | %d | %.0f | "
           "%.0f |\n",
           n, memory / (1 << 20), minute.answers, minute.tokens, minute.refused, minute.cancelled,
           minute.updates / STORM_UPDATES, minute.slow, minute.malformed, minute.errors,
           minute.invalid, minute.lost, stuck, percentile(0.5), percentile(0.99));
    fflush(stdout);
    unsigned long *sum = (unsigned long *)&all, *add = (unsigned long *)&minute;
    for (size_t i = 0; i < sizeof all / sizeof *sum; i++)
        sum[i] += add[i];
    minute = (struct counts){0};
    n_times = 0;
    pthread_mutex_unlock(&lock);
}

/* Runs the minutes; the number of slots that were stuck. *growth: of memory, after SETTLE. */
static int watch(int minutes, double *growth)
{
    double settled = 0, start = clock_seconds();
    int stuck_sum = 0, settle = minutes > 2 * SETTLE ? SETTLE : (minutes + 1) / 2;
    *growth = 0;
    print_head();
    for (int n = 1; n <= minutes; n++) {
        double left = start + 60.0 * n - clock_seconds();
        if (left > 0)
            usleep((useconds_t)(left * 1e6));
        pthread_rwlock_wrlock(&gate);
        int stuck = stuck_slots();
        double memory = host_memory(&host);
        if (n <= settle)
            settled = memory;
        else if (memory / settled - 1 > *growth)
            *growth = memory / settled - 1;
        if (n == minutes)
            atomic_store(&stop, true);
        pthread_rwlock_unlock(&gate);
        print_minute(n, memory, stuck);
        stuck_sum += stuck;
    }
    return stuck_sum;
}

/* Fills the KV cache of a slot to its end with the longest message that fits: what is used for the
 * first time later would look like a leak. */
static void *fill(void *arg)
{
    struct answer answer = {.status = 400};
    for (double n = FILL_WORDS; answer.status == 400 && !answer.fault; n *= 0.97) {
        struct str text = STR_INIT;
        for (int i = 0; i < (int)n; i++)
            str_puts(&text, questions[(size_t)i % N_QUESTIONS]);
        json_t *body = ask_body(text.data, true);
        str_release(&text);
        answer_release(&answer);
        client_chat(host.port, body, &answer);
    }
    count_answer("filler", &answer);
    return NULL;
}

static int soak(int minutes)
{
    pthread_t threads[16];
    size_t n_threads = 0;
    double growth;
    for (; n_threads < SESSIONS; n_threads++)
        pthread_create(&threads[n_threads], NULL, fill, NULL);
    while (n_threads)
        pthread_join(threads[--n_threads], NULL);
    minute = (struct counts){.errors = minute.errors};
    n_times = 0;
    for (size_t i = 0; i < N_ACTORS; i++) {
        for (int k = 0; k < actors[i].n; k++)
            if (pthread_create(&threads[n_threads++], NULL, actor_main, (void *)&actors[i]))
                return -1;
    }
    int stuck = watch(minutes, &growth);
    for (size_t i = 0; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    int code = host_stop(&host);
    bool failed =
        stuck || all.errors || all.invalid || all.lost || growth > GROWTH || code || !all.answers;
    printf("\n%lu answers, %lu tokens, %lu errors, %lu bad UTF-8, %lu lost events, %d stuck slots; "
           "memory grew by %.2f%% at most after the first minutes (%d allowed); the server ended "
           "with %d: %s\n",
           all.answers, all.tokens, all.errors, all.invalid, all.lost, stuck, 100 * growth,
           (int)(100 * GROWTH), code, failed ? "FAILED" : "passed");
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    static const char *options[32] = {"--sessions",   "4", "--send-timeout", "3",
                                      "--max-tokens", "48"};
    int minutes = 60, n = 6, i = 1;
    pthread_rwlockattr_t attributes;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--minutes") && i + 1 < argc && atoi(argv[i + 1]) > 0) {
            minutes = atoi(argv[++i]);
        } else {
            fprintf(stderr, "usage: soak [--minutes N] [-- OPTION OF gyaru serve ...]\n");
            return 2;
        }
    }
    for (i++; i < argc && n < 31; i++)
        options[n++] = argv[i];
    /* The check must not starve behind actors that take turns. */
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&gate, &attributes);
    if (host_start(&host, options))
        return 1;
    return soak(minutes) ? 1 : 0;
}
