/*
 * metrics.c - GET /metrics in Prometheus' text format: what the engine counted, and the moment.
 */
#include "server/api.h"

#include "base/str.h"
#include "server/overlay.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void head(struct str *out, const char *name, const char *type, const char *help)
{
    str_printf(out, "# HELP gyaru_%s %s\n# TYPE gyaru_%s %s\n", name, help, name, type);
}

static void metric(struct str *out, const char *name, const char *type, double value,
                   const char *help)
{
    if (!isfinite(value))
        return;
    head(out, name, type, help);
    str_printf(out, "gyaru_%s %.17g\n", name, value);
}

static void add_answers(struct str *out, const struct engine_totals *t)
{
    const struct {
        const char *how;
        uint64_t n;
    } ends[] = {{"stop", t->stopped},
                {"length", t->cut},
                {"cancelled", t->cancelled},
                {"failed", t->failed}};
    head(out, "answers_total", "counter", "Answers that ended, by how.");
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        str_printf(out, "gyaru_answers_total{finish=\"%s\"} %llu\n", ends[i].how,
                   (unsigned long long)ends[i].n);
}

static void add_first_token(struct str *out, const struct engine_totals *t)
{
    uint64_t n = 0;
    head(out, "first_token_seconds", "histogram", "From the request to its first token.");
    for (int i = 0; i <= ENGINE_FIRST_BUCKETS; i++) {
        n += t->first_counts[i];
        if (i < ENGINE_FIRST_BUCKETS)
            str_printf(out, "gyaru_first_token_seconds_bucket{le=\"%g\"} %llu\n",
                       engine_first_bounds[i], (unsigned long long)n);
        else
            str_printf(out, "gyaru_first_token_seconds_bucket{le=\"+Inf\"} %llu\n",
                       (unsigned long long)n);
    }
    str_printf(out, "gyaru_first_token_seconds_sum %.9g\ngyaru_first_token_seconds_count %llu\n",
               t->first_seconds, (unsigned long long)n);
}

static void add_voice(struct str *out, struct server *server)
{
    struct voice_totals t = voice_totals(server->voice);
    head(out, "speech_requests_total", "counter", "Requests to speak that ended, by how.");
    str_printf(out,
               "gyaru_speech_requests_total{end=\"spoken\"} %llu\n"
               "gyaru_speech_requests_total{end=\"failed\"} %llu\n"
               "gyaru_speech_requests_total{end=\"cancelled\"} %llu\n",
               (unsigned long long)t.spoken, (unsigned long long)t.failed,
               (unsigned long long)t.cancelled);
    metric(out, "speech_sound_seconds_total", "counter", t.sound_seconds, "Speech that was made.");
    metric(out, "speech_busy_seconds_total", "counter", t.busy_seconds,
           "Time that the voice engine took for it.");
}

/* The live mix; names are quoted as Prometheus reads them. */
static void add_mix(struct str *out, struct steering *steering)
{
    struct steer_mix mix;
    steering_copy(steering, &mix);
    head(out, "vector_strength", "gauge", "Live strength of each vector in the mix.");
    for (int i = 0; i < mix.n; i++) {
        str_puts(out, "gyaru_vector_strength{vector=\"");
        for (const char *p = mix.parts[i].vector->name; *p; p++) {
            if (*p == '"' || *p == '\\')
                str_putc(out, '\\');
            str_putc(out, *p);
        }
        str_printf(out, "\"} %.9g\n", (double)mix.parts[i].strength);
    }
    mix_release(&mix);
}

/* Resident memory of the process, bytes; NaN if it cannot be read. */
static double resident_bytes(void)
{
    long total, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return NAN;
    int n = fscanf(file, "%ld %ld", &total, &resident);
    fclose(file);
    return n == 2 ? (double)resident * (double)sysconf(_SC_PAGESIZE) : NAN;
}

int api_metrics(struct server *server, struct conn *conn, struct lws *wsi)
{
    if (!engine_info(server->engine))
        return api_loading(server, conn, wsi);
    struct engine_totals t = engine_totals(server->engine);
    struct engine_counts counts = engine_counts(server->engine);
    struct str out = STR_INIT;
    add_answers(&out, &t);
    metric(&out, "prompt_tokens_total", "counter", (double)t.prompt_tokens,
           "Prompt tokens of answers that ended, cached ones included.");
    metric(&out, "cached_tokens_total", "counter", (double)t.cached_tokens,
           "Prompt tokens that the KV cache already held.");
    metric(&out, "generated_tokens_total", "counter", (double)t.generated_tokens,
           "Generated tokens of answers that ended.");
    metric(&out, "prefill_seconds_total", "counter", t.prefill_seconds,
           "Time from start to first token, summed over answers.");
    metric(&out, "decode_seconds_total", "counter", t.decode_seconds,
           "Time from first to last token, summed over answers.");
    add_first_token(&out, &t);
    metric(&out, "slots", "gauge", counts.slots, "Answers that can run at a time.");
    metric(&out, "slots_busy", "gauge", counts.running, "Answers that run.");
    metric(&out, "queue_places", "gauge", counts.places, "Requests that may wait.");
    metric(&out, "queue_waiting", "gauge", counts.waiting, "Requests that wait.");
    metric(&out, "connections", "gauge", server->n_connections, "Open sockets.");
    add_voice(&out, server);
    const struct broadcast *broadcast = overlay_broadcast(server->overlay);
    metric(&out, "overlay_viewers", "gauge", (double)broadcast->n_viewers, "Open overlays.");
    metric(&out, "overlay_sent_total", "counter", (double)broadcast->sent,
           "Messages that overlays got, summed over them.");
    metric(&out, "overlay_dropped_total", "counter", (double)broadcast->dropped,
           "Messages that overlays missed because they are slow.");
    metric(&out, "strength", "gauge", (double)steering_get(&server->steering).strength,
           "Live strength of the main control vector.");
    add_mix(&out, &server->steering);
    metric(&out, "meter_cosine", "gauge", (double)t.cosine, "Raw meter of the newest token.");
    metric(&out, "meter_calibrated", "gauge", (double)t.gauge,
           "Calibrated meter of the newest token.");
    metric(&out, "resident_memory_bytes", "gauge", resident_bytes(), "Memory of the process.");
    size_t len = out.len;
    char *text = str_take(&out);
    if (!text)
        return -1;
    return http_answer(conn, wsi,
                       (struct http_answer){.status = 200,
                                            .type = "text/plain; version=0.0.4; charset=utf-8",
                                            .body = (const unsigned char *)text,
                                            .len = len,
                                            .owned = text});
}
