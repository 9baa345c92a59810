/*
 * test_persona.c - the bundled models are who they claim to be: a butler at strength 0, the
 * vector's persona at 12, collapsed at 25, over the held-out messages. Skipped while a model is
 * absent.
 */
#include "support/test_vector.h"
#include "base/file.h"

#include <gyaru.h>
#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MESSAGES "data/heldout_messages.json"
#define PROMPTS  "data/prompts.json"
#define STYLE    "data/gyaru_style.json"

static struct gyaru_error err;

static void check(int rc)
{
    if (rc)
        fail_msg("%s", err.text);
}

/* Texts of a JSON array (caller frees the array, not the texts). */
static const char **texts_of(const json_t *list, size_t *n)
{
    const json_t *item;
    size_t i;
    const char **texts = calloc(json_array_size(list) + 1, sizeof *texts);
    json_array_foreach(list, i, item) texts[i] = json_string_value(item);
    *n = json_array_size(list);
    return texts;
}

static struct gyaru_model *open_model(const char *dir, int *vector)
{
    struct gyaru_model_options options;
    struct gyaru_model *model;
    char *path = file_join(dir, "gyaru.safetensors");
    gyaru_model_options_init(&options);
    options.sessions = 16;
    options.context = 512;
    check(gyaru_model_open(dir, &options, &model, &err));
    *vector = test_vector_attach(model, path, NULL);
    free(path);
    return model;
}

static void measure(const char *dir)
{
    const float strengths[] = {0, 12, 25};
    int vector;
    char *report;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("SKIP: the persona of %s: the same answers take minutes under sanitizers\n", dir);
    skip();
#endif
    if (!file_exists(dir) || !file_exists(MESSAGES)) {
        printf("SKIP: %s is not here yet\n", dir);
        skip();
    }
    struct gyaru_model *model = open_model(dir, &vector);
    json_t *messages = json_load_file(MESSAGES, 0, NULL),
           *prompts = json_load_file(PROMPTS, 0, NULL);
    struct gyaru_measure_options options;
    gyaru_measure_options_init(model, &options);
    options.style = STYLE;
    options.system = json_string_value(json_array_get(json_object_get(prompts, "butler"), 0));
    assert_non_null(options.system);
    options.messages = texts_of(messages, &options.n_messages);
    assert_true(options.n_messages >= 100);
    options.n_messages = 100;
    options.strengths = strengths;
    options.n_strengths = 3;
    options.vector = vector;
    check(gyaru_measure(model, &options, &report, &err));
    check(gyaru_measure_require(report, &err));
    free(report);
    free((void *)options.messages);
    json_decref(messages);
    json_decref(prompts);
    gyaru_model_close(model);
}

static void base_keeps_its_figures(void **state)
{
    measure("models/rinne-base");
}

static void lite_keeps_its_figures(void **state)
{
    measure("models/rinne-lite");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base_keeps_its_figures),
        cmocka_unit_test(lite_keeps_its_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
