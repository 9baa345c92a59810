/*
 * test_page_studio.c - the page's studio in headless Chromium against the real server: personas,
 * the mix of vectors, sampling, reports, the saved conversation.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "support/http.h"
#include "support/page.h"
#include "support/scratch.h"
#include "support/test_server.h"
#include "support/vector_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static struct page page;

static int setup(void **state)
{
    static char folder[300], reports[300];
    static const char html[] = "<!doctype html><title>r</title><h1 id=\"report\">測定</h1>";
    static const char json[] = "{\"out\":\"outputs/vectors/soft.safetensors\"}";
    struct gyaru_error err;
    const char *own = vector_folder_fingerprint();
    snprintf(folder, sizeof folder, "%s", scratch_path(VECTOR_FOLDER));
    snprintf(reports, sizeof reports, "%s", scratch_path("reports"));
    vector_folder_make();
    assert_int_equal(file_make_dirs(reports, &err), 0);
    vector_folder_write("soft", 64, own, 1);
    vector_folder_write("loud", 64, own, 2);
    vector_folder_write("calm", 64, own, 3);
    vector_folder_write("keen", 64, own, 4);
    vector_folder_write("other", 64, "0000", 5);
    vector_folder_write("<img onerror=alert(1)>", 64, own, 6);
    scratch_write("reports/tune.html", html, sizeof html - 1);
    scratch_write("reports/tune.json", json, sizeof json - 1);
    const char *const options[] = {"-m",
                                   test_model_dir(),
                                   "-v",
                                   "tests/data/tiny-model/"
                                   "vector.safetensors",
                                   "-s",
                                   "12",
                                   "-t",
                                   "1",
                                   "--vectors",
                                   folder,
                                   "--reports",
                                   reports,
                                   NULL};
    return page_start(&page, options);
}

static int teardown(void **state)
{
    page_stop(&page);
    return 0;
}

/* What the page sends is noted in window.sent. */
static const char note_sent[] =
    "window.sent = [];"
    "const send = WebSocket.prototype.send;"
    "WebSocket.prototype.send = function(text) { sent.push(JSON.parse(text));"
    "  return send.call(this, text); };"
    "window.of = (type) => sent.filter((message) => message.type === type);";

static void steer(const char *body)
{
    char url[80];
    snprintf(url, sizeof url, "%s/v1/steering", page.server.origin);
    assert_int_equal(http_request("PUT", url, body, NULL), 200);
}

static void visit(void)
{
    page_or_skip(&page);
    steer("{\"vectors\":[{\"vector\":\"vector\",\"strength\":12}]}");
    page_visit(&page);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_run(&page, "window.$ = (id) => document.getElementById(id);"
                    "window.tab = (name) => { if (!$('studio').open) $('studio-open').click();"
                    "  $('tab-' + name).click(); };"
                    "window.card = (name) => [...document.querySelectorAll('.vector')]"
                    "  .find((node) => node.dataset.vector === name);"
                    "window.press = (name, act) =>"
                    "  card(name).querySelector(`[data-act=${act}]`).click();");
    page_run(&page, note_sent);
    page_run(&page, "$('input').focus()");
}

/* Waits until GET /v1/steering gives what `mix` says, "name strength, ...". */
static void wait_for_mix(const char *mix)
{
    char url[80], now[400] = "";
    snprintf(url, sizeof url, "%s/v1/steering", page.server.origin);
    for (double end = clock_seconds() + 10; clock_seconds() < end;) {
        struct str answer = STR_INIT, text = STR_INIT;
        size_t i;
        json_t *part;
        assert_int_equal(http_request("GET", url, NULL, &answer), 200);
        json_t *json = json_loadb(answer.data, answer.len, 0, NULL);
        json_array_foreach(json_object_get(json, "vectors"), i, part)
        {
            const char *layers = json_string_value(json_object_get(part, "layers"));
            str_printf(&text, "%s%s %g%s%s", i ? ", " : "",
                       json_string_value(json_object_get(part, "vector")),
                       json_number_value(json_object_get(part, "strength")), layers ? " " : "",
                       layers ? layers : "");
        }
        snprintf(now, sizeof now, "%s", text.data ? text.data : "");
        json_decref(json);
        str_release(&answer);
        str_release(&text);
        if (!strcmp(now, mix))
            return;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    fail_msg("the mix is '%s', not '%s'", now, mix);
}

/* ---- the sheet ------------------------------------------------------------------------------ */

static void test_keys_open_and_close_it(void **state)
{
    visit();
    page_run(&page, "$('studio-open').focus()");
    page_keys(&page, KEY_ENTER);
    page_check(&page, "$('studio').open && document.activeElement.id === 'tab-persona'");
    page_keys(&page, KEY_RIGHT);
    page_check(&page, "document.activeElement.id === 'tab-vectors'");
    page_check(&page, "document.activeElement.ariaSelected === 'true'");
    page_check(&page, "[...document.querySelectorAll('.studio-panel')]"
                      ".filter((panel) => !panel.hidden).map((panel) => panel.id).join()"
                      " === 'panel-vectors'");
    page_keys(&page, KEY_LEFT KEY_LEFT);
    page_check(&page, "document.activeElement.id === 'tab-save'");
    page_keys(&page, KEY_ESCAPE);
    page_wait(&page, "!$('studio').open");
    page_check(&page, "document.activeElement.id === 'studio-open'");
    page_check(&page, "of('cancel').length === 0");
    page_run(&page, "$('save-open').click()");
    page_check(&page, "$('tab-save').ariaSelected === 'true'");
    page_check_console(&page);
}

/* Every control has a name, no name is used twice, every text exists in both languages. */
static void test_everything_has_a_name(void **state)
{
    static const char *const tabs[] = {"persona", "vectors", "sampling", "reports", "save"};
    visit();
    steer("{\"vector\":\"soft\",\"strength\":3}");
    for (int language = 0; language < 2; language++) {
        for (size_t i = 0; i < sizeof tabs / sizeof tabs[0]; i++) {
            char script[100];
            snprintf(script, sizeof script, "tab('%s')", tabs[i]);
            page_run(&page, script);
            page_wait(&page, "document.querySelector('.studio-panel:not([hidden])')"
                             ".innerText.length > 20");
            page_check(&page,
                       "[...document.querySelectorAll('button, input, textarea, select, a[href]')]"
                       ".filter((node) => node.checkVisibility())"
                       ".every((node) => node.ariaLabel || node.textContent.trim()"
                       "  || node.labels?.[0]?.textContent.trim()"
                       "  || node.getAttribute('aria-labelledby'))");
            page_check(&page, "!/undefined|NaN|\\[object/.test($('studio').innerText)");
        }
        page_check(&page, "new Set([...document.querySelectorAll('[id]')].map((n) => n.id)).size"
                          " === document.querySelectorAll('[id]').length");
        if (language)
            page_check(&page, "!/[ぁ-ん]/.test($('studio').innerText)");
        page_run(&page, "$('studio').close(); $('language').click()");
    }
    page_check_console(&page);
}

static void test_fits_every_screen(void **state)
{
    static const int sizes[][2] = {{1920, 1080}, {1280, 720}, {375, 812}, {640, 360}};
    static const char *const tabs[] = {"persona", "vectors", "sampling", "reports", "save"};
    visit();
    steer("{\"vector\":\"soft\",\"strength\":3}");
    page_wait(&page, "document.querySelectorAll('.mix-row').length === 1");
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        page_size(&page, sizes[s][0], sizes[s][1]);
        for (size_t i = 0; i < sizeof tabs / sizeof tabs[0]; i++) {
            char script[100];
            snprintf(script, sizeof script, "tab('%s')", tabs[i]);
            page_run(&page, script);
            page_check(&page, "document.documentElement.scrollWidth <= innerWidth");
            page_check(&page, "[...document.querySelectorAll('.studio-panel')]"
                              ".every((panel) => panel.scrollWidth <= panel.clientWidth)");
            page_check(&page, "$('studio').getBoundingClientRect().right <= innerWidth"
                              " && $('studio').getBoundingClientRect().left >= 0");
        }
        page_run(&page, "$('studio').close()");
        page_check(&page, "[...document.querySelectorAll('.mix-row *')].every((node) =>"
                          "  node.getBoundingClientRect().right <= innerWidth)");
    }
    struct gyaru_error err;
    json_decref(webdriver_devtools(&page.driver, "Emulation.clearDeviceMetricsOverride",
                                   json_object(), &err));
}

/* ---- personas ------------------------------------------------------------------------------- */

static void test_presets_come_from_the_server(void **state)
{
    visit();
    page_run(&page, "tab('persona')");
    page_wait(&page, "document.querySelectorAll('.persona').length === 3");
    page_check(&page,
               "document.querySelector('[role=radio][aria-checked=true]').dataset.id === ''");
    page_check(&page, "$('persona-chip').hidden");
    page_run(&page, "document.querySelector('.persona[data-id=butler]').click()");
    page_wait(&page, "$('persona-state').textContent === '次の質問から効きます'");
    page_check(&page, "of('system').length === 1 && /執事/.test(of('system')[0].content)");
    page_check(&page, "/執事/.test($('persona-text').value)");
    page_check(&page, "!$('persona-chip').hidden && $('persona-name').textContent === '執事'");
    /* Arrows move the choice. */
    page_run(&page, "document.querySelector('.persona[data-id=butler]').focus()");
    page_keys(&page, KEY_RIGHT);
    page_check(&page, "document.activeElement.dataset.id === 'gyaru'");
    page_check(&page, "document.activeElement.ariaChecked === 'true'");
    page_wait(&page, "of('system').length === 2 && /ギャル/.test(of('system')[1].content)");
    page_run(&page, "document.querySelector('.persona[data-id=\"\"]').click()");
    page_wait(&page, "of('system').length === 3 && of('system')[2].content === null");
    page_check_console(&page);
}

static void test_own_personas_are_kept(void **state)
{
    visit();
    page_run(&page, "tab('persona')");
    page_wait(&page, "document.querySelectorAll('.persona').length === 3");
    page_run(&page, "document.querySelector('.persona[data-id=butler]').click();"
                    "$('persona-title').value = '猫';"
                    "$('persona-text').value = '<b>猫</b>です。';"
                    "$('persona-text').dispatchEvent(new Event('input'))");
    page_check(&page, "$('persona-state').textContent === '変更はまだ使われていません'");
    /* Nothing that comes in between takes it away. */
    page_run(&page, "$('language').click(); $('language').click(); tab('sampling');"
                    "tab('persona')");
    page_check(&page, "$('persona-title').value === '猫'");
    page_run(&page, "$('persona-save').click()");
    page_wait(&page, "of('system').at(-1).content === '<b>猫</b>です。'");
    page_check(&page, "document.querySelectorAll('.persona').length === 4");
    page_check(&page, "document.querySelector('.persona[data-id=butler] span').textContent"
                      ".includes('執事')");
    page_check(&page, "document.querySelectorAll('.persona b b').length === 0");
    page_check(&page, "!$('persona-delete').hidden");

    /* A reload brings it back, and the new connection hears of it. */
    page_reload(&page);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_wait(&page, "document.getElementById('persona-name').textContent === '猫'");
    page_run(&page, "window.$ = (id) => document.getElementById(id); $('studio-open').click();"
                    "$('tab-persona').click()");
    page_wait(&page, "$('persona-state').textContent === '次の質問から効きます'");
    page_check(&page, "$('persona-text').value === '<b>猫</b>です。'");
    page_run(&page, "$('persona-delete').click()");
    page_wait(&page, "document.querySelectorAll('.persona').length === 3");
    page_check(&page, "$('persona-chip').hidden");
    page_check(&page, "document.activeElement.dataset.id === ''");
    page_check_console(&page);
}

/* ---- vectors -------------------------------------------------------------------------------- */

static void test_vectors_say_whose_they_are(void **state)
{
    visit();
    page_run(&page, "tab('vectors')");
    page_wait(&page, "document.querySelectorAll('.vector').length === 7");
    page_check(&page, "document.querySelector('.vector').dataset.vector === 'vector'");
    page_check(&page, "card('vector').innerText.includes('照合できず')");
    page_check(&page, "card('vector').innerText.includes('主役')");
    page_check(&page, "card('soft').innerText.includes('照合済み')");
    page_check(&page, "card('soft').innerText.includes('おすすめ 8.0')");
    page_check(&page, "card('other').innerText.includes('別のモデル用')");
    page_check(&page, "card('other').querySelector('button') === null");
    page_check(&page, "card('<img onerror=alert(1)>').querySelector('img') === null");
    /* Layer by layer. */
    page_run(&page, "card('soft').querySelector('summary').click()");
    page_wait(&page, "card('soft').querySelectorAll('.plot rect').length === 2");
    page_check(&page, "/第[12]層の/.test(card('soft').querySelector('.plot').ariaLabel)");
    page_check_console(&page);
}

static void test_vectors_are_mixed(void **state)
{
    visit();
    page_wait(&page, "!$('mix-add').hidden");
    page_run(&page, "$('mix-add').click()");
    page_wait(&page, "$('tab-vectors').ariaSelected === 'true' && !!card('soft')");
    page_run(&page, "press('soft', 'mix')");
    wait_for_mix("vector 12, soft 8");
    page_wait(&page, "document.querySelectorAll('.mix-row').length === 1");
    page_wait(&page, "card('soft').innerText.includes('混ぜている')");

    /* Its slider, from the keyboard, and the main one beside it. */
    page_run(&page, "$('studio').close(); document.querySelector('.mix-row input').focus()");
    page_keys(&page, KEY_RIGHT KEY_RIGHT KEY_RIGHT);
    wait_for_mix("vector 12, soft 9.5");
    page_check(&page, "document.activeElement.ariaValueText === '9.5'");
    page_check(&page, "document.activeElement.ariaLabel === 'soft の強さ'");
    page_run(&page, "$('strength').value = 4; $('strength').dispatchEvent(new Event('input'))");
    wait_for_mix("vector 4, soft 9.5");

    /* Another client moves it. */
    page_run(&page, "document.activeElement.blur()");
    steer("{\"vector\":\"soft\",\"strength\":-2}");
    page_wait(&page, "document.querySelector('.mix-number').textContent === '−2.0'");

    /* Layers, the main one, and out again. */
    page_run(&page, "tab('vectors')");
    page_wait(&page, "card('soft').querySelector('[data-act=layers]') !== null");
    page_run(&page, "const field = card('soft').querySelector('[data-act=layers]');"
                    "field.value = '2'; field.dispatchEvent(new Event('change'))");
    wait_for_mix("vector 4, soft -2 2-2");
    page_wait(&page, "card('soft').querySelector('[data-act=layers]').value === '2-2'");
    page_run(&page, "press('soft', 'main')");
    wait_for_mix("soft -2 2-2, vector 4");
    page_wait(&page, "card('soft').innerText.includes('主役')");
    page_wait(&page, "$('strength').value === '-2'");
    page_wait(&page, "$('model').textContent.endsWith('soft')");
    page_run(&page, "press('loud', 'main')");
    wait_for_mix("loud -2, vector 4");
    page_wait(&page, "card('loud').innerText.includes('主役')");
    page_run(&page, "press('vector', 'remove')");
    wait_for_mix("loud -2");
    page_wait(&page, "document.querySelectorAll('.mix-row').length === 0");
    page_check_console(&page);
}

static void test_a_fifth_is_refused_in_words(void **state)
{
    visit();
    steer("{\"vectors\":[{\"vector\":\"soft\",\"strength\":1},{\"vector\":\"loud\",\"strength\":1},"
          "{\"vector\":\"calm\",\"strength\":1},{\"vector\":\"keen\",\"strength\":1}]}");
    page_run(&page, "tab('vectors')");
    page_wait(&page, "document.querySelectorAll('.mix-row').length === 3");
    page_wait(&page, "!!card('vector')?.querySelector('[data-act=mix]')");
    page_run(&page, "press('vector', 'mix')");
    page_check(&page, "$('studio-notice').textContent === '同時に混ぜられるのは4つまでです。'");
    page_check(&page, "!$('studio-notice').hidden");
    /* What the server refuses is told in the sheet as well. */
    page_run(&page, "const field = card('soft').querySelector('[data-act=layers]');"
                    "field.value = '50'; field.dispatchEvent(new Event('change'))");
    page_wait(&page, "$('studio-notice').textContent"
                     " === 'エラー: そのベクトルには、その層の方向がありません。'");
    /* So is why a vector cannot be used; the server's own words are a tip. */
    page_check(&page,
               "card('other').querySelector('.vector-reason').textContent"
               " === '同じ大きさの別のモデルで作られています。このモデルで作り直してください。'");
    page_check(&page, "/fingerprint/.test(card('other').querySelector('.vector-reason').title)");
}

static void test_too_strong_is_said(void **state)
{
    visit();
    steer("{\"vectors\":[{\"vector\":\"soft\",\"strength\":12}]}");
    page_wait(&page, "$('model').textContent.endsWith('soft')");
    page_check(&page, "$('strength-warning').hidden");
    page_run(&page, "$('strength').value = 25; $('strength').dispatchEvent(new Event('input'))");
    page_wait(&page, "!$('strength-warning').hidden");
    page_check(&page, "$('strength-warning').textContent.includes('20')");
    page_run(&page, "$('strength').value = 20; $('strength').dispatchEvent(new Event('input'))");
    page_check(&page, "$('strength-warning').hidden");
}

static void test_new_files_appear(void **state)
{
    visit();
    page_run(&page, "tab('vectors')");
    page_wait(&page, "!!card('soft')");
    vector_folder_write("newcomer", 64, vector_folder_fingerprint(), 9);
    page_check(&page, "!card('newcomer')");
    page_run(&page, "$('vectors-reload').click()");
    page_wait(&page, "!!card('newcomer')");
    assert_int_equal(remove(vector_folder_path("newcomer")), 0);
    /* Whoever has it read again: every page hears of it. */
    char url[80];
    snprintf(url, sizeof url, "%s/v1/vectors/reload", page.server.origin);
    assert_int_equal(http_request("POST", url, "{}", NULL), 200);
    page_wait(&page, "!card('newcomer')");
    page_check_console(&page);
}

/* ---- sampling ------------------------------------------------------------------------------- */

static void test_sampling_goes_with_the_message(void **state)
{
    visit();
    page_ask(&page, "やあ", 1);
    page_check(&page, "of('message')[0].sampling === undefined");
    page_run(&page, "tab('sampling');"
                    "window.knob = (id, value) => { const field = $('knob-' + id);"
                    "  field.value = value; field.dispatchEvent(new Event('change')); };");
    page_check(&page, "document.querySelectorAll('.knob').length === 7");
    page_run(&page, "knob('temperature', '0.55'); knob('top_k', '7.4'); knob('seed', '42');"
                    "knob('min_p', '3'); knob('max_tokens', '0'); $('studio').close()");
    page_ask(&page, "もう一度", 2);
    page_check(&page, "JSON.stringify(of('message')[1].sampling) === JSON.stringify("
                      "{temperature: 0.55, top_k: 7, seed: 42, min_p: 1, max_tokens: -1})");
    /* A reload keeps it, one press gives it up. */
    page_reload(&page);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_run(&page, note_sent);
    page_run(&page, "window.$ = (id) => document.getElementById(id); $('studio-open').click();"
                    "$('tab-sampling').click()");
    page_check(&page, "$('knob-seed').value === '42'");
    page_check(&page, "document.querySelectorAll('.knob-set').length === 5");
    page_run(&page, "$('knob-seed').parentElement.querySelector('.knob-back').click()");
    page_check(&page, "$('knob-seed').value === ''");
    page_run(&page, "$('sampling-reset').click(); $('studio').close()");
    page_ask(&page, "三度目", 3);
    page_check(&page, "of('message')[0].sampling === undefined");
    page_check_console(&page);
}

/* ---- reports -------------------------------------------------------------------------------- */

static void test_reports_open_in_a_sealed_frame(void **state)
{
    visit();
    page_run(&page, "tab('reports')");
    page_wait(&page, "document.querySelectorAll('.report').length === 1");
    page_check(&page, "document.querySelector('.report b').textContent === '強さの調整 · soft'");
    /* By the keyboard: Escape closes one dialog at a time only if a user opened them. */
    page_run(&page, "document.querySelector('.report button').focus()");
    page_keys(&page, KEY_ENTER);
    page_check(&page, "$('report-dialog').open && $('report-frame').sandbox.length === 0");
    page_check(&page, "$('report-link').pathname === '/v1/reports/tune'");
    page_check(&page, "$('report-frame').hasAttribute('sandbox')");
    /* The frame has no origin: from here its document cannot be reached. */
    page_wait(&page, "$('report-frame').contentDocument === null");
    page_run(&page, "window.seen = null; fetch('/v1/reports/tune').then((answer) => {"
                    "  window.seen = answer.headers.get('content-security-policy'); })");
    page_wait(&page, "window.seen !== null");
    page_check(&page, "/sandbox/.test(seen) && !/allow-scripts/.test(seen)");
    page_keys(&page, KEY_ESCAPE);
    page_wait(&page, "!$('report-dialog').open && $('studio').open");
    page_wait(&page, "!$('report-frame').hasAttribute('src')");
    page_check_console(&page);
}

/* ---- saving --------------------------------------------------------------------------------- */

static void test_the_conversation_is_saved(void **state)
{
    visit();
    page_run(&page, "tab('save')");
    page_check(&page, "$('save-json').disabled && $('save-markdown').disabled");
    page_run(&page, "$('studio').close()");
    page_ask(&page, "# 見出し？", 1);
    page_run(&page, "window.files = [];"
                    "URL.createObjectURL = (blob) => { blob.text().then((text) => files.push("
                    "  {text, type: blob.type})); return '#'; };"
                    "HTMLAnchorElement.prototype.click = function() {"
                    "  window.lastName = this.download; };"
                    "tab('save'); $('save-json').click()");
    page_wait(&page, "files.length === 1");
    page_run(&page, "window.data = JSON.parse(files[0].text)");
    page_check(&page, "/^rinne-\\d{8}-\\d{6}\\.json$/.test(lastName)");
    page_check(&page, "data.format === 'gyaru-conversation' && data.version === 1");
    page_check(&page, "data.model === 'tiny-model' && data.vectors[0].vector === 'vector'");
    page_check(&page, "data.messages.length === 2 && data.messages[0].content === '# 見出し？'");
    page_check(&page, "data.messages[1].role === 'assistant'"
                      " && data.messages[1].answer.strength === '12.0'");
    page_check(&page, "!isNaN(new Date(data.messages[0].time))");
    page_run(&page, "$('save-markdown').click()");
    page_wait(&page, "files.length === 2");
    page_check(&page, "/\\.md$/.test(lastName) && files[1].type.startsWith('text/markdown')");
    page_check(&page, "files[1].text.startsWith('# りんねとの会話\\n')");
    page_check(&page, "files[1].text.includes('\\n> # 見出し？\\n')");
    page_check(&page, "files[1].text.includes('強さ 12.0')");
    page_check(&page, "$('save-preview').textContent.includes('> # 見出し？')");
    page_check_console(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_open_and_close_it),
        cmocka_unit_test(test_everything_has_a_name),
        cmocka_unit_test(test_fits_every_screen),
        cmocka_unit_test(test_presets_come_from_the_server),
        cmocka_unit_test(test_own_personas_are_kept),
        cmocka_unit_test(test_vectors_say_whose_they_are),
        cmocka_unit_test(test_vectors_are_mixed),
        cmocka_unit_test(test_a_fifth_is_refused_in_words),
        cmocka_unit_test(test_too_strong_is_said),
        cmocka_unit_test(test_new_files_appear),
        cmocka_unit_test(test_sampling_goes_with_the_message),
        cmocka_unit_test(test_reports_open_in_a_sealed_frame),
        cmocka_unit_test(test_the_conversation_is_saved),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
