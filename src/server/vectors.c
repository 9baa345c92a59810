/*
 * vectors.c - the vectors that there are, by name, and what steers now: /v1/vectors, /v1/steering.
 *
 * Reading the folder again happens in the event loop: a file that did not change is not opened, and
 * the engine's thread goes on meanwhile.
 */
#include "server/api.h"

#include "server/log.h"

#include <string.h>

int vectors_reload(struct server *server, struct gyaru_error *err)
{
    bool changed = false;
    if (shelf_reload(&server->shelf, &changed, err))
        return -1;
    log_event(&server->options.log, LOG_LEVEL_INFO, "vectors_read",
              json_pack("{s:I,s:b}", "vectors", (json_int_t)server->shelf.n, "changed", changed));
    if (!changed)
        return 0;
    server->shelf_version++;
    steering_renew(&server->steering, &server->shelf);
    ws_notify_all(server);
    return 0;
}

/* With what the live mix does with it. */
static json_t *vector_json(const struct shelf_vector *vector, struct steer_mix *live, json_t *json)
{
    const struct steer_part *part = mix_find(live, vector->name);
    if (!json)
        return NULL;
    json_object_set_new(json, "strength", part ? json_real((double)part->strength) : json_null());
    json_object_set_new(json, "main", json_boolean(live->n && part == &live->parts[0]));
    return json;
}

int api_vectors(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct steer_mix live;
    if (!engine_info(server->engine))
        return api_loading(server, conn, wsi);
    json_t *data = json_array();
    steering_copy(&server->steering, &live);
    for (size_t i = 0; i < server->shelf.n; i++) {
        const struct shelf_vector *vector = server->shelf.vectors[i];
        json_array_append_new(data, vector_json(vector, &live, shelf_json(vector)));
    }
    mix_release(&live);
    return http_json(
        conn, wsi, 200,
        json_pack("{s:s,s:o,s:i}", "object", "list", "data", data, "max_mixed", GYARU_MAX_VECTORS));
}

int api_vector(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct steer_mix live;
    if (!engine_info(server->engine))
        return api_loading(server, conn, wsi);
    const char *name = conn->exchange.path + strlen("/v1/vectors/");
    const struct shelf_vector *vector = shelf_find(&server->shelf, name);
    if (!shelf_name_valid(name))
        return http_error(conn, wsi, 400, "invalid_request_error",
                          "a vector is known by its name; GET /v1/vectors lists them");
    if (!vector)
        return http_error(conn, wsi, 404, "not_found_error",
                          "there is no such vector; GET /v1/vectors lists them");
    steering_copy(&server->steering, &live);
    json_t *json = vector_json(vector, &live, shelf_details(vector));
    mix_release(&live);
    return http_json(conn, wsi, 200, json);
}

int api_vectors_reload(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct gyaru_error error;
    if (!engine_info(server->engine) || server->stopping)
        return api_loading(server, conn, wsi);
    if (vectors_reload(server, &error)) {
        log_event(&server->options.log, LOG_LEVEL_ERROR, "vectors_unread",
                  json_pack("{s:s}", "error", error.text));
        return http_refuse(conn, wsi, 500, "server_error", reason_name(REASON_FOLDER),
                           "the vectors' folder cannot be read; the server's log says why");
    }
    return api_vectors(server, conn, wsi);
}

/* ---- steering ------------------------------------------------------------------------------- */

/* Tuning found how far a vector may go: who goes past it is told, not held back. */
static json_t *warning_of(const struct steer_mix *mix)
{
    for (int i = 0; i < mix->n; i++) {
        const struct shelf_vector *vector = mix->parts[i].vector;
        float max = gyaru_vector_info(vector->vector)->max_strength;
        if (mix->parts[i].strength > max) /* not if it is unknown, NaN */
            return json_sprintf("'%s' is above %g, the most that was found safe for it",
                                vector->name, (double)max);
    }
    return json_null();
}

int api_steering(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct steer_mix live;
    if (!engine_info(server->engine))
        return api_loading(server, conn, wsi);
    struct steering_value value = steering_get(&server->steering);
    steering_copy(&server->steering, &live);
    const struct shelf_vector *vector = live.n ? live.parts[0].vector : NULL;
    json_t *json =
        json_pack("{s:f,s:I,s:f,s:f,s:s?,s:o,s:o}", "strength", (double)value.strength, "version",
                  (json_int_t)value.version, "min", (double)GYARU_STRENGTH_MIN, "max",
                  (double)GYARU_STRENGTH_MAX, "vector", vector ? vector->name : NULL, "vectors",
                  mix_json(&live), "warning", warning_of(&live));
    if (json && vector)
        json_object_set_new(json, "layer", json_integer(vector->gauge_layer));
    mix_release(&live);
    return http_json(conn, wsi, 200, json);
}

int api_put_steering(struct server *server, struct conn *conn, struct lws *wsi)
{
    struct gyaru_error error;
    if (!engine_info(server->engine))
        return api_loading(server, conn, wsi);
    json_t *json = api_body(conn, &error);
    int rc = json ? steering_change(&server->steering, &server->shelf, json, &error) : -1;
    json_decref(json);
    if (rc)
        return api_refuse(conn, wsi, &error);
    ws_notify_all(server);
    return api_steering(server, conn, wsi);
}
