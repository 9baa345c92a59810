/*
 * test_page_protocol.c - the page in headless Chromium against a server that the test plays
 * (data/page/fake_server.js): order, timing and failures that a real server does not give on
 * demand. The page itself comes from the real program.
 */
#include "support/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const options[] = {"-m", "tests/data/tiny-model", "-t", "1", NULL};

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

static void visit(const char *start)
{
    page_or_skip(&page);
    page_fake_server(&page, start);
    page_visit(&page);
    page_run(&page, "window.$ = (id) => document.getElementById(id);"
                    "window.sent = (type) => fake.sent.filter((m) => m.type === type);"
                    "window.slide = (value) => { $('strength').value = value;"
                    "  $('strength').dispatchEvent(new Event('input')); };"
                    "$('input').focus()");
}

static void ask(const char *text)
{
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_keys(&page, text);
    page_keys(&page, KEY_ENTER);
    page_wait(&page, "document.querySelector('.running') !== null");
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_original_protocol_is_enough(void **state)
{
    visit("{hello: null}");
    ask("やあ");
    page_check(&page,
               "JSON.stringify(Object.keys(fake.sent[0])) === '[\"type\",\"content\",\"at\"]'");
    page_run(&page, "fake.say({type: 'token', content: 'あー'});"
                    "fake.say({type: 'gauge', value: 0.42});"
                    "fake.say({type: 'token', content: 'し'});"
                    "fake.say({type: 'gauge', value: 0.51});"
                    "fake.say({type: 'surprise', value: {}});"
                    "fake.say({type: 'done', full_response: 'あーし'})");
    page_check(&page, "document.querySelector('.turn-rinne .bubble').textContent === 'あーし'");
    page_check(&page, "document.querySelector('.running') === null");
    page_check(&page, "document.body.dataset.mood === 'over'");
    page_check(&page, "$('calibrated').hidden");
    page_check(&page, "$('count').textContent === '2'");
    page_check(&page, "$('chart-strength').textContent === '12.0'");
    page_check_console(&page);
}

static void test_meter_has_three_ranges(void **state)
{
    static const struct {
        const char *value, *mood, *name;
    } cases[] = {{"-0.12", "calm", "ふつう"},
                 {"0.299", "calm", "ふつう"},
                 {"0.3", "gyaru", "ギャル"},
                 {"0.5", "gyaru", "ギャル"},
                 {"0.501", "over", "オーバードーズ"}};
    visit("{}");
    ask("やあ");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char script[256];
        snprintf(script, sizeof script, "fake.token('あ', %s, 12)", cases[i].value);
        page_run(&page, script);
        snprintf(script, sizeof script,
                 "document.body.dataset.mood === '%s' && $('meter-name').textContent === '%s'"
                 " && Number($('meter').ariaValueNow) === %s",
                 cases[i].mood, cases[i].name, cases[i].value);
        page_check(&page, script);
    }
    page_check(&page, "$('meter').role === 'meter' && $('meter-number').textContent === '0.50'");
    /* The gauge is the mean over the tokens: -0.18, 0.4485, 0.45, 0.75, 0.7515. */
    page_check(&page, "$('calibrated-number').textContent === '44%'");
    page_check(&page, "$('calibrated').dataset.beyond === ''");
    /* Past the end the bar stops, the number goes on. */
    page_run(&page, "for (let i = 0; i < 16; i++) fake.token('あ', 0.9, 12)");
    page_check(&page, "$('calibrated-number').textContent === '135%'");
    page_check(&page, "$('calibrated').dataset.beyond === 'over'"
                      " && $('calibrated').style.getPropertyValue('--part') === '1.000'");
    page_check(&page, "$('layer').textContent === '第8層'");
    /* Red pulses, but not for those who asked for less motion. */
    page_check(&page, "document.querySelector('.dial-value').getAnimations().length > 0");
    struct gyaru_error err;
    json_decref(webdriver_devtools(&page.driver, "Emulation.setEmulatedMedia",
                                   json_pack("{s:[{s:s,s:s}]}", "features", "name",
                                             "prefers-reduced-motion", "value", "reduce"),
                                   &err));
    page_check(&page, "document.getAnimations().length === 0");
    json_decref(webdriver_devtools(&page.driver, "Emulation.setEmulatedMedia",
                                   json_pack("{s:[]}", "features"), &err));
}

static void test_strength_is_live_and_throttled(void **state)
{
    visit("{}");
    ask("やあ");
    page_run(&page, "fake.token('い', 0.3, 12); fake.token('ち', 0.3, 12)");
    /* A second of dragging, a hundred moves; the server's echo is late and old. */
    page_run(&page, "let i = 0; window.dragged = false;"
                    "const timer = setInterval(() => {"
                    "  slide(-10 + 0.3 * i); i++;"
                    "  if (i === 50) { fake.say({type: 'strength_updated', value: -10});"
                    "    window.jumped = $('strength').value === '-10'; }"
                    "  if (i > 100) { clearInterval(timer); slide(21.5); dragged = true; }"
                    "}, 10)");
    page_wait(&page, "dragged && sent('update_strength').at(-1)?.value === 21.5");
    page_check(&page, "$('strength').value === '21.5' && window.jumped === false");
    page_check(&page, "sent('update_strength').length >= 5"
                      " && sent('update_strength').length <= 40");
    page_check(&page, "sent('update_strength').every((m, i, all) => i === 0"
                      " || m.at - all[i - 1].at >= 45)");
    page_run(&page, "fake.say({type: 'strength_updated', value: 21.5});"
                    "fake.token('に', 0.45, 21.5)");
    page_check(&page, "$('chart-strength').textContent === '21.5'");
    page_check(&page, "$('strength-name').textContent === 'へべれけ'");
    page_run(&page, "fake.say({type: 'done', full_response: 'いちに', finish_reason: 'stop'})");
    page_check(&page, "document.querySelector('.foot').textContent.includes('12.0→21.5')");
    page_check(&page, "$('chart').ariaLabel.includes('12.0→21.5')");
    /* Left alone, the slider follows another client. */
    page_run(&page, "fake.say({type: 'strength_updated', value: 3})");
    page_wait(&page, "$('strength').value === '3' && $('strength-number').value === '3.0'");
}

static void test_number_entry(void **state)
{
    visit("{}");
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_run(&page, "$('strength-number').focus(); $('strength-number').select()");
    page_keys(&page, "-7.3" KEY_TAB);
    page_wait(&page, "sent('update_strength').at(-1)?.value === -7.5");
    page_check(&page, "$('strength').value === '-7.5' && $('strength-number').value === '-7.5'");
    page_run(&page, "$('strength-number').focus(); $('strength-number').select()");
    page_keys(&page, "99" KEY_ENTER);
    page_wait(&page, "sent('update_strength').at(-1)?.value === 30");
}

static void test_cancel(void **state)
{
    visit("{}");
    ask("やあ");
    page_run(&page, "fake.token('はい', 0.1, 12)");
    page_check(&page, "$('send').hidden && !$('cancel').hidden");
    page_keys(&page, KEY_ESCAPE KEY_ESCAPE);
    page_check(&page, "sent('cancel').length === 1");
    page_run(&page, "fake.say({type: 'done', full_response: 'はい', finish_reason: 'cancelled'})");
    page_check(&page, "document.querySelector('.foot').textContent.includes('ここで止めました')");
    page_check(&page, "!$('send').hidden && $('cancel').hidden");
    /* A server that never heard of cancel: its answer is given up, its rest ignored. */
    ask("もっと");
    page_run(&page, "fake.token('うん', 0.1, 12); $('cancel').click()");
    page_wait(&page, "document.querySelector('.running') === null");
    ask("次");
    page_run(&page, "fake.token('古い', 0.1, 12);"
                    "fake.say({type: 'done', full_response: 'うん古い'});"
                    "fake.token('新しい', 0.1, 12);"
                    "fake.say({type: 'done', full_response: '新しい'})");
    page_check(&page, "[...document.querySelectorAll('.turn-rinne .bubble')]"
                      ".map((node) => node.textContent).join() === 'はい,うん,新しい'");
}

static void test_input_method_keeps_its_enter(void **state)
{
    visit("{}");
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_keys(&page, "にほんご");
    page_run(&page, "for (const extra of [{isComposing: true}, {keyCode: 229}])"
                    "  $('input').dispatchEvent(new KeyboardEvent('keydown',"
                    "    {key: 'Enter', bubbles: true, cancelable: true, ...extra}))");
    page_check(&page, "fake.sent.length === 0 && $('input').value === 'にほんご'");
    page_keys(&page, KEY_ENTER);
    page_check(&page, "sent('message')[0].content === 'にほんご'");
}

static void test_history_goes_with_a_new_connection(void **state)
{
    visit("{}");
    ask("一");
    page_run(&page, "fake.say({type: 'token', content: '<b>壱</b>'});"
                    "fake.say({type: 'done', full_response: '<b>壱</b>', finish_reason: 'stop'})");
    ask("二");
    page_check(&page, "sent('message').every((m) => m.history === undefined)");
    /* Cut off in mid-answer: what came is kept. */
    page_run(&page, "fake.say({type: 'token', content: '弐'}); fake.drop()");
    page_check(&page, "document.querySelectorAll('.foot')[1].textContent.includes('途切れ')");
    page_wait(&page, "fake.sockets === 2 && document.body.dataset.link === 'ready'");
    ask("三");
    page_check(&page, "JSON.stringify(sent('message').at(-1).history) === JSON.stringify(["
                      "{role: 'user', content: '一'}, {role: 'assistant', content: '<b>壱</b>'},"
                      "{role: 'user', content: '二'}, {role: 'assistant', content: '弐'}])");
    page_check(&page, "document.querySelector('.bubble b') === null");
    page_reload(&page);
    page_check(&page, "document.querySelectorAll('.turn').length === 6");
    page_run(&page, "document.getElementById('input').focus()");
    ask("四");
    page_check(&page, "fake.sent.at(-1).history.length === 4");
}

static void test_history_fits_the_servers_limit(void **state)
{
    visit("{}");
    for (int i = 0; i < 3; i++) {
        ask("問");
        page_run(&page, "fake.say({type: 'done', full_response: '答'.repeat(500)})");
    }
    page_run(&page, "fake.hello.max_message_bytes = 4096; fake.drop()");
    page_wait(&page, "fake.sockets === 2");
    ask("次");
    page_check(&page, "JSON.stringify(sent('message').at(-1).history.map((turn) => turn.role))"
                      " === '[\"user\",\"assistant\",\"user\",\"assistant\"]'");
    page_check(&page, "new TextEncoder().encode(JSON.stringify(fake.sent.at(-1))).length <= 4096");
    page_run(&page, "fake.say({type: 'done', full_response: 'はい', dropped_messages: 1})");
    page_check(&page, "[...document.querySelectorAll('.foot')].at(-1)"
                      ".textContent.includes('3件は忘れ')");
}

static void test_loading_server(void **state)
{
    visit("{up: false, health: [503, {error: {code: 503, message: 'Loading model',"
          " type: 'unavailable_error'}, progress: 0.42}]}");
    page_wait(&page, "document.body.dataset.link === 'loading'");
    page_check(&page, "document.querySelector('.link-text').textContent.includes('42%')");
    page_check(&page, "document.querySelector('.welcome-title').textContent.includes('支度')");
    page_check(&page, "$('send').disabled && $('starters').hidden");
    page_keys(&page, "早く" KEY_ENTER);
    page_check(&page, "!$('notice').hidden && $('input').value === '早く'");
    page_run(&page, "fake.up = true");
    page_wait(&page, "document.body.dataset.link === 'ready' && !$('send').disabled");
    page_keys(&page, KEY_ENTER);
    page_check(&page, "sent('message').length === 1 && $('notice').hidden");
}

static void test_lost_server_is_retried(void **state)
{
    visit("{up: false}");
    page_wait(&page, "document.body.dataset.link === 'waiting'");
    page_run(&page, "window.before = fake.sockets; slide(20)");
    page_wait(&page, "fake.sockets >= before + 2");
    page_run(&page, "fake.up = true");
    page_wait(&page, "document.body.dataset.link === 'ready'");
    /* What was set meanwhile is not lost. */
    page_wait(&page, "sent('update_strength').at(-1)?.value === 20");
    page_check(&page, "$('strength').value === '20'");
}

static void test_errors_are_shown(void **state)
{
    visit("{}");
    ask("やあ");
    page_run(&page,
             "fake.token('は', 0.1, 12);"
             "fake.say({type: 'error', code: 'invalid', message: 'value: too <b>large</b>'})");
    page_check(&page, "$('notice-text').textContent === 'エラー: value: too <b>large</b>'");
    page_check(&page, "document.querySelector('.running') !== null");
    page_run(&page, "fake.say({type: 'error', code: 'failed', message: 'context full'})");
    page_check(&page, "document.querySelector('.running') === null");
    page_check(&page,
               "document.querySelector('.foot').textContent.includes('エラーで途切れました')");
    ask("もう一度");
    page_check(&page, "$('notice').hidden");
    page_run(&page, "fake.say({type: 'error', message: 'busy'})");
    page_check(&page, "document.querySelector('.running') === null");
}

/* In Japanese by its name, where the page has words for it; in English as the server says it. */
static void test_refusals_are_translated(void **state)
{
    static const char said[] = "fake.say({type: 'error', code: 'busy', reason: 'queue_full',"
                               " message: 'too many requests'})";
    visit("{}");
    page_run(&page, said);
    page_check(&page, "$('notice-text').textContent"
                      " === 'エラー: 混み合っています。少し待ってから送ってください。'");
    page_run(&page,
             "fake.say({type: 'error', code: 'busy', reason: 'of_tomorrow', message: 'new'})");
    page_check(&page, "$('notice-text').textContent === 'エラー: new'");
    page_run(&page, "$('language').click()");
    page_run(&page, said);
    page_check(&page, "$('notice-text').textContent === 'Error: too many requests'");
    page_run(&page, "$('language').click()");
}

static void test_sentences_are_spoken_whole(void **state)
{
    visit("{}");
    ask("やあ");
    page_check(&page, "$('log').getAttribute('aria-live') === 'off' && $('log').role === 'log'");
    page_run(&page, "for (const c of 'はい。元気？だよ') fake.token(c, 0.1, 12)");
    page_check(&page, "[...$('spoken').children].map((p) => p.textContent).join('|')"
                      " === 'はい。|元気？'");
    page_run(&page, "fake.say({type: 'done', full_response: 'はい。元気？だよ'})");
    page_check(&page, "$('spoken').lastElementChild.textContent === 'だよ'");
}

static void test_reset_asks_first(void **state)
{
    visit("{}");
    ask("やあ");
    page_run(&page, "fake.token('はい', 0.1, 12);"
                    "fake.say({type: 'done', full_response: 'はい'}); $('reset').click()");
    page_check(&page, "$('reset-dialog').open");
    page_keys(&page, KEY_ESCAPE);
    page_wait(&page, "!$('reset-dialog').open");
    page_check(&page, "document.querySelectorAll('.turn').length === 2");
    page_run(&page, "$('reset').click(); $('reset-yes').click()");
    page_wait(&page, "document.querySelectorAll('.turn').length === 0");
    page_check(&page, "sent('reset').length === 1");
    page_check(&page, "!$('welcome').hidden");
    page_reload(&page);
    page_check(&page, "document.querySelectorAll('.turn').length === 0");
}

static void set_language(const char *language)
{
    struct gyaru_error err;
    char *agent = page_text(&page, "navigator.userAgent");
    json_t *value = webdriver_devtools(
        &page.driver, "Emulation.setUserAgentOverride",
        json_pack("{s:s,s:s}", "userAgent", agent, "acceptLanguage", language), &err);
    free(agent);
    if (!value)
        fail_msg("%s", err.text);
    json_decref(value);
}

static void test_speaks_the_browsers_language(void **state)
{
    visit("{}");
    page_check(&page, "document.documentElement.lang === 'ja' && document.title === 'りんね'");
    set_language("fr-FR,en-GB");
    visit("{}");
    page_check(&page, "document.documentElement.lang === 'en' && document.title === 'Rinne'");
    page_check(&page, "!/[ぁ-ん]/.test(document.querySelector('.console').innerText)");
    set_language("de");
    visit("{}");
    page_check(&page, "document.documentElement.lang === 'ja'");
    set_language("ja");
    visit("{}");
    page_run(&page, "$('language').click()");
    page_check(&page, "$('input').placeholder === 'Talk to Rinne…'");
    page_check(&page, "$('reset').ariaLabel === 'Reset the conversation'");
    page_reload(&page);
    page_check(&page, "document.documentElement.lang === 'en'");
    page_run(&page, "document.getElementById('language').click()");
}

/* Full HD, a notebook, a phone, and a notebook at 200% zoom. */
static void test_fits_every_screen(void **state)
{
    static const int sizes[][2] = {{1920, 1080}, {1280, 720}, {360, 800}, {640, 360}};
    visit("{}");
    ask("やあ");
    page_run(&page, "for (let i = 0; i < 60; i++) fake.token('長い返事です。', 0.4, 12)");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        page_size(&page, sizes[i][0], sizes[i][1]);
        page_check(&page, "document.documentElement.scrollWidth <= innerWidth");
        /* Every control can be brought into view and is not covered there. */
        page_check(&page,
                   "[...document.querySelectorAll('button, input, textarea')]"
                   ".filter((node) => node.offsetParent && !node.closest('dialog'))"
                   ".every((node) => { node.scrollIntoView({block: 'center'});"
                   "  const box = node.getBoundingClientRect();"
                   "  const top = document.elementFromPoint(box.x + box.width / 2,"
                   "    box.y + box.height / 2);"
                   "  return node === top || node.contains(top) || top?.id === 'composer'; })");
        page_run(&page, "scrollTo(0, 0)");
    }
    struct gyaru_error err;
    json_decref(webdriver_devtools(&page.driver, "Emulation.clearDeviceMetricsOverride",
                                   json_object(), &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_original_protocol_is_enough),
        cmocka_unit_test(test_meter_has_three_ranges),
        cmocka_unit_test(test_strength_is_live_and_throttled),
        cmocka_unit_test(test_number_entry),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_input_method_keeps_its_enter),
        cmocka_unit_test(test_history_goes_with_a_new_connection),
        cmocka_unit_test(test_history_fits_the_servers_limit),
        cmocka_unit_test(test_loading_server),
        cmocka_unit_test(test_lost_server_is_retried),
        cmocka_unit_test(test_errors_are_shown),
        cmocka_unit_test(test_refusals_are_translated),
        cmocka_unit_test(test_sentences_are_spoken_whole),
        cmocka_unit_test(test_reset_asks_first),
        cmocka_unit_test(test_speaks_the_browsers_language),
        cmocka_unit_test(test_fits_every_screen),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
