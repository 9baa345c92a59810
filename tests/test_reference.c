/*
 * test_reference.c - the engine against exact arithmetic: logits, hidden states, greedy ids and the
 * meter, steered and not, on every reference checkpoint that is at hand.
 */
#include "support/reference.h"

#include "backend/backend.h"
#include "base/file.h"
#include "quant/quant.h"
#include "steer/vector.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Built for the CPU, and for the CUDA plug-in that lies beside the program, on one GPU and on two:
 * see the Makefile. */
#ifndef TEST_DEVICE
#define TEST_DEVICE "cpu"
#define EXACT       1e-5 /* relative error with a float32 KV cache; 1e-3 would do */
#define HALF        1e-3 /* with a float16 one */
#define INT8        0
#define METER       1e-5 /* absolute error of the cosine */
#define LAST_KV     GYARU_KV_F32
#define TIE         0.0f /* logits nearer to each other may change places */
#else
#define EXACT   2e-3 /* 4-bit weights are multiplied in fp16 */
#define HALF    2e-3
#define METER   1e-3
#define INT8    4e-2 /* relative error with an int8 KV cache: 127 levels of a head's largest value */
#define LAST_KV GYARU_KV_I8
#define TIE     0.03f
#endif
#ifndef LONGEST
#define LONGEST        100000 /* ids of a prompt; the host's emulation of a GPU takes less */
#define WITHOUT_DEVICE 0      /* exit code */
#else
#define WITHOUT_DEVICE 1
#endif

static void check(int rc, const struct gyaru_error *err)
{
    if (rc)
        fail_msg("%s", err->text);
}

static struct gyaru_model *open_model(const char *dir, enum gyaru_kv kv)
{
    struct gyaru_error err;
    struct gyaru_model_options options;
    struct gyaru_model *model;
    gyaru_model_options_init(&options);
    options.kv = kv;
    options.device = TEST_DEVICE;
    check(gyaru_model_open(dir, &options, &model, &err), &err);
    return model;
}

/* ---- the larger checkpoints of shared/ ------------------------------------------------------- */

/* The reference's vectors: float16 [n, hidden], added at the INPUT of the listed layers. */
static void attach_reference(struct gyaru_model *model, const struct reference *r)
{
    struct gyaru_error err;
    struct gyaru_vector *vector;
    const json_t *steering = json_object_get(r->json, "steering");
    const json_t *layers = json_object_get(steering, "layers");
    int hidden = gyaru_model_info(model)->hidden_size;
    const struct tensor *t = safetensors_find(r->tensors, "vectors");
    assert_non_null(t);
    check(vector_new(hidden, HOOK_RESID_PRE, &vector, &err), &err);
    float *direction = malloc((size_t)hidden * sizeof *direction);
    for (size_t i = 0; i < json_array_size(layers); i++) {
        struct quant_source row = {
            .type = QUANT_F16, .rows = t->dims[0], .cols = (size_t)hidden, .data = t->data};
        quant_row(&row, i, direction);
        int layer = (int)json_integer_value(json_array_get(layers, i));
        check(vector_set_direction(vector, layer, direction, &err), &err);
    }
    free(direction);
    struct gyaru_attach_options options;
    gyaru_attach_options_init(&options);
    options.gauge_layer = (int)json_integer_value(json_object_get(steering, "gauge_layer"));
    int index;
    char *warning;
    check(gyaru_model_attach(model, vector, &options, &index, &warning, &err), &err);
    assert_int_equal(index, 0);
    free(warning);
    gyaru_vector_close(vector);
}

static void check_prompt(struct gyaru_model *model, const struct reference *r, size_t i,
                         bool steered, double bound)
{
    struct gyaru_error err;
    const struct gyaru_model_info *info = gyaru_model_info(model);
    size_t vocab = (size_t)info->vocab_size, hidden = (size_t)info->hidden_size;
    size_t points = (size_t)info->n_layers + 1, n;
    int32_t *ids = reference_ids(json_array_get(json_object_get(r->json, "prompts"), i), &n);
    if (n > LONGEST) {
        free(ids);
        return;
    }
    float strengths[GYARU_MAX_VECTORS] = {steered ? 6.0f : 0.0f};
    struct gyaru_eval e = {.ids = ids, .n = n, .strengths = strengths, .gauge = steered ? 0 : -1};
    e.logits = malloc(n * vocab * sizeof *e.logits);
    e.hidden = malloc(points * hidden * sizeof *e.hidden);
    e.argmax = malloc(n * sizeof *e.argmax);
    e.cosine = steered ? malloc(n * sizeof *e.cosine) : NULL;
    check(gyaru_model_eval(model, &e, &err), &err);

    char name[32];
    size_t last = n < 8 ? n : 8;
    snprintf(name, sizeof name, "%s.%zu", steered ? "steered" : "logits", i);
    const float *logits = reference_values(r, name, last * vocab);
    assert_true(reference_error(e.logits + (n - last) * vocab, logits, last * vocab) < bound);
    if (steered) {
        const json_t *cosine = json_array_get(json_object_get(r->json, "steered_cosine"), i);
        assert_true(fabs((double)e.cosine[n - 1] - json_number_value(cosine)) < bound / 10);
    } else {
        snprintf(name, sizeof name, "hidden.%zu", i);
        const float *expected = reference_values(r, name, points * hidden);
        for (size_t p = 0; p < points; p++)
            assert_true(reference_error(e.hidden + p * hidden, expected + p * hidden, hidden) <
                        bound);
        const json_t *argmax = json_array_get(json_object_get(r->json, "argmax"), i);
        if (bound <= EXACT)
            for (size_t t = 0; t < n; t++) {
                const float *at = e.logits + t * vocab;
                float best = at[json_integer_value(json_array_get(argmax, t))];
                assert_true(best + TIE >= at[e.argmax[t]]);
            }
    }
    free(ids);
    free(e.logits);
    free(e.hidden);
    free(e.argmax);
    free(e.cosine);
}

static void check_greedy(struct gyaru_model *model, const struct reference *r, bool steered)
{
    struct gyaru_error err;
    const json_t *expected = json_object_get(r->json, steered ? "greedy_steered" : "greedy");
    const json_t *ids = json_object_get(expected, "ids");
    size_t prompt = (size_t)json_integer_value(json_object_get(expected, "prompt")), n;
    int32_t *start = reference_ids(json_array_get(json_object_get(r->json, "prompts"), prompt), &n);
    float strengths[GYARU_MAX_VECTORS] = {steered ? 6.0f : 0.0f};
    struct gyaru_request request;
    struct gyaru_session *session;
    gyaru_request_init(model, &request);
    request.prompt = start;
    request.n_prompt = n;
    request.sampling.temperature = 0;
    request.strengths = strengths;
    request.max_tokens = (int)json_array_size(ids);
    request.gauge = steered ? 0 : -1;
    request.any_id = request.ignore_eos = true;
    check(gyaru_session_new(model, &session, &err), &err);
    check(gyaru_session_start(session, &request, &err), &err);
    size_t done = 0;
    const json_t *margins = json_object_get(expected, "margin");
    while (gyaru_session_busy(session)) {
        struct gyaru_event event;
        size_t events;
        check(gyaru_step(&session, 1, &event, &events, &err), &err);
        if (!events || event.token < 0)
            continue;
        if (json_number_value(json_array_get(margins, done)) < (double)TIE)
            break; /* either may come, and what follows differs */
        assert_int_equal(event.token, json_integer_value(json_array_get(ids, done)));
        if (steered) {
            const json_t *c = json_array_get(json_object_get(expected, "cosine"), done);
            assert_true(fabs((double)event.cosine - json_number_value(c)) < 10 * METER);
        }
        done++;
    }
    assert_true(done > 0 && (done == json_array_size(ids) || TIE > 0));
    gyaru_session_free(session);
    free(start);
}

static void check_checkpoint(const char *name)
{
    char *dir = reference_shared(name);
    if (!dir) {
        reference_skip(name);
        return;
    }
    struct reference r;
    reference_open(dir, &r);
    for (int kv = GYARU_KV_F16; kv <= LAST_KV; kv++) {
        struct gyaru_model *model = open_model(dir, (enum gyaru_kv)kv);
        double bound = kv == GYARU_KV_F32 ? EXACT : kv == GYARU_KV_F16 ? HALF : INT8;
        size_t prompts = json_array_size(json_object_get(r.json, "prompts"));
        for (size_t i = 0; i < prompts; i++)
            check_prompt(model, &r, i, false, bound);
        if (kv == GYARU_KV_F32)
            check_greedy(model, &r, false);
        attach_reference(model, &r);
        for (size_t i = 0; i < prompts; i++)
            check_prompt(model, &r, i, true, bound);
        if (kv == GYARU_KV_F32)
            check_greedy(model, &r, true);
        gyaru_model_close(model);
    }
    reference_close(&r);
    free(dir);
}

static void reference_nf4(void **state)
{
    check_checkpoint("reference/nf4");
}

static void reference_nf4_plain_fp16(void **state)
{
    check_checkpoint("reference/nf4-plain-fp16");
}

static void reference_fp4(void **state)
{
    check_checkpoint("reference/fp4");
}

static void reference_bf16_tied_sharded(void **state)
{
    check_checkpoint("reference/bf16-tied-sharded");
}

/* ---- the tiny checkpoint that the project carries ---------------------------------------------
 */

#define TINY "tests/data/tiny-model"

/* It has one kv head: GPUs cannot share it, which is said before anything is loaded. */
static void tiny_cannot_be_shared(void)
{
    struct gyaru_error err;
    struct gyaru_model_options options;
    struct gyaru_model *model;
    gyaru_model_options_init(&options);
    options.device = TEST_DEVICE;
    assert_int_equal(gyaru_model_open(TINY, &options, &model, &err), -1);
    assert_int_equal(err.status, GYARU_USAGE);
    assert_non_null(strstr(err.text, "2 GPUs cannot share a model of 1 kv heads"));
}

static void tiny_logits_and_meter(void **state)
{
    if (strchr(TEST_DEVICE, ',')) {
        tiny_cannot_be_shared();
        return;
    }
    struct gyaru_error err;
    struct reference r;
    reference_open(TINY, &r);
    struct gyaru_model *model = open_model(TINY, GYARU_KV_F32);
    const struct gyaru_model_info *info = gyaru_model_info(model);
    size_t vocab = (size_t)info->vocab_size, hidden = (size_t)info->hidden_size, n;
    size_t points = (size_t)info->n_layers + 1;
    int32_t *ids = reference_ids(json_object_get(r.json, "ids"), &n);
    struct gyaru_eval e = {.ids = ids, .n = n, .gauge = -1};
    e.logits = malloc(n * vocab * sizeof *e.logits);
    e.hidden = malloc(points * hidden * sizeof *e.hidden);
    e.argmax = malloc(n * sizeof *e.argmax);
    e.cosine = malloc(n * sizeof *e.cosine);
    const float *last = e.logits + (n - 1) * vocab;
    check(gyaru_model_eval(model,
                           &(struct gyaru_eval){.ids = ids,
                                                .n = n,
                                                .gauge = -1,
                                                .logits = e.logits,
                                                .hidden = e.hidden,
                                                .argmax = e.argmax},
                           &err),
          &err);
    assert_true(reference_error(last, reference_values(&r, "logits", vocab), vocab) < EXACT);
    const float *stream = reference_values(&r, "hidden", points * hidden);
    assert_true(reference_error(e.hidden, stream, points * hidden) < EXACT);
    const json_t *argmax = json_object_get(r.json, "argmax");
    for (size_t i = 0; i < n; i++) {
        const float *at = e.logits + i * vocab;
        assert_true(at[json_integer_value(json_array_get(argmax, i))] + TIE >= at[e.argmax[i]]);
    }

    struct gyaru_vector *vector;
    struct gyaru_attach_options options;
    int index;
    char *warning;
    check(gyaru_vector_open(TINY "/vector.safetensors", &vector, &err), &err);
    gyaru_attach_options_init(&options);
    options.gauge_layer = 1;
    check(gyaru_model_attach(model, vector, &options, &index, &warning, &err), &err);
    assert_non_null(warning); /* the file has no fingerprint */
    free(warning);
    gyaru_vector_close(vector);
    float strengths[GYARU_MAX_VECTORS] = {
        (float)json_number_value(json_object_get(r.json, "strength"))};
    e.strengths = strengths;
    e.gauge = index;
    check(gyaru_model_eval(model, &e, &err), &err);
    assert_true(reference_error(last, reference_values(&r, "steered", vocab), vocab) < EXACT);
    double cosine = json_number_value(json_object_get(r.json, "cosine"));
    assert_true(fabs((double)e.cosine[n - 1] - cosine) < METER);
    gyaru_model_close(model);
    reference_close(&r);
    free(ids);
    free(e.logits);
    free(e.hidden);
    free(e.argmax);
    free(e.cosine);
}

/* Without its device there is nothing to test; the emulation is never without. */
static bool device_missing(void)
{
    struct gyaru_error err;
    struct backend_device *device;
    const struct backend *backend;
    if (!backend_open(TEST_DEVICE, 1, &backend, &device, &err)) {
        backend->close(device);
        return false;
    }
    printf("SKIP: %s\n", err.text);
    return true;
}

int main(void)
{
    if (device_missing())
        return WITHOUT_DEVICE;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_nf4),         cmocka_unit_test(reference_nf4_plain_fp16),
        cmocka_unit_test(reference_fp4),         cmocka_unit_test(reference_bf16_tied_sharded),
        cmocka_unit_test(tiny_logits_and_meter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
