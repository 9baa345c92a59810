/*
 * test_session.c - answers: sampling, strength, cached prefixes, batches, stops. On the tiny model,
 * whose float32 arithmetic is the same in every order of asking.
 */
#include "support/random.h"
#include "support/reference.h"
#include "support/test_vector.h"

#include "model/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TINY   "tests/data/tiny-model"
#define ANSWER 24 /* tokens */

static struct gyaru_error err;

static void check(int rc)
{
    if (rc)
        fail_msg("%s", err.text);
}

static struct gyaru_model *open_model(int sessions, int chunk)
{
    struct gyaru_model_options options;
    struct gyaru_model *model;
    gyaru_model_options_init(&options);
    options.sessions = sessions;
    options.chunk = chunk;
    check(gyaru_model_open(TINY, &options, &model, &err));
    return model;
}

/* The tiny model's vector at layers first..last (-1: both it has); gives its index. */
static int attach_layers(struct gyaru_model *model, int first, int last)
{
    struct gyaru_attach_options options;
    gyaru_attach_options_init(&options);
    options.layer_first = first;
    options.layer_last = last;
    options.gauge_layer = 1;
    return test_vector_attach(model, TINY "/vector.safetensors", &options);
}

static void attach(struct gyaru_model *model)
{
    assert_int_equal(attach_layers(model, -1, -1), 0);
}

/* A prompt of n ids that depends on `seed`. */
static void make_prompt(int32_t *ids, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((seed * 7919u + (unsigned)i * 104729u) % 1270u);
}

struct answer {
    int32_t ids[256];
    float cosine[256], strength[256];
    size_t n, n_cached;
    enum gyaru_finish finish;
    char text[4096];
};

static void take(struct answer *a, const struct gyaru_event *event)
{
    if (event->token >= 0) {
        a->cosine[a->n] = event->cosine;
        a->strength[a->n] = event->strength;
        a->ids[a->n++] = event->token;
    }
    a->n_cached = event->n_cached;
    a->finish = event->finish;
    strncat(a->text, event->text, event->text_len);
}

static void init_request(struct gyaru_model *model, struct gyaru_request *request,
                         const int32_t *ids, size_t n, const float *strengths)
{
    gyaru_request_init(model, request);
    request->prompt = ids;
    request->n_prompt = n;
    request->sampling =
        (struct gyaru_sampling){.temperature = 1, .top_p = 0.95f, .repeat_penalty = 1, .seed = 42};
    request->max_tokens = ANSWER;
    request->strengths = strengths;
    request->gauge = strengths ? 0 : -1;
    request->ignore_eos = true;
}

static struct answer answer(struct gyaru_session *session, const struct gyaru_request *request)
{
    struct answer a = {0};
    check(gyaru_session_start(session, request, &err));
    while (gyaru_session_busy(session)) {
        struct gyaru_event event;
        size_t n;
        check(gyaru_step(&session, 1, &event, &n, &err));
        if (n)
            take(&a, &event);
    }
    return a;
}

static void assert_same_answer(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, a->n * sizeof *a->ids);
    assert_memory_equal(a->cosine, b->cosine, a->n * sizeof *a->cosine);
}

static void chunks_do_not_change_the_answer(void **state)
{
    int32_t ids[100];
    float strengths[GYARU_MAX_VECTORS] = {4};
    make_prompt(ids, 100, 1);
    struct answer first = {0};
    const int chunks[] = {1, 2, 3, 7, 64, 128};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        struct gyaru_model *model = open_model(1, chunks[i]);
        struct gyaru_session *session;
        struct gyaru_request request;
        attach(model);
        check(gyaru_session_new(model, &session, &err));
        init_request(model, &request, ids, 100, strengths);
        struct answer a = answer(session, &request);
        assert_int_equal(a.n, ANSWER);
        assert_int_equal(a.finish, GYARU_LENGTH);
        if (i)
            assert_same_answer(&a, &first);
        else
            first = a;
        gyaru_session_free(session);
        gyaru_model_close(model);
    }
}

/* Five sessions of different lengths and strengths, started at different times, in one batch. */
static void batches_do_not_change_the_answer(void **state)
{
    enum { N = 5 };
    int32_t ids[N][60];
    float strengths[N][GYARU_MAX_VECTORS] = {{0}, {2}, {-3}, {5}, {0}};
    struct gyaru_model *model = open_model(N, 16);
    struct gyaru_session *sessions[N];
    struct gyaru_request requests[N];
    struct answer alone[N], together[N] = {0};
    attach(model);
    for (int i = 0; i < N; i++) {
        make_prompt(ids[i], 60, (unsigned)i + 10);
        check(gyaru_session_new(model, &sessions[i], &err));
        init_request(model, &requests[i], ids[i], (size_t)(20 + 9 * i), strengths[i]);
        alone[i] = answer(sessions[i], &requests[i]);
        gyaru_session_reset(sessions[i]);
    }
    int started = 0, steps = 0, busy = 1;
    while (busy) {
        if (started < N && steps++ % 3 == 0) {
            check(gyaru_session_start(sessions[started], &requests[started], &err));
            started++;
        }
        struct gyaru_event events[N];
        size_t n;
        check(gyaru_step(sessions, N, events, &n, &err));
        for (size_t e = 0; e < n; e++)
            for (int i = 0; i < N; i++)
                if (events[e].session == sessions[i])
                    take(&together[i], &events[e]);
        busy = started < N;
        for (int i = 0; i < started; i++)
            busy += gyaru_session_busy(sessions[i]);
    }
    for (int i = 0; i < N; i++) {
        assert_same_answer(&together[i], &alone[i]);
        gyaru_session_free(sessions[i]);
    }
    gyaru_model_close(model);
}

/* reliability 16: the same prompt after a change of strength equals a cold run. */
static void reliability_16_cached_prefixes_equal_cold_runs(void **state)
{
    int32_t ids[80];
    float weak[GYARU_MAX_VECTORS] = {1}, strong[GYARU_MAX_VECTORS] = {6};
    struct gyaru_model *model = open_model(1, 32);
    struct gyaru_session *session;
    struct gyaru_request request;
    attach(model);
    check(gyaru_session_new(model, &session, &err));
    make_prompt(ids, 80, 3);

    init_request(model, &request, ids, 60, strong);
    struct answer cold = answer(session, &request);
    assert_int_equal(cold.n_cached, 0);
    struct answer warm = answer(session, &request);
    assert_int_equal(warm.n_cached, 59); /* all but the last token, which gives the logits */
    assert_same_answer(&warm, &cold);

    request.strengths = weak;
    assert_int_equal(answer(session, &request).n_cached, 0); /* other steering: nothing is reused */
    request.strengths = strong;
    warm = answer(session, &request);
    assert_int_equal(warm.n_cached, 0);
    assert_same_answer(&warm, &cold);

    request.n_prompt = 80; /* a longer conversation with the same beginning */
    assert_int_equal(answer(session, &request).n_cached, 60);
    ids[30] ^= 1;
    assert_int_equal(answer(session, &request).n_cached, 30);
    gyaru_session_free(session);
    gyaru_model_close(model);
}

/* reliability 14: a change in mid-answer is in effect at the next token. */
static void reliability_14_strength_acts_at_the_next_token(void **state)
{
    int32_t ids[20];
    float strengths[GYARU_MAX_VECTORS] = {2};
    struct gyaru_model *model = open_model(1, 32);
    struct gyaru_session *session;
    struct gyaru_request request;
    struct answer a = {0};
    attach(model);
    check(gyaru_session_new(model, &session, &err));
    make_prompt(ids, 20, 4);
    init_request(model, &request, ids, 20, strengths);
    struct answer steady = answer(session, &request);
    check(gyaru_session_start(session, &request, &err));
    while (gyaru_session_busy(session)) {
        struct gyaru_event event;
        size_t n;
        if (a.n == 8)
            gyaru_session_set_strength(session, 0, 7);
        check(gyaru_step(&session, 1, &event, &n, &err));
        if (n)
            take(&a, &event);
    }
    for (size_t i = 0; i < a.n; i++)
        assert_true(a.strength[i] == (i < 8 ? 2.0f : 7.0f));
    assert_memory_equal(a.ids, steady.ids, 8 * sizeof *a.ids);
    assert_true(a.cosine[8] != steady.cosine[8]);
    gyaru_session_free(session);
    gyaru_model_close(model);
}

static void reliability_15_strength_0_is_no_vector(void **state)
{
    int32_t ids[50];
    float zero[GYARU_MAX_VECTORS] = {0}, some[GYARU_MAX_VECTORS] = {2};
    struct gyaru_model *model = open_model(1, 32);
    size_t n = 50u * (size_t)gyaru_model_info(model)->vocab_size;
    float *plain = malloc(n * sizeof *plain), *steered = malloc(n * sizeof *steered);
    struct gyaru_eval e = {.ids = ids, .n = 50, .gauge = -1, .logits = plain};
    make_prompt(ids, 50, 5);
    check(gyaru_model_eval(model, &e, &err));
    attach(model);
    e.strengths = zero;
    e.logits = steered;
    check(gyaru_model_eval(model, &e, &err));
    assert_memory_equal(plain, steered, n * sizeof *plain);
    e.strengths = some;
    check(gyaru_model_eval(model, &e, &err));
    assert_memory_not_equal(plain, steered, n * sizeof *plain);
    gyaru_model_detach(model, 0);
    e.strengths = NULL;
    check(gyaru_model_eval(model, &e, &err));
    assert_memory_equal(plain, steered, n * sizeof *plain);
    free(plain);
    free(steered);
    gyaru_model_close(model);
}

/* Two vectors that point opposite ways cancel. */
static void opposite_vectors_restore(void **state)
{
    int32_t ids[30];
    float both[GYARU_MAX_VECTORS] = {3, -3};
    struct gyaru_model *model = open_model(1, 32);
    size_t vocab = (size_t)gyaru_model_info(model)->vocab_size, n = 30u * vocab;
    float *plain = malloc(n * sizeof *plain), *steered = malloc(n * sizeof *steered);
    struct gyaru_eval e = {.ids = ids, .n = 30, .gauge = -1, .logits = plain};
    make_prompt(ids, 30, 6);
    check(gyaru_model_eval(model, &e, &err));
    attach(model);
    assert_int_equal(test_vector_attach(model, TINY "/vector.safetensors", NULL), 1);
    e.strengths = both;
    e.logits = steered;
    check(gyaru_model_eval(model, &e, &err));
    assert_true(reference_error(steered, plain, n) < 1e-6);
    free(plain);
    free(steered);
    gyaru_model_close(model);
}

/* A mix is what its vectors are, not where they lie or what was attached in between. */
static void mixes_do_not_depend_on_places(void **state)
{
    int32_t ids[60];
    float ab[GYARU_MAX_VECTORS] = {3.3f, -1.7f, 2.1f},
          cba[GYARU_MAX_VECTORS] = {2.1f, -1.7f, 0, 3.3f};
    struct gyaru_model *model = open_model(1, 32);
    struct gyaru_session *session;
    struct gyaru_request request;
    make_prompt(ids, 60, 9);
    check(gyaru_session_new(model, &session, &err));
    attach(model);
    assert_int_equal(attach_layers(model, 1, 1), 1);
    assert_int_equal(attach_layers(model, 2, 2), 2);
    init_request(model, &request, ids, 60, ab);
    struct answer first = answer(session, &request);
    for (int i = 0; i < 3; i++)
        gyaru_model_detach(model, i);
    assert_int_equal(attach_layers(model, 2, 2), 0);
    assert_int_equal(attach_layers(model, 1, 1), 1);
    assert_int_equal(attach_layers(model, 1, 2), 2);
    assert_int_equal(attach_layers(model, -1, -1), 3);
    gyaru_model_detach(model, 2);
    request.strengths = cba;
    request.gauge = 3;
    struct answer again = answer(session, &request);
    assert_int_equal(again.n_cached, 59);
    assert_same_answer(&again, &first);
    gyaru_session_reset(session);
    struct answer cold = answer(session, &request);
    assert_int_equal(cold.n_cached, 0);
    assert_same_answer(&cold, &first);
    gyaru_session_free(session);
    gyaru_model_close(model);
}

static void stop_strings_end_the_text_before_them(void **state)
{
    int32_t ids[20];
    struct gyaru_model *model = open_model(1, 32);
    struct gyaru_session *session;
    struct gyaru_request request;
    check(gyaru_session_new(model, &session, &err));
    make_prompt(ids, 20, 8);
    init_request(model, &request, ids, 20, NULL);
    struct answer whole = answer(session, &request);
    size_t len = strlen(whole.text);
    assert_true(len > 12);
    /* A piece from the middle of the text, whole characters or not: bytes are compared. */
    char piece[6] = {0};
    memcpy(piece, whole.text + len / 2, 5);
    const char *at = strstr(whole.text, piece);
    const char *stops[] = {"never said", piece};
    request.stop = stops;
    request.n_stop = 2;
    struct answer cut = answer(session, &request);
    assert_int_equal(cut.finish, GYARU_STOP);
    assert_int_equal(strlen(cut.text), at - whole.text);
    assert_memory_equal(cut.text, whole.text, strlen(cut.text));
    gyaru_session_free(session);
    gyaru_model_close(model);
}

/* A model of random weights would say any bytes: what leaves is whole characters all the same. */
static void reliability_18_no_broken_characters(void **state)
{
    int32_t ids[20];
    struct gyaru_model *model = open_model(1, 32);
    struct gyaru_session *session;
    struct gyaru_request request;
    check(gyaru_session_new(model, &session, &err));
    for (unsigned seed = 0; seed < 20; seed++) {
        make_prompt(ids, 20, 100 + seed);
        init_request(model, &request, ids, 20, NULL);
        request.sampling.seed = seed;
        request.max_tokens = 60;
        struct answer a = answer(session, &request);
        const char *broken = strstr(a.text, "\xef\xbf\xbd");
        assert_true(!broken || strlen(broken) == 3); /* the limit may fall inside the last one */
    }
    gyaru_session_free(session);
    gyaru_model_close(model);
}

static void cancel_and_bad_requests(void **state)
{
    int32_t ids[20];
    struct gyaru_model *model = open_model(1, 8);
    struct gyaru_session *session, *second;
    struct gyaru_request request;
    struct gyaru_event event;
    size_t n;
    check(gyaru_session_new(model, &session, &err));
    assert_int_equal(gyaru_session_new(model, &second, &err), -1);
    make_prompt(ids, 20, 9);
    init_request(model, &request, ids, 20, NULL);
    check(gyaru_session_start(session, &request, &err));
    assert_int_equal(gyaru_session_start(session, &request, &err), -1); /* busy */
    check(gyaru_step(&session, 1, &event, &n, &err));
    gyaru_session_cancel(session);
    check(gyaru_step(&session, 1, &event, &n, &err));
    assert_int_equal(n, 1);
    assert_int_equal(event.finish, GYARU_CANCELLED);
    assert_false(gyaru_session_busy(session));

    ids[3] = 1536;
    assert_int_equal(gyaru_session_start(session, &request, &err), -1);
    ids[3] = -1;
    assert_int_equal(gyaru_session_start(session, &request, &err), -1);
    ids[3] = 3;
    request.n_prompt = 0;
    assert_int_equal(gyaru_session_start(session, &request, &err), -1);
    request.n_prompt = 20;
    request.sampling.temperature = NAN;
    assert_int_equal(gyaru_session_start(session, &request, &err), -1);
    assert_int_equal(err.status, GYARU_USAGE);
    gyaru_session_free(session);
    gyaru_model_close(model);
}

/* ---- the sampler ------------------------------------------------------------------------------
 */

#define VOCAB 1000

static void reliability_32_padding_is_never_sampled(void **state)
{
    struct sampler *sampler;
    float logits[VOCAB];
    uint8_t seen[VOCAB] = {0};
    uint64_t random = 1;
    struct gyaru_sampling p = {.temperature = 1, .top_p = 1, .repeat_penalty = 1};
    check(sampler_new(VOCAB, &sampler, &err));
    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < VOCAB; i++)
            logits[i] = i < 900 ? 0.0f : 50.0f;
        int32_t id = sampler_pick(sampler, logits, 900, &p, seen, &random);
        assert_in_range(id, 0, 899);
    }
    for (int i = 0; i < VOCAB; i++)
        logits[i] = NAN;
    assert_int_equal(sampler_pick(sampler, logits, 900, &p, seen, &random), -1);
    sampler_free(sampler);
}

/* Frequencies over many draws against the probabilities, and what each cut leaves. */
static void samples_follow_the_distribution(void **state)
{
    enum { DRAWS = 20000 };
    const double probability[4] = {0.5, 0.3, 0.15, 0.05};
    const struct {
        struct gyaru_sampling p;
        int kept;
    } cases[] = {
        {{.temperature = 1, .top_p = 1, .repeat_penalty = 1}, 4},
        {{.temperature = 1, .top_p = 1, .top_k = 2, .repeat_penalty = 1}, 2},
        {{.temperature = 1, .top_p = 0.75f, .repeat_penalty = 1}, 2},
        {{.temperature = 1, .top_p = 0.85f, .repeat_penalty = 1}, 3},
        {{.temperature = 1, .top_p = 1, .min_p = 0.25f, .repeat_penalty = 1}, 3},
    };
    struct sampler *sampler;
    uint8_t seen[VOCAB] = {0};
    check(sampler_new(VOCAB, &sampler, &err));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int count[4] = {0};
        double mass = 0;
        uint64_t random = c;
        for (int i = 0; i < cases[c].kept; i++)
            mass += probability[i];
        for (int d = 0; d < DRAWS; d++) {
            float logits[VOCAB];
            for (int i = 0; i < VOCAB; i++)
                logits[i] = i < 4 ? (float)log(probability[i]) : -INFINITY;
            int32_t id = sampler_pick(sampler, logits, VOCAB, &cases[c].p, seen, &random);
            assert_in_range(id, 0, cases[c].kept - 1);
            count[id]++;
        }
        for (int i = 0; i < cases[c].kept; i++)
            assert_true(fabs(count[i] / (double)DRAWS - probability[i] / mass) < 0.02);
    }
    sampler_free(sampler);
}

/* A few chosen logits give the ids that all of them give, refused ones included, or say that they
 * cannot tell. */
static void chosen_logits_give_the_same_ids(void **state)
{
    enum { IDS = 30000, REFUSED = 4 };
    static const struct gyaru_sampling settings[] = {
        {.temperature = 0, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repeat_penalty = 1},
        {.temperature = 0.7f, .top_p = 0.9f, .repeat_penalty = 1},
        {.temperature = 1, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 1, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1},
        {.temperature = 2, .top_p = 1, .top_k = IDS, .min_p = 0.01f, .repeat_penalty = 1},
    };
    static const int sizes[] = {1, 40, 300, 1000, IDS};
    struct sampler *sampler;
    float *logits = malloc(IDS * sizeof *logits), *all = malloc(IDS * sizeof *all);
    uint8_t *seen = calloc(1, IDS);
    int picks = 0, unsure = 0;
    random_seed(3);
    check(sampler_new(IDS, &sampler, &err));
    for (int round = 0; round < 300; round++) {
        const struct gyaru_sampling *p = &settings[round % 6];
        int n = sizes[round / 6 % 5];
        double spread = 0.5 * (1 + round % 7);
        struct backend_candidates chosen;
        uint64_t random[2] = {(uint64_t)round, (uint64_t)round};
        for (int i = 0; i < n; i++) {
            double u = ((double)(random_bits64() >> 11) + 1) * 0x1p-53;
            all[i] = logits[i] = (float)(-spread * log(u));
        }
        sampler_choose(logits, n, p, &chosen);
        sampler_offer(sampler, &chosen, n);
        for (int i = 0; i < REFUSED && i < n; i++, picks++) {
            int32_t id = sampler_pick_offered(sampler, p, &random[0]);
            if (id == SAMPLER_UNSURE) {
                unsure++;
                break;
            }
            assert_int_equal(id, sampler_pick(sampler, all, n, p, seen, &random[1]));
            assert_true(random[0] == random[1]);
            sampler_refuse(sampler, id, p);
            all[id] = -INFINITY;
        }
    }
    assert_true(picks > 600 && unsure < 100);
    logits[7] = NAN;
    struct backend_candidates none;
    sampler_choose(logits, 1000, &settings[1], &none);
    assert_int_equal(none.n, -1);
    sampler_offer(sampler, &none, 1000);
    uint64_t random = 1;
    assert_int_equal(sampler_pick_offered(sampler, &settings[1], &random), SAMPLER_UNSURE);
    sampler_free(sampler);
    free(logits);
    free(all);
    free(seen);
}

static void repetition_is_penalised(void **state)
{
    struct sampler *sampler;
    float logits[4] = {2.0f, 1.9f, -1.0f, -1.1f};
    uint8_t seen[4] = {1, 0, 1, 0};
    uint64_t random = 0;
    struct gyaru_sampling p = {.repeat_penalty = 1.2f};
    check(sampler_new(4, &sampler, &err));
    assert_int_equal(sampler_pick(sampler, logits, 4, &p, seen, &random), 1);
    assert_true(fabsf(logits[0] - 2.0f / 1.2f) < 1e-6f && fabsf(logits[2] + 1.2f) < 1e-6f);
    sampler_free(sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_do_not_change_the_answer),
        cmocka_unit_test(batches_do_not_change_the_answer),
        cmocka_unit_test(reliability_16_cached_prefixes_equal_cold_runs),
        cmocka_unit_test(reliability_14_strength_acts_at_the_next_token),
        cmocka_unit_test(reliability_15_strength_0_is_no_vector),
        cmocka_unit_test(opposite_vectors_restore),
        cmocka_unit_test(mixes_do_not_depend_on_places),
        cmocka_unit_test(stop_strings_end_the_text_before_them),
        cmocka_unit_test(reliability_18_no_broken_characters),
        cmocka_unit_test(cancel_and_bad_requests),
        cmocka_unit_test(reliability_32_padding_is_never_sampled),
        cmocka_unit_test(samples_follow_the_distribution),
        cmocka_unit_test(chosen_logits_give_the_same_ids),
        cmocka_unit_test(repetition_is_penalised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
