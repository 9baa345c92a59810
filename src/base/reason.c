/* reason.c - see reason.h. */
#include "base/reason.h"

static const char *const names[] = {"",
#define REASON_NAME(name, text) text,
                                    REASONS(REASON_NAME)};

const char *reason_name(enum reason reason)
{
    return names[reason];
}
