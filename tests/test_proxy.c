/*
 * test_proxy.c - two instances behind HAProxy and nginx, with the configurations that
 * docs/operations.md names: streams and WebSockets pass, an address stays with its instance, and
 * when that one is killed, drains or comes back, clients go on. Skipped where the proxy is not
 * installed.
 */
#include "support/api_client.h"
#include "support/process.h"
#include "support/scratch.h"
#include "support/test_server.h"
#include "support/ws_client.h"

#include "base/clock.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CHAT  "/v1/chat/completions"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

struct stage {
    struct test_server servers[2];
    pid_t proxy;
    int port; /* of the proxy */
};

static int free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* The instance at this port, or at one of its own. */
static void start_instance(struct test_server *server, int port)
{
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    test_server_start(server, true,
                      (const char *const[]){"--per-address", "1000", "--port", text, NULL});
}

/* The file with its ports replaced by ours (caller frees). */
static char *with_ports(const char *path, const struct stage *stage)
{
    static const char *const ports[] = {"127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"};
    const int ours[] = {stage->port, stage->servers[0].port, stage->servers[1].port};
    struct str out = STR_INIT;
    size_t len;
    char *text = (char *)scratch_read(path, &len);
    for (char *p = text; p < text + len;) {
        size_t i = 0;
        while (i < 3 && strncmp(p, ports[i], strlen(ports[i])) != 0)
            i++;
        if (i < 3)
            str_printf(&out, "127.0.0.1:%d", ours[i]);
        else
            str_putc(&out, *p);
        p += i < 3 ? strlen(ports[i]) : 1;
    }
    free(text);
    return str_take(&out);
}

static void open_stage(struct stage *stage, const char *proxy)
{
    char conf[300], pid[300];
    struct gyaru_error error;
    start_instance(&stage->servers[0], 0);
    start_instance(&stage->servers[1], 0);
    stage->port = free_port();
    snprintf(pid, sizeof pid, "%s", scratch_path("proxy.pid"));
    if (!strcmp(proxy, "haproxy")) {
        char *text = with_ports("contrib/proxy/haproxy.cfg", stage);
        snprintf(conf, sizeof conf, "%s", scratch_write("haproxy.cfg", text, strlen(text)));
        free(text);
        assert_int_equal(process_start((const char *const[]){proxy, "-db", "-f", conf, NULL},
                                       scratch_path("proxy.log"), &stage->proxy, &error),
                         0);
    } else {
        char *text = with_ports("contrib/proxy/nginx.conf", stage), whole[1000];
        scratch_write("gyaru.conf", text, strlen(text));
        free(text);
        snprintf(whole, sizeof whole,
                 "daemon off; pid %s; error_log stderr; worker_processes 1; events {}\n"
                 "http { access_log off; client_body_temp_path /tmp; proxy_temp_path /tmp;\n"
                 "fastcgi_temp_path /tmp; uwsgi_temp_path /tmp; scgi_temp_path /tmp;\n"
                 "include %s; }\n",
                 pid, scratch_path("gyaru.conf"));
        snprintf(conf, sizeof conf, "%s", scratch_write("nginx-all.conf", whole, strlen(whole)));
        assert_int_equal(
            process_start((const char *const[]){proxy, "-e", "stderr", "-c", conf, NULL},
                          scratch_path("proxy.log"), &stage->proxy, &error),
            0);
    }
    /* It listens a moment later. */
    for (double end = clock_seconds() + 10; clock_seconds() < end; usleep(20000)) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)stage->port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        bool open = !connect(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
        if (open && http_get(stage->port, "/health", NULL) == 200)
            return;
    }
    fail_msg("%s does not answer", proxy);
}

static void close_stage(struct stage *stage)
{
    process_stop(stage->proxy);
    for (int i = 0; i < 2; i++)
        test_server_stop(&stage->servers[i]);
}

/* ---- clients --------------------------------------------------------------------------------- */

static double tokens_of(const struct test_server *server)
{
    return http_metric(server->port, "gyaru_generated_tokens_total");
}

/* One streamed answer. */
static void chat(int port)
{
    struct api_answer answer;
    const char *finish;
    api_call(port, "POST", CHAT, NULL,
             "{\"model\":\"m\",\"stream\":true,\"max_tokens\":6," HELLO "}", &answer);
    assert_int_equal(answer.status, 200);
    free(api_chat_text(&answer, &finish));
    assert_non_null(finish);
    api_release(&answer);
}

/* The instance that answers now; the other one must get nothing. */
static int instance_of(const struct stage *stage)
{
    double before[2] = {tokens_of(&stage->servers[0]), tokens_of(&stage->servers[1])};
    for (int i = 0; i < 10; i++)
        chat(stage->port);
    bool first = tokens_of(&stage->servers[0]) > before[0];
    bool second = tokens_of(&stage->servers[1]) > before[1];
    assert_true(first != second);
    return second;
}

/* What the page does: connects until it can, and brings its conversation along. */
static struct ws_client *reconnect(int port)
{
    for (double end = clock_seconds() + 10; clock_seconds() < end; usleep(50000)) {
        struct ws_client *ws = ws_connect_with(port, NULL, 0);
        if (ws->status == 101)
            return ws;
        ws_disconnect(ws);
    }
    fail_msg("no instance takes the WebSocket");
    return NULL;
}

static void ask(struct ws_client *ws)
{
    ws_say(ws, "{\"type\":\"message\",\"content\":\"and now?\",\"history\":[{\"role\":\"user\","
               "\"content\":\"hello\"},{\"role\":\"assistant\",\"content\":\"hi\"}]}");
    json_decref(ws_wait(ws, "done"));
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* SIGTERM: what runs is said to its end, what comes new goes to the other one. */
static void drain(struct stage *stage, int used)
{
    static const char request[] = "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                                  "application/json\r\nContent-Length: 99\r\n\r\n"
                                  "{\"model\":\"m\",\"stream\":true,\"temperature\":0,\"messages\":"
                                  "[{\"role\":\"user\",\"content\":\"hello there\"}]}   ";
    struct api_answer answer;
    const char *finish;
    int fd = tcp_connect(stage->port, 0);
    tcp_send(fd, request, sizeof request - 1);
    kill(stage->servers[used].pid, SIGTERM);
    api_read(fd, &answer);
    close(fd);
    assert_int_equal(answer.status, 200);
    free(api_chat_text(&answer, &finish));
    api_release(&answer);
    for (int i = 0; i < 10; i++)
        chat(stage->port);
    assert_int_equal(test_server_wait(&stage->servers[used], 20), 0);
    start_instance(&stage->servers[used], stage->servers[used].port);
}

static void clients_go_on(const char *proxy)
{
    struct stage stage;
    if (!process_exists(proxy)) {
        print_message("SKIP: %s is not installed\n", proxy);
        skip();
    }
    open_stage(&stage, proxy);
    int used = instance_of(&stage);
    struct ws_client *ws = reconnect(stage.port);
    ask(ws);
    kill(stage.servers[used].pid, SIGKILL);
    test_server_wait(&stage.servers[used], 10);
    ws_close_code(ws);
    ws_disconnect(ws);
    double start = clock_seconds();
    ws = reconnect(stage.port);
    ask(ws);
    print_message("%s: the conversation goes on after %.2f s\n", proxy, clock_seconds() - start);
    for (int i = 0; i < 20; i++)
        chat(stage.port);
    ws_disconnect(ws);
    /* Back again: the address returns to its instance. */
    start_instance(&stage.servers[used], stage.servers[used].port);
    for (double end = clock_seconds() + 15; !tokens_of(&stage.servers[used]); usleep(100000)) {
        if (clock_seconds() > end)
            fail_msg("the instance is back, but nobody goes there");
        chat(stage.port);
    }
    assert_int_equal(instance_of(&stage), used);
    drain(&stage, used);
    close_stage(&stage);
}

static void haproxy(void **state)
{
    clients_go_on("haproxy");
}

static void nginx(void **state)
{
    clients_go_on("nginx");
}

int main(void)
{
    /* Where Debian keeps programs that only root used to start. */
    struct str path = STR_INIT;
    str_printf(&path, "%s:/usr/sbin", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
    setenv("PATH", path.data, 1);
    str_release(&path);
    const struct CMUnitTest tests[] = {cmocka_unit_test(haproxy), cmocka_unit_test(nginx)};
    return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
