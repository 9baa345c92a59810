/*
 * cmd_serve.c - `gyaru serve`: options, key, signals; the server itself is src/server.
 */
#include "cli/cli.h"

#include "base/file.h"
#include "base/http_client.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "server/log.h"
#include "server/server.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY_MIN       8 /* characters of an API key */
#define REPORT_FOLDER "outputs/reports"
#define PERSONAS      "data/prompts.json"
#define VOICE_URL     "http://127.0.0.1:50021" /* where VOICEVOX listens */

struct serve {
    struct common_options common;
    struct sampling_options sampling;
    const char *host, *port_file, *key_file, *system, *allow_origin, *vectors, *reports, *voice_url;
    char *personas;   /* owned: file of system prompts to choose from */
    char *own_vector; /* owned: the model's own */
    int port, sessions, waiting, connections, message_bytes, body_bytes, ring_events, idle_seconds,
        send_seconds, drain_seconds, ping_seconds, per_address, voice_speaker, voice_seconds;
    const char *log_level, *log_format;
    bool log_content;
    char *key; /* owned; NULL: none */
    struct log_options log;
    struct loaded_model loaded;
};

#define AT(field) offsetof(struct serve, field)

static const struct option_spec serve_options[] = {
    {0, "host", OPTION_TEXT, AT(host), 0, 0, "ADDRESS",
     "address to bind; any but a loopback address needs an API key (config: server.host, else "
     "127.0.0.1)"},
    {0, "port", OPTION_INT, AT(port), 0, 65535, "N",
     "TCP port; 0: a free one (config: server.port, else 8080)"},
    {0, "port-file", OPTION_TEXT, AT(port_file), 0, 0, "FILE", "write the port here once bound"},
    {0, "api-key-file", OPTION_TEXT, AT(key_file), 0, 0, "FILE",
     "its first line is the key that clients must send (else GYARU_API_KEY, else none)"},
    {0, "system", OPTION_TEXT, AT(system), 0, 0, "TEXT",
     "system prompt of new conversations (config: generation.system_prompt, else the model's own)"},
    {0, "vectors", OPTION_TEXT, AT(vectors), 0, 0, "DIR",
     "folder of the vectors that clients may use by name, besides -v and the model's own (config: "
     "steering.vectors, else " LOAD_VECTOR_FOLDER ")"},
    {0, "reports", OPTION_TEXT, AT(reports), 0, 0, "DIR",
     "folder of the reports that the page shows (config: steering.reports, else " REPORT_FOLDER
     ")"},
    {0, "sessions", OPTION_INT, AT(sessions), 1, 64, "N", "answers at a time, 1..64 (4)"},
    {0, "waiting", OPTION_INT, AT(waiting), 1, 10000, "N", "requests that may wait (32)"},
    {0, "connections", OPTION_INT, AT(connections), 1, 50000, "N", "open sockets (2048)"},
    {0, "max-message", OPTION_INT, AT(message_bytes), 64, 16 << 20, "BYTES",
     "of one WebSocket message (65536)"},
    {0, "max-body", OPTION_INT, AT(body_bytes), 64, 16 << 20, "BYTES",
     "of one request body (1048576)"},
    {0, "per-address", OPTION_INT, AT(per_address), 1, 10000, "N",
     "API answers that run or wait for one client address (16)"},
    {0, "allow-origin", OPTION_TEXT, AT(allow_origin), 0, 0, "LIST",
     "other web pages that may use the API, as http://HOST:PORT with commas between (none)"},
    {0, "voicevox-url", OPTION_TEXT, AT(voice_url), 0, 0, "URL",
     "of a VOICEVOX-compatible engine, none: no voice (else VOICEVOX_URL, else config: voice.url, "
     "else http://127.0.0.1:50021)"},
    {0, "voice-speaker", OPTION_INT, AT(voice_speaker), 0, 2147483647, "N",
     "number of the style that speaks (config: voice.speaker, else the engine's first)"},
    {0, "voice-timeout", OPTION_INT, AT(voice_seconds), 1, 3600, "SECONDS",
     "for one call of the voice engine (60)"},
    {0, "ring", OPTION_INT, AT(ring_events), 16, 1 << 20, "N",
     "tokens of one answer that may wait for a slow reader (1024)"},
    {0, "idle-timeout", OPTION_INT, AT(idle_seconds), 1, 86400, "SECONDS",
     "before a silent HTTP connection is closed (20)"},
    {0, "send-timeout", OPTION_INT, AT(send_seconds), 1, 86400, "SECONDS",
     "before a connection that reads nothing is closed (30)"},
    {0, "drain", OPTION_INT, AT(drain_seconds), 0, 86400, "SECONDS",
     "for running answers after SIGTERM (5)"},
    {0, "ping", OPTION_INT, AT(ping_seconds), 1, 86400, "SECONDS",
     "of silence in a streamed answer before a comment keeps it alive (15)"},
    {0, "log-level", OPTION_TEXT, AT(log_level), 0, 0, "LEVEL",
     "what is logged: error, warn, info or debug, each with what is worse (info)"},
    {0, "log-format", OPTION_TEXT, AT(log_format), 0, 0, "FORMAT",
     "text, or json: an object a line (text)"},
    {0, "log-content", OPTION_FLAG, AT(log_content), 0, 0, NULL,
     "log questions and answers too; without it, what people say stays out of the log"},
    OPTION_END};

static void serve_init(struct serve *serve)
{
    struct server_options defaults;
    server_options_init(&defaults);
    *serve = (struct serve){
        .port = OPTION_UNSET,
        .sessions = defaults.sessions,
        .waiting = defaults.waiting,
        .connections = defaults.connections,
        .message_bytes = (int)defaults.message_bytes,
        .body_bytes = (int)defaults.body_bytes,
        .ping_seconds = defaults.ping_seconds,
        .per_address = defaults.per_address,
        .ring_events = defaults.ring_events,
        .idle_seconds = defaults.idle_seconds,
        .send_seconds = defaults.send_seconds,
        .drain_seconds = defaults.drain_seconds,
        .voice_speaker = OPTION_UNSET,
        .voice_seconds = (int)defaults.voice.timeout,
        .loaded = {.vector = -1},
    };
    common_options_init(&serve->common);
    sampling_options_init(&serve->sampling);
}

static void serve_release(struct serve *serve)
{
    common_options_release(&serve->common);
    free(serve->key);
    free(serve->personas);
    free(serve->own_vector);
}

/* ---- the key -------------------------------------------------------------------------------- */

/* Keys travel in headers and cookies: letters, digits and harmless signs only. */
static int check_key(const char *key, const char *where, struct gyaru_error *err)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789-._~+/=";
    size_t len = strlen(key);
    if (len < KEY_MIN || len > 512 || strspn(key, allowed) != len)
        return error_set(err, GYARU_USAGE,
                         "%s: a key is %d to 512 letters, digits or any of -._~+/=", where,
                         KEY_MIN);
    return 0;
}

static int read_key(struct serve *serve, struct gyaru_error *err)
{
    const char *variable = getenv("GYARU_API_KEY");
    if (serve->key_file) {
        size_t len;
        if (file_read(serve->key_file, 4096, &serve->key, &len, err)) {
            err->status = GYARU_USAGE;
            return -1;
        }
        serve->key[strcspn(serve->key, "\r\n")] = '\0';
        return check_key(serve->key, serve->key_file, err);
    }
    if (!variable || !*variable)
        return 0;
    serve->key = strdup(variable);
    if (!serve->key)
        return error_memory(err, strlen(variable), "the API key");
    return check_key(serve->key, "GYARU_API_KEY", err);
}

/* ---- the model, in the engine thread -------------------------------------------------------- */

static int load(void *user, gyaru_progress *progress, void *progress_user, struct server_model *out,
                struct gyaru_error *err)
{
    struct serve *serve = user;
    struct load_options options = {.sessions = serve->sessions,
                                   .find_vector = true,
                                   .check_only = true,
                                   .folder = serve->vectors,
                                   .progress = progress,
                                   .progress_user = progress_user};
    if (common_load(&serve->common, &options, &serve->loaded, err))
        return -1;
    const char *dir = gyaru_model_info(serve->loaded.model)->dir;
    serve->own_vector = file_join(dir, LOAD_MODEL_VECTOR);
    if (!serve->own_vector)
        return error_memory(err, strlen(dir), "a path");
    char *line = loaded_model_line(serve->loaded.model);
    if (line)
        log_event(&serve->log, LOG_LEVEL_INFO, "loaded", json_pack("{s:s}", "plan", line));
    free(line);
    *out = (struct server_model){
        .model = serve->loaded.model,
        .vectors = {.main = serve->loaded.vector_path,
                    .main_options = serve->loaded.attach,
                    .folder = serve->vectors,
                    .own = serve->own_vector},
        .strength = serve->loaded.strength,
    };
    sampling_options_apply(&serve->sampling, serve->loaded.model, &out->sampling);
    return 0;
}

static void unload(void *user)
{
    struct serve *serve = user;
    loaded_model_release(&serve->loaded);
}

/* ---- signals -------------------------------------------------------------------------------- */

struct stopper {
    struct server *server;
    const struct log_options *log;
};

/* SIGHUP reads the vectors again. The first signal of the others stops the server; a second one
 * ends the process in its handler. */
static void *signal_main(void *arg)
{
    struct stopper *stopper = arg;
    while (!interrupt_wait())
        server_reload(stopper->server);
    log_event(stopper->log, LOG_LEVEL_INFO, "stopping", NULL);
    server_stop(stopper->server);
    return NULL;
}

/* ---- command -------------------------------------------------------------------------------- */

static int read_log_options(struct serve *serve, struct gyaru_error *err)
{
    const char *level = serve->log_level ? serve->log_level : "info";
    const char *format = serve->log_format ? serve->log_format : "text";
    int known = log_level_of(level);
    if (known < 0)
        return error_set(err, GYARU_USAGE, "--log-level: '%s': expected error, warn, info or debug",
                         level);
    if (strcmp(format, "text") && strcmp(format, "json"))
        return error_set(err, GYARU_USAGE, "--log-format: '%s': expected text or json", format);
    serve->log =
        (struct log_options){(enum log_level)known, !strcmp(format, "json"), serve->log_content};
    return 0;
}

static int finish_voice(struct serve *serve, const struct config *config, struct gyaru_error *err)
{
    const char *environment = getenv("VOICEVOX_URL");
    if (!serve->voice_url)
        serve->voice_url = environment && *environment ? environment
                           : config->voice_url         ? config->voice_url
                                                       : VOICE_URL;
    if (serve->voice_speaker == OPTION_UNSET)
        serve->voice_speaker = config->voice_speaker == CONFIG_UNSET ? -1 : config->voice_speaker;
    if (!strcmp(serve->voice_url, "none")) {
        serve->voice_url = NULL;
        return 0;
    }
    return http_client_check_base(serve->voice_url, err) ? error_prefix(err, "--voicevox-url") : 0;
}

static int finish_options(struct serve *serve, struct gyaru_error *err)
{
    struct config *config = &serve->common.config;
    if (common_options_finish(&serve->common, err) || read_log_options(serve, err))
        return -1;
    sampling_options_finish(&serve->sampling, config);
    if (!serve->host)
        serve->host = config->host ? config->host : "127.0.0.1";
    if (serve->port == OPTION_UNSET)
        serve->port = config->port == CONFIG_UNSET ? 8080 : config->port;
    if (!serve->system)
        serve->system = config->system_prompt;
    if (!serve->vectors)
        serve->vectors = config->vectors ? config->vectors : LOAD_VECTOR_FOLDER;
    if (!serve->reports)
        serve->reports = config->reports ? config->reports : REPORT_FOLDER;
    if (finish_voice(serve, config, err) || common_data_path(PERSONAS, &serve->personas, err))
        return -1;
    /* Found again by the engine thread; a name that is wrong is better said before listening. */
    char *dir;
    if (read_key(serve, err) || common_model_dir(&serve->common, &dir, err))
        return -1;
    free(dir);
    if (!server_host_is_loopback(serve->host) && !serve->key)
        return error_set(err, GYARU_USAGE,
                         "%s is reachable from other machines: name a key with --api-key-file "
                         "FILE or GYARU_API_KEY, or bind 127.0.0.1",
                         serve->host);
    return 0;
}

static void fill_options(struct serve *serve, struct server_options *options)
{
    server_options_init(options);
    options->host = serve->host;
    options->port = serve->port;
    options->port_file = serve->port_file;
    options->api_key = serve->key;
    options->system = serve->system;
    options->reports = serve->reports;
    options->personas = serve->personas;
    options->max_tokens = serve->sampling.max_tokens;
    options->sessions = serve->sessions;
    options->waiting = serve->waiting;
    options->connections = serve->connections;
    options->message_bytes = (size_t)serve->message_bytes;
    options->body_bytes = (size_t)serve->body_bytes;
    options->ping_seconds = serve->ping_seconds;
    options->per_address = serve->per_address;
    options->allow_origin = serve->allow_origin;
    options->ring_events = serve->ring_events;
    options->idle_seconds = serve->idle_seconds;
    options->send_seconds = serve->send_seconds;
    options->drain_seconds = serve->drain_seconds;
    options->log = serve->log;
    options->voice.url = serve->voice_url;
    options->voice.speaker = serve->voice_speaker;
    options->voice.timeout = serve->voice_seconds;
    options->load = load;
    options->unload = unload;
    options->user = serve;
}

static void log_listening(const struct serve *serve, int port)
{
    bool v6 = strchr(serve->host, ':');
    json_t *url =
        json_sprintf("http://%s%s%s:%d/", v6 ? "[" : "", serve->host, v6 ? "]" : "", port);
    log_event(&serve->log, LOG_LEVEL_INFO, "listening", json_pack("{s:o}", "url", url));
}

static int serve_until_stopped(struct serve *serve, struct gyaru_error *err)
{
    struct server_options options;
    struct server *server;
    pthread_t signals;
    fill_options(serve, &options);
    interrupt_catch();
    interrupt_catch_hangup();
    if (server_new(&options, &server, err))
        return -1;
    struct stopper stopper = {server, &options.log};
    if (pthread_create(&signals, NULL, signal_main, &stopper)) {
        server_free(server);
        return error_set(err, GYARU_FAILED, "cannot start the signal thread");
    }
    log_listening(serve, server_port(server));
    int rc = server_run(server, err);
    pthread_cancel(signals);
    pthread_join(signals, NULL);
    server_free(server);
    if (!rc)
        log_event(&serve->log, LOG_LEVEL_INFO, "stopped", NULL);
    return rc;
}

static int run(int argc, char **argv)
{
    struct gyaru_error error;
    struct serve serve;
    serve_init(&serve);
    const struct option_group groups[] = {{common_model_options, &serve.common},
                                          {common_steering_options, &serve.common},
                                          {sampling_options, &serve.sampling},
                                          {serve_options, &serve},
                                          {NULL, NULL}};
    const struct option_help help = {"serve", "[options]",
                                     "Serves the page, the WebSocket chat and the "
                                     "OpenAI-compatible API until SIGINT or SIGTERM.",
                                     groups};
    int code = 0;
    enum option_result parsed = options_parse(&help, &argc, argv, &error);
    if (parsed == OPTIONS_OK && argc > 1)
        parsed = error_set(&error, GYARU_USAGE, "unexpected argument '%s'", argv[1]);
    if (parsed == OPTIONS_BAD)
        code = options_fail("serve", &error);
    else if (parsed == OPTIONS_OK &&
             (finish_options(&serve, &error) || serve_until_stopped(&serve, &error)))
        code = options_fail("serve", &error);
    serve_release(&serve);
    return code;
}

const struct command cmd_serve = {"serve", "the page, the WebSocket chat and the OpenAI API", run};
