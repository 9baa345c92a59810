/* shared_server.c - see shared_server.h. */
#include "support/shared_server.h"

#include "support/ws_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

struct test_server shared;

int shared_server_start(const char *const *options)
{
    test_server_start(&shared, true, options);
    return 0;
}

int shared_server_stop(void **state)
{
    test_server_stop(&shared);
    return 0;
}

int shared_server_healthy(void **state)
{
    return http_get(shared.port, "/health", NULL) == 200 ? 0 : -1;
}

void shared_server_post(const char *path, const char *body, struct api_answer *answer)
{
    api_call(shared.port, "POST", path, NULL, body, answer);
}

void shared_server_steer(double strength)
{
    struct api_answer answer;
    char body[64];
    snprintf(body, sizeof body, "{\"strength\":%g}", strength);
    api_call(shared.port, "PUT", "/v1/steering", NULL, body, &answer);
    assert_int_equal(answer.status, 200);
    api_release(&answer);
}
