/*
 * guard.h - who may talk to the server: the Host, Origin and key of a request.
 *
 * Host: a page elsewhere can have its name resolve to this machine (DNS rebinding); its requests
 * then carry its own name, so only loopback names and the bound address pass. Origin: a browser
 * names the page that asks; only our own page may, and those
 * that the owner of the server named. Key: compared in constant time.
 */
#ifndef SERVER_GUARD_H
#define SERVER_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* What a request says about itself; NULL: the header is missing. */
struct guard_request {
    const char *host, *origin;
    const char *authorization; /* "Bearer KEY" */
    const char *api_key;       /* X-Api-Key */
    const char *cookie, *query_key;
};

enum guard_verdict {
    GUARD_PASS,
    GUARD_ALLOWED_ORIGIN, /* pass; another page that may read the answer */
    GUARD_BAD_HOST,
    GUARD_FOREIGN_HOST,
    GUARD_FOREIGN_ORIGIN
};

/* `bound` is the address that the server listens on; a wildcard address accepts any Host, because
 * then the key is what protects. `allowed` lists other origins, with commas between; NULL: none. */
enum guard_verdict guard_check(const struct guard_request *request, const char *bound,
                               const char *allowed);

/* Does the request carry the key, in any of the four places? NULL asks for none. */
bool guard_key(const struct guard_request *request, const char *key);

/* 127.0.0.0/8, ::1, localhost. */
bool guard_is_loopback(const char *host);

#endif
