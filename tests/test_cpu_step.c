/*
 * test_cpu_step.c - a step of the CPU backend gives the same bits however many threads do it and
 * however they share it (backend/cpu/program.c), and whichever rows are beside a row.
 */
#include "backend/backend.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS 2
#define HIDDEN 48
#define VOCAB  70
#define ROWS   40
#define SLOTS  12

static const struct backend_shape shape = {
    .n_layers = LAYERS,
    .hidden = HIDDEN,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 16,
    .intermediate = 72,
    .vocab = VOCAB,
    .rope_theta = 10000,
    .norm_eps = 1e-6f,
    .n_slots = SLOTS,
    .context = 64,
    .max_rows = ROWS,
    .max_logits = ROWS,
    .kv = GYARU_KV_F32,
};

static void check(int rc, const struct gyaru_error *err)
{
    if (rc)
        fail_msg("%s", err->text);
}

struct layer {
    struct backend_matrix *qkv[3], *output, *gate, *up, *down;
    struct backend_vector *biases[3];
};

struct machine {
    struct backend_device *device;
    struct backend_stage *stage;
    struct layer layers[LAYERS];
    struct backend_matrix *table;
    struct backend_vector *norm, *direction;
};

static struct backend_matrix *matrix(struct machine *m, size_t rows, size_t cols)
{
    struct gyaru_error err;
    struct backend_matrix *out;
    float *values = malloc(rows * cols * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < rows * cols; i++)
        values[i] = 0.3f * random_float();
    struct quant_source source = {
        .type = QUANT_F32, .rows = rows, .cols = cols, .data = (uint8_t *)values};
    check(backend_cpu.matrix_new(m->device, &source, &out, &err), &err);
    free(values);
    return out;
}

static struct backend_vector *vector(struct machine *m, size_t n, float base)
{
    struct gyaru_error err;
    struct backend_vector *out;
    float values[VOCAB];
    for (size_t i = 0; i < n; i++)
        values[i] = base + 0.2f * random_float();
    check(backend_cpu.vector_new(m->device, values, n, &out, &err), &err);
    return out;
}

static void machine_init(struct machine *m, int threads)
{
    struct gyaru_error err;
    random_seed(11);
    check(backend_cpu.open(0, threads, &m->device, &err), &err);
    check(backend_cpu.stage_new(m->device, &shape, &m->stage, &err), &err);
    m->table = matrix(m, VOCAB, HIDDEN);
    m->norm = vector(m, HIDDEN, 1);
    m->direction = vector(m, HIDDEN, 0);
    for (int l = 0; l < LAYERS; l++) {
        struct layer *w = &m->layers[l];
        for (int i = 0; i < 3; i++) {
            w->qkv[i] = matrix(m, i ? 32 : 64, HIDDEN);
            w->biases[i] = vector(m, i ? 32 : 64, 0);
        }
        w->output = matrix(m, HIDDEN, 64);
        w->gate = matrix(m, 72, HIDDEN);
        w->up = matrix(m, 72, HIDDEN);
        w->down = matrix(m, HIDDEN, 72);
    }
}

static void machine_release(struct machine *m)
{
    for (int l = 0; l < LAYERS; l++) {
        struct layer *w = &m->layers[l];
        for (int i = 0; i < 3; i++) {
            backend_cpu.matrix_free(w->qkv[i]);
            backend_cpu.vector_free(w->biases[i]);
        }
        backend_cpu.matrix_free(w->output);
        backend_cpu.matrix_free(w->gate);
        backend_cpu.matrix_free(w->up);
        backend_cpu.matrix_free(w->down);
    }
    backend_cpu.matrix_free(m->table);
    backend_cpu.vector_free(m->norm);
    backend_cpu.vector_free(m->direction);
    backend_cpu.stage_free(m->stage);
    backend_cpu.close(m->device);
}

/* What a step leaves; `edits` more of them than a program holds make it run in pieces. */
struct result {
    int n_logits;
    float logits[ROWS * VOCAB], tap[ROWS * HIDDEN], meter[ROWS * 2];
};

static void run_step(struct machine *m, const struct backend_row *rows, int n, int edits,
                     struct result *out)
{
    const struct backend *b = &backend_cpu;
    struct gyaru_error err;
    float *logits;
    memset(out, 0, sizeof *out);
    b->begin(m->stage, rows, n);
    b->embed(m->stage, m->table);
    for (int l = 0; l < LAYERS; l++) {
        const struct layer *w = &m->layers[l];
        for (int i = 0; i < edits; i++)
            b->edit(m->stage, i % 2, m->direction);
        b->qkv(m->stage, l, m->norm, (const struct backend_matrix *const *)w->qkv,
               (const struct backend_vector *const *)w->biases);
        b->attend(m->stage, l);
        b->project(m->stage, w->output);
        b->gate_up(m->stage, m->norm, w->gate, w->up);
        b->down(m->stage, w->down);
    }
    b->meter(m->stage, m->direction, out->meter);
    b->tap(m->stage, out->tap);
    b->head(m->stage, m->norm, m->table);
    check(b->end(m->stage, &logits, &err), &err);
    for (int r = 0; r < n; r++)
        out->n_logits += rows[r].logits;
    memcpy(out->logits, logits, (size_t)out->n_logits * VOCAB * sizeof(float));
}

/* Rows of `n_slots` slots in turn, or (in_order) one slot after the other, as a prefill. */
static void make_rows(struct backend_row *rows, int n, int n_slots, bool in_order, int pos)
{
    memset(rows, 0, (size_t)n * sizeof *rows);
    for (int r = 0; r < n; r++) {
        int each = (n + n_slots - 1) / n_slots;
        rows[r].slot = in_order ? r / each : r % n_slots;
        rows[r].pos = pos + (in_order ? r % each : r / n_slots);
        rows[r].token = (r * 7 + pos) % VOCAB;
        rows[r].logits = r % 3 != 1;
        rows[r].strength[0] = (float)(r % 4) / 8;
        rows[r].strength[1] = r % 2 ? -0.125f : 0;
    }
}

static void same_bits(const struct result *a, const struct result *b, int threads, int n)
{
    if (memcmp(a, b, sizeof *a))
        fail_msg("%d rows on %d threads are not those of one", n, threads);
}

/* A prompt for every slot, then steps of all sizes, each on one thread and on many. */
static void threads_do_not_tell(void **state)
{
    static const int threads[] = {2, 3, 4, 9};
    static struct result want, got;
    struct machine one, many;
    struct backend_row rows[ROWS];
    machine_init(&one, 1);
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        machine_init(&many, threads[t]);
        make_rows(rows, ROWS, 5, true, 0);
        run_step(&one, rows, ROWS, 1, &want);
        run_step(&many, rows, ROWS, 1, &got);
        same_bits(&want, &got, threads[t], ROWS);
        for (int n = 1; n <= ROWS; n += n < 20 ? 1 : 5)
            for (int kind = 0; kind < 3; kind++) {
                make_rows(rows, n, kind ? (kind == 1 ? 3 : 1) : SLOTS, kind == 1, 8);
                run_step(&one, rows, n, 1, &want);
                run_step(&many, rows, n, 1, &got);
                same_bits(&want, &got, threads[t], n);
            }
        machine_release(&many);
    }
    machine_release(&one);
}

static void neighbours_do_not_tell(void **state)
{
    static struct result all, alone;
    struct machine m;
    struct backend_row rows[ROWS];
    machine_init(&m, 2);
    make_rows(rows, SLOTS, SLOTS, false, 0);
    run_step(&m, rows, SLOTS, 1, &all);
    for (int r = 0, next = 0; r < SLOTS; r++) {
        run_step(&m, rows + r, 1, 1, &alone);
        assert_memory_equal(alone.tap, all.tap + (size_t)r * HIDDEN, HIDDEN * sizeof(float));
        assert_memory_equal(alone.meter, all.meter + 2 * r, 2 * sizeof(float));
        if (rows[r].logits)
            assert_memory_equal(alone.logits, all.logits + (size_t)next++ * VOCAB,
                                VOCAB * sizeof(float));
    }
    machine_release(&m);
}

/* More operations than a program holds. */
static void many_edits(void **state)
{
    static struct result want, got;
    struct machine one, two;
    struct backend_row rows[ROWS];
    machine_init(&one, 1);
    machine_init(&two, 2);
    make_rows(rows, 16, 2, true, 0);
    run_step(&one, rows, 16, 100, &want);
    run_step(&two, rows, 16, 100, &got);
    same_bits(&want, &got, 2, 16);
    run_step(&two, rows, 16, 1, &got);
    assert_memory_not_equal(&got, &want, sizeof want);
    machine_release(&one);
    machine_release(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_tell),
        cmocka_unit_test(neighbours_do_not_tell),
        cmocka_unit_test(many_edits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
