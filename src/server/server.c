/*
 * server.c - see server.h: the listening socket, the event loop, the way out.
 *
 * The listening socket is ours and libwebsockets only polls it: so a taken port is found out at
 * once and by name, port 0 works, and stopping to accept is closing it.
 */
#include "server/conn.h"

#include "base/clock.h"
#include "base/file.h"
#include "server/guard.h"
#include "server/log.h"
#include "server/overlay.h"
#include "server/voice_api.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPTS_MAX  64 /* per turn of the loop */
#define SPARE_FILES  64 /* for the model, the log, the loop itself */
#define BACKLOG      512
#define SEND_BUFFER  (128 << 10) /* bytes of kernel memory for a slow reader, at most */
#define HEADER_BYTES 8192        /* of one request */

#define CLOSE_SECONDS 1 /* for close frames, at the very end */

void server_options_init(struct server_options *options)
{
    *options = (struct server_options){
        .host = "127.0.0.1",
        .port = 8080,
        .sessions = 4,
        .waiting = 32,
        .connections = 2048,
        .message_bytes = 64 << 10,
        .body_bytes = 1 << 20,
        .history_bytes = 64 << 10,
        .ring_events = 1024,
        .idle_seconds = 20,
        .send_seconds = 30,
        .drain_seconds = 5,
        .ping_seconds = 15,
        .per_address = 16,
        .log = {.level = LOG_LEVEL_INFO},
        .voice = {.speaker = -1, .timeout = 60, .waiting = 32},
    };
}

bool server_host_is_loopback(const char *host)
{
    return guard_is_loopback(host);
}

/* ---- listening ------------------------------------------------------------------------------ */

static int try_listen(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) || listen(fd, BACKLOG)) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &len))
        return -1;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

/* Returns the socket, -1 on failure. */
static int open_listener(const struct server_options *options, struct gyaru_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST};
    struct addrinfo *address;
    char port[16];
    snprintf(port, sizeof port, "%d", options->port);
    const char *host = strcasecmp(options->host, "localhost") ? options->host : "127.0.0.1";
    if (getaddrinfo(host, port, &hints, &address))
        return error_set(err, GYARU_USAGE, "--host: '%s' is no numeric address such as 127.0.0.1",
                         options->host);
    int fd = try_listen(address);
    int why = errno;
    freeaddrinfo(address);
    if (fd >= 0)
        return fd;
    if (why == EADDRINUSE)
        return error_set(err, GYARU_FAILED,
                         "port %d is in use: stop the program that holds it, or choose another "
                         "with --port N",
                         options->port);
    return error_set(err, GYARU_FAILED, "cannot listen on %s port %d: %s", options->host,
                     options->port, strerror(why));
}

static void refuse_socket(int fd)
{
    static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n"
                               "content-length: 0\r\nconnection: close\r\n\r\n";
    /* A client that does not even take this much only misses the reason. */
    ssize_t sent = send(fd, full, sizeof full - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent;
    close(fd);
}

static void accept_some(struct server *server, int listener)
{
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if (server->n_connections >= server->options.connections) {
            refuse_socket(fd);
            continue;
        }
        int size = SEND_BUFFER;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        /* Tokens are small and come one by one: none may wait for the acknowledgement of another.
         */
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        lws_adopt_socket_vhost(server->vhost, fd); /* closes fd on failure */
    }
}

/* ---- callbacks ------------------------------------------------------------------------------ */

static struct server *server_of(struct lws *wsi)
{
    return lws_context_user(lws_get_context(wsi));
}

static int on_listener(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                       size_t len)
{
    struct server *server = server_of(wsi);
    if (reason == LWS_CALLBACK_RAW_RX_FILE)
        accept_some(server, (int)(intptr_t)lws_get_socket_fd(wsi));
    else if (reason == LWS_CALLBACK_RAW_CLOSE_FILE)
        server->listener = NULL;
    return 0;
}

static int on_http(struct server *server, struct lws *wsi, enum lws_callback_reasons reason,
                   struct conn *conn, void *in, size_t len)
{
    switch (reason) {
    case LWS_CALLBACK_HTTP:
        return http_request(server, conn, wsi, in);
    case LWS_CALLBACK_HTTP_BODY:
        return http_body(server, conn, wsi, in, len);
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        return http_body_end(server, conn, wsi);
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return http_writeable(conn, wsi);
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        /* "websocket" is the only thing to upgrade to. */
        if (!in || strcasecmp(in, "websocket"))
            return -1;
        return http_upgrade(server, wsi);
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
        if (conn && conn->stream)
            stream_close(conn);
        if (conn && conn->voice)
            voice_close(conn);
        if (conn)
            http_release(server, conn);
        return 0;
    default:
        return 0;
    }
}

static int on_established(struct server *server, struct lws *wsi, struct conn *conn)
{
    if (http_is_path(wsi, PATH_OVERLAY))
        conn->viewer = overlay_open(server->overlay, wsi);
    else
        conn->ws = ws_open(server, wsi);
    return conn->ws || conn->viewer ? 0 : -1;
}

static void on_closed(struct conn *conn)
{
    if (conn->ws)
        ws_close(conn->ws);
    if (conn->viewer)
        viewer_close(conn->viewer);
    conn->ws = NULL;
    conn->viewer = NULL;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                    size_t len)
{
    struct conn *conn = user;
    struct server *server;
    switch (reason) {
    case LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED:
        server_of(wsi)->n_connections++;
        return 0;
    case LWS_CALLBACK_WSI_DESTROY:
        server = server_of(wsi);
        if (wsi != server->listener)
            server->n_connections--;
        return 0;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        ws_notify_all(server_of(wsi));
        stream_notify_all(server_of(wsi));
        voice_notify_all(server_of(wsi));
        return 0;
    case LWS_CALLBACK_ESTABLISHED:
        return on_established(server_of(wsi), wsi, conn);
    case LWS_CALLBACK_RECEIVE:
        /* An overlay has nothing to say. */
        return conn->ws ? ws_receive(conn->ws, in, len) : -1;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return conn->ws       ? ws_writeable(conn->ws)
               : conn->viewer ? viewer_writeable(conn->viewer)
                              : 0;
    case LWS_CALLBACK_CLOSED:
        if (conn)
            on_closed(conn);
        return 0;
    default:
        return on_http(server_of(wsi), wsi, reason, conn, in, len);
    }
}

static const struct lws_protocols protocols[] = {
    {"gyaru", on_event, sizeof(struct conn), 4096, 0, NULL, 0},
    {"gyaru-listener", on_listener, 0, 0, 0, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

static void lws_log(int level, const char *line)
{
    /* The library hands over no state of ours. */
    static const struct log_options plain = {.level = LOG_LEVEL_ERROR};
    log_event(&plain, LOG_LEVEL_ERROR, "libwebsockets",
              json_pack("{s:s%}", "message", line, strcspn(line, "\n")));
}

/* ---- life ----------------------------------------------------------------------------------- */

/* From the engine thread. */
static void on_news(void *user)
{
    struct server *server = user;
    lws_cancel_service(server->context);
}

static int open_context(struct server *server, struct gyaru_error *err)
{
    /* A WebSocket that says nothing is pinged; one that then says nothing either is gone. */
    unsigned ping = 2 * (unsigned)server->options.ping_seconds;
    server->idle_policy.secs_since_valid_ping = (uint16_t)(ping < 20000 ? ping : 20000);
    server->idle_policy.secs_since_valid_hangup = 2 * server->idle_policy.secs_since_valid_ping;
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .protocols = protocols,
        .user = server,
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_VALIDATE_UTF8,
        .max_http_header_data = HEADER_BYTES,
        .max_http_header_pool =
            (unsigned short)(server->options.connections < 65535 ? server->options.connections
                                                                 : 65535),
        .keepalive_timeout = server->options.idle_seconds,
        .timeout_secs = (unsigned)server->options.idle_seconds,
        .timeout_secs_ah_idle = (unsigned)server->options.idle_seconds,
        .retry_and_idle_policy = &server->idle_policy,
        .vhost_name = "gyaru",
    };
    server->context = lws_create_context(&info);
    if (server->context)
        server->vhost = lws_create_vhost(server->context, &info);
    if (!server->vhost)
        return error_set(err, GYARU_FAILED, "cannot start libwebsockets");
    return 0;
}

static int open_port(struct server *server, struct gyaru_error *err)
{
    int fd = open_listener(&server->options, err);
    if (fd < 0)
        return -1;
    server->port = port_of(fd);
    lws_sock_file_fd_type file = {.filefd = fd};
    server->listener = lws_adopt_descriptor_vhost(server->vhost, LWS_ADOPT_RAW_FILE_DESC, file,
                                                  "gyaru-listener", NULL);
    if (!server->listener)
        return error_set(err, GYARU_FAILED, "cannot poll the listening socket");
    if (!server->options.port_file)
        return 0;
    char text[16];
    int len = snprintf(text, sizeof text, "%d\n", server->port);
    return file_write_atomic(server->options.port_file, text, (size_t)len, err);
}

/* Sockets are cheap; the usual limit of 1024 files is not what should refuse them. Accepting more
 * than the limit allows would fail again and again, so the limit bounds the connections. */
static void fit_file_limit(struct server_options *options)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return;
    rlim_t wanted = (rlim_t)options->connections + SPARE_FILES;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < wanted)
        options->connections =
            limit.rlim_cur > SPARE_FILES ? (int)(limit.rlim_cur - SPARE_FILES) : 1;
}

int server_new(const struct server_options *options, struct server **out, struct gyaru_error *err)
{
    struct server *server = calloc(1, sizeof *server);
    if (!server)
        return error_memory(err, sizeof *server, "the server");
    server->options = *options;
    steering_init(&server->steering);
    fit_file_limit(&server->options);
    lws_set_log_level(LLL_ERR, lws_log);
    server->overlay = overlay_new(server);
    if (!server->overlay) {
        server_free(server);
        return error_memory(err, sizeof *server, "the server");
    }
    if (open_context(server, err) || open_port(server, err) ||
        voice_new(&options->voice, &server->options.log, on_news, server, &server->voice, err) ||
        engine_new(options, &server->steering, &server->shelf, overlay_tap(server->overlay),
                   on_news, server, &server->engine, err)) {
        server_free(server);
        return -1;
    }
    *out = server;
    return 0;
}

void server_free(struct server *server)
{
    if (!server)
        return;
    /* The thread notifies the context, and closing connections wake the engine: so the thread
     * ends first and the engine goes last. */
    if (server->engine)
        engine_stop(server->engine);
    if (server->voice)
        voice_stop(server->voice);
    if (server->context) {
        lws_sul_cancel(&server->tick);
        overlay_stop(server->overlay);
        lws_context_destroy(server->context);
    }
    engine_free(server->engine);
    overlay_free(server->overlay);
    voice_free(server->voice);
    shelf_close(&server->shelf);
    steering_release(&server->steering);
    free(server);
}

int server_port(const struct server *server)
{
    return server->port;
}

void server_reload(struct server *server)
{
    atomic_store(&server->reload, true);
    lws_cancel_service(server->context);
}

void server_stop(struct server *server)
{
    atomic_store(&server->stop, true);
    lws_cancel_service(server->context);
}

static void begin_stop(struct server *server)
{
    server->stopping = true;
    server->deadline = clock_seconds() + server->options.drain_seconds;
    if (server->listener)
        lws_set_timeout(server->listener, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
    ws_go_away(server, false);
}

/* Is everything said that will be said? */
static bool stop_finished(struct server *server)
{
    double now = clock_seconds();
    bool late = now > server->deadline;
    size_t left =
        ws_go_away(server, late) + stream_go_away(server, late) + voice_go_away(server, late);
    /* The overlay shows the last answers to their end. */
    if (!left)
        left = broadcast_go_away(overlay_broadcast(server->overlay));
    return !left || now > server->deadline + CLOSE_SECONDS;
}

static void on_tick(lws_sorted_usec_list_t *tick)
{
    struct server *server = lws_container_of(tick, struct server, tick);
    ws_tick_all(server);
    stream_tick_all(server);
    overlay_tick(server->overlay);
    lws_usec_t period = server->stopping ? LWS_US_PER_SEC / 20 : LWS_US_PER_SEC;
    lws_sul_schedule(server->context, 0, &server->tick, on_tick, period);
}

static void log_ready(struct server *server, const struct engine_info *info)
{
    const struct shelf *shelf = &server->shelf;
    struct steer_mix mix;
    steering_copy(&server->steering, &mix);
    const struct shelf_vector *main = mix.n ? mix.parts[0].vector : NULL;
    log_event(&server->options.log, LOG_LEVEL_INFO, "ready",
              json_pack("{s:s,s:s,s:s?,s:I,s:f}", "model", info->model_name, "device", info->device,
                        "vector", main ? main->name : NULL, "vectors", (json_int_t)shelf->n,
                        "load_seconds", info->load_seconds));
    if (main && main->reason)
        log_event(&server->options.log, LOG_LEVEL_WARN, "vector_unverified",
                  json_pack("{s:s,s:s}", "vector", main->name, "reason", main->reason));
    mix_release(&mix);
}

int server_run(struct server *server, struct gyaru_error *err)
{
    enum engine_state known = ENGINE_LOADING;
    on_tick(&server->tick);
    for (;;) {
        enum engine_state state = engine_state(server->engine);
        bool stop = atomic_load(&server->stop);
        if (state == ENGINE_FAILED && !stop) {
            *err = engine_error(server->engine);
            return -1;
        }
        if (state == ENGINE_READY && known != ENGINE_READY) {
            const struct engine_info *info = engine_info(server->engine);
            log_ready(server, info);
        }
        known = state;
        if (state == ENGINE_READY && atomic_exchange(&server->reload, false)) {
            struct gyaru_error why;
            if (vectors_reload(server, &why))
                log_event(&server->options.log, LOG_LEVEL_ERROR, "vectors_unread",
                          json_pack("{s:s}", "error", why.text));
        }
        if (stop && !server->stopping) {
            begin_stop(server);
            on_tick(&server->tick);
        }
        if (server->stopping && stop_finished(server))
            return 0;
        if (lws_service(server->context, 0) < 0)
            return error_set(err, GYARU_FAILED, "the event loop failed");
    }
}
