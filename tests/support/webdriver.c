/* webdriver.c - see webdriver.h. */
#include "webdriver.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "http.h"
#include "process.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define START_SECONDS 30.0

const char *webdriver_missing(void)
{
    static const char *const programs[] = {"chromium", "chromedriver"};
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
        if (!process_exists(programs[i]))
            return programs[i];
    }
    return NULL;
}

/* ---- commands ----------------------------------------------------------------------------------
 */

/* `url` in full; the rest as webdriver_call(). */
static json_t *call(const char *method, const char *url, json_t *body, struct gyaru_error *err)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct str answer = STR_INIT;
    json_decref(body);
    long status = http_request(method, url, text, &answer);
    json_t *json = json_loadb(answer.data ? answer.data : "", answer.len, 0, NULL);
    json_t *value = json_incref(json_object_get(json, "value"));
    json_decref(json);
    if (status == 200 && value) {
        free(text);
        str_release(&answer);
        return value;
    }
    error_set(err, GYARU_FAILED, "%s %.60s answered %ld: %.200s", method, text ? text : url, status,
              answer.data ? answer.data : "nothing");
    json_decref(value);
    free(text);
    str_release(&answer);
    return NULL;
}

json_t *webdriver_call(struct webdriver *driver, const char *method, const char *path, json_t *body,
                       struct gyaru_error *err)
{
    char url[320];
    snprintf(url, sizeof url, "%s%s", driver->session, path);
    return call(method, url, body, err);
}

static int done(json_t *value)
{
    json_decref(value);
    return value ? 0 : -1;
}

int webdriver_open(struct webdriver *driver, const char *url, struct gyaru_error *err)
{
    return done(webdriver_call(driver, "POST", "/url", json_pack("{s:s}", "url", url), err));
}

json_t *webdriver_run(struct webdriver *driver, const char *script, struct gyaru_error *err)
{
    return webdriver_call(driver, "POST", "/execute/sync",
                          json_pack("{s:s,s:[]}", "script", script, "args"), err);
}

static void add_key(json_t *actions, const char *type, const char *key, size_t len)
{
    json_array_append_new(actions, json_pack("{s:s,s:s%}", "type", type, "value", key, len));
}

int webdriver_keys(struct webdriver *driver, const char *held, const char *keys,
                   struct gyaru_error *err)
{
    json_t *actions = json_array();
    if (held)
        add_key(actions, "keyDown", held, strlen(held));
    for (size_t len; *keys; keys += len) {
        len = 1;
        while ((keys[len] & 0xC0) == 0x80)
            len++;
        add_key(actions, "keyDown", keys, len);
        add_key(actions, "keyUp", keys, len);
    }
    if (held)
        add_key(actions, "keyUp", held, strlen(held));
    json_t *body = json_pack("{s:[{s:s,s:s,s:o}]}", "actions", "type", "key", "id", "keyboard",
                             "actions", actions);
    return done(webdriver_call(driver, "POST", "/actions", body, err));
}

json_t *webdriver_devtools(struct webdriver *driver, const char *command, json_t *parameters,
                           struct gyaru_error *err)
{
    return webdriver_call(driver, "POST", "/goog/cdp/execute",
                          json_pack("{s:s,s:o}", "cmd", command, "params", parameters), err);
}

int webdriver_size(struct webdriver *driver, int width, int height, double scale, bool touch,
                   struct gyaru_error *err)
{
    json_t *size = json_pack("{s:i,s:i,s:f,s:b}", "width", width, "height", height,
                             "deviceScaleFactor", scale, "mobile", touch);
    return done(webdriver_devtools(driver, "Emulation.setDeviceMetricsOverride", size, err));
}

/* ---- screenshots -------------------------------------------------------------------------------
 */

/* Base64 to bytes in place; their number. */
static size_t decode(char *text)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    unsigned bits = 0, have = 0;
    for (const char *c = text; *c && *c != '='; c++) {
        bits = (bits << 6 | (unsigned)(strchr(alphabet, *c) - alphabet)) & 0xFFFFFF;
        have += 6;
        if (have >= 8) {
            have -= 8;
            text[n++] = (char)(bits >> have);
        }
    }
    return n;
}

int webdriver_screenshot(struct webdriver *driver, const char *path, struct gyaru_error *err)
{
    json_t *value = webdriver_call(driver, "GET", "/screenshot", NULL, err);
    char *text = value && json_is_string(value) ? strdup(json_string_value(value)) : NULL;
    json_decref(value);
    if (!text)
        return -1;
    size_t len = decode(text);
    int rc = file_write_atomic(path, text, len, err);
    free(text);
    return rc;
}

/* ---- life --------------------------------------------------------------------------------------
 */

/* chromedriver picks a free port and says which. */
static int read_port(const char *log, struct gyaru_error *err)
{
    double deadline = clock_seconds() + START_SECONDS;
    while (clock_seconds() < deadline) {
        char *text;
        size_t len;
        int port = 0;
        if (!file_read(log, 1 << 20, &text, &len, err)) {
            const char *at = strstr(text, "successfully on port ");
            if (at && strchr(at, '.'))
                port = atoi(at + strlen("successfully on port "));
            free(text);
        }
        if (port > 0)
            return port;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    return error_set(err, GYARU_FAILED, "chromedriver did not start: see %s", log);
}

static json_t *capabilities(const char *language)
{
    char lang[32];
    snprintf(lang, sizeof lang, "--lang=%s", language);
    /* Sounds play without a click, as in OBS. */
    json_t *args =
        json_pack("[s,s,s,s,s,s]", "--headless=new", "--disable-gpu", "--disable-dev-shm-usage",
                  "--hide-scrollbars", "--autoplay-policy=no-user-gesture-required", lang);
    /* The sandbox refuses to run as root, which is what containers give. */
    if (geteuid() == 0)
        json_array_append_new(args, json_string("--no-sandbox"));
    return json_pack("{s:{s:{s:s,s:{s:o,s:{s:s}},s:{s:s}}}}", "capabilities", "alwaysMatch",
                     "browserName", "chrome", "goog:chromeOptions", "args", args, "prefs",
                     "intl.accept_languages", language, "goog:loggingPrefs", "browser", "ALL");
}

int webdriver_start(struct webdriver *driver, const char *language, struct gyaru_error *err)
{
    char log[512], url[64];
    snprintf(log, sizeof log, "%s", scratch_path("chromedriver.log"));
    const char *const argv[] = {"chromedriver", "--port=0", NULL};
    if (process_start(argv, log, &driver->pid, err))
        return -1;
    int port = read_port(log, err);
    json_t *value = NULL;
    if (port > 0) {
        snprintf(url, sizeof url, "http://127.0.0.1:%d/session", port);
        value = call("POST", url, capabilities(language), err);
    }
    const char *id = json_string_value(json_object_get(value, "sessionId"));
    if (id)
        snprintf(driver->session, sizeof driver->session, "%s/%s", url, id);
    json_decref(value);
    if (id)
        return 0;
    process_stop(driver->pid);
    driver->pid = 0;
    return -1;
}

void webdriver_stop(struct webdriver *driver)
{
    struct gyaru_error err;
    if (!driver->pid)
        return;
    json_decref(webdriver_call(driver, "DELETE", "", NULL, &err));
    process_stop(driver->pid);
    driver->pid = 0;
}
