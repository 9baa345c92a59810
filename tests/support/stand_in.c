/* stand_in.c - see stand_in.h. */
#include "support/stand_in.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

void *stand_in_share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail_msg("cannot share memory");
    return memory;
}

static int listen_at(int *port)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)*port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) || listen(fd, 64) ||
        getsockname(fd, (struct sockaddr *)&address, &len))
        fail_msg("cannot listen");
    *port = ntohs(address.sin_port);
    return fd;
}

pid_t stand_in_start(int *port, void (*serve)(void *state, int listener), void *state)
{
    int listener = listen_at(port);
    pid_t pid = fork();
    if (pid < 0)
        fail_msg("fork failed");
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failing test must not leave it behind */
        serve(state, listener);
        _exit(0);
    }
    close(listener);
    return pid;
}

void stand_in_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

char *stand_in_read(int fd, char *buffer)
{
    size_t len = 0;
    while (len < STAND_IN_REQUEST) {
        ssize_t n = recv(fd, buffer + len, STAND_IN_REQUEST - len, 0);
        if (n <= 0)
            return NULL;
        len += (size_t)n;
        buffer[len] = '\0';
        char *body = strstr(buffer, "\r\n\r\n");
        const char *length = body ? strcasestr(buffer, "\r\nContent-Length:") : NULL;
        size_t wanted = length ? (size_t)strtoul(length + 17, NULL, 10) : 0;
        if (body && len >= (size_t)(body + 4 - buffer) + wanted)
            return body + 4;
    }
    return NULL;
}

void stand_in_send(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        p += n;
        len -= (size_t)n;
    }
}
