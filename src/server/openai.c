/*
 * openai.c - the OpenAI-compatible endpoints: chat completions and models.
 */
#include "server/api.h"

#include "base/json.h"
#include "server/stream.h"

#include <string.h>

int api_loading(struct server *server, struct conn *conn, struct lws *wsi)
{
    return http_error(conn, wsi, 503, "unavailable_error",
                      server->stopping ? "Shutting down" : "Loading model");
}

int api_refuse(struct conn *conn, struct lws *wsi, const struct gyaru_error *error)
{
    const bool full = error->status == GYARU_NO_MEMORY;
    const unsigned status = full ? 503 : error->status == GYARU_MISMATCH ? 409 : 400;
    return http_refuse(conn, wsi, status, full ? "unavailable_error" : "invalid_request_error",
                       error->reason, error->text);
}

json_t *api_body(struct conn *conn, struct gyaru_error *err)
{
    const struct str *body = &conn->exchange.request;
    return json_parse(body->data ? body->data : "", body->len, "the request", err);
}

/* ---- answers -------------------------------------------------------------------------------- */

/* AITuberKit's custom-api sends no `stream` and can read nothing but a stream. It is known by its
 * `threadId`, or by being a Node program that names no model, which OpenAI's clients always do. */
static bool streams_unasked(struct lws *wsi, const json_t *body)
{
    char agent[16];
    if (json_object_get(body, "threadId"))
        return true;
    return !json_object_get(body, "model") &&
           lws_hdr_copy(wsi, agent, sizeof agent, WSI_TOKEN_HTTP_USER_AGENT) > 0 &&
           !strcmp(agent, "node");
}

int api_ask(struct server *server, struct conn *conn, struct lws *wsi, enum frame_style style)
{
    struct gyaru_error error;
    if (!engine_info(server->engine) || server->stopping)
        return api_loading(server, conn, wsi);
    json_t *body = api_body(conn, &error);
    if (!body)
        return api_refuse(conn, wsi, &error);
    const struct ask_rules rules = {.info = engine_info(server->engine),
                                    .live = &server->steering,
                                    .shelf = &server->shelf,
                                    .system = server->options.system,
                                    .max_tokens = server->options.max_tokens,
                                    .history_bytes = server->options.history_bytes,
                                    .stream = style == FRAME_CHAT && streams_unasked(wsi, body)};
    struct ask ask;
    int rc = style == FRAME_CHAT ? ask_chat(&ask, &rules, body, &error)
                                 : ask_completion(&ask, &rules, body, &error);
    json_decref(body);
    return rc ? api_refuse(conn, wsi, &error) : stream_begin(server, conn, wsi, &ask, style);
}

int api_chat_completions(struct server *server, struct conn *conn, struct lws *wsi)
{
    return api_ask(server, conn, wsi, FRAME_CHAT);
}

/* ---- names ---------------------------------------------------------------------------------- */

static json_t *model_json(const struct engine_info *info)
{
    return json_pack("{s:s,s:s,s:I,s:s,s:{s:i}}", "id", info->model_name, "object", "model",
                     "created", (json_int_t)info->loaded_at, "owned_by", "gyaru", "meta", "n_ctx",
                     info->context);
}

int api_models(struct server *server, struct conn *conn, struct lws *wsi)
{
    const struct engine_info *info = engine_info(server->engine);
    if (!info)
        return api_loading(server, conn, wsi);
    return http_json(conn, wsi, 200,
                     json_pack("{s:s,s:[o]}", "object", "list", "data", model_json(info)));
}

int api_model(struct server *server, struct conn *conn, struct lws *wsi)
{
    const struct engine_info *info = engine_info(server->engine);
    if (!info)
        return api_loading(server, conn, wsi);
    if (strcmp(conn->exchange.path + strlen("/v1/models/"), info->model_name))
        return http_error(conn, wsi, 404, "not_found_error",
                          "there is no such model; GET /v1/models names the one there is");
    return http_json(conn, wsi, 200, model_json(info));
}
