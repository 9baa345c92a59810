/* guard.c - see guard.h. */
#include "server/guard.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_BYTES 256
#define COOKIE_NAME    "gyaru_key="

bool guard_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (!strcasecmp(host, "localhost"))
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool is_wildcard(const char *host)
{
    return !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

/* The name in "NAME", "NAME:PORT", "[V6]" or "[V6]:PORT"; false if it is none of these. */
static bool host_name(const char *host, char name[NAME_MAX_BYTES])
{
    const char *start = host, *end;
    if (*host == '[') {
        start = host + 1;
        end = strchr(start, ']');
        if (!end)
            return false;
    } else {
        end = start + strcspn(start, ":");
    }
    size_t len = (size_t)(end - start);
    const char *port = *end == ']' ? end + 1 : end;
    if (!len || len >= NAME_MAX_BYTES || (*port && *port != ':'))
        return false;
    if (*port && strspn(port + 1, "0123456789") != strlen(port + 1))
        return false;
    memcpy(name, start, len);
    name[len] = '\0';
    return true;
}

/* Our page's origin is "http://" and exactly what it put into Host (or https behind a proxy). */
static bool is_own_origin(const char *origin, const char *host)
{
    const char *rest = strstr(origin, "://");
    if (!rest || (strncasecmp(origin, "http://", 7) && strncasecmp(origin, "https://", 8)))
        return false;
    return !strcasecmp(rest + 3, host);
}

static bool is_listed(const char *origin, const char *list)
{
    size_t len = strlen(origin);
    for (const char *p = list; p && *p;) {
        size_t n = strcspn(p, ",");
        if (n == len && n && !strncasecmp(p, origin, n))
            return true;
        p += n + (p[n] == ',');
    }
    return false;
}

enum guard_verdict guard_check(const struct guard_request *request, const char *bound,
                               const char *allowed)
{
    char name[NAME_MAX_BYTES];
    if (!request->host || !host_name(request->host, name))
        return GUARD_BAD_HOST;
    if (!guard_is_loopback(name) && !is_wildcard(bound) && strcasecmp(name, bound))
        return GUARD_FOREIGN_HOST;
    if (!request->origin || is_own_origin(request->origin, request->host))
        return GUARD_PASS;
    return is_listed(request->origin, allowed) ? GUARD_ALLOWED_ORIGIN : GUARD_FOREIGN_ORIGIN;
}

/* Takes the same time wherever the first difference is. */
static bool same(const char *given, size_t len, const char *key)
{
    size_t key_len = strlen(key);
    unsigned char difference = len != key_len;
    for (size_t i = 0; i < key_len; i++)
        difference |= (unsigned char)((i < len ? given[i] : 0) ^ key[i]);
    return !difference;
}

static bool cookie_has_key(const char *cookie, const char *key)
{
    for (const char *p = cookie; p; p = strchr(p, ';')) {
        p += strspn(p, "; ");
        if (!strncmp(p, COOKIE_NAME, strlen(COOKIE_NAME))) {
            const char *value = p + strlen(COOKIE_NAME);
            return same(value, strcspn(value, ";"), key);
        }
        if (!*p)
            break;
    }
    return false;
}

bool guard_key(const struct guard_request *request, const char *key)
{
    if (!key)
        return true;
    const char *bearer = request->authorization;
    if (bearer && !strncasecmp(bearer, "Bearer ", 7))
        return same(bearer + 7, strlen(bearer + 7), key);
    if (request->api_key)
        return same(request->api_key, strlen(request->api_key), key);
    if (request->query_key)
        return same(request->query_key, strlen(request->query_key), key);
    return request->cookie && cookie_has_key(request->cookie, key);
}
