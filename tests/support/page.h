/*
 * page.h - the page in a browser, as the tests see it: scripts in, values out. Every function
 * fails the running test when the browser does not do what was asked.
 */
#ifndef TESTS_PAGE_H
#define TESTS_PAGE_H

#include "process.h"
#include "webdriver.h"

struct page {
    struct webdriver driver;
    struct server_process server;
    char *fake;          /* identifier of the script that stands in for the server; NULL: none */
    const char *missing; /* what there is no browser without; NULL: there is one */
};

/* Starts server and browser; where there is no browser, neither, and the tests skip themselves.
 * Gives 0, or -1 having said why. `options` go to `gyaru serve`. */
int page_start(struct page *page, const char *const options[]);
void page_stop(struct page *page);

/* Prints "SKIP: ..." and skips the running test if page_start() found no browser. */
void page_or_skip(struct page *page);

/* A fresh visit: nothing stored, nothing on the console. */
void page_visit(struct page *page);

/* Loads the address anew and keeps what is stored. */
void page_reload(struct page *page);

/* From the next visit on, the page talks to tests/data/page/fake_server.js instead of the server;
 * `start` (a JavaScript object) is what that begins with. NULL: the real server again. */
void page_fake_server(struct page *page, const char *start);

/* Runs a function's body. */
void page_run(struct page *page, const char *script);

/* Is the expression true? */
bool page_is(struct page *page, const char *expression);

/* Waits up to half a minute for it to become true. */
void page_wait(struct page *page, const char *expression);

#define page_check(page, expression)                                                               \
    do {                                                                                           \
        if (!page_is(page, expression))                                                            \
            fail_msg("not so: %s", expression);                                                    \
    } while (0)

/* What the expression gives, as text (caller frees). */
char *page_text(struct page *page, const char *expression);

/* Types into whatever has the focus. */
void page_keys(struct page *page, const char *keys);
void page_chord(struct page *page, const char *held, const char *keys);

/* Types a message and sends it. */
void page_send(struct page *page, const char *text);

/* The same, and waits until the conversation has n whole answers. */
void page_ask(struct page *page, const char *text, int n);

void page_size(struct page *page, int width, int height);

/* Fails the test if the browser's console holds a warning or an error. */
void page_check_console(struct page *page);

#endif
