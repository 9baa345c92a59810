/*
 * interrupt.h - Ctrl-C ends the work at the next token or chunk, a second one at once.
 */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

void interrupt_catch(void); /* SIGINT and SIGTERM */
bool interrupt_seen(void);

/* SIGHUP, too: it interrupts nothing, but is news for interrupt_wait(). */
void interrupt_catch_hangup(void);

/* Sleeps until a signal comes; for a thread of its own. True: the first SIGINT or SIGTERM. */
bool interrupt_wait(void);
void interrupt_clear(void); /* `chat` goes on after a cancelled answer */

#endif
