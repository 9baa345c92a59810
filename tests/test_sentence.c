/*
 * test_sentence.c - where sentences end while a text is written, how they are shown and spoken.
 */
#include "talk/sentence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Feeds `text` in pieces of at most `piece` characters; the sentences, shown and spoken, one a
 * line (caller releases). */
static void split(const char *text, size_t piece, struct str *shown, struct str *spoken)
{
    struct sentences s;
    struct sentence one;
    *shown = *spoken = (struct str)STR_INIT;
    sentences_init(&s);
    for (bool end = false; !end;) {
        size_t n = 0;
        for (size_t chars = 0; text[n] && chars < piece; chars++) {
            do
                n++;
            while (((unsigned char)text[n] & 0xc0) == 0x80);
        }
        end = !text[n];
        sentences_feed(&s, text, n);
        text += n;
        bool last = end;
        while (sentences_next(&s, last, &one)) {
            str_append(shown, one.shown.data, one.shown.len);
            str_putc(shown, '\n');
            str_append(spoken, one.spoken.data, one.spoken.len);
            str_putc(spoken, '\n');
            sentence_release(&one);
        }
    }
    assert_int_equal(s.raw.len, 0);
    sentences_release(&s);
}

/* `want`: the sentences, each with a line end; spoken NULL: the same. However the text comes. */
static void expect(const char *text, const char *want, const char *spoken_want)
{
    static const size_t pieces[] = {1, 2, 3, 5, 7, 1000000};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct str shown, spoken;
        split(text, pieces[i], &shown, &spoken);
        assert_string_equal(shown.data ? shown.data : "", want);
        assert_string_equal(spoken.data ? spoken.data : "", spoken_want ? spoken_want : want);
        str_release(&shown);
        str_release(&spoken);
    }
}

static void test_japanese(void **state)
{
    expect("今日はいい天気。明日は雨かも！それでも行く？",
           "今日はいい天気。\n明日は雨かも！\nそれでも行く？\n", NULL);
    expect("「もう帰るの？」って聞いた。それだけ。", "「もう帰るの？」\nって聞いた。\nそれだけ。\n",
           NULL);
    expect("やったあああ！！！？！次はなに？", "やったあああ！！！？！\n次はなに？\n", NULL);
    /* Too short to be said alone, unless a line ends. */
    expect("え？ね。それはすごいね。", "え？ね。\nそれはすごいね。\n", NULL);
    expect("え？それはすごいね。", "え？それはすごいね。\n", NULL);
    expect("え？\nうん。\nそう。", "え？\nうん。\nそう。\n", NULL);
    expect("まじで最高なんだけど〜♪ほんとに楽しかった☆",
           "まじで最高なんだけど〜♪\nほんとに楽しかった☆\n",
           "まじで最高なんだけどー\nほんとに楽しかった\n");
    expect("", "", NULL);
    expect("\n \n　\n", "", NULL);
}

static void test_english(void **state)
{
    expect("This is one. This is two! Is this three? Yes, it is.",
           "This is one.\nThis is two!\nIs this three?\nYes, it is.\n", NULL);
    expect("Dr. Smith met Mr. J. Brown at 3.14 o'clock, e.g. today. He left.",
           "Dr. Smith met Mr. J. Brown at 3.14 o'clock, e.g. today.\nHe left.\n", NULL);
    expect("Version 1.2.3 is out... It works.", "Version 1.2.3 is out...\nIt works.\n", NULL);
    expect("1. First comes this.\n2. Then comes that.",
           "1. First comes this.\n2. Then comes that.\n", NULL);
    expect("He said \"That is all.\" Then he went.", "He said \"That is all.\"\nThen he went.\n",
           NULL);
    expect("日本語です.英語です. Mixed text here.", "日本語です.\n英語です.\nMixed text here.\n",
           NULL);
}

static void test_tags(void **state)
{
    expect("[happy]こんにちは、元気？[motion:wave] またね、ばいばい。",
           "こんにちは、元気？\nまたね、ばいばい。\n", NULL);
    expect("[sad] I am sorry about it.", "I am sorry about it.\n", NULL);
    /* No tags: a footnote, a list, Japanese in brackets. */
    expect("見て[1]これ[2]すごいよ。", "見て[1]これ[2]すごいよ。\n", NULL);
    expect("[笑顔]うれしいなあ。", "[笑顔]うれしいなあ。\n", NULL);
    expect("[neutral]", "", NULL);
}

static void test_addresses_and_code(void **state)
{
    expect("詳しくは https://example.com/a.b?c=d!e を見てね。", "詳しくは example.com を見てね。\n",
           "詳しくは リンク を見てね。\n");
    expect("See https://example.com/x.html. It is good. www.foo.org too.",
           "See example.com.\nIt is good.\nwww.foo.org too.\n",
           "See link.\nIt is good.\nlink too.\n");
    expect("[公式サイト](https://example.com/)へどうぞ。", "公式サイトへどうぞ。\n", NULL);
    expect("こう書くよ。\n```c\nint main(void) { return 0; }\nputs(\"。\");\n```\nわかったかな？",
           "こう書くよ。\nわかったかな？\n", NULL);
    expect("Use `a.b. c` for this. Then `make`.", "Use a.b. c for this.\nThen make.\n", NULL);
    expect("これは```未完の\nコード。です", "これは\n", NULL);
    expect("**大事なこと**を言うね。*a* and 2 * 3 is snake_case.",
           "大事なことを言うね。\na and 2 * 3 is snake_case.\n", NULL);
    expect("# 見出しです\n- ひとつめ\n- ふたつめ\n> 引用した文",
           "見出しです\nひとつめ\nふたつめ\n引用した文\n", NULL);
}

static void test_pictures_and_silence(void **state)
{
    expect("おめでとう🎉🎉！すごいね👍🏽。",
           "おめでとう🎉🎉！\nすごいね👍🏽。\n", "おめでとう！\nすごいね。\n");
    expect("それでね……。\n！？\n♪♪♪", "それでね……。\n！？\n♪♪♪\n", "それでね……。\n\n\n");
}

static void test_lengths(void **state)
{
    char text[4000] = "", want[4200] = "";
    struct str shown, spoken;
    for (int i = 0; i < 100; i++)
        strcat(text, "あいうえおかきくけ、");
    split(text, 3, &shown, &spoken);
    /* Every line is cut after a comma and is no longer than the limit. */
    for (char *line = shown.data, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_true(end - line <= SENTENCE_WIDTH_MAX / 2 * 3);
        assert_memory_equal(end - 3, "、", 3);
    }
    str_release(&shown);
    str_release(&spoken);
    text[0] = '\0';
    for (int i = 0; i < 200; i++)
        strcat(text, "あ");
    for (int i = 0; i < 200; i++) {
        strcat(want, "あ");
        if (i % 80 == 79)
            strcat(want, "\n");
    }
    strcat(want, "\n");
    expect(text, want, NULL);
    memset(text, '!', 3000);
    text[3000] = '\0';
    split(text, 100, &shown, &spoken);
    for (const char *line = shown.data; *line; line = strchr(line, '\n') + 1)
        assert_true(strcspn(line, "\n") <= SENTENCE_WIDTH_MAX + 1);
    str_release(&shown);
    str_release(&spoken);
}

static void test_leaves_as_soon_as_it_can(void **state)
{
    struct sentences s;
    struct sentence one;
    sentences_init(&s);
    sentences_feed(&s, "最初の文です。", strlen("最初の文です。"));
    /* A bracket or another mark may follow. */
    assert_false(sentences_next(&s, false, &one));
    sentences_feed(&s, "次", strlen("次"));
    assert_true(sentences_next(&s, false, &one));
    assert_string_equal(one.spoken.data, "最初の文です。");
    sentence_release(&one);
    assert_false(sentences_next(&s, false, &one));
    struct str shown = STR_INIT;
    sentences_feed(&s, "は[hap", strlen("は[hap"));
    sentences_partial(&s, &shown);
    assert_string_equal(shown.data, "次は");
    sentences_clear(&s);
    sentences_partial(&s, &shown);
    assert_int_equal(shown.len, 0);
    str_release(&shown);
    sentences_release(&s);
}

/* Random texts over the characters that decide: the same sentences in every chunking, nothing
 * lost, bounded work. */
static void test_chunks_do_not_matter(void **state)
{
    static const char *const parts[] = {"。", "！", "?",  ".",   " ", "\n",      "あ",   "い",
                                        "a",  "B",  "1",  "[",   "]", "(",       ")",    "`",
                                        "*",  "_",  "`",  "、",  ",", "http://", "www.", "♪",
                                        "🎉",  "「", "」", "```", "…", "〜"};
    uint32_t seed = 1;
    for (int round = 0; round < 400; round++) {
        char text[2000] = "";
        for (int i = 0; i < 120; i++) {
            seed = seed * 1664525u + 1013904223u;
            strcat(text, parts[(seed >> 12) % (sizeof parts / sizeof parts[0])]);
        }
        struct str whole, spoken, shown, said;
        split(text, 1000000, &whole, &spoken);
        for (size_t piece = 1; piece < 9; piece += 2) {
            split(text, piece, &shown, &said);
            if (strcmp(whole.data ? whole.data : "", shown.data ? shown.data : ""))
                fail_msg("pieces of %zu change the sentences of: %s", piece, text);
            str_release(&shown);
            str_release(&said);
        }
        str_release(&whole);
        str_release(&spoken);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_japanese),
        cmocka_unit_test(test_english),
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_addresses_and_code),
        cmocka_unit_test(test_pictures_and_silence),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_leaves_as_soon_as_it_can),
        cmocka_unit_test(test_chunks_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
