/*
 * webdriver.h - a headless Chromium, driven through chromedriver (W3C WebDriver over HTTP, and
 * the DevTools commands that chromedriver passes on).
 */
#ifndef TESTS_WEBDRIVER_H
#define TESTS_WEBDRIVER_H

#include <gyaru.h>
#include <jansson.h>
#include <sys/types.h>

struct webdriver {
    pid_t pid;         /* of chromedriver; 0: none */
    char session[160]; /* "http://127.0.0.1:PORT/session/ID" */
};

/* Keys as WebDriver writes them. */
#define KEY_ENTER  "\uE007"
#define KEY_TAB    "\uE004"
#define KEY_SHIFT  "\uE008"
#define KEY_ESCAPE "\uE00C"
#define KEY_END    "\uE010"
#define KEY_LEFT   "\uE012"
#define KEY_RIGHT  "\uE014"

/* NULL, or the program that is missing. */
const char *webdriver_missing(void);

/* Starts both; `language` is what the browser asks for ("ja", "en-US"). */
int webdriver_start(struct webdriver *driver, const char *language, struct gyaru_error *err);
void webdriver_stop(struct webdriver *driver);

/* One command: `path` is relative to the session, `body` (taken over) may be NULL. The answer's
 * value (caller's reference), NULL with err on failure. */
json_t *webdriver_call(struct webdriver *driver, const char *method, const char *path, json_t *body,
                       struct gyaru_error *err);

int webdriver_open(struct webdriver *driver, const char *url, struct gyaru_error *err);

/* Runs a function's body in the page; its result as JSON (caller's reference). */
json_t *webdriver_run(struct webdriver *driver, const char *script, struct gyaru_error *err);

/* Presses and releases the keys one after the other, `held` (NULL: none) all the while. */
int webdriver_keys(struct webdriver *driver, const char *held, const char *keys,
                   struct gyaru_error *err);

/* A DevTools command; `parameters` is taken over. */
json_t *webdriver_devtools(struct webdriver *driver, const char *command, json_t *parameters,
                           struct gyaru_error *err);

/* The viewport in CSS pixels, at `scale` device pixels each. */
int webdriver_size(struct webdriver *driver, int width, int height, double scale, bool touch,
                   struct gyaru_error *err);

int webdriver_screenshot(struct webdriver *driver, const char *path, struct gyaru_error *err);

#endif
