/*
 * interrupt.c - see interrupt.h. The only state of the program that a signal handler touches.
 *
 * A handler and not sigwait(): libraries start threads before main() that block no signal, and the
 * kernel may choose any of them.
 */
#include "cli/interrupt.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t seen;
static sem_t arrived; /* posted by the first signal, and by each SIGHUP */

static void on_signal(int number)
{
    if (seen)
        _exit(128 + number);
    seen = 1;
    sem_post(&arrived);
}

void interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sem_init(&arrived, 0, 0);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void on_hangup(int number)
{
    sem_post(&arrived);
}

void interrupt_catch_hangup(void)
{
    struct sigaction action = {.sa_handler = on_hangup};
    sigemptyset(&action.sa_mask);
    sigaction(SIGHUP, &action, NULL);
}

bool interrupt_wait(void)
{
    while (sem_wait(&arrived) && errno == EINTR)
        ;
    return seen != 0;
}

bool interrupt_seen(void)
{
    return seen != 0;
}

void interrupt_clear(void)
{
    seen = 0;
}
