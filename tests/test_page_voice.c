/*
 * test_page_voice.c - the page that speaks, and two overlays beside it, in headless Chromium
 * against one real server. The voice engine is the stand-in of support/voicevox.h.
 *
 * The overlays are frames of the chat page, so that one script sees all three at the same moment.
 */
#include "base/clock.h"
#include "base/str.h"
#include "support/page.h"
#include "support/voicevox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MODEL "models/rinne-base"
#define ENDED "document.querySelectorAll('.turn-rinne:not(.running)')"

static struct page page;
static struct voicevox_stand_in *engine;
static const char *options[] = {"-m", MODEL, "-v", MODEL "/gyaru.safetensors", "-s", "0", "--temp",
                                "0",  "-t",  "1",  "--voicevox-url",           NULL, NULL};

static int setup(void **state)
{
    engine = voicevox_start(0);
    options[11] = engine->base;
    return page_start(&page, options);
}

static int teardown(void **state)
{
    page_stop(&page);
    voicevox_stop(engine);
    return 0;
}

/* Two overlays in frames; `said` collects the captions of the first while somebody speaks. */
static const char overlays[] =
    "window.frames2 = ['', '?scale=2&align=right'].map((query) => {"
    "  const frame = document.createElement('iframe');"
    "  frame.src = '/overlay' + query;"
    "  Object.assign(frame.style, {position: 'fixed', bottom: 0, width: '400px', height: '200px'});"
    "  document.body.append(frame);"
    "  return frame;"
    "});"
    "window.overlay = (i) => frames2[i].contentDocument;"
    "window.caption = (i) => overlay(i).getElementById('caption-text')?.textContent;"
    "window.shown = (i) => overlay(i).getElementById('caption')?.className === 'caption shown';"
    "window.link = (i) => overlay(i).body?.dataset.link;";

static const char collect[] =
    "window.said = [];"
    "new MutationObserver(() => said.push(caption(0))).observe("
    "  overlay(0).getElementById('caption-text'), {childList: true, characterData: true,"
    "  subtree: true});";

static void visit(void)
{
    page_or_skip(&page);
    voicevox_reset(engine);
    page_visit(&page);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_run(&page, overlays);
    page_wait(&page, "link(0) === 'ready' && link(1) === 'ready'");
    page_run(&page, collect);
}

static void turn_on(void)
{
    page_run(&page, "document.getElementById('voice-toggle').click()");
    page_wait(&page, "document.body.dataset.voice === 'ready'");
}

static const struct voicevox_call *synthesis(int n)
{
    return voicevox_nth(engine, VOICEVOX_SYNTHESIS, n);
}

/* ---- speaking ------------------------------------------------------------------------------- */

/* Sentence after sentence is synthesised and heard; both overlays show the one that is heard. */
static void test_speaks_in_order(void **state)
{
    visit();
    turn_on();
    page_run(&page, "const audio = document.getElementById('voice-audio');"
                    "window.heard = []; window.farthest = 0;"
                    "audio.addEventListener('playing', () => heard.push(audio.src));"
                    "audio.addEventListener('timeupdate', () => {"
                    "  farthest = Math.max(farthest, audio.currentTime); })");
    page_send(&page, "自己紹介して");
    page_wait(&page, "document.body.dataset.voice === 'speaking'");
    page_wait(&page, ENDED ".length === 1");
    page_wait(&page, "shown(0) && shown(1) && caption(0) !== '' && caption(0) === caption(1)");
    page_wait(&page, "document.body.dataset.voice === 'ready'");
    int n = voicevox_count(engine, VOICEVOX_SYNTHESIS);
    assert_true(n >= 2);
    char check[2000];
    snprintf(check, sizeof check, "heard.length === %d && new Set(heard).size === %d", n, n);
    page_check(&page, check);
    page_check(&page, "farthest > 0.2");
    for (int i = 0; i < n; i++) {
        assert_int_equal(synthesis(i)->speaker, VOICEVOX_FIRST);
        /* What was said is what was written, and was the caption meanwhile. */
        snprintf(check, sizeof check,
                 "said[%d] === '%s' && document.querySelector('.turn-rinne .bubble')"
                 ".textContent.includes('%s')",
                 i, synthesis(i)->text, synthesis(i)->text);
        page_check(&page, check);
        if (i)
            assert_true(synthesis(i)->begin >= synthesis(i - 1)->made);
    }
    snprintf(check, sizeof check, "said.length === %d", n);
    page_check(&page, check);
    page_check_console(&page);
}

/* The next sentence is made while one is heard, not after it. */
static void test_makes_ahead(void **state)
{
    visit();
    turn_on();
    page_send(&page, "自己紹介して");
    const struct voicevox_call *second = synthesis(1);
    page_check(&page, "document.body.dataset.voice === 'speaking'");
    page_check(&page, "said.length <= 1");
    assert_non_null(second);
}

static void test_interruption(void **state)
{
    visit();
    turn_on();
    page_send(&page, "自己紹介して");
    synthesis(1);
    page_wait(&page, "document.body.dataset.voice === 'speaking'");
    page_wait(&page, ENDED ".length === 1");
    /* She is still speaking, and the engine takes long over the next answer's first sentence. */
    int before = voicevox_count(engine, VOICEVOX_SYNTHESIS);
    engine->delay_ms = 8000;
    page_send(&page, "好きな食べ物は？");
    page_wait(&page, "document.getElementById('voice-audio').paused");
    page_wait(&page, ENDED ".length === 2");
    while (voicevox_count(engine, VOICEVOX_SYNTHESIS) == before)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    nanosleep(&(struct timespec){0, 200000000}, NULL);
    engine->delay_ms = 0;
    /* Interrupted again: what was being made is given up, the new answer is heard. */
    page_run(&page, "said.length = 0");
    page_send(&page, "こんにちは");
    double start = clock_seconds();
    const struct voicevox_call *given_up = synthesis(before);
    assert_true(given_up->left);
    assert_true(clock_seconds() - start < 2);
    page_wait(&page, ENDED ".length === 3");
    page_wait(&page, "document.body.dataset.voice === 'speaking'");
    page_wait(&page, "document.body.dataset.voice === 'ready'");
    char check[2000];
    snprintf(check, sizeof check,
             "said[0] === '%s' && [...document.querySelectorAll('.turn-rinne .bubble')].at(-1)"
             ".textContent.startsWith(said[0])",
             synthesis(before + 1)->text);
    page_check(&page, check);
    page_check_console(&page);
}

/* Enter into an answer that is still being written: it ends there, the question follows. */
static void test_interruption_in_mid_answer(void **state)
{
    struct gyaru_error err;
    bool reached = false;
    for (int i = 0; i < 6 && !reached; i++) {
        visit();
        turn_on();
        page_run(&page,
                 "const observer = new MutationObserver(() => {"
                 "  if (!document.querySelector('.running .bubble')?.firstChild?.data) return;"
                 "  observer.disconnect();"
                 "  const input = document.getElementById('input'); input.value = '待って';"
                 "  input.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}));"
                 "});"
                 "observer.observe(document.getElementById('log'),"
                 "  {subtree: true, childList: true, characterData: true});");
        if (server_process_slow_down(&page.server, &err))
            fail_msg("%s", err.text);
        page_send(&page, "自己紹介して");
        page_wait(&page, ENDED ".length === 2");
        server_process_speed_up(&page.server);
        reached = page_is(&page, "document.querySelector('.turn-rinne .foot').textContent"
                                 ".includes('ここで止めました')");
    }
    assert_true(reached);
    page_check(&page, "[...document.querySelectorAll('.turn-user .bubble')].at(-1).textContent"
                      " === '待って'");
    page_check(&page, "document.getElementById('input').value === ''");
    page_run(&page, "document.getElementById('voice-toggle').click()");
}

static void test_escape_silences(void **state)
{
    visit();
    turn_on();
    page_send(&page, "自己紹介して");
    page_wait(&page, "document.body.dataset.voice === 'speaking'");
    page_wait(&page, ENDED ".length === 1");
    page_keys(&page, KEY_ESCAPE);
    page_wait(&page, "document.getElementById('voice-audio').paused");
    page_check(&page, "document.body.dataset.voice === 'ready'");
}

/* ---- controls ------------------------------------------------------------------------------- */

static void test_controls_are_kept(void **state)
{
    visit();
    page_check(&page, "document.getElementById('voice-mute').hidden");
    turn_on();
    page_run(&page, "document.getElementById('studio-open').click();"
                    "document.querySelector('.tab[data-tab=voice]').click()");
    page_wait(&page, "document.getElementById('voice-speaker').options.length === 4");
    page_run(&page, "const set = (id, value, event) => {"
                    "  const node = document.getElementById(id); node.value = value;"
                    "  node.dispatchEvent(new Event(event)); };"
                    "set('voice-volume', 40, 'input'); set('voice-speed', 1.5, 'input');"
                    "set('voice-speaker', '2', 'change');"
                    "document.getElementById('voice-mute').click()");
    page_reload(&page);
    page_wait(&page, "document.body.dataset.voice === 'ready'");
    page_check(&page, "document.getElementById('voice-audio').volume === 0.4");
    page_check(&page, "document.getElementById('voice-audio').muted");
    page_check(&page, "document.getElementById('voice-mute').ariaPressed === 'true'");
    page_check(&page, "document.getElementById('voice-speaker').value === '2'");
    page_check(&page, "document.getElementById('voice-volume-text').textContent === '40%'");
    page_check(&page, "document.getElementById('voice-toggle').ariaPressed === 'true'");
    page_send(&page, "こんにちは");
    assert_int_equal(synthesis(0)->speaker, 2);
    assert_float_equal(synthesis(0)->speed, 1.5, 1e-6);
    /* Muted, she speaks all the same: the overlay's captions go on. */
    page_wait(&page, "document.body.dataset.voice === 'speaking'");
    page_check(&page, "!document.getElementById('voice-audio').paused");
    page_check_console(&page);
}

static void test_a_speaker_that_is_gone(void **state)
{
    visit();
    page_run(&page, "localStorage.setItem('rinne.voice', '{\"on\":true,\"speaker\":77}')");
    page_reload(&page);
    page_wait(&page, "document.body.dataset.voice === 'ready'");
    page_send(&page, "自己紹介して");
    page_wait(&page, "document.getElementById('voice-hint').textContent.includes('既定の声')");
    page_wait(&page, "document.body.dataset.voice === 'speaking'");
    page_wait(&page, "document.body.dataset.voice === 'ready'");
    assert_int_equal(synthesis(voicevox_count(engine, VOICEVOX_SYNTHESIS) - 1)->speaker,
                     VOICEVOX_FIRST);
}

/* ---- without an engine ---------------------------------------------------------------------- */

static void test_engine_absent(void **state)
{
    visit();
    voicevox_leave(engine);
    page_run(&page, "document.getElementById('voice-toggle').click()");
    page_wait(&page, "document.body.dataset.voice === 'absent'");
    page_check(&page, "/VOICEVOX/.test(document.getElementById('voice-hint').textContent)");
    page_check(&page, "document.getElementById('notice').hidden");
    page_send(&page, "自己紹介して");
    page_wait(&page, ENDED ".length === 1");
    /* The caption is what is written. */
    page_wait(&page, "caption(0) !== '' && caption(0) === caption(1)");
    page_check(&page, "document.querySelector('.turn-rinne .bubble').textContent"
                      ".includes(caption(0))");
    /* It is found again without a hand's turn. */
    voicevox_come_back(engine);
    page_wait(&page, "document.body.dataset.voice === 'ready'");
    page_check(&page, "document.getElementById('voice-hint').hidden");
    page_send(&page, "こんにちは");
    page_wait(&page, "document.body.dataset.voice === 'speaking'");
}

static void test_engine_fails_in_mid_answer(void **state)
{
    visit();
    turn_on();
    engine->fault = VOICEVOX_BAD_SOUND;
    page_send(&page, "自己紹介して");
    page_wait(&page, ENDED ".length === 1");
    page_wait(&page, "document.body.dataset.voice === 'absent'");
    page_wait(&page, "caption(0) !== ''");
    page_check(&page, "document.getElementById('notice').hidden");
    page_send(&page, "こんにちは");
    page_wait(&page, ENDED ".length === 2");
    engine->fault = VOICEVOX_GOOD;
}

/* ---- overlays ------------------------------------------------------------------------------- */

static void test_overlays_survive_a_restart(void **state)
{
    struct gyaru_error err;
    int port = page.server.port;
    visit();
    assert_int_equal(server_process_stop(&page.server), 0);
    page_wait(&page, "link(0) === 'lost' && link(1) === 'lost'");
    /* What is stale does not stay on the stream. */
    page_wait(&page, "getComputedStyle(overlay(0).querySelector('.overlay')).opacity === '0'");
    if (server_process_start(&page.server, port, options, &err))
        fail_msg("%s", err.text);
    page_wait(&page, "link(0) === 'ready' && link(1) === 'ready'");
    page_wait(&page, "document.body.dataset.link === 'ready'");
    page_send(&page, "こんにちは");
    page_wait(&page, ENDED ".length === 1");
    page_wait(&page, "caption(0) !== '' && caption(0) === caption(1) && shown(1)");
    page_check(&page, "overlay(0).getElementById('number').textContent"
                      " === overlay(1).getElementById('number').textContent");
}

static void open_overlay(const char *query)
{
    struct gyaru_error err;
    char url[200];
    snprintf(url, sizeof url, "%s/overlay%s", page.server.origin, query);
    if (webdriver_open(&page.driver, url, &err))
        fail_msg("%s", err.text);
    page_wait(&page, "document.body.dataset.link === 'ready'");
}

static void test_overlay_page(void **state)
{
    page_or_skip(&page);
    page_visit(&page);
    page_size(&page, 800, 600);
    open_overlay("");
    page_check(&page, "[document.documentElement, document.body, ...document.querySelectorAll("
                      "'.room, .overlay, .caption, .badge')].every((node) =>"
                      " getComputedStyle(node).backgroundColor === 'rgba(0, 0, 0, 0)')");
    page_check(&page, "performance.getEntriesByType('resource').length >= 5 &&"
                      " performance.getEntriesByType('resource')"
                      ".every((entry) => new URL(entry.name).origin === location.origin)");
    page_run(&page, "window.box = (id) => document.getElementById(id).getBoundingClientRect()");
    page_check(&page, "box('badge').bottom <= 600 && box('badge').right < 400");
    page_check(&page, "document.documentElement.scrollWidth <= 800 &&"
                      " document.documentElement.scrollHeight <= 600");
    char *before = page_text(&page, "box('meter').width");
    open_overlay("?width=400&height=300&scale=2&parts=meter,caption&align=right&lang=en");
    page_run(&page, "window.box = (id) => document.getElementById(id).getBoundingClientRect()");
    page_check(&page, "document.getElementById('strength').hidden");
    page_check(&page, "!document.getElementById('caption').hidden");
    page_check(&page, "document.querySelector('.overlay').clientWidth === 400 &&"
                      " document.querySelector('.overlay').clientHeight === 300");
    page_check(&page, "box('badge').right <= 400 && box('badge').left > 200");
    page_check(&page, "document.documentElement.lang === 'en'");
    /* Half the box at twice the scale: as large as before. */
    char check[100];
    snprintf(check, sizeof check, "Math.abs(box('meter').width - %s) < 1", before);
    page_check(&page, check);
    free(before);
    /* Nonsense is as if it were not there. */
    open_overlay("?width=abc&scale=999&align=up&parts=&hold=-1");
    page_check(&page, "document.getElementById('badge').hidden");
    page_check(&page, "document.querySelector('.overlay').clientWidth === 800");
    page_check_console(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speaks_in_order),
        cmocka_unit_test(test_makes_ahead),
        cmocka_unit_test(test_interruption),
        cmocka_unit_test(test_interruption_in_mid_answer),
        cmocka_unit_test(test_escape_silences),
        cmocka_unit_test(test_controls_are_kept),
        cmocka_unit_test(test_a_speaker_that_is_gone),
        cmocka_unit_test(test_engine_absent),
        cmocka_unit_test(test_engine_fails_in_mid_answer),
        cmocka_unit_test(test_overlays_survive_a_restart),
        cmocka_unit_test(test_overlay_page),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
