/*
 * test_vectors.c - a folder of vectors behind real sockets: what is listed, mixed, and asked for by
 * one request, one WebSocket, or many at once.
 */
#include "support/vector_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_says_the_same(const char *a, const char *b, bool same)
{
    char *x = vector_server_say(a, NULL), *y = vector_server_say(b, NULL);
    if (!strcmp(x, y) != same)
        fail_msg("'%s' says %s\n'%s' says %s", a, x, b, y);
    free(x);
    free(y);
}

/* ---- what there is -------------------------------------------------------------------------- */

static void all_are_listed_with_what_they_are(void **state)
{
    static const struct {
        const char *name, *fingerprint, *reason;
        bool usable, main;
    } expected[] = {
        {"vector", "unverified", "vector_unverified", true, true},
        {"broken", "unreadable", "vector_unreadable", false, false},
        {"calm", "match", "", true, false},
        {"keen", "match", "", true, false},
        {"loud", "match", "", true, false},
        {"other", "mismatch", "vector_fingerprint", false, false},
        {"soft", "match", "", true, false},
        {"wide", "mismatch", "vector_hidden_size", false, false},
        {SAKURA, "unverified", "vector_unverified", true, false},
    };
    const size_t n = sizeof expected / sizeof expected[0];
    json_t *list = vector_server_list();
    assert_int_equal(json_array_size(list), n);
    for (size_t i = 0; i < n; i++) {
        const json_t *vector = json_array_get(list, i);
        assert_string_equal(ws_text(vector, "id"), expected[i].name);
        assert_string_equal(ws_text(vector, "fingerprint"), expected[i].fingerprint);
        assert_true(json_is_true(json_object_get(vector, "usable")) == expected[i].usable);
        assert_true(json_is_true(json_object_get(vector, "main")) == expected[i].main);
        bool told = json_is_string(json_object_get(vector, "reason"));
        assert_true(told == (strcmp(expected[i].fingerprint, "match") != 0));
        assert_string_equal(ws_text(vector, "reason_code"), expected[i].reason);
    }
    const json_t *soft = vector_server_entry(list, "soft");
    assert_true(ws_number(soft, "layer") == 2 && ws_number(soft, "layer_min") == 1);
    assert_true(ws_number(soft, "recommended_strength") == 8);
    assert_true(ws_number(soft, "max_strength") == 20);
    assert_true(json_is_null(json_object_get(soft, "strength")));
    assert_true(ws_number(json_array_get(list, 0), "strength") == 5);
    json_decref(list);
}

static void one_is_told_by_layer(void **state)
{
    struct api_answer answer;
    vector_server_call("GET", "/v1/vectors/%E3%81%95%E3%81%8F%E3%82%89", NULL, &answer);
    assert_int_equal(answer.status, 200);
    assert_string_equal(ws_text(answer.json, "id"), SAKURA);
    const json_t *directions = json_object_get(answer.json, "directions");
    assert_int_equal(json_array_size(directions), 2);
    assert_true(ws_number(json_array_get(directions, 0), "norm") > 0);
    assert_null(strstr(answer.body, "/tmp"));
    api_release(&answer);
    assert_int_equal(http_get(vector_server.port, "/v1/vectors/nobody", NULL), 404);
    assert_int_equal(http_get(vector_server.port, "/v1/vectors/a%2fsoft", NULL), 400);
    assert_int_equal(http_get(vector_server.port, "/v1/vectors/.hidden", NULL), 400);
    /* libwebsockets takes these steps back itself: no vector's path any more. */
    assert_int_equal(http_get(vector_server.port, "/v1/vectors/..%2fsecret", NULL), 404);
    assert_int_equal(http_get(vector_server.port, "/v1/vectors/link", NULL), 404);
    assert_int_equal(http_get(vector_server.port, "/v1/vectors/broken", NULL), 200);
}

/* ---- mixing --------------------------------------------------------------------------------- */

#define MIX                                                                                        \
    "[{\"vector\":\"soft\",\"strength\":9},{\"vector\":\"vector\",\"strength\":6},"                \
    "{\"vector\":\"" SAKURA "\",\"strength\":-4,\"layers\":\"2\"}]"

static void a_live_mix_is_what_one_request_may_ask_for(void **state)
{
    char *plain = vector_server_say("", NULL);
    char *own = vector_server_say("{\"vectors\":" MIX "}", NULL);
    assert_string_not_equal(plain, own);
    vector_server_put("{\"vectors\":" MIX "}", 200);
    json_t *gauges;
    char *live = vector_server_say("", &gauges);
    assert_string_equal(live, own);
    assert_true(ws_number(json_array_get(gauges, 0), "strength") == 9); /* the first one's */
    json_decref(gauges);

    struct api_answer answer;
    vector_server_call("GET", "/v1/steering", NULL, &answer);
    const json_t *vectors = json_object_get(answer.json, "vectors");
    assert_string_equal(ws_text(answer.json, "vector"), "soft");
    assert_true(ws_number(answer.json, "strength") == 9);
    assert_int_equal(json_array_size(vectors), 3);
    assert_string_equal(ws_text(json_array_get(vectors, 2), "layers"), "2-2");
    api_release(&answer);

    char *metrics;
    assert_int_equal(http_get(vector_server.port, "/metrics", &metrics), 200);
    assert_non_null(strstr(metrics, "\ngyaru_vector_strength{vector=\"soft\"} 9\n"));
    assert_non_null(strstr(metrics, "\ngyaru_vector_strength{vector=\"" SAKURA "\"} -4\n"));
    free(metrics);

    /* The order of names but the first changes nothing. */
    assert_says_the_same("{\"vectors\":" MIX "}",
                         "{\"vectors\":[{\"vector\":\"soft\",\"strength\":9},"
                         "{\"vector\":\"" SAKURA "\",\"strength\":-4,\"layers\":[2,2]},"
                         "{\"vector\":\"vector\",\"strength\":6}]}",
                         true);
    free(plain);
    free(own);
    free(live);
}

static void too_strong_is_said(void **state)
{
    struct api_answer answer;
    vector_server_put("{\"vector\":\"soft\",\"strength\":20}", 200);
    vector_server_call("GET", "/v1/steering", NULL, &answer);
    assert_true(json_is_null(json_object_get(answer.json, "warning")));
    api_release(&answer);
    vector_server_call("PUT", "/v1/steering", "{\"vector\":\"soft\",\"strength\":20.5}", &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(ws_text(answer.json, "warning"), "'soft' is above 20"));
    api_release(&answer);
}

static void one_vector_of_the_live_mix_moves_alone(void **state)
{
    vector_server_put("{\"strength\":7}", 200);
    vector_server_put("{\"vector\":\"soft\",\"strength\":9}", 200); /* joins */
    vector_server_put("{\"vector\":\"soft\",\"strength\":2.5,\"layers\":\"1-2\"}", 200);
    json_t *list = vector_server_list();
    assert_true(ws_number(vector_server_entry(list, "vector"), "strength") == 7);
    assert_true(ws_number(vector_server_entry(list, "soft"), "strength") == 2.5);
    assert_true(json_is_true(json_object_get(vector_server_entry(list, "vector"), "main")));
    json_decref(list);
    vector_server_put("{\"vectors\":[]}", 200);
    assert_says_the_same("", "{\"vectors\":[]}", true);
    assert_says_the_same("", "{\"vector\":\"vector\",\"strength\":0}", true);
    assert_says_the_same("", "{\"vector\":\"loud\",\"strength\":9}", false);
}

static void a_request_has_its_own(void **state)
{
    json_t *gauges;
    vector_server_put("{\"strength\":9}", 200);
    assert_says_the_same("{\"vector\":\"vector\"}", "", true);
    assert_says_the_same("{\"strength\":9}", "", true);
    assert_says_the_same("{\"strength\":9,\"layers\":\"1-2\"}", "", true);
    assert_says_the_same("{\"layers\":\"1-2\"}", "", true);
    assert_says_the_same("{\"layers\":\"1\"}", "", false);
    assert_says_the_same("{\"layers\":\"1\"}", "{\"layers\":\"2\"}", false);
    assert_says_the_same("{\"vector\":\"soft\"}", "{\"vector\":\"soft\",\"strength\":9}", true);
    free(vector_server_say("{\"vector\":\"soft\",\"strength\":3,\"layers\":\"1\"}", &gauges));
    const json_t *gauge = json_array_get(gauges, 0);
    assert_true(ws_number(gauge, "strength") == 3 && ws_number(gauge, "layer") == 2);
    json_decref(gauges);
    /* Nothing of this became the server's. */
    json_t *list = vector_server_list();
    assert_true(ws_number(vector_server_entry(list, "vector"), "strength") == 9);
    assert_true(json_is_null(json_object_get(vector_server_entry(list, "soft"), "strength")));
    json_decref(list);
}

static void wrong_ones_are_refused(void **state)
{
#define FIVE                                                                                       \
    "{\"vectors\":[{\"vector\":\"soft\",\"strength\":1},{\"vector\":\"loud\",\"strength\":1},"     \
    "{\"vector\":\"calm\",\"strength\":1},{\"vector\":\"keen\",\"strength\":1},"                   \
    "{\"vector\":\"vector\",\"strength\":1}]}"
    static const struct {
        const char *steering;
        int status;
        const char *part;
    } cases[] = {
        {"{\"vector\":\"nobody\",\"strength\":1}", 400, "/v1/vectors"},
        {"{\"vector\":\"link\",\"strength\":1}", 400, "/v1/vectors"},
        {"{\"vector\":\"../vectors/soft\",\"strength\":1}", 400, "/v1/vectors"},
        {"{\"vector\":\"other\",\"strength\":1}", 409, "other"},
        {"{\"vector\":\"wide\",\"strength\":1}", 409, "wide"},
        {"{\"vector\":\"broken\",\"strength\":1}", 409, "broken"},
        {"{\"vector\":\"soft\",\"strength\":31}", 400, "strength"},
        {"{\"vector\":\"soft\",\"strength\":\"1\"}", 400, "strength"},
        {"{\"vector\":\"soft\",\"strength\":1,\"layers\":\"7-9\"}", 400, "layers"},
        {"{\"vector\":\"soft\",\"strength\":1,\"layers\":\"2-1\"}", 400, "layers"},
        {"{\"vector\":\"soft\",\"strength\":1,\"layers\":\"1-\"}", 400, "layers"},
        {"{\"vector\":\"soft\",\"strength\":1,\"layers\":\"99999999\"}", 400, "layers"},
        {"{\"vector\":\"soft\",\"strength\":1,\"layers\":[1]}", 400, "layers"},
        {"{\"vector\":\"soft\",\"strength\":1,\"layers\":[-1,2]}", 400, "layers"},
        {"{\"vectors\":\"soft\"}", 400, "vectors"},
        {"{\"vectors\":[\"soft\"]}", 400, "vectors[0]"},
        {"{\"vectors\":[{\"vector\":\"soft\"}]}", 400, "vectors[0]"},
        {"{\"vectors\":[{\"strength\":1}]}", 400, "vectors[0]"},
        {"{\"vectors\":[{\"vector\":\"soft\",\"strength\":1},"
         "{\"vector\":\"soft\",\"strength\":2}]}",
         400, "twice"},
        {"{\"vectors\":[],\"strength\":1}", 400, "vectors"},
        {"{\"vectors\":[{\"vector\":\"other\",\"strength\":1}]}", 409, "other"},
        {FIVE, 400, "4"},
        {"[]", 400, "object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[1000];
        snprintf(body, sizeof body, "{\"steering\":%s," VECTOR_SERVER_HELLO "}", cases[i].steering);
        const char *message =
            api_expect(vector_server.port, VECTOR_SERVER_CHAT, body, cases[i].status);
        if (!strstr(message, cases[i].part) || strncmp(message, "steering: ", 10) != 0)
            fail_msg("%s: %s", cases[i].steering, message);
        message = vector_server_put(cases[i].steering, cases[i].status);
        if (!strstr(message, cases[i].part) || strstr(message, "/tmp"))
            fail_msg("%s: %s", cases[i].steering, message);
    }
    /* A fifth does not join. */
    vector_server_put(
        "{\"vectors\":[{\"vector\":\"soft\",\"strength\":1},{\"vector\":\"loud\",\"strength\":1},"
        "{\"vector\":\"calm\",\"strength\":1},{\"vector\":\"keen\",\"strength\":1}]}",
        200);
    vector_server_put("{\"vector\":\"vector\",\"strength\":1}", 400);
    json_t *list = vector_server_list();
    assert_true(json_is_null(json_object_get(vector_server_entry(list, "vector"), "strength")));
    json_decref(list);
}

/* ---- more than there are places ------------------------------------------------------------- */

/* Nine combinations at once on four places: all are answered, each as if alone. */
static void more_at_once_than_places(void **state)
{
    static const char *const wanted[] = {
        "{\"vector\":\"soft\",\"strength\":9}",
        "{\"vector\":\"loud\",\"strength\":9}",
        "{\"vectors\":" MIX "}",
        "{\"vector\":\"calm\",\"strength\":9}",
        "{\"vector\":\"keen\",\"strength\":9,\"layers\":\"1\"}",
        "{\"vector\":\"keen\",\"strength\":9,\"layers\":\"2\"}",
        "{\"strength\":-6}",
        "{}",
        "{\"vectors\":[{\"vector\":\"keen\",\"strength\":4},{\"vector\":\"calm\",\"strength\":4},"
        "{\"vector\":\"loud\",\"strength\":4},{\"vector\":\"soft\",\"strength\":4}]}",
    };
    enum { N = sizeof wanted / sizeof wanted[0] };
    char *alone[N];
    int fds[N];
    for (int i = 0; i < N; i++)
        alone[i] = vector_server_say(wanted[i], NULL);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            fds[i] =
                vector_server_ask(wanted[(i + 4 * round) % N], ",\"max_tokens\":24,\"gauge\":true");
        for (int i = 0; i < N; i++) {
            struct api_answer answer;
            api_read(fds[i], &answer);
            assert_int_equal(answer.status, 200);
            const json_t *choice = json_array_get(json_object_get(answer.json, "choices"), 0);
            assert_string_equal(ws_text(json_object_get(choice, "message"), "content"),
                                alone[(i + 4 * round) % N]);
            api_release(&answer);
            close(fds[i]);
        }
    }
    for (int i = 0; i < N; i++)
        free(alone[i]);
}

/* ---- the WebSocket -------------------------------------------------------------------------- */

static void pages_hear_of_the_mix(void **state)
{
    json_t *hello;
    struct ws_client *a = ws_connect(vector_server.port, &hello),
                     *b = ws_connect(vector_server.port, NULL);
    assert_int_equal(json_array_size(json_object_get(hello, "vectors")), 1);
    assert_string_equal(ws_text(hello, "vector"), "vector");
    assert_true(ws_number(json_object_get(hello, "sampling"), "temperature") > 0.89);
    assert_true(ws_number(json_object_get(hello, "sampling"), "max_tokens") == 64);
    json_decref(hello);
    ws_say(a, "{\"type\":\"update_steering\",\"vectors\":" MIX "}");
    json_t *updated = ws_wait(b, "strength_updated");
    assert_true(ws_number(updated, "value") == 9);
    assert_string_equal(ws_text(updated, "vector"), "soft");
    assert_string_equal(ws_text(updated, "fingerprint"), "match");
    assert_int_equal(json_array_size(json_object_get(updated, "vectors")), 3);
    json_decref(updated);
    ws_say(a, "{\"type\":\"update_steering\",\"vector\":\"nobody\",\"strength\":1}");
    json_t *error = ws_wait(a, "error");
    assert_string_equal(ws_text(error, "code"), "invalid");
    assert_string_equal(ws_text(error, "reason"), "vector_unknown");
    json_decref(error);
    ws_disconnect(a);
    ws_disconnect(b);
}

/* The mix that changes in mid-answer steers what follows, and the meter goes with it. */
static void a_new_mix_acts_in_mid_answer(void **state)
{
    bool seen = false;
    struct ws_client *ws = ws_connect(vector_server.port, NULL);
    for (int attempt = 0; !seen && attempt < 50; attempt++) {
        vector_server_put("{\"vectors\":[{\"vector\":\"vector\",\"strength\":5}]}", 200);
        ws_say(ws, "{\"type\":\"message\",\"content\":\"a\",\"history\":[],"
                   "\"sampling\":{\"max_tokens\":400}}");
        json_decref(ws_wait(ws, "token"));
        ws_say(ws, "{\"type\":\"update_steering\",\"vectors\":[{\"vector\":\"loud\","
                   "\"strength\":3.5}]}");
        double first = 0, last = 0;
        int code;
        json_t *message;
        bool done = false;
        while (!done && (message = ws_next(ws, &code))) {
            const char *type = ws_text(message, "type");
            done = !strcmp(type, "done");
            if (!strcmp(type, "gauge")) {
                last = ws_number(message, "strength");
                first = first > 0 ? first : last;
            }
            json_decref(message);
        }
        assert_true(done);
        seen = first == 5 && last == 3.5;
    }
    assert_true(seen);
    ws_disconnect(ws);
}

static char *ask_ws(struct ws_client *ws, const char *fields)
{
    ws_say(ws, "{\"type\":\"message\",\"content\":\"hi\",\"history\":[]%s}", fields);
    json_t *done = ws_wait(ws, "done");
    char *text = strdup(ws_text(done, "full_response"));
    json_decref(done);
    return text;
}

static void a_message_has_its_sampling(void **state)
{
    struct ws_client *ws = ws_connect(vector_server.port, NULL);
    char *a = ask_ws(ws, ",\"sampling\":{\"seed\":5,\"max_tokens\":9,\"temperature\":1.5}");
    char *b = ask_ws(ws, ",\"sampling\":{\"seed\":5,\"max_tokens\":9,\"temperature\":1.5}");
    char *c = ask_ws(ws, ",\"sampling\":{\"seed\":6,\"max_tokens\":9,\"temperature\":1.5}");
    char *d = ask_ws(ws, ",\"sampling\":{\"temperature\":0,\"max_tokens\":9}");
    char *e = ask_ws(ws, ",\"sampling\":{\"temperature\":0,\"max_tokens\":9},"
                         "\"steering\":{\"vector\":\"loud\",\"strength\":20}");
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    assert_string_not_equal(d, e);
    free(a);
    free(b);
    free(c);
    free(d);
    free(e);
    static const char *const wrong[] = {
        "\"sampling\":5",
        "\"sampling\":{\"temperature\":-1}",
        "\"sampling\":{\"temperature\":\"1\"}",
        "\"sampling\":{\"top_p\":1.5}",
        "\"sampling\":{\"max_tokens\":0}",
        "\"steering\":{\"vector\":\"../soft\",\"strength\":1}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ws_say(ws, "{\"type\":\"message\",\"content\":\"a\",%s}", wrong[i]);
        json_t *error = ws_wait(ws, "error");
        assert_string_equal(ws_text(error, "code"), "invalid");
        json_decref(error);
    }
    ws_disconnect(ws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        VECTOR_SERVER_TEST(all_are_listed_with_what_they_are),
        VECTOR_SERVER_TEST(one_is_told_by_layer),
        VECTOR_SERVER_TEST(a_live_mix_is_what_one_request_may_ask_for),
        VECTOR_SERVER_TEST(too_strong_is_said),
        VECTOR_SERVER_TEST(one_vector_of_the_live_mix_moves_alone),
        VECTOR_SERVER_TEST(a_request_has_its_own),
        VECTOR_SERVER_TEST(wrong_ones_are_refused),
        VECTOR_SERVER_TEST(more_at_once_than_places),
        VECTOR_SERVER_TEST(pages_hear_of_the_mix),
        VECTOR_SERVER_TEST(a_new_mix_acts_in_mid_answer),
        VECTOR_SERVER_TEST(a_message_has_its_sampling),
    };
    return cmocka_run_group_tests(tests, vector_server_start, vector_server_stop);
}
