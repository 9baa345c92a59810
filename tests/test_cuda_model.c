/*
 * test_cuda_model.c - what the program does on the CUDA backend around its kernels: sampling from
 * candidates, an embedding in host memory.
 *
 * Built as test_cuda.c is: for a GPU and for the sources compiled for the CPU, and both again for
 * GPUS that share the model.
 */
#include "cuda/gpus.h"
#include "support/random.h"
#include "support/reference.h"

#include "model/model.h"
#include "model/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEVICE (GPUS == 1 ? "cuda" : "cuda:0,1")

static const struct backend *gpu;
static struct gyaru_error err;

static void check(int rc)
{
    if (rc)
        fail_msg("%s", err.text);
}

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

/* What is tested lies around the layers: a step of one row for each slot, one head for each GPU. */
static struct backend_shape shape_of(int hidden, int vocab, int slots)
{
    return (struct backend_shape){.n_layers = 1,
                                  .hidden = hidden,
                                  .n_heads = GPUS,
                                  .n_kv_heads = GPUS,
                                  .head_dim = hidden,
                                  .intermediate = GPUS * BACKEND_CUT,
                                  .vocab = vocab,
                                  .rope_theta = 10000,
                                  .norm_eps = 1e-6f,
                                  .n_slots = slots,
                                  .context = 8,
                                  .max_rows = slots,
                                  .max_logits = slots,
                                  .kv = GYARU_KV_F16};
}

/* ---- candidates against all logits ----------------------------------------------------------- */

enum { HIDDEN = 16, VOCAB = 8000, ROWS = 3 };

/* An embedding and a head, nothing between: the logits' spread is the norm's. */
struct head {
    struct backend_device *device;
    struct backend_stage *stage;
    struct backend_matrix *embedding, *weights;
    struct backend_vector *norm;
};

static void head_new(struct head *h, float spread)
{
    const struct backend_shape shape = shape_of(HIDDEN, VOCAB, ROWS);
    float *values = allocate((size_t)VOCAB * HIDDEN * sizeof *values), norm[HIDDEN];
    struct quant_source source = {
        .type = QUANT_F32, .rows = VOCAB, .cols = HIDDEN, .data = (const uint8_t *)values};
    check(backend_open(DEVICE, 0, &gpu, &h->device, &err));
    for (int m = 0; m < 2; m++) {
        source.cut = m ? QUANT_BY_ROWS : QUANT_WHOLE;
        source.unit = BACKEND_CUT;
        for (size_t i = 0; i < (size_t)VOCAB * HIDDEN; i++)
            values[i] = random_float();
        check(gpu->matrix_new(h->device, &source, m ? &h->weights : &h->embedding, &err));
    }
    for (int i = 0; i < HIDDEN; i++)
        norm[i] = spread;
    check(gpu->vector_new(h->device, norm, HIDDEN, &h->norm, &err));
    check(gpu->stage_new(h->device, &shape, &h->stage, &err));
    free(values);
}

static void head_free(struct head *h)
{
    gpu->stage_free(h->stage);
    gpu->matrix_free(h->embedding);
    gpu->matrix_free(h->weights);
    gpu->vector_free(h->norm);
    gpu->close(h->device);
}

static void run_with(struct head *h, const struct backend_matrix *weights,
                     const struct backend_row *rows, int n, struct backend_candidates *out)
{
    float *unused;
    memset(out, 0xff, (size_t)n * sizeof *out);
    gpu->begin(h->stage, rows, n);
    gpu->embed(h->stage, h->embedding);
    gpu->head(h->stage, h->norm, weights);
    gpu->candidates(h->stage, out);
    check(gpu->end(h->stage, &unused, &err));
}

static void run_head(struct head *h, const struct backend_row *rows, int n,
                     struct backend_candidates *out)
{
    run_with(h, h->weights, rows, n, out);
}

static const struct gyaru_sampling settings[] = {
    {.temperature = 0, .top_p = 1, .repeat_penalty = 1},
    {.temperature = 0, .top_p = 1, .repeat_penalty = 1.3f},
    {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repeat_penalty = 1.05f},
    {.temperature = 0.7f, .top_p = 0.9f, .repeat_penalty = 1.1f},
    {.temperature = 1, .top_p = 1, .repeat_penalty = 1},
    {.temperature = 1, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1},
    {.temperature = 1.5f, .top_p = 1, .min_p = 0.02f, .repeat_penalty = 0.8f},
    {.temperature = 0.3f, .top_p = 0.5f, .repeat_penalty = 2},
    {.temperature = 2, .top_p = 1, .top_k = 100, .repeat_penalty = 1},
};
#define N_SETTINGS (sizeof settings / sizeof *settings)

struct tally {
    int picks, unsure;
};

/* Several picks in a row, each refused: what redrawing does. */
static void same_picks(struct sampler *sampler, const struct backend_candidates *from,
                       const float *logits, int n_ids, const struct gyaru_sampling *p,
                       const uint8_t *seen, uint64_t seed, struct tally *tally)
{
    float *all = allocate(VOCAB * sizeof *all);
    struct gyaru_sampling sampling = *p;
    uint64_t random[2] = {seed, seed};
    memcpy(all, logits, VOCAB * sizeof *all);
    sampler_offer(sampler, from, n_ids);
    for (int i = 0; i < 3; i++) {
        tally->picks++;
        int32_t offered = sampler_pick_offered(sampler, p, &random[0]);
        if (offered == SAMPLER_UNSURE) {
            tally->unsure++;
            break;
        }
        int32_t id = sampler_pick(sampler, all, n_ids, &sampling, seen, &random[1]);
        assert_int_equal(offered, id);
        assert_true(random[0] == random[1]);
        sampler_refuse(sampler, id, p);
        all[id] = -INFINITY;
        sampling.repeat_penalty = 1;
    }
    free(all);
}

static void candidates_give_the_same_ids(void **state)
{
    static const float spreads[] = {0.1f, 2, 6};
    struct tally tally[N_SETTINGS] = {{0, 0}};
    struct sampler *sampler;
    uint8_t *seen = allocate(VOCAB);
    check(sampler_new(VOCAB, &sampler, &err));
    for (size_t s = 0; s < sizeof spreads / sizeof *spreads; s++) {
        struct head head;
        head_new(&head, spreads[s]);
        for (size_t round = 0; round < N_SETTINGS; round++) {
            const struct gyaru_sampling *p = &settings[round];
            struct backend_candidates out[ROWS];
            struct backend_row rows[ROWS] = {{0}};
            int n_ids = round % 2 ? VOCAB : VOCAB - 77;
            for (int i = 0; i < VOCAB; i++)
                seen[i] = random_float() > 0.6f;
            for (int r = 0; r < ROWS; r++) {
                check(gpu->remember(head.stage, r, seen, &err));
                rows[r] =
                    (struct backend_row){.token = 17 * r + (int)round,
                                         .slot = r,
                                         .logits = true,
                                         .choice = {p->temperature, p->repeat_penalty, n_ids}};
            }
            run_head(&head, rows, ROWS, out);
            for (int r = 0; r < ROWS; r++) {
                float *logits;
                check(gpu->fetch(head.stage, r, &logits, &err));
                uint8_t kept = seen[rows[r].token];
                seen[rows[r].token] = 1;
                for (uint64_t seed = 0; seed < 40; seed++)
                    same_picks(sampler, &out[r], logits, n_ids, p, seen, seed, &tally[round]);
                seen[rows[r].token] = kept;
            }
        }
        head_free(&head);
    }
    for (size_t i = 0; i < N_SETTINGS; i++)
        printf("settings %zu: %d picks, %d of them not from candidates\n", i, tally[i].picks,
               tally[i].unsure);
    assert_int_equal(tally[0].unsure + tally[1].unsure + tally[2].unsure, 0);
    assert_true(2 * tally[3].unsure < tally[3].picks);
    assert_true(tally[4].unsure > 0); /* a flat distribution cannot be known from its top */
    sampler_free(sampler);
    free(seen);
}

/* The token of each step is penalised from then on, without being told. */
static void tokens_are_remembered(void **state)
{
    struct head head;
    struct backend_candidates out;
    uint8_t *seen = calloc(1, VOCAB);
    struct backend_row row = {.logits = true, .choice = {0, 1.5f, VOCAB}};
    head_new(&head, 1);
    check(gpu->remember(head.stage, 0, seen, &err));
    for (int32_t i = 0; i < 6; i++) {
        float *logits;
        row.token = 100 * i;
        seen[row.token] = 1;
        run_head(&head, &row, 1, &out);
        assert_in_range(out.n, 1, BACKEND_CANDIDATES);
        check(gpu->fetch(head.stage, 0, &logits, &err));
        for (int c = 0; c < out.n; c++) {
            float want = logits[out.best[c].id];
            if (seen[out.best[c].id])
                want = want > 0 ? want / 1.5f : want * 1.5f;
            assert_true(out.best[c].logit == want);
        }
        /* what comes next is the likeliest id: were it forgotten, it would stay the first */
        int32_t best = 0;
        for (int c = 1; c < out.n; c++)
            if (out.best[c].logit > out.best[best].logit)
                best = c;
        if (i == 2)
            row.token = out.best[best].id;
    }
    assert_true(gpu->fetch(head.stage, 1, &(float *){NULL}, &err));
    head_free(&head);
    free(seen);
}

/* What a step chooses from, where the head is the embedding: a token is then among its own
 * likeliest successors. The logit of `id` among them. */
static float own_logit(struct head *h, int32_t token, float penalty, int32_t id,
                       struct backend_candidates *out)
{
    struct backend_row row = {.token = token, .logits = true, .choice = {0, penalty, VOCAB}};
    run_with(h, h->embedding, &row, 1, out);
    assert_in_range(out->n, 1, BACKEND_CANDIDATES);
    for (int c = 0; c < out->n; c++)
        if (out->best[c].id == id)
            return out->best[c].logit;
    fail_msg("id %d is not among the candidates of token %d", id, token);
    return 0;
}

/* In the step that has it, and in later ones; wherever among the ids it lies. */
static void tokens_are_penalised(void **state)
{
    static const int32_t tokens[] = {5, VOCAB / 2 - 33, VOCAB / 2 + 33, VOCAB - 1};
    uint8_t *seen = calloc(1, VOCAB);
    struct head head;
    struct backend_candidates out;
    head_new(&head, 0.1f);
    for (int i = 0; i < 4; i++) {
        int32_t token = tokens[i], next = token;
        check(gpu->remember(head.stage, 0, seen, &err));
        float plain = own_logit(&head, token, 1, token, &out);
        assert_true(plain > 0);
        float most = 0;
        for (int c = 0; c < out.n; c++) /* the likeliest of the other half of the ids */
            if ((out.best[c].id < VOCAB / 2) != (token < VOCAB / 2) && out.best[c].logit > most) {
                most = out.best[c].logit;
                next = out.best[c].id;
            }
        assert_true(next != token);
        float other = own_logit(&head, token, 1, next, &out);
        assert_true(own_logit(&head, token, 1.001f, token, &out) == plain / 1.001f);
        assert_true(own_logit(&head, token, 1.001f, next, &out) == other);
        (void)own_logit(&head, next, 1.001f, next, &out);
        assert_true(own_logit(&head, token, 1.001f, next, &out) == other / 1.001f);
    }
    head_free(&head);
    free(seen);
}

/* Where a logit is not finite, and where very many are equal, all of them are asked for. */
static void odd_logits_are_fetched(void **state)
{
    struct head head;
    struct backend_candidates out;
    struct backend_row row = {.token = 3, .logits = true, .choice = {1, 1, VOCAB}};
    head_new(&head, NAN);
    run_head(&head, &row, 1, &out);
    assert_int_equal(out.n, -1);
    head_free(&head);
    head_new(&head, 0);
    run_head(&head, &row, 1, &out);
    assert_int_equal(out.n, -1);
    row.choice.n_ids = 200; /* as many as there is room for */
    run_head(&head, &row, 1, &out);
    assert_int_equal(out.n, 200);
    assert_true(fabsf(out.mass - 200) < 0.01f);
    head_free(&head);
}

/* ---- embeddings in host memory --------------------------------------------------------------- */

/* Rows out of host memory are those of the device's own copy, bit for bit. */
static void host_tables_hold_the_same_rows(void **state)
{
    enum { TYPES = 4, COLS = 64, ROWS_OF = 50 + GPUS * BACKEND_CUT };
    static const enum quant_type types[TYPES] = {QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_4BIT};
    struct backend_shape shape = shape_of(COLS, ROWS_OF, 1);
    struct backend_device *device;
    struct backend_stage *stage;
    struct backend_row rows[ROWS_OF] = {{0}};
    uint32_t values[ROWS_OF * COLS];
    float scales[ROWS_OF], got[2][ROWS_OF * COLS], *unused;
    shape.context = shape.max_rows = ROWS_OF;
    check(backend_open(DEVICE, 1, &gpu, &device, &err));
    check(gpu->stage_new(device, &shape, &stage, &err));
    for (int r = 0; r < ROWS_OF; r++) {
        rows[r] = (struct backend_row){.token = ROWS_OF - 1 - r, .pos = r};
        scales[r] = 0.5f + 0.01f * (float)r;
    }
    for (int t = 0; t < TYPES; t++) {
        struct quant_source source = {.type = types[t],
                                      .rows = ROWS_OF,
                                      .cols = COLS,
                                      .data = (const uint8_t *)values,
                                      .block_size = 64,
                                      .absmax = (const uint8_t *)scales};
        for (int i = 0; i < 16; i++)
            source.map[i] = (float)(i - 8) / 8;
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) /* no exponent of all ones */
            values[i] = (uint32_t)(int32_t)(random_float() * 0x1p30f) & 0xbbffbbffu;
        for (int host = 0; host < 2; host++) {
            struct backend_matrix *table;
            memset(got[host], 0xff, sizeof got[host]);
            check((host ? gpu->table_new : gpu->matrix_new)(device, &source, &table, &err));
            gpu->begin(stage, rows, ROWS_OF);
            gpu->embed(stage, table);
            gpu->tap(stage, got[host]);
            check(gpu->end(stage, &unused, &err));
            gpu->matrix_free(table);
        }
        assert_memory_equal(got[0], got[1], sizeof *got);
        assert_true(gpu->table_bytes(device, &source) ==
                    ROWS_OF * COLS * (types[t] == QUANT_F16 || types[t] == QUANT_BF16 ? 2 : 4));
    }
    gpu->stage_free(stage);
    gpu->close(device);
}

/* ---- sessions -------------------------------------------------------------------------------- */

static struct gyaru_model *open_model(const char *dir, int sessions)
{
    struct gyaru_model_options options;
    struct gyaru_model *model;
    gyaru_model_options_init(&options);
    options.device = DEVICE;
    options.sessions = sessions;
    options.context = 64;
    options.chunk = 16;
    check(gyaru_model_open(dir, &options, &model, &err));
    return model;
}

/* Two conversations at a time; ids of both, in turns. */
static void answer(struct gyaru_model *model, const struct gyaru_sampling *sampling, uint64_t seed,
                   int32_t out[2][16])
{
    struct gyaru_session *sessions[2];
    for (int i = 0; i < 2; i++) {
        int32_t prompt[12];
        struct gyaru_request request;
        for (int t = 0; t < 12; t++)
            prompt[t] = (int32_t)((seed * 131 + (uint64_t)(t * 17 + i * 5)) % 1200);
        gyaru_request_init(model, &request);
        request.prompt = prompt;
        request.n_prompt = 12;
        request.max_tokens = 16;
        request.sampling = *sampling;
        request.sampling.seed = seed + (uint64_t)i;
        request.ignore_eos = true;
        check(gyaru_session_new(model, &sessions[i], &err));
        check(gyaru_session_start(sessions[i], &request, &err));
    }
    int count[2] = {0, 0};
    while (gyaru_session_busy(sessions[0]) || gyaru_session_busy(sessions[1])) {
        struct gyaru_event events[2];
        size_t n;
        check(gyaru_step(sessions, 2, events, &n, &err));
        for (size_t e = 0; e < n; e++)
            if (events[e].token >= 0) {
                int which = events[e].session == sessions[1];
                out[which][count[which]++] = events[e].token;
            }
    }
    assert_int_equal(count[0] + count[1], 32);
    gyaru_session_free(sessions[0]);
    gyaru_session_free(sessions[1]);
}

static void answers_are_those_of_all_logits(void **state)
{
    char *dir = GPUS == 1 ? strdup("tests/data/tiny-model") : reference_shared("reference/nf4");
    if (!dir) { /* the small model has one kv head: nothing to share */
        reference_skip("reference/nf4");
        return;
    }
    struct gyaru_model *model = open_model(dir, 2);
    struct backend_candidates *candidates = model->candidates;
    assert_non_null(candidates);
    for (size_t i = 0; i < N_SETTINGS; i++)
        for (uint64_t seed = 1; seed <= 1; seed++) {
            int32_t got[2][16], want[2][16];
            answer(model, &settings[i], seed, got);
            model->candidates = NULL; /* all logits come back */
            answer(model, &settings[i], seed, want);
            model->candidates = candidates;
            assert_memory_equal(got, want, sizeof got);
        }
    gyaru_model_close(model);
    free(dir);
}

/* One argument: the tests to run, by a pattern such as "graphs*". */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_give_the_same_ids),
        cmocka_unit_test(tokens_are_remembered),
        cmocka_unit_test(tokens_are_penalised),
        cmocka_unit_test(odd_logits_are_fetched),
        cmocka_unit_test(host_tables_hold_the_same_rows),
        cmocka_unit_test(answers_are_those_of_all_logits),
    };
    struct backend_device *device;
    random_seed(5);
    if (backend_open(DEVICE, 1, &gpu, &device, &err))
        return gpus_missing(err.text);
    gpu->close(device);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
