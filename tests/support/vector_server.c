/* vector_server.c - see vector_server.h. */
#include "support/vector_server.h"

#include "base/file.h"
#include "support/scratch.h"
#include "support/vector_folder.h"
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

struct test_server vector_server;

static void write_reports(void)
{
    static const char page[] = "<!doctype html><title>r</title><script>alert(1)</script>";
    static const char data[] = "{\"out\":\"outputs/vectors/soft.safetensors\"}";
    struct gyaru_error err;
    assert_int_equal(file_make_dirs(scratch_path("reports/migrate-1"), &err), 0);
    scratch_write("reports/tune.html", page, sizeof page - 1);
    scratch_write("reports/tune.json", data, sizeof data - 1);
    scratch_write("reports/migrate-1/migrate.html", page, sizeof page - 1);
    scratch_write("secret.html", page, sizeof page - 1);
    assert_int_equal(symlink("../secret.html", scratch_path("reports/extract.html")), 0);
    assert_int_equal(symlink("..", scratch_path("reports/out")), 0);
}

int vector_server_start(void **state)
{
    char folder[300], reports[300];
    const char *own = vector_folder_fingerprint();
    snprintf(folder, sizeof folder, "%s", scratch_path(VECTOR_FOLDER));
    snprintf(reports, sizeof reports, "%s", scratch_path("reports"));
    vector_folder_make();
    vector_folder_write("soft", VECTOR_SERVER_HIDDEN, own, 1);
    vector_folder_write("loud", VECTOR_SERVER_HIDDEN, own, 2);
    vector_folder_write("calm", VECTOR_SERVER_HIDDEN, own, 3);
    vector_folder_write("keen", VECTOR_SERVER_HIDDEN, own, 4);
    vector_folder_write(SAKURA, VECTOR_SERVER_HIDDEN, NULL, 5);
    vector_folder_write("other", VECTOR_SERVER_HIDDEN, "00000000000000000000000000000000", 6);
    vector_folder_write("wide", 128, own, 7);
    scratch_write(VECTOR_FOLDER "/broken.safetensors", "no vector", 9);
    scratch_write(VECTOR_FOLDER "/notes.txt", "no vector", 9);
    scratch_write(VECTOR_FOLDER "/.hidden.safetensors", "no vector", 9);
    assert_int_equal(symlink("soft.safetensors", vector_folder_path("link")), 0);
    write_reports();
    const char *const options[] = {"--vectors", folder,         "--reports", reports, "--sessions",
                                   "4",         "--max-tokens", "64",        NULL};
    test_server_start(&vector_server, true, options);
    return 0;
}

int vector_server_stop(void **state)
{
    test_server_stop(&vector_server);
    return 0;
}

void vector_server_call(const char *method, const char *path, const char *body,
                        struct api_answer *answer)
{
    api_call(vector_server.port, method, path, NULL, body, answer);
}

const char *vector_server_put(const char *body, int status)
{
    static char message[500];
    struct api_answer answer;
    vector_server_call("PUT", "/v1/steering", body, &answer);
    const json_t *error = json_object_get(answer.json, "error");
    snprintf(message, sizeof message, "%s", error ? ws_text(error, "message") : "");
    if (answer.status != status)
        fail_msg("%d instead of %d for %s: %s", answer.status, status, body, message);
    api_release(&answer);
    return message;
}

int vector_server_reset(void **state)
{
    vector_server_put("{\"vectors\":[{\"vector\":\"vector\",\"strength\":5}]}", 200);
    return http_get(vector_server.port, "/health", NULL) == 200 ? 0 : -1;
}

json_t *vector_server_list(void)
{
    struct api_answer answer;
    vector_server_call("GET", "/v1/vectors", NULL, &answer);
    assert_int_equal(answer.status, 200);
    json_t *data = json_incref(json_object_get(answer.json, "data"));
    assert_null(strstr(answer.body, "/tmp"));
    assert_null(strstr(answer.body, ".safetensors"));
    assert_null(strstr(answer.body, "tests/"));
    api_release(&answer);
    return data;
}

const json_t *vector_server_entry(const json_t *list, const char *name)
{
    size_t i;
    json_t *vector;
    json_array_foreach(list, i, vector)
    {
        if (!strcmp(ws_text(vector, "id"), name))
            return vector;
    }
    return NULL;
}

char *vector_server_say(const char *steering, json_t **gauges)
{
    char body[1000];
    struct api_answer answer;
    snprintf(body, sizeof body,
             "{\"model\":\"m\",\"temperature\":0.8,\"seed\":3,\"max_tokens\":24,\"gauge\":true%s%"
             "s," VECTOR_SERVER_HELLO "}",
             *steering ? ",\"steering\":" : "", steering);
    vector_server_call("POST", VECTOR_SERVER_CHAT, body, &answer);
    if (answer.status != 200)
        fail_msg("%d for %s: %s", answer.status, body, answer.body);
    const json_t *choice = json_array_get(json_object_get(answer.json, "choices"), 0);
    char *text = strdup(ws_text(json_object_get(choice, "message"), "content"));
    if (gauges)
        *gauges = json_incref(json_object_get(answer.json, "gauge"));
    api_release(&answer);
    return text;
}

void vector_server_reload(void)
{
    struct api_answer answer;
    vector_server_call("POST", "/v1/vectors/reload", "{}", &answer);
    assert_int_equal(answer.status, 200);
    api_release(&answer);
}

int vector_server_ask(const char *steering, const char *fields)
{
    char body[800];
    snprintf(
        body, sizeof body,
        "{\"model\":\"m\",\"temperature\":0.8,\"seed\":3%s,\"steering\":%s," VECTOR_SERVER_HELLO
        "}",
        fields, steering);
    return api_ask(vector_server.port, VECTOR_SERVER_CHAT, body);
}
