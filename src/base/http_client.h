/*
 * http_client.h - one HTTP request at a time, by libcurl: nothing else in the library knows curl.
 *
 * Redirects are not followed, for they would carry the key to another place; only http and https
 * are spoken. A proxy that the environment names is used, but never for this machine itself.
 */
#ifndef BASE_HTTP_CLIENT_H
#define BASE_HTTP_CLIENT_H

#include "base/error.h"
#include "base/str.h"

struct http_client_request {
    const char *url;
    const char *body;         /* JSON, sent by POST; NULL: GET */
    const char *bearer;       /* key for "Authorization: Bearer", NULL: none */
    double timeout;           /* seconds for the whole exchange */
    size_t limit;             /* bytes of the answer */
    gyaru_progress *progress; /* asked about once a second whether to stop; may be NULL */
    void *progress_user;
    const char *what; /* for the progress, with its numbers */
    uint64_t done, total;
};

struct http_client_response {
    long status;
    struct str body;
    double retry_after; /* seconds that the server asks to wait; below 0: it does not say */
};

enum http_client_outcome { HTTP_ANSWERED = 0, HTTP_FAILED = -1, HTTP_STOPPED = -2 };

/* HTTP_ANSWERED whatever the status (release the response); else err says why there is none. */
enum http_client_outcome http_client_request(const struct http_client_request *request,
                                             struct http_client_response *response,
                                             struct gyaru_error *err);
void http_client_response_release(struct http_client_response *response);

/* Is the URL's host this machine (localhost, 127.x.x.x, ::1)? */
bool http_client_is_local(const char *url);

#endif
