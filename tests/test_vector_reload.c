/*
 * test_vector_reload.c - the folder of vectors changes while the server runs: new files, other
 * files of the same name, files that are gone, and the answers that run meanwhile.
 */
#include "base/clock.h"
#include "support/vector_folder.h"
#include "support/vector_server.h"
#include "support/ws_client.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static bool listed(const char *name)
{
    json_t *list = vector_server_list();
    bool found = vector_server_entry(list, name) != NULL;
    json_decref(list);
    return found;
}

static void a_new_file_is_usable_without_a_restart(void **state)
{
    struct ws_client *ws = ws_connect(vector_server.port, NULL);
    vector_folder_write("newest", VECTOR_SERVER_HIDDEN, vector_folder_fingerprint(), 11);
    assert_false(listed("newest"));
    vector_server_reload();
    json_decref(ws_wait(ws, "vectors_changed"));
    assert_true(listed("newest"));
    char *first = vector_server_say("{\"vector\":\"newest\",\"strength\":15}", NULL);
    vector_server_put("{\"vector\":\"newest\",\"strength\":15}", 200);

    /* Another vector in the same file: the live mix takes it up. */
    vector_folder_write("newest", VECTOR_SERVER_HIDDEN, vector_folder_fingerprint(), 12);
    vector_server_reload();
    char *second = vector_server_say("{\"vector\":\"newest\",\"strength\":15}", NULL);
    assert_string_not_equal(first, second);
    json_t *list = vector_server_list();
    assert_true(ws_number(vector_server_entry(list, "newest"), "strength") == 15);
    json_decref(list);

    /* A file of another model takes it out of the mix. */
    vector_folder_write("newest", VECTOR_SERVER_HIDDEN, "1111", 12);
    vector_server_reload();
    list = vector_server_list();
    assert_true(json_is_null(json_object_get(vector_server_entry(list, "newest"), "strength")));
    assert_true(ws_number(vector_server_entry(list, "vector"), "strength") == 5);
    json_decref(list);

    assert_int_equal(unlink(vector_folder_path("newest")), 0);
    vector_server_reload();
    assert_false(listed("newest"));
    free(first);
    free(second);
    ws_disconnect(ws);
}

static void sighup_reads_the_folder_again(void **state)
{
    vector_folder_write("hangup", VECTOR_SERVER_HIDDEN, vector_folder_fingerprint(), 13);
    assert_int_equal(kill(vector_server.pid, SIGHUP), 0);
    for (double end = clock_seconds() + 10; !listed("hangup");) {
        assert_true(clock_seconds() < end);
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    assert_int_equal(unlink(vector_folder_path("hangup")), 0);
    vector_server_reload();
    assert_false(listed("hangup"));
}

/* Begins an answer that is streamed, and waits for its first bytes. */
static int begin_stream(const char *steering)
{
    char first;
    int fd = vector_server_ask(steering, ",\"stream\":true,\"max_tokens\":200");
    assert_int_equal(recv(fd, &first, 1, MSG_PEEK), 1);
    return fd;
}

static char *end_stream(int fd)
{
    struct api_answer answer;
    const char *finish;
    api_read(fd, &answer);
    assert_int_equal(answer.status, 200);
    char *text = api_chat_text(&answer, &finish);
    assert_true(answer.done);
    api_release(&answer);
    close(fd);
    return text;
}

/* Answers with steering of their own go on with the vectors they began with, whatever becomes of
 * the files. */
static void running_answers_are_not_disturbed(void **state)
{
    static const char wanted[] = "{\"vector\":\"fleeting\",\"strength\":12}";
    vector_folder_write("fleeting", VECTOR_SERVER_HIDDEN, vector_folder_fingerprint(), 21);
    vector_server_reload();
    char *alone = end_stream(begin_stream(wanted));
    for (unsigned round = 0; round < 6; round++) {
        int fds[VECTOR_SERVER_SLOTS];
        for (int i = 0; i < VECTOR_SERVER_SLOTS; i++)
            fds[i] = begin_stream(wanted);
        if (round % 2)
            unlink(vector_folder_path("fleeting"));
        else
            vector_folder_write("fleeting", VECTOR_SERVER_HIDDEN, vector_folder_fingerprint(),
                                100 + round);
        vector_server_reload();
        for (int i = 0; i < VECTOR_SERVER_SLOTS; i++) {
            char *text = end_stream(fds[i]);
            assert_string_equal(text, alone);
            free(text);
        }
        api_expect(vector_server.port, VECTOR_SERVER_CHAT,
                   "{\"max_tokens\":1,\"steering\":{\"vector\":\"fleeting\",\"strength\":1}"
                   "," VECTOR_SERVER_HELLO "}",
                   round % 2 ? 400 : 200);
        vector_folder_write("fleeting", VECTOR_SERVER_HIDDEN, vector_folder_fingerprint(), 21);
        vector_server_reload();
    }
    unlink(vector_folder_path("fleeting"));
    vector_server_reload();
    free(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        VECTOR_SERVER_TEST(a_new_file_is_usable_without_a_restart),
        VECTOR_SERVER_TEST(sighup_reads_the_folder_again),
        VECTOR_SERVER_TEST(running_answers_are_not_disturbed),
    };
    return cmocka_run_group_tests(tests, vector_server_start, vector_server_stop);
}
