/*
 * test_pool.c - every part of a loop is done once, by threads that each have a number of their own,
 * whatever their count; starting and stopping. Under SAN=thread also that loops hand over in order.
 */
#include "base/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MOST 5000

static struct pool *open_pool(int threads)
{
    struct gyaru_error err;
    struct pool *pool;
    if (pool_new(threads, &pool, &err))
        fail_msg("%s", err.text);
    return pool;
}

/* Plain counters: two threads at one of them would be a race and, now and then, a wrong sum. */
struct counts {
    int done[MOST];
    int by_thread[64];
    atomic_int inside[64];
    atomic_int faults;
    int threads;
    size_t n;
    atomic_size_t calls;
};

static void count(void *arg, size_t first, size_t end, int thread)
{
    struct counts *c = arg;
    bool odd = thread < 0 || thread >= c->threads || first >= end || end > c->n;
    if (odd || atomic_fetch_add(&c->inside[thread], 1)) {
        atomic_fetch_add(&c->faults, 1);
        return;
    }
    for (size_t i = first; i < end; i++)
        c->done[i]++;
    c->by_thread[thread] += (int)(end - first);
    atomic_fetch_add(&c->calls, 1);
    atomic_fetch_sub(&c->inside[thread], 1);
}

static void check_loop(struct pool *pool, int threads, size_t n, size_t grain)
{
    static struct counts c;
    memset(&c, 0, sizeof c);
    c.threads = threads;
    c.n = n;
    pool_run(pool, n, grain, count, &c);
    assert_int_equal(atomic_load(&c.faults), 0);
    int sum = 0;
    for (int t = 0; t < threads; t++)
        sum += c.by_thread[t];
    assert_int_equal(sum, (int)n);
    for (size_t i = 0; i < MOST; i++)
        assert_int_equal(c.done[i], i < n);
    size_t most = grain ? n / grain + (n % grain != 0) : n;
    assert_true(atomic_load(&c.calls) <= most);
    assert_true(n == 0 || atomic_load(&c.calls) > 0);
}

static void every_part_once(void **state)
{
    static const int threads[] = {1, 2, 3, 7, 40};
    static const size_t sizes[] = {0, 1, 2, 3, 15, 16, 17, 33, 100, 1000, MOST};
    static const size_t grains[] = {0, 1, 2, 7, 64, MOST, SIZE_MAX};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        struct pool *pool = open_pool(threads[t]);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++)
                check_loop(pool, threads[t], sizes[s], grains[g]);
        pool_free(pool);
    }
}

/* Loop k+1 reads what all parts of loop k wrote: nobody may be late or early. */
struct chain {
    size_t n, step;
    uint32_t values[2][64];
};

static void add_neighbours(void *arg, size_t first, size_t end, int thread)
{
    struct chain *c = arg;
    const uint32_t *in = c->values[c->step % 2];
    uint32_t *out = c->values[1 - c->step % 2];
    for (size_t i = first; i < end; i++)
        out[i] = in[i] + in[(i + 1) % c->n] * 3 + in[(i + c->n - 1) % c->n];
}

static void run_chain(struct pool *pool, struct chain *c, size_t steps, bool pauses)
{
    memset(c, 0, sizeof *c);
    c->n = 64;
    for (size_t i = 0; i < c->n; i++)
        c->values[0][i] = (uint32_t)i;
    for (c->step = 0; c->step < steps; c->step++) {
        if (pauses && c->step % 16 == 0)
            usleep(200); /* the others fall asleep */
        pool_run(pool, c->n, 1 + c->step % 9, add_neighbours, c);
    }
}

static void loops_follow_each_other(void **state)
{
    struct chain want, got;
    struct pool *alone = open_pool(1);
    run_chain(alone, &want, 1500, false);
    pool_free(alone);
    for (int threads = 2; threads <= 9; threads += 7)
        for (int pauses = 0; pauses < 2; pauses++) {
            struct pool *pool = open_pool(threads);
            run_chain(pool, &got, 1500, pauses);
            pool_free(pool);
            assert_memory_equal(got.values, want.values, sizeof want.values);
        }
}

static void starts_and_stops(void **state)
{
    for (int i = 0; i < 60; i++) {
        struct pool *pool = open_pool(1 + i % 5);
        if (i % 3)
            check_loop(pool, 1 + i % 5, (size_t)i, 1);
        if (i % 7 == 0)
            usleep(300);
        pool_free(pool);
    }
    pool_free(NULL);
}

struct errand {
    struct pool *pool;
    struct chain chain;
};

static void *run_elsewhere(void *arg)
{
    struct errand *errand = arg;
    run_chain(errand->pool, &errand->chain, 50, false);
    return NULL;
}

/* A model is loaded by one thread and may run on another. */
static void may_be_run_by_other_threads(void **state)
{
    struct chain want;
    struct errand job = {.pool = open_pool(3)};
    run_chain(job.pool, &want, 50, false);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, run_elsewhere, &job), 0);
        pthread_join(thread, NULL);
        assert_memory_equal(job.chain.values, want.values, sizeof want.values);
    }
    pool_free(job.pool);
}

static void refuses_odd_counts(void **state)
{
    struct gyaru_error err;
    struct pool *pool;
    assert_int_not_equal(pool_new(0, &pool, &err), 0);
    assert_int_not_equal(pool_new(-1, &pool, &err), 0);
    assert_int_not_equal(pool_new(1 << 20, &pool, &err), 0);
    assert_non_null(strstr(err.text, "threads"));
    assert_true(pool_processors() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_once),    cmocka_unit_test(loops_follow_each_other),
        cmocka_unit_test(starts_and_stops),   cmocka_unit_test(may_be_run_by_other_threads),
        cmocka_unit_test(refuses_odd_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
