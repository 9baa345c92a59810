/*
 * http_client.h - one HTTP request at a time, by libcurl: nothing else in the library knows curl.
 *
 * Redirects are not followed, for they would carry the key to another place; only http and https
 * are spoken. A proxy that the environment names is used, but never for this machine itself, nor
 * for a request that is to be direct.
 */
#ifndef BASE_HTTP_CLIENT_H
#define BASE_HTTP_CLIENT_H

#include "base/error.h"
#include "base/str.h"

struct http_client_request {
    const char *url;
    const char *body;         /* JSON or nothing, sent by POST; NULL: GET */
    const char *bearer;       /* key for "Authorization: Bearer", NULL: none */
    double timeout;           /* seconds for the whole exchange */
    double connect_timeout;   /* seconds to be connected; 0: 15 */
    bool direct;              /* through no proxy */
    size_t limit;             /* bytes of the answer */
    gyaru_progress *progress; /* asked ten times a second whether to stop; may be NULL */
    void *progress_user;
    const char *what; /* for the progress, with its numbers */
    uint64_t done, total;
};

struct http_client_response {
    long status;
    struct str body;
    double retry_after; /* seconds that the server asks to wait; below 0: it does not say */
};

enum http_client_outcome {
    HTTP_ANSWERED = 0,
    HTTP_FAILED = -1,
    HTTP_STOPPED = -2,
    HTTP_TIMED_OUT = -3,
    HTTP_TOO_LARGE = -4
};

/* HTTP_ANSWERED whatever the status (release the response); else err says why there is none. */
enum http_client_outcome http_client_request(const struct http_client_request *request,
                                             struct http_client_response *response,
                                             struct gyaru_error *err);
void http_client_response_release(struct http_client_response *response);

/* Is it http(s)://HOST[:PORT][/PATH] and nothing more, so that a path can be put behind it? */
int http_client_check_base(const char *url, struct gyaru_error *err);

/* Is the URL's host this machine (localhost, 127.x.x.x, ::1)? */
bool http_client_is_local(const char *url);

#endif
