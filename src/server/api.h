/*
 * api.h - the endpoints that route.c puts into its table, and what they share.
 */
#ifndef SERVER_API_H
#define SERVER_API_H

#include "server/frame.h"
#include "server/route.h"

/* openai.c */
int api_chat_completions(struct server *server, struct conn *conn, struct lws *wsi);
int api_models(struct server *server, struct conn *conn, struct lws *wsi);
int api_model(struct server *server, struct conn *conn, struct lws *wsi); /* /v1/models/{id} */

/* vectors.c */
int api_vectors(struct server *server, struct conn *conn, struct lws *wsi);
int api_vector(struct server *server, struct conn *conn, struct lws *wsi); /* /v1/vectors/{id} */
int api_vectors_reload(struct server *server, struct conn *conn, struct lws *wsi);
int api_steering(struct server *server, struct conn *conn, struct lws *wsi);
int api_put_steering(struct server *server, struct conn *conn, struct lws *wsi);

/* reports.c */
int api_reports(struct server *server, struct conn *conn, struct lws *wsi);
int api_report(struct server *server, struct conn *conn, struct lws *wsi); /* /v1/reports/{id} */
int api_personas(struct server *server, struct conn *conn, struct lws *wsi);

/* native.c */
int api_completion(struct server *server, struct conn *conn, struct lws *wsi);
int api_tokenize(struct server *server, struct conn *conn, struct lws *wsi);
int api_detokenize(struct server *server, struct conn *conn, struct lws *wsi);
int api_props(struct server *server, struct conn *conn, struct lws *wsi);
int api_ollama_chat(struct server *server, struct conn *conn, struct lws *wsi);

/* voice_api.c */
int api_speech(struct server *server, struct conn *conn, struct lws *wsi);
int api_voice_speakers(struct server *server, struct conn *conn, struct lws *wsi);
int api_voice_version(struct server *server, struct conn *conn, struct lws *wsi);
int api_voice_query(struct server *server, struct conn *conn, struct lws *wsi);
int api_voice_synthesis(struct server *server, struct conn *conn, struct lws *wsi);

/* metrics.c */
int api_metrics(struct server *server, struct conn *conn, struct lws *wsi);

/* ---- shared ---- */

/* 503: the model is not there yet, or the server is going. */
int api_loading(struct server *server, struct conn *conn, struct lws *wsi);

/* 400; 409 for a vector of another model, 503 when out of memory. */
int api_refuse(struct conn *conn, struct lws *wsi, const struct gyaru_error *error);

/* The request's body as a document; NULL if it is none. */
json_t *api_body(struct conn *conn, struct gyaru_error *err);

/* Reads the body as a request for an answer and begins it. */
int api_ask(struct server *server, struct conn *conn, struct lws *wsi, enum frame_style style);

#endif
