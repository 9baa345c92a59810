/*
 * interrupt.h - Ctrl-C ends the work at the next token or chunk, a second one at once.
 */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

void interrupt_catch(void); /* SIGINT and SIGTERM */
bool interrupt_seen(void);
void interrupt_wait(void);  /* sleeps until the first one; for a thread of its own */
void interrupt_clear(void); /* `chat` goes on after a cancelled answer */

#endif
