/* page.c - see page.h. */
#include "page.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define WAIT_SECONDS 30.0
#define FAKE         "tests/data/page/fake_server.js"

int page_start(struct page *page, const char *const options[])
{
    struct gyaru_error err;
    memset(page, 0, sizeof *page);
    page->missing = webdriver_missing();
    if (page->missing)
        return 0;
    if (server_process_start(&page->server, 0, options, &err) ||
        webdriver_start(&page->driver, "ja", &err)) {
        print_error("%s\n", err.text);
        server_process_stop(&page->server);
        return -1;
    }
    return 0;
}

void page_stop(struct page *page)
{
    free(page->fake);
    webdriver_stop(&page->driver);
    server_process_stop(&page->server);
}

void page_or_skip(struct page *page)
{
    if (page->missing) {
        printf("SKIP: the page in a browser: there is no %s\n", page->missing);
        skip();
    }
}

void page_run(struct page *page, const char *script)
{
    struct gyaru_error err;
    json_t *value = webdriver_run(&page->driver, script, &err);
    if (!value)
        fail_msg("%s", err.text);
    json_decref(value);
}

/* Caller's reference. */
static json_t *evaluate(struct page *page, const char *expression)
{
    struct gyaru_error err;
    struct str script = STR_INIT;
    str_printf(&script, "return (%s);", expression);
    char *text = str_take(&script);
    json_t *value = webdriver_run(&page->driver, text ? text : "", &err);
    free(text);
    if (!value)
        fail_msg("%s: %s", expression, err.text);
    return value;
}

bool page_is(struct page *page, const char *expression)
{
    json_t *value = evaluate(page, expression);
    bool result = json_is_true(value);
    json_decref(value);
    return result;
}

void page_wait(struct page *page, const char *expression)
{
    double deadline = clock_seconds() + WAIT_SECONDS;
    while (!page_is(page, expression)) {
        if (clock_seconds() > deadline)
            fail_msg("waited in vain for: %s", expression);
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
}

char *page_text(struct page *page, const char *expression)
{
    struct str script = STR_INIT;
    str_printf(&script, "String(%s)", expression);
    char *text = str_take(&script);
    json_t *value = evaluate(page, text);
    char *copy = strdup(json_is_string(value) ? json_string_value(value) : "");
    free(text);
    json_decref(value);
    return copy;
}

static void open_address(struct page *page)
{
    struct gyaru_error err;
    char url[64];
    snprintf(url, sizeof url, "%s/", page->server.origin);
    if (webdriver_open(&page->driver, url, &err))
        fail_msg("%s", err.text);
}

void page_fake_server(struct page *page, const char *start)
{
    struct gyaru_error err;
    struct str script = STR_INIT;
    char *source;
    size_t len;
    if (page->fake)
        json_decref(webdriver_devtools(&page->driver, "Page.removeScriptToEvaluateOnNewDocument",
                                       json_pack("{s:s}", "identifier", page->fake), &err));
    free(page->fake);
    page->fake = NULL;
    if (!start)
        return;
    if (file_read(FAKE, 1 << 20, &source, &len, &err))
        fail_msg("%s", err.text);
    str_printf(&script, "window.fakeStart = %s; { %s }", start, source);
    free(source);
    source = str_take(&script);
    json_t *value = webdriver_devtools(&page->driver, "Page.addScriptToEvaluateOnNewDocument",
                                       json_pack("{s:s}", "source", source), &err);
    free(source);
    if (!value)
        fail_msg("%s", err.text);
    page->fake = strdup(json_string_value(json_object_get(value, "identifier")));
    json_decref(value);
}

static json_t *console(struct page *page)
{
    struct gyaru_error err;
    json_t *log = webdriver_call(&page->driver, "POST", "/se/log",
                                 json_pack("{s:s}", "type", "browser"), &err);
    if (!log)
        fail_msg("%s", err.text);
    return log;
}

/* Leaving the page saves what runs, so the storage is emptied after that. */
void page_visit(struct page *page)
{
    open_address(page);
    page_run(page, "localStorage.clear();"
                   "window.addEventListener('pagehide', () => sessionStorage.clear())");
    open_address(page);
    json_decref(console(page));
}

void page_reload(struct page *page)
{
    page_run(page, "location.reload()");
    page_wait(page, "document.readyState === 'complete'");
}

static void press(struct page *page, const char *held, const char *keys)
{
    struct gyaru_error err;
    if (webdriver_keys(&page->driver, held, keys, &err))
        fail_msg("%s", err.text);
}

void page_keys(struct page *page, const char *keys)
{
    press(page, NULL, keys);
}

void page_chord(struct page *page, const char *held, const char *keys)
{
    press(page, held, keys);
}

void page_send(struct page *page, const char *text)
{
    page_run(page, "document.getElementById('input').focus()");
    page_keys(page, text);
    page_keys(page, KEY_ENTER);
}

void page_ask(struct page *page, const char *text, int n)
{
    char done[100];
    snprintf(done, sizeof done,
             "document.querySelectorAll('.turn-rinne:not(.running)').length === %d", n);
    page_send(page, text);
    page_wait(page, done);
}

void page_size(struct page *page, int width, int height)
{
    struct gyaru_error err;
    if (webdriver_size(&page->driver, width, height, 1, false, &err))
        fail_msg("%s", err.text);
}

void page_check_console(struct page *page)
{
    json_t *log = console(page);
    char *text = json_array_size(log) ? json_dumps(log, JSON_COMPACT) : NULL;
    json_decref(log);
    if (text)
        fail_msg("on the console: %s", text);
}
