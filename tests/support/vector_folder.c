/* vector_folder.c - see vector_folder.h. */
#include "vector_folder.h"

#include "base/file.h"
#include "scratch.h"
#include "steer/vector.h"
#include "test_server.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *vector_folder_path(const char *name)
{
    char file[200];
    snprintf(file, sizeof file, VECTOR_FOLDER "/%s.safetensors", name);
    return scratch_path(file);
}

static void set(struct gyaru_vector *v, const char *key, const char *value)
{
    struct gyaru_error err;
    if (vector_set_metadata(v, key, value, &err))
        fail_msg("%s", err.text);
}

void vector_folder_write(const char *name, int hidden, const char *fingerprint, unsigned seed)
{
    struct gyaru_error err;
    struct gyaru_vector *v;
    char *warning = NULL;
    float direction[128];
    assert_in_range(hidden, 1, 128);
    if (vector_new(hidden, HOOK_RESID_POST, &v, &err))
        fail_msg("%s", err.text);
    for (int layer = 1; layer <= 2; layer++) {
        for (int i = 0; i < hidden; i++) {
            seed = seed * 1664525u + 1013904223u;
            direction[i] = 0.25f * ((float)(seed >> 8) / (float)(1 << 23) - 1);
        }
        if (vector_set_direction(v, layer, direction, &err))
            fail_msg("%s", err.text);
    }
    if (fingerprint)
        set(v, "model_fingerprint", fingerprint);
    set(v, "recommended_strength", "8");
    set(v, "max_strength", "20");
    if (vector_save(v, vector_folder_path(name), &warning, &err))
        fail_msg("%s", err.text);
    free(warning);
    gyaru_vector_close(v);
}

const char *vector_folder_fingerprint(void)
{
    static char fingerprint[65];
    struct gyaru_error err;
    struct gyaru_model_options options;
    char *text;
    if (*fingerprint)
        return fingerprint;
    gyaru_model_options_init(&options);
    if (gyaru_inspect(test_model_dir(), &options, &text, &err))
        fail_msg("%s", err.text);
    json_t *json = json_loads(text, 0, NULL);
    snprintf(fingerprint, sizeof fingerprint, "%s",
             json_string_value(json_object_get(json, "fingerprint")));
    json_decref(json);
    free(text);
    assert_int_equal(strlen(fingerprint), 64);
    return fingerprint;
}

void vector_folder_make(void)
{
    struct gyaru_error err;
    if (file_make_dirs(scratch_path(VECTOR_FOLDER), &err))
        fail_msg("%s", err.text);
}
