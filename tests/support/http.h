/*
 * http.h - one HTTP request of a test.
 */
#ifndef TESTS_HTTP_H
#define TESTS_HTTP_H

#include "base/str.h"

/* Sends `body` (JSON text, NULL for none) and appends the answer to *answer (NULL: dropped).
 * The status, or 0 if there was no answer. */
long http_request(const char *method, const char *url, const char *body, struct str *answer);

#endif
