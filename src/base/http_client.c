/* http_client.c - see http_client.h. */
#include "base/http_client.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#define CONNECT_SECONDS 15.0
#define POLL_MS         100

/* What the callbacks share. */
struct exchange {
    const struct http_client_request *request;
    struct http_client_response *response;
    bool too_large, stopped;
};

bool http_client_is_local(const char *url)
{
    CURLU *parts = curl_url();
    char *host = NULL;
    bool local = false;
    if (parts && !curl_url_set(parts, CURLUPART_URL, url, 0) &&
        !curl_url_get(parts, CURLUPART_HOST, &host, 0))
        local = !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "[::1]");
    curl_free(host);
    curl_url_cleanup(parts);
    return local;
}

int http_client_check_base(const char *url, struct gyaru_error *err)
{
    static const CURLUPart unwanted[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY,
                                         CURLUPART_FRAGMENT};
    CURLU *parts = curl_url();
    char *text = NULL;
    bool good = parts && !curl_url_set(parts, CURLUPART_URL, url, 0) &&
                (!strncasecmp(url, "http://", 7) || !strncasecmp(url, "https://", 8));
    for (size_t i = 0; good && i < sizeof unwanted / sizeof unwanted[0]; i++) {
        good = curl_url_get(parts, unwanted[i], &text, 0) != CURLUE_OK;
        curl_free(text);
        text = NULL;
    }
    curl_url_cleanup(parts);
    return good ? 0
                : error_set(err, GYARU_USAGE, "'%s' is no address such as http://127.0.0.1:50021",
                            url);
}

static size_t take_body(char *data, size_t size, size_t n, void *user)
{
    struct exchange *e = user;
    if (e->response->body.len + size * n > e->request->limit) {
        e->too_large = true;
        return 0;
    }
    str_append(&e->response->body, data, size * n);
    return str_failed(&e->response->body) ? 0 : size * n;
}

static bool is_stopped(struct exchange *e)
{
    const struct http_client_request *r = e->request;
    e->stopped = r->progress && r->progress(r->progress_user, r->what, r->done, r->total);
    return e->stopped;
}

/* curl_easy_perform() asks its progress callback once a second while nothing arrives, which is too
 * seldom for somebody who waits for the end. */
static CURLcode perform(CURL *curl, struct exchange *e)
{
    CURLM *multi = curl_multi_init();
    CURLcode code = CURLE_OUT_OF_MEMORY;
    int running = 1, n;
    if (!multi || curl_multi_add_handle(multi, curl)) {
        curl_multi_cleanup(multi);
        return code;
    }
    while (running && !is_stopped(e)) {
        if (curl_multi_perform(multi, &running) ||
            (running && curl_multi_poll(multi, NULL, 0, POLL_MS, NULL)))
            break;
    }
    const CURLMsg *message = curl_multi_info_read(multi, &n);
    if (message && message->msg == CURLMSG_DONE)
        code = message->data.result;
    else if (e->stopped)
        code = CURLE_ABORTED_BY_CALLBACK;
    curl_multi_remove_handle(multi, curl);
    curl_multi_cleanup(multi);
    return code;
}

static bool add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer != NULL;
}

static bool make_headers(const struct http_client_request *r, struct curl_slist **list)
{
    struct str key = STR_INIT;
    bool good = add_header(list, "Content-Type: application/json") && add_header(list, "Expect:");
    if (good && r->bearer) {
        str_printf(&key, "Authorization: Bearer %s", r->bearer);
        good = !str_failed(&key) && add_header(list, key.data);
    }
    str_release(&key);
    return good;
}

static void set_options(CURL *curl, struct exchange *e, struct curl_slist *headers)
{
    const struct http_client_request *r = e->request;
    curl_easy_setopt(curl, CURLOPT_URL, r->url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "gyaru/" GYARU_VERSION);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(
        curl, CURLOPT_CONNECTTIMEOUT_MS,
        (long)(1000 * (r->connect_timeout > 0 ? r->connect_timeout : CONNECT_SECONDS)));
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(1000 * r->timeout));
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, e);
    if (r->direct || http_client_is_local(r->url))
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    if (r->body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, r->body);
}

static enum http_client_outcome failed(const struct exchange *e, CURLcode code,
                                       struct gyaru_error *err)
{
    const struct http_client_request *r = e->request;
    if (e->stopped)
        error_set(err, GYARU_FAILED, "stopped");
    else if (e->too_large)
        error_set(err, GYARU_FAILED, "%s: the answer is longer than %zu bytes", r->url, r->limit);
    else if (code == CURLE_OPERATION_TIMEDOUT)
        error_set(err, GYARU_FAILED, "%s: no answer within %g s", r->url, r->timeout);
    else
        error_set(err, GYARU_FAILED, "%s: %s", r->url, curl_easy_strerror(code));
    return e->stopped                         ? HTTP_STOPPED
           : e->too_large                     ? HTTP_TOO_LARGE
           : code == CURLE_OPERATION_TIMEDOUT ? HTTP_TIMED_OUT
                                              : HTTP_FAILED;
}

enum http_client_outcome http_client_request(const struct http_client_request *request,
                                             struct http_client_response *response,
                                             struct gyaru_error *err)
{
    struct http_client_response out = {.body = STR_INIT, .retry_after = -1};
    struct exchange e = {.request = request, .response = &out};
    struct curl_slist *headers = NULL;
    CURL *curl = curl_easy_init();
    if (!curl || !make_headers(request, &headers)) {
        curl_slist_free_all(headers);
        curl_easy_cleanup(curl);
        error_memory(err, 1024, "a request");
        return HTTP_FAILED;
    }
    set_options(curl, &e, headers);
    CURLcode code = perform(curl, &e);
    if (code == CURLE_OK) {
        curl_off_t wait = 0;
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &out.status);
        if (!curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait) && wait > 0)
            out.retry_after = (double)wait;
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (code != CURLE_OK) {
        str_release(&out.body);
        return failed(&e, code, err);
    }
    *response = out;
    return HTTP_ANSWERED;
}

void http_client_response_release(struct http_client_response *response)
{
    str_release(&response->body);
}
