/*
 * test_page.c - the page in headless Chromium against the real server and a real, tiny model:
 * what a user does, end to end. test_page_protocol.c plays the server itself for what a real one
 * does not do on demand.
 */
#include "base/clock.h"
#include "base/str.h"
#include "support/http.h"
#include "support/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MODEL    "tests/data/tiny-model"
#define ATTEMPTS 6

/* One thread: threads that wait for each other crawl on a busy machine. */
static const char *const options[] = {"-m", MODEL, "-v", MODEL "/vector.safetensors", "-s", "12",
                                      "-t", "1",   NULL};

static struct page page;

static int setup(void **state)
{
    return page_start(&page, options);
}

static int teardown(void **state)
{
    page_stop(&page);
    return 0;
}

/* The tests share one server, so each starts from the same strength. */
static void visit(void)
{
    char url[80];
    page_or_skip(&page);
    snprintf(url, sizeof url, "%s/v1/steering", page.server.origin);
    assert_int_equal(http_request("PUT", url, "{\"strength\":12}", NULL), 200);
    page_visit(&page);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_wait(&page, "document.getElementById('strength').value === '12'");
    page_run(&page, "document.getElementById('input').focus()");
}

#define ANSWERS "document.querySelectorAll('.turn-rinne')"
#define ENDED   "document.querySelectorAll('.turn-rinne:not(.running)')"
#define LAST    ANSWERS "[" ANSWERS ".length - 1]"

/* Calls window.onFirstToken once, at the first text of the next answer. */
static const char watch_first_token[] =
    "const observer = new MutationObserver(() => {"
    "  const text = document.querySelector('.running .bubble')?.firstChild?.data;"
    "  if (!text) return;"
    "  observer.disconnect(); window.onFirstToken();"
    "});"
    "observer.observe(document.getElementById('log'),"
    "  {subtree: true, childList: true, characterData: true});";

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_sends_and_streams(void **state)
{
    visit();
    page_run(&page, watch_first_token);
    page_run(&page, "window.onFirstToken = () => { window.seenRunning = true; }");
    page_keys(&page, "こんにちは" KEY_ENTER);
    page_wait(&page, ENDED ".length === 1");
    page_check(&page, "window.seenRunning");
    page_check(&page, "document.querySelector('.turn-user .bubble').textContent === 'こんにちは'");
    page_check(&page, LAST ".querySelector('.bubble').textContent.length > 0");
    page_check(&page, "document.getElementById('input').value === ''");
    page_check(&page, "document.activeElement.id === 'input'");
    /* The readings around it. */
    page_check(&page, "/^−?0\\.\\d\\d$/.test(document.getElementById('meter-number').textContent)");
    page_check(&page, "Number(document.getElementById('speed').textContent) > 0");
    page_check(&page, "Number(document.getElementById('first').textContent) > 0");
    page_check(&page, "Number(document.getElementById('count').textContent) > 1");
    page_check(&page, "/トークン/.test(document.getElementById('chart').ariaLabel)");
    page_check_console(&page);
}

static void test_nothing_comes_from_elsewhere(void **state)
{
    visit();
    page_check(&page, "performance.getEntriesByType('resource').length >= 8");
    page_check(&page, "performance.getEntriesByType('resource')"
                      ".every((entry) => new URL(entry.name).origin === location.origin)");
    page_check(&page, "document.querySelectorAll('[style], script:not([src]), style').length"
                      " === document.querySelectorAll('#input[style], .slider[style],"
                      " .dial[style], .ribbon[style]').length");
}

/* On a crowded machine the browser may come too late for one answer, hardly for several. `foot` is
 * what stands under an answer that the reaction reached. */
static void react_in_mid_answer(const char *reaction, const char *foot)
{
    struct gyaru_error err;
    struct str script = STR_INIT, check = STR_INIT;
    bool reached = false;
    str_printf(&script, "%s window.onFirstToken = () => { %s };", watch_first_token, reaction);
    str_printf(&check, LAST ".querySelector('.foot').textContent.includes('%s')", foot);
    char *script_text = str_take(&script), *check_text = str_take(&check);
    for (int i = 0; i < ATTEMPTS && !reached; i++) {
        visit();
        page_run(&page, script_text);
        if (server_process_slow_down(&page.server, &err))
            fail_msg("%s", err.text);
        page_keys(&page, "最近どう？" KEY_ENTER);
        page_wait(&page, ENDED ".length === 1");
        server_process_speed_up(&page.server);
        reached = page_is(&page, check_text);
    }
    free(script_text);
    free(check_text);
    if (!reached)
        fail_msg("no answer ended with: %s", foot);
}

static void test_strength_moves_in_mid_answer(void **state)
{
    react_in_mid_answer("const slider = document.getElementById('strength');"
                        "slider.value = 25; slider.dispatchEvent(new Event('input'));",
                        "12.0→25.0");
    page_check(&page, "document.getElementById('chart-strength').textContent === '25.0'");
    page_check(&page, "document.getElementById('strength-number').value === '25.0'");
}

static void test_escape_cancels(void **state)
{
    react_in_mid_answer("document.getElementById('input').dispatchEvent("
                        "  new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))",
                        "ここで止めました");
    /* The next answer comes. */
    page_keys(&page, "もう一度" KEY_ENTER);
    page_wait(&page, ENDED ".length === 2");
    page_check(&page, "!" LAST ".textContent.includes('止めました')");
}

static void test_reload_keeps_the_conversation(void **state)
{
    visit();
    page_keys(&page, "覚えてて" KEY_ENTER);
    page_wait(&page, ENDED ".length === 1");
    char *before = page_text(&page, "document.getElementById('log').innerText");
    page_reload(&page);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    char *after = page_text(&page, "document.getElementById('log').innerText");
    assert_string_equal(before, after);
    assert_non_null(strstr(after, "覚えてて"));
    free(before);
    free(after);
    page_run(&page, "document.getElementById('input').focus()");
    page_keys(&page, "続き" KEY_ENTER);
    page_wait(&page, ENDED ".length === 2");
    page_check_console(&page);
}

static void test_markup_is_text(void **state)
{
    visit();
    page_keys(&page,
              "<img src=x onerror=\"window.ran = 1\"><script>window.ran = 1</script>" KEY_ENTER);
    page_wait(&page, ENDED ".length === 1");
    page_check(&page, "document.querySelector('.turn-user .bubble').textContent"
                      ".startsWith('<img src=x onerror=')");
    page_check(&page, "document.querySelectorAll('#log img, #log script').length === 0");
    page_check(&page, "window.ran === undefined");
    page_check_console(&page);
}

static void test_presets_reach_the_server(void **state)
{
    static const double values[] = {0, 8, 12, 15, 20, 25};
    visit();
    page_check(&page, "document.querySelectorAll('.preset').length === 6");
    for (int i = 5; i >= 0; i--) {
        char script[256], url[80];
        double deadline = clock_seconds() + 5, strength = -1;
        snprintf(script, sizeof script, "document.querySelectorAll('.preset')[%d].click()", i);
        page_run(&page, script);
        snprintf(script, sizeof script,
                 "document.querySelector('.preset[aria-pressed=true] .preset-number').textContent"
                 " === '%g' && Number(document.getElementById('strength').value) === %g",
                 values[i], values[i]);
        page_check(&page, script);
        snprintf(url, sizeof url, "%s/v1/steering", page.server.origin);
        while (strength != values[i] && clock_seconds() < deadline) {
            struct str answer = STR_INIT;
            assert_int_equal(http_request("GET", url, NULL, &answer), 200);
            json_t *json = json_loadb(answer.data, answer.len, 0, NULL);
            strength = json_number_value(json_object_get(json, "strength"));
            json_decref(json);
            str_release(&answer);
        }
        assert_float_equal(strength, values[i], 0);
    }
}

static void test_another_client_moves_the_slider(void **state)
{
    char url[80];
    visit();
    snprintf(url, sizeof url, "%s/v1/steering", page.server.origin);
    assert_int_equal(http_request("PUT", url, "{\"strength\":-3.5}", NULL), 200);
    page_wait(&page, "document.getElementById('strength').value === '-3.5'");
    page_check(&page, "document.getElementById('strength-number').value === '-3.5'");
}

static void test_keyboard_alone_is_enough(void **state)
{
    visit();
    /* From the message on: slider, number and presets by Tab, in this order. */
    page_keys(&page, KEY_TAB KEY_TAB);
    page_check(&page, "document.activeElement.id === 'strength-number'");
    page_check(&page, "document.activeElement.matches(':focus-visible')");
    page_keys(&page, KEY_TAB);
    page_check(&page, "document.activeElement.id === 'strength'");
    page_keys(&page, KEY_RIGHT KEY_RIGHT KEY_LEFT);
    page_check(&page, "document.activeElement.value === '12.5'");
    page_check(&page, "document.activeElement.ariaValueText.startsWith('12.5')");
    page_keys(&page, KEY_TAB KEY_ENTER);
    page_check(&page, "document.getElementById('strength').value === '0'");
    page_chord(&page, KEY_SHIFT, KEY_TAB KEY_TAB KEY_TAB KEY_TAB);
    page_check(&page, "document.activeElement.id === 'input'");
    page_keys(&page, "やあ");
    page_chord(&page, KEY_SHIFT, KEY_ENTER);
    page_keys(&page, "元気？");
    page_check(&page, "document.getElementById('input').value === 'やあ\\n元気？'");
    page_keys(&page, KEY_ENTER);
    page_wait(&page, ENDED ".length === 1");
    page_check(&page, "document.querySelector('.turn-user .bubble').textContent"
                      " === 'やあ\\n元気？'");
}

static void test_comes_back_after_a_restart(void **state)
{
    struct gyaru_error err;
    int port = page.server.port;
    visit();
    page_keys(&page, "一回目" KEY_ENTER);
    page_wait(&page, ENDED ".length === 1");
    assert_int_equal(server_process_stop(&page.server), 0);
    page_wait(&page, "['waiting', 'retrying'].includes(document.body.dataset.link)");
    page_wait(&page, "document.getElementById('link-text').textContent !== 'つながっています'");
    page_check(&page, "document.getElementById('send').disabled");
    if (server_process_start(&page.server, port, options, &err))
        fail_msg("%s", err.text);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_check(&page, ANSWERS ".length === 1");
    page_keys(&page, "二回目" KEY_ENTER);
    page_wait(&page, ENDED ".length === 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sends_and_streams),
        cmocka_unit_test(test_nothing_comes_from_elsewhere),
        cmocka_unit_test(test_strength_moves_in_mid_answer),
        cmocka_unit_test(test_escape_cancels),
        cmocka_unit_test(test_reload_keeps_the_conversation),
        cmocka_unit_test(test_markup_is_text),
        cmocka_unit_test(test_presets_reach_the_server),
        cmocka_unit_test(test_another_client_moves_the_slider),
        cmocka_unit_test(test_keyboard_alone_is_enough),
        cmocka_unit_test(test_comes_back_after_a_restart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
