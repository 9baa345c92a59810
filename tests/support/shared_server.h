/*
 * shared_server.h - one server (test_server.h) for all tests of a program: cmocka's functions
 * around the group and around each test.
 */
#ifndef TESTS_SHARED_SERVER_H
#define TESTS_SHARED_SERVER_H

#include "support/api_client.h"
#include "support/test_server.h"

extern struct test_server shared;

/* What a group's set-up returns: started with these options (NULL: none), and ready. */
int shared_server_start(const char *const *options);

/* Of the group: asked to end, which must go well. */
int shared_server_stop(void **state);

/* Of each test: does it still answer? */
int shared_server_healthy(void **state);
#define SHARED_TEST(f) cmocka_unit_test_teardown(f, shared_server_healthy)

/* POST of a body (api_client.h). */
void shared_server_post(const char *path, const char *body, struct api_answer *answer);

/* The live strength, as PUT /v1/steering sets it. */
void shared_server_steer(double strength);

#endif
