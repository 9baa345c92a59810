/*
 * vector_server.h - a server with a folder of vectors (vector_folder.h) and one of reports, for all
 * tests of a program: cmocka's set-up and tear-down functions, and what the tests say to it.
 *
 * The folder has soft, loud, calm and keen, which can be used, SAKURA without a fingerprint, other
 * and wide of other models, and files that are no vectors. The mix begins as the server's own
 * vector, "vector", at 5.
 */
#ifndef TESTS_VECTOR_SERVER_H
#define TESTS_VECTOR_SERVER_H

#include "support/api_client.h"
#include "support/test_server.h"

#define VECTOR_SERVER_CHAT   "/v1/chat/completions"
#define VECTOR_SERVER_HELLO  "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"
#define VECTOR_SERVER_HIDDEN 64 /* size of the model's vectors */
#define VECTOR_SERVER_SLOTS  4
#define SAKURA               "さくら"

extern struct test_server vector_server;

/* Of the group. */
int vector_server_start(void **state);
int vector_server_stop(void **state);

/* Of each test: the mix as it began; asks whether the server still answers. */
int vector_server_reset(void **state);
#define VECTOR_SERVER_TEST(f)                                                                      \
    cmocka_unit_test_setup_teardown(f, vector_server_reset, vector_server_reset)

void vector_server_call(const char *method, const char *path, const char *body,
                        struct api_answer *answer);

/* PUT /v1/steering, which must answer with this status; gives error.message. */
const char *vector_server_put(const char *body, int status);

/* GET /v1/vectors; checks that no path is told. Caller's reference. */
json_t *vector_server_list(void);

/* Borrowed from the list; NULL if there is none of this name. */
const json_t *vector_server_entry(const json_t *list, const char *name);

/* Reads the folder again. */
void vector_server_reload(void);

/* An answer that depends on nothing but its steering: caller frees. `steering`: "" for the live
 * one. *gauges (may be NULL): the meter's readings. */
char *vector_server_say(const char *steering, json_t **gauges);

/* Sends a request with this steering and more fields ("": none), and does not wait. */
int vector_server_ask(const char *steering, const char *fields);

#endif
