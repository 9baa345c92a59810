/* test_vector.c - see test_vector.h. */
#include "test_vector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct gyaru_vector *test_vector_open(const char *path)
{
    struct gyaru_error err;
    struct gyaru_vector *v;
    if (gyaru_vector_open(path, &v, &err))
        fail_msg("%s", err.text);
    return v;
}

int test_vector_attach(struct gyaru_model *model, const char *path,
                       const struct gyaru_attach_options *options)
{
    struct gyaru_error err;
    struct gyaru_attach_options defaults;
    struct gyaru_vector *v = test_vector_open(path);
    char *warning;
    int index;
    gyaru_attach_options_init(&defaults);
    if (gyaru_model_attach(model, v, options ? options : &defaults, &index, &warning, &err))
        fail_msg("%s", err.text);
    free(warning);
    gyaru_vector_close(v);
    return index;
}
