/*
 * test_extract_command.c - `gyaru extract` and `gyaru convert` as a person meets them.
 */
#include "support/planted.h"
#include "support/program.h"
#include "support/scratch.h"
#include "support/test_vector.h"

#include "base/file.h"
#include "steer/vector.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <cmocka.h>

#define MODEL "tests/data/tiny-model"
#define PAIRS "tests/data/extract/pairs.json"

#define RUN(result, ...) program_run(result, NULL, (const char *const[]){__VA_ARGS__, NULL})

#define EXTRACT(result, out, ...)                                                                  \
    RUN(result, "extract", "-m", MODEL, "-d", PAIRS, "-o", out, "-t", "2", __VA_ARGS__)

/* Paths that outlive the ring of scratch_path(). */
static void paths(char (*out)[256], const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out[i], sizeof out[i], "%s", scratch_path(names[i]));
}

static void prints_a_table_and_writes_a_report(void **state)
{
    struct program_result r;
    const char *out = scratch_path("table.safetensors"), *dir = scratch_path("reports/new");
    char *html = file_join(dir, "extract.html"), *json = file_join(dir, "extract.json");
    EXTRACT(&r, out, "--layers", "0-2", "--report", dir, "--lang", "ja");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "分散説明"));
    assert_non_null(strstr(r.out, out));
    assert_non_null(strstr(r.err, "warning: 14 pairs"));
    assert_true(file_exists(out) && file_exists(html) && file_exists(json));
    program_release(&r);
    EXTRACT(&r, out, "--layers", "0-2", "--lang", "en");
    assert_non_null(strstr(r.out, "expl.var"));
    program_release(&r);
    free(html);
    free(json);
}

static void json_is_one_document(void **state)
{
    struct program_result r;
    const char *out = scratch_path("json.safetensors");
    EXTRACT(&r, out, "--split", "none", "--layers", "1-2", "--json");
    assert_int_equal(r.code, 0);
    json_t *json = json_loads(r.out, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "vector")), out);
    const json_t *layers = json_object_get(json, "layers");
    assert_int_equal(json_array_size(layers), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(layers, 0), "layer")), 1);
    assert_true(json_is_null(json_object_get(json_array_get(layers, 0), "auroc")));
    json_decref(json);
    program_release(&r);
}

static const json_t *summary_of(const json_t *methods, const char *name)
{
    const json_t *one;
    size_t i;
    json_array_foreach(
        json_object_get(methods, "summary"), i,
        one) if (!strcmp(json_string_value(json_object_get(one, "method")), name)) return one;
    fail_msg("no %s", name);
    return NULL;
}

static double field(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        fail_msg("%s is no number", key);
    return json_number_value(value);
}

static json_t *extract_json(const struct planted *p, const char *method, bool compare)
{
    struct program_result r;
    const char *arguments[40] = {"extract", "-m", p->model,   "-d",  p->pairs, "-o",       NULL,
                                 "-t",      "1",  "--layers", "0-2", "--json", "--method", method};
    const char *const more[] = {"--compare", "--style",  p->style,  "--messages", p->messages,
                                "--prompts", p->prompts, "--limit", "16",         "-n",
                                "16",        "--doses",  "5,20",    "--seed",     "5"};
    arguments[6] = scratch_path("methods.safetensors");
    for (size_t i = 0; compare && i < sizeof more / sizeof *more; i++)
        arguments[14 + i] = more[i];
    program_run(&r, NULL, arguments);
    if (r.code)
        fail_msg("%s", r.err);
    json_t *json = json_loads(r.out, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    program_release(&r);
    return json;
}

/* What the comparison says of a method is what a run of that method says. */
static void methods_are_compared_on_the_same_split(void **state)
{
    static const char *const names[] = {"mean", "pca", "pca_last", "probe"};
    struct planted planted;
    planted_make(&planted);
    json_t *all = extract_json(&planted, "mean", false);
    const json_t *methods = json_object_get(all, "methods");
    for (size_t m = 0; m < 4; m++) {
        json_t *own = extract_json(&planted, names[m], false);
        for (size_t l = 0; l < 3; l++) {
            const json_t *layer = json_array_get(json_object_get(own, "layers"), l);
            const json_t *at = json_array_get(json_object_get(methods, "layers"), l);
            const json_t *here = json_object_get(at, names[m]);
            assert_float_equal(field(here, "auroc"), field(layer, "auroc"), 1e-6);
            assert_float_equal(field(here, "split_half_cosine"), field(layer, "split_half_cosine"),
                               1e-5);
            assert_float_equal(field(json_object_get(here, "cosine"), names[m]), 1, 1e-6);
            if (m == 2) /* of the first centred component it is that ratio */
                assert_float_equal(field(here, "explained_variance_ratio"),
                                   field(layer, "explained_variance_ratio"), 1e-6);
        }
        json_decref(own);
    }
    assert_true(json_is_null(json_object_get(methods, "effect")));
    json_decref(all);
}

static void planted_styles_are_spoken_at_the_same_dose(void **state)
{
    struct planted planted;
    planted_make(&planted);
    json_t *json = extract_json(&planted, "mean", true);
    const json_t *methods = json_object_get(json, "methods");
    const json_t *effect = json_object_get(methods, "effect");
    assert_true(field(summary_of(methods, "mean"), "content_auroc") >
                field(summary_of(methods, "pca_last"), "content_auroc"));
    double base = field(json_object_get(effect, "base"), "marker");
    const json_t *mean = json_array_get(json_object_get(effect, "methods"), 0);
    const json_t *rows = json_object_get(mean, "rows");
    assert_int_equal(json_array_size(json_object_get(effect, "methods")), 4);
    assert_int_equal(json_array_size(rows), 2);
    assert_true(field(json_array_get(rows, 1), "marker") > base + 0.5);
    char *html, *text = json_dumps(json, 0);
    struct gyaru_error err;
    assert_int_equal(gyaru_extract_html(text, "en", &html, &err), 0);
    assert_non_null(strstr(html, "Most effect at the same dose: "));
    free(html);
    free(text);
    json_decref(json);
}

static void refused(int code, const char *part, const char *const *arguments)
{
    struct program_result r;
    program_run(&r, NULL, arguments);
    program_check_error(&r, code, part);
    assert_int_equal(r.out_len, 0);
    program_release(&r);
}

#define REFUSED(code, part, ...) refused(code, part, (const char *const[]){__VA_ARGS__, NULL})

static void bad_requests_are_one_line(void **state)
{
    char bad[1][256];
    paths(bad, (const char *const[]){"bad.json"}, 1);
    scratch_write("bad.json", "[{}]", 4);
    REFUSED(2, "-d PAIRS -o FILE", "extract", "-m", MODEL);
    REFUSED(2, "--split 50/50", "extract", "-d", PAIRS, "-o", "x.pt", "--split", "50/50");
    REFUSED(2, "sum to 100", "extract", "-d", PAIRS, "-o", "x.pt", "--split", "60/20/30");
    REFUSED(2, "needs validation", "extract", "-d", PAIRS, "-o", "x.pt", "--split", "none",
            "--layers", "auto");
    REFUSED(2, "no range of layers", "extract", "-d", PAIRS, "-o", "x.pt", "--layers", "3-1");
    REFUSED(2, "ja or en", "extract", "-d", PAIRS, "-o", "x.pt", "--lang", "fr");
    REFUSED(2, "more: unexpected", "extract", "-d", PAIRS, "-o", "x.pt", "more");
    REFUSED(1, "bad.json:1: pair 1: 'topic' is missing", "extract", "-m", MODEL, "-d", bad[0], "-o",
            scratch_path("bad.safetensors"));
    REFUSED(2, "IN OUT", "convert", "a.pt");
    REFUSED(1, "nothing-here.pt", "convert", "nothing-here.pt", "b.gguf");
}

/* ---- convert ----------------------------------------------------------------------------------
 */

/* Read at an output, layers 0..2 of 3: .gguf cannot hold the first, .pt not the last. */
static void convert_moves_and_chooses_layers(void **state)
{
    struct program_result r;
    char path[4][256], *in = path[0], *pt = path[1], *gguf = path[2], *back = path[3];
    paths(path, (const char *const[]){"in.safetensors", "out.pt", "out.gguf", "back.safetensors"},
          4);
    EXTRACT(&r, in, "--split", "none", "--layers", "0-2");
    assert_int_equal(r.code, 0);
    program_release(&r);
    REFUSED(1, "layer 2 is added at the output of the last block", "convert", in, pt);
    REFUSED(1, "layer 0", "convert", in, gguf);
    REFUSED(2, "it has 0-2", "convert", in, pt, "--layers", "7-9");
    assert_false(file_exists(pt) || file_exists(gguf));
    RUN(&r, "convert", in, pt, "--layers", "1");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "warning: the format holds directions only"));
    program_release(&r);
    RUN(&r, "convert", pt, gguf, "--json");
    assert_int_equal(r.code, 0);
    json_t *json = json_loads(r.out, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(json, "layer_min")), 1);
    json_decref(json);
    program_release(&r);
    RUN(&r, "convert", gguf, back);
    assert_int_equal(r.code, 0);
    program_release(&r);
    struct gyaru_vector *first = test_vector_open(in), *last = test_vector_open(back),
                        *mid = test_vector_open(pt);
    assert_string_equal(mid->info.hook, "resid_pre");
    assert_int_equal(mid->info.layer_min, 2); /* the input of 2 is the output of 1 */
    assert_string_equal(last->info.hook, "resid_post");
    assert_int_equal(last->info.n_directions, 1);
    const float *a = vector_direction(first, 1), *b = vector_direction(last, 1);
    assert_non_null(b);
    for (int h = 0; h < first->info.hidden_size; h++) /* .pt holds float16 */
        assert_true(fabs((double)(a[h] - b[h])) < 1e-3 * vector_norm(first, 1));
    gyaru_vector_close(first);
    gyaru_vector_close(last);
    gyaru_vector_close(mid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prints_a_table_and_writes_a_report),
        cmocka_unit_test(methods_are_compared_on_the_same_split),
        cmocka_unit_test(planted_styles_are_spoken_at_the_same_dose),
        cmocka_unit_test(json_is_one_document),
        cmocka_unit_test(bad_requests_are_one_line),
        cmocka_unit_test(convert_moves_and_chooses_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
