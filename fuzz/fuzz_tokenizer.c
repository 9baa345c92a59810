/*
 * fuzz_tokenizer.c - libFuzzer target for what src/text reads from strangers.
 *
 * The first byte chooses: 't' text for the reference tokenizer, 'j' a tokenizer.json, anything else
 * a chat template. Runs from the root of the project, as `make fuzz` does.
 */
#include "base/str.h"
#include "text/jinja.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Valid text encodes; the text of its ids is valid and stays what it is from then on. */
static void fuzz_text(const char *text, size_t len)
{
    static struct gyaru_tokenizer *t;
    struct gyaru_error err;
    int32_t *ids, *again;
    size_t n, n_again, back_len;
    char *back;
    if (!t)
        require(!gyaru_tokenizer_open("tests/data/reference-tokenizer", &t, &err));
    if (!utf8_valid(text, len)) {
        require(gyaru_tokenize(t, text, len, true, &ids, &n, &err));
        return;
    }
    require(!gyaru_tokenize(t, text, len, true, &ids, &n, &err));
    require(!gyaru_detokenize(t, ids, n, &back, &back_len, &err));
    require(utf8_valid(back, back_len));
    require(!gyaru_tokenize(t, back, back_len, false, &again, &n_again, &err));
    for (size_t i = 0; i < n_again; i++)
        require(!tokenizer_is_special(t, again[i]));
    free(ids);
    free(again);
    free(back);
}

static void fuzz_json(const char *json, size_t len)
{
    char path[64];
    struct gyaru_tokenizer t = {.nfc = false};
    struct gyaru_error err;
    int fd = memfd_create("tokenizer.json", 0);
    require(fd >= 0 && write(fd, json, len) == (ssize_t)len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!tokenizer_load_json(path, &t, &err)) {
        struct bpe_work work = {0};
        static const char text[] = "Hello  world\n\xe3\x81\x82 123<|im_end|>";
        tokenizer_encode(&t, text, strlen(text), true, &work, &err);
        bpe_work_release(&work);
    }
    bpe_release(&t.bpe);
    pattern_free(t.pattern);
    free(t.added);
    close(fd);
}

static void fuzz_template(const char *template, size_t len)
{
    static const struct gyaru_message messages[] = {
        {"system", "s"}, {"user", " a\n"}, {"assistant", ""}, {"user", "b"}};
    struct jinja_input input = {.messages = messages, .n_messages = 4};
    struct str out = STR_INIT;
    struct gyaru_error err;
    jinja_render(template, len, &input, &out, &err);
    str_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *rest = (const char *)data + 1;
    if (data[0] == 't')
        fuzz_text(rest, size - 1);
    else if (data[0] == 'j')
        fuzz_json(rest, size - 1);
    else
        fuzz_template(rest, size - 1);
    return 0;
}
