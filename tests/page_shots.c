/*
 * page_shots.c - pictures of the page, for the README and for looking at; tools/screenshots.sh
 * builds and runs it. Not a test: it judges nothing.
 *
 *   page_shots DIR [OPTION...]    options of `gyaru serve`, such as -m MODEL
 *
 * SIZE-idle, SIZE-talk, SIZE-mix, the studio's tabs and SIZE-english show the real model, with
 * whatever vectors and reports the server finds. The other states, which need a moment that a real
 * server does not hold still for, come from the played server. `overlay` is the overlay over a
 * scene that is only drawn, as OBS lays it over one.
 */
#include "base/file.h"
#include "base/str.h"
#include "support/page.h"
#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct page page;
static const char *directory;

static const struct size {
    const char *name;
    int width, height; /* CSS pixels */
    double scale;      /* pixels of the picture for each */
    bool touch;
} sizes[] = {{"wide", 1920, 1080, 0.75, false},
             {"notebook", 1280, 720, 1, false},
             {"phone", 375, 812, 1.5, true}};

/* One answer up to a token in its middle: the text goes on from `text` while the meter runs
 * towards `to`. */
static const char play[] =
    "window.play = (question, text, from, to, strengths) => {"
    "  const input = document.getElementById('input');"
    "  input.value = question;"
    "  input.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', cancelable: true}));"
    "  [...text].forEach((c, i, all) => {"
    "    const part = i / all.length;"
    "    const value = from + (to - from) * Math.min(1, 1.6 * part)"
    "      + 0.05 * Math.sin(1.7 * i) * Math.cos(0.6 * i);"
    "    const strength = strengths[Math.floor(part * strengths.length)];"
    "    if (i && strength !== Number(document.getElementById('strength').value))"
    "      fake.say({type: 'strength_updated', value: strength});"
    "    fake.token(c, value, strength);"
    "  });"
    "};"
    "window.end = () => fake.say({type: 'done', finish_reason: 'stop',"
    "  full_response: document.querySelector('.running .bubble').textContent});";

static const char calm[] =
    "play('おはよう。今日の予定は？', 'おはようございます。本日は午後に会議が一件ございます。"
    "それまでに資料をお手元へご用意いたしますので、どうぞごゆっくりお過ごしくださいませ。',"
    " 0.05, 0.21, [0]);";
static const char pink[] =
    "play('週末はどうしよう？', '週末？それならあーしと買い物行こーよ！新しいカフェもできたし、"
    "まじで楽しみなんだけど〜！ついでにプリも撮っちゃお？', 0.18, 0.43, [0, 12, 12, 12]);";
static const char red[] =
    "play('テンション高いね', "
    "'え、やばくない！？あーし今まじテンアゲなんだけど！！もう最高すぎて無理、"
    "ちょーウケる！！あーしあーしあーし最高最高最高〜〜〜！！', 0.3, 0.62, [12, 20, 25, 25]);";

static void shoot(const struct size *size, const char *state)
{
    struct gyaru_error err;
    char path[600];
    snprintf(path, sizeof path, "%s/%s-%s.png", directory, size->name, state);
    /* Fonts, transitions and the newest frame. */
    page_run(&page, "document.activeElement.blur(); window.ready = false;"
                    "setTimeout(() => { window.ready = true; }, 900)");
    page_wait(&page, "window.ready");
    if (webdriver_screenshot(&page.driver, path, &err))
        fail_msg("%s", err.text);
    puts(path);
}

static void visit(const char *fake)
{
    page_fake_server(&page, fake);
    page_visit(&page);
    if (!fake || !strstr(fake, "up: false"))
        page_wait(&page, "document.body.dataset.link === 'ready'");
    page_run(&page, play);
}

static void set_strength(const char *value)
{
    char script[160];
    snprintf(script, sizeof script,
             "const slider = document.getElementById('strength'); slider.value = %s;"
             "slider.dispatchEvent(new Event('input'))",
             value);
    page_run(&page, script);
}

static void shoot_real(const struct size *size)
{
    visit(NULL);
    set_strength("12");
    shoot(size, "idle");
    set_strength("0");
    page_ask(&page, "こんにちは！", 1);
    set_strength("12");
    page_ask(&page, "週末は何するの？", 2);
    shoot(size, "talk");
}

static void mix(const char *strengths)
{
    char script[300];
    snprintf(script, sizeof script,
             "fetch('/v1/steering', {method: 'PUT', headers: {'Content-Type': 'application/json'},"
             " body: JSON.stringify({vectors: %s})})",
             strengths);
    page_run(&page, script);
}

static void shoot_tab(const struct size *size, const char *tab, const char *ready)
{
    char script[200];
    snprintf(script, sizeof script,
             "document.getElementById('studio-open').click();"
             "document.getElementById('tab-%s').click()",
             tab);
    page_run(&page, script);
    page_wait(&page, ready);
    shoot(size, tab);
}

/* The mix, if the server has the script's second vector, and the studio. */
static void shoot_studio(const struct size *size)
{
    page_run(&page, "window.names = null; fetch('/v1/vectors').then((answer) => answer.json())"
                    ".then(({data}) => { window.names = data.map(({id}) => id); })");
    page_wait(&page, "window.names !== null");
    if (page_is(&page, "['gyaru', 'teinei'].every((name) => names.includes(name))")) {
        mix("[{vector: 'gyaru', strength: 12}, {vector: 'teinei', strength: 1.5}]");
        page_wait(&page, "document.querySelectorAll('.mix-row').length === 1");
    }
    page_ask(&page, "好きな食べ物は？", 3);
    shoot(size, "mix");
    shoot_tab(size, "persona", "document.querySelectorAll('.persona').length > 1");
    page_run(&page, "document.querySelectorAll('.persona')[1].click()");
    shoot(size, "persona");
    page_run(&page, "document.querySelectorAll('.persona')[0].click()");
    shoot_tab(size, "vectors", "document.querySelectorAll('.vector').length > 0");
    page_run(&page, "document.querySelector('.vector-details').open = true");
    page_wait(&page, "document.querySelector('.vector-details svg') !== null");
    shoot(size, "vectors");
    page_run(&page, "const field = document.getElementById('knob-temperature'); field.value = 0.9;"
                    "field.dispatchEvent(new Event('change'))");
    shoot_tab(size, "sampling", "document.querySelectorAll('.knob').length > 0");
    page_run(&page, "document.getElementById('sampling-reset').click()");
    shoot_tab(size, "reports", "document.querySelectorAll('#reports li').length > 0");
    if (page_is(&page, "document.querySelector('.report') !== null")) {
        page_run(&page, "document.querySelector('.report button').click()");
        shoot(size, "report");
        page_run(&page, "document.getElementById('report-close').click()");
    }
    shoot_tab(size, "save", "document.getElementById('save-summary').textContent !== ''");
    page_run(&page, "document.getElementById('studio-close').click()");
    page_run(&page, "document.getElementById('language').click()");
    shoot(size, "english");
    page_run(&page, "document.getElementById('studio-open').click();"
                    "document.getElementById('tab-sampling').click()");
    shoot(size, "english-sampling");
    page_run(&page, "document.getElementById('tab-vectors').click()");
    shoot(size, "english-vectors");
    page_run(&page, "document.getElementById('studio-close').click()");
    page_run(&page, "document.getElementById('language').click()");
    if (page_is(&page, "names.includes('teinei')"))
        mix("[{vector: 'gyaru', strength: 12}]");
}

static void shoot_played(const struct size *size)
{
    static const char model[] =
        "{hello: {type: 'hello', model: 'rinne-base', vector: 'gyaru', fingerprint: 'match',"
        " strength: 0, strength_min: -10, strength_max: 30, gauge_layer: 8}}";
    visit(model);
    page_run(&page, calm);
    shoot(size, "calm");
    page_run(&page, "end()");
    page_run(&page, pink);
    shoot(size, "pink");
    page_run(&page, "end()");
    page_run(&page, red);
    shoot(size, "red");
    page_run(&page, "fake.say({type: 'error', code: 'failed', message: 'the context of 4096"
                    " positions is full: reset the conversation'})");
    shoot(size, "error");
    page_run(&page, "fake.up = false; fake.drop()");
    shoot(size, "lost");
    visit("{up: false, health: [503, {error: {message: 'Loading model'}, progress: 0.42}]}");
    page_wait(&page, "document.body.dataset.link === 'loading'");
    shoot(size, "loading");
}

/* The overlay's own page is transparent: the scene goes behind it. */
static void lay_over_scene(void)
{
    char *scene = scratch_text("tests/data/page/scene.svg");
    struct str script = STR_INIT;
    str_puts(&script, "document.documentElement.style.background"
                      " = 'center / cover url(\"data:image/svg+xml,");
    str_url(&script, scene, strlen(scene));
    str_puts(&script, "\")'");
    assert_false(str_failed(&script));
    page_run(&page, script.data);
    str_release(&script);
    free(scene);
}

/* While an answer to the API is written, as for any tool that a streamer uses. */
static void shoot_overlay(void)
{
    const struct size size = {"scene", 1280, 720, 0.75, false};
    struct gyaru_error err;
    char url[200];
    page_fake_server(&page, NULL);
    snprintf(url, sizeof url, "%s/overlay?lang=ja&hold=600&scale=1.25", page.server.origin);
    if (webdriver_size(&page.driver, size.width, size.height, size.scale, size.touch, &err) ||
        webdriver_open(&page.driver, url, &err))
        fail_msg("%s", err.text);
    page_wait(&page, "document.body.dataset.link === 'ready'");
    lay_over_scene();
    page_run(&page,
             "fetch('/v1/chat/completions', {method: 'POST',"
             " headers: {'Content-Type': 'application/json'},"
             " body: JSON.stringify({messages: [{role: 'user', content: '週末は何するの？'}],"
             " steering: {strength: 12}, seed: 3})})"
             ".then((answer) => answer.json()).then(() => { window.answered = true; })");
    page_wait(&page, "window.answered");
    page_wait(&page, "document.querySelector('.caption.shown') !== null");
    shoot(&size, "overlay");
}

static void test_shots(void **state)
{
    struct gyaru_error err;
    page_or_skip(&page);
    if (file_make_dirs(directory, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const struct size *size = &sizes[i];
        if (webdriver_size(&page.driver, size->width, size->height, size->scale, size->touch, &err))
            fail_msg("%s", err.text);
        shoot_real(size);
        shoot_studio(size);
        shoot_played(size);
    }
    shoot_overlay();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shots)};
    if (argc < 2) {
        fprintf(stderr, "page_shots: usage: page_shots DIR [OPTION...]\n");
        return 2;
    }
    directory = argv[1];
    if (page_start(&page, (const char *const *)argv + 2))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    page_stop(&page);
    return rc;
}
