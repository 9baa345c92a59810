/* test_sha256.c - the examples of FIPS 180-4, and any way of cutting the input. */
#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void fips_examples(void **state)
{
    static const struct {
        const char *text, *hex;
    } examples[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrl"
         "mno"
         "pqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    char hex[SHA256_HEX];
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        sha256_hex_of(examples[i].text, strlen(examples[i].text), hex);
        assert_string_equal(hex, examples[i].hex);
    }
}

static void a_million_a(void **state)
{
    struct sha256 hash;
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX];
    sha256_init(&hash);
    for (int i = 0; i < 10000; i++) {
        char block[100];
        memset(block, 'a', sizeof block);
        sha256_update(&hash, block, sizeof block);
    }
    sha256_final(&hash, digest);
    sha256_hex(digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Every length around the padding, in one piece and byte by byte. */
static void any_cut_gives_the_same(void **state)
{
    char text[300], whole[SHA256_HEX], parts[SHA256_HEX], last[SHA256_HEX] = "";
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7);
    for (size_t n = 0; n <= sizeof text; n++) {
        struct sha256 hash;
        uint8_t digest[SHA256_BYTES];
        sha256_hex_of(text, n, whole);
        sha256_init(&hash);
        for (size_t i = 0; i < n; i++)
            sha256_update(&hash, text + i, 1);
        sha256_final(&hash, digest);
        sha256_hex(digest, parts);
        assert_string_equal(whole, parts);
        assert_string_not_equal(whole, last);
        memcpy(last, whole, sizeof last);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fips_examples),
        cmocka_unit_test(a_million_a),
        cmocka_unit_test(any_cut_gives_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
