/* route.c - the table of paths; health. */
#include "server/api.h"

#include <string.h>

static int answer_health(struct server *server, struct conn *conn, struct lws *wsi)
{
    const struct engine_info *info = engine_info(server->engine);
    if (server->stopping)
        return http_error(conn, wsi, 503, "unavailable_error", "Shutting down");
    if (!info) {
        json_t *error = json_pack("{s:{s:i,s:s,s:s}}", "error", "code", 503, "message",
                                  "Loading model", "type", "unavailable_error");
        double progress = engine_progress(server->engine);
        if (error && progress >= 0)
            json_object_set_new(error, "progress", json_real(progress));
        return http_json(conn, wsi, 503, error);
    }
    struct engine_counts counts = engine_counts(server->engine);
    return http_json(conn, wsi, 200,
                     json_pack("{s:s,s:s,s:s,s:i,s:i,s:i}", "status", "ok", "model",
                               info->model_name, "version", GYARU_VERSION, "slots", counts.slots,
                               "slots_busy", counts.running, "waiting", counts.waiting));
}

static int answer_ws(struct server *server, struct conn *conn, struct lws *wsi)
{
    return http_error(conn, wsi, 426, "invalid_request_error", "this path speaks WebSocket only");
}

/* A path that ends with '/' stands for all that begin with it. The doubled ones are what clients
 * make of a full address in a setting that asks for its beginning. */
static const struct route routes[] = {
    {"GET", "/health", true, BODY_NONE, answer_health},
    {"POST", "/v1/chat/completions", false, BODY_JSON, api_chat_completions},
    {"POST", "/chat/completions", false, BODY_JSON, api_chat_completions},
    {"POST", "/v1/chat/completions/chat/completions", false, BODY_JSON, api_chat_completions},
    {"POST", "/v1/chat/completions/v1/chat/completions", false, BODY_JSON, api_chat_completions},
    {"GET", "/v1/models", false, BODY_NONE, api_models},
    {"GET", "/v1/models/", false, BODY_NONE, api_model},
    {"GET", "/v1/steering", false, BODY_NONE, api_steering},
    {"PUT", "/v1/steering", false, BODY_JSON, api_put_steering},
    {"GET", "/v1/vectors", false, BODY_NONE, api_vectors},
    {"POST", "/v1/vectors/reload", false, BODY_JSON, api_vectors_reload},
    {"GET", "/v1/vectors/", false, BODY_NONE, api_vector},
    {"GET", "/v1/reports", false, BODY_NONE, api_reports},
    {"GET", "/v1/reports/", false, BODY_NONE, api_report},
    {"GET", "/v1/personas", false, BODY_NONE, api_personas},
    {"POST", "/tokenize", false, BODY_JSON, api_tokenize},
    {"POST", "/detokenize", false, BODY_JSON, api_detokenize},
    {"GET", "/props", false, BODY_NONE, api_props},
    {"POST", "/completion", false, BODY_JSON, api_completion},
    {"POST", "/api/chat", false, BODY_JSON, api_ollama_chat},
    {"POST", "/v1/audio/speech", false, BODY_JSON, api_speech},
    {"GET", "/voicevox/speakers", false, BODY_NONE, api_voice_speakers},
    {"GET", "/voicevox/version", false, BODY_NONE, api_voice_version},
    {"POST", "/voicevox/audio_query", false, BODY_MAYBE, api_voice_query},
    {"POST", "/voicevox/synthesis", false, BODY_JSON, api_voice_synthesis},
    {"GET", "/metrics", false, BODY_NONE, api_metrics},
    {"GET", PATH_WS, false, BODY_NONE, answer_ws},
    {"GET", PATH_OVERLAY, false, BODY_NONE, answer_ws},
};

static bool matches(const char *pattern, const char *path)
{
    size_t len = strlen(pattern);
    if (pattern[len - 1] == '/')
        return !strncmp(path, pattern, len) && path[len];
    return !strcmp(path, pattern);
}

const struct route *route_find(const char *method, const char *path, bool *known_path)
{
    *known_path = false;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!matches(routes[i].path, path))
            continue;
        *known_path = true;
        if (!strcmp(method, routes[i].method))
            return &routes[i];
    }
    return NULL;
}
