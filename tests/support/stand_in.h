/*
 * stand_in.h - what the stand-ins for other people's HTTP servers share: a process of their own
 * with memory that the test sees, a port, and requests read whole.
 */
#ifndef TESTS_STAND_IN_H
#define TESTS_STAND_IN_H

#include <stddef.h>
#include <sys/types.h>

#define STAND_IN_REQUEST ((size_t)1 << 20) /* bytes of a request at most */

/* Zeroed memory that this process and those that it forks share. */
void *stand_in_share(size_t size);

/* Listens at the port (0: a free one, which *port then is) and runs `serve`, which does not return,
 * in a process that ends with the test. */
pid_t stand_in_start(int *port, void (*serve)(void *state, int listener), void *state);
void stand_in_end(pid_t pid);

/* Reads until the body is whole, into [STAND_IN_REQUEST + 1]; the body's beginning, or NULL. */
char *stand_in_read(int fd, char *buffer);

/* All of it, unless the other side is gone. */
void stand_in_send(int fd, const void *data, size_t len);

#endif
