/*
 * pool.c - see pool.h.
 *
 * A loop is one 64-bit ticket: its number, its parts, and the next part to be done. Whoever moves
 * the ticket on owns that part. The loop's other fields are written before its ticket and only
 * after all parts of the loop before are done; so a thread that moved the ticket on has read the
 * fields of this very loop. Late or sleeping threads are not waited for: they find no part left.
 *
 * Waiting is spinning for some microseconds, as long as loops follow each other, then sleeping:
 * spinning any longer would take from other programs (a game, OBS, the page's own browser) the
 * time that the awaited thread needs.
 */
#include "base/pool.h"

#include "base/clock.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PARTS_PER_THREAD 16
#define PART_BITS        20
#define PART_MASK        ((1u << PART_BITS) - 1)
#define IDLE_SECONDS     20e-6  /* spinning between loops */
#define END_SECONDS      200e-6 /* for the last parts, which others are at */
#define SPINS            32     /* between looks at the clock */
#define CACHE_LINE       64

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int threads;
    struct worker *workers; /* [threads - 1] */
    int started;
    cpu_set_t allowed; /* processors of this process */
    bool apart;        /* workers are kept off the runner's processor */
    int cpu;           /* the one they are kept off; -1: none yet */
    /* Who runs a loop writes these, all others read. */
    _Alignas(CACHE_LINE) _Atomic uint32_t posted; /* loops begun; a futex */
    _Atomic(pool_work *) work;
    _Atomic(void *) arg;
    atomic_size_t n, grain;
    atomic_bool stop;
    _Alignas(CACHE_LINE) _Atomic uint64_t ticket; /* loop << 40 | parts << 20 | next part */
    _Alignas(CACHE_LINE) _Atomic uint32_t left;   /* parts that are not done; a futex */
    _Alignas(CACHE_LINE) atomic_bool asleep;      /* some worker sleeps, or is about to */
    atomic_bool waiting;                          /* the runner does */
};

/* ---- waiting -------------------------------------------------------------------------------- */

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Spins until the word is (or, with `change`, is no longer) the value; false: not for so long. */
static bool spin(_Atomic uint32_t *word, uint32_t value, bool change, double seconds)
{
    double end = 0;
    for (;;) {
        for (int i = 0; i < SPINS; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == value) != change)
                return true;
            relax();
        }
        double now = clock_seconds();
        if (end <= 0)
            end = now + seconds;
        else if (now > end)
            return false;
    }
}

/* ---- working -------------------------------------------------------------------------------- */

/* Takes parts of the posted loop until none is left. */
static void work_on(struct pool *pool, int thread)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    uint32_t done = 0;
    for (;;) {
        size_t part = ticket & PART_MASK, parts = ticket >> PART_BITS & PART_MASK;
        if (part >= parts)
            break;
        size_t n = atomic_load_explicit(&pool->n, memory_order_relaxed);
        size_t grain = atomic_load_explicit(&pool->grain, memory_order_relaxed);
        pool_work *work = atomic_load_explicit(&pool->work, memory_order_relaxed);
        void *arg = atomic_load_explicit(&pool->arg, memory_order_relaxed);
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1,
                                                   memory_order_acquire, memory_order_acquire))
            continue;
        size_t first = part * grain;
        work(arg, first, n - first < grain ? n : first + grain, thread);
        done++;
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
        /* The loop cannot be over before this thread's parts are counted. */
    }
    if (done && atomic_fetch_sub(&pool->left, done) == done && atomic_load(&pool->waiting))
        futex_wake(&pool->left, 1);
}

static void *worker_main(void *data)
{
    struct worker *worker = data;
    struct pool *pool = worker->pool;
    uint32_t seen = 0;
    while (!atomic_load(&pool->stop)) {
        if (!spin(&pool->posted, seen, true, IDLE_SECONDS)) {
            atomic_store(&pool->asleep, true);
            futex_wait(&pool->posted, seen); /* not if it was posted in between */
        }
        uint32_t posted = atomic_load(&pool->posted);
        if (posted == seen)
            continue;
        seen = posted;
        work_on(pool, worker->index);
    }
    return NULL;
}

/* The system likes to wake a thread where the one that wakes it runs: there it would wait for the
 * very thread that waits for it, and threads that seldom run for long are not moved elsewhere. */
static void keep_apart(struct pool *pool)
{
    int cpu = sched_getcpu();
    if (cpu == pool->cpu || cpu < 0 || cpu >= CPU_SETSIZE)
        return;
    cpu_set_t others = pool->allowed;
    CPU_CLR(cpu, &others);
    pool->cpu = cpu;
    for (int i = 0; i < pool->started && CPU_COUNT(&others); i++)
        pthread_setaffinity_np(pool->workers[i].thread, sizeof others, &others);
}

static void post(struct pool *pool)
{
    if (pool->apart)
        keep_apart(pool);
    atomic_fetch_add(&pool->posted, 1);
    if (atomic_load(&pool->asleep) && atomic_exchange(&pool->asleep, false))
        futex_wake(&pool->posted, pool->threads);
}

static void wait_for_all(struct pool *pool)
{
    if (spin(&pool->left, 0, false, END_SECONDS))
        return;
    atomic_store(&pool->waiting, true);
    uint32_t left;
    while ((left = atomic_load(&pool->left)))
        futex_wait(&pool->left, left);
    atomic_store(&pool->waiting, false);
}

void pool_run(struct pool *pool, size_t n, size_t grain, pool_work *work, void *arg)
{
    size_t most = (size_t)pool->threads * PARTS_PER_THREAD;
    if (!grain)
        grain = 1;
    size_t parts = n / grain + (n % grain != 0);
    if (parts > most)
        parts = most;
    if (parts <= 1 || pool->threads == 1) {
        if (n)
            work(arg, 0, n, 0);
        return;
    }
    grain = n / parts + (n % parts != 0); /* equal ones */
    parts = n / grain + (n % grain != 0);
    atomic_store_explicit(&pool->n, n, memory_order_relaxed);
    atomic_store_explicit(&pool->grain, grain, memory_order_relaxed);
    atomic_store_explicit(&pool->work, work, memory_order_relaxed);
    atomic_store_explicit(&pool->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&pool->left, (uint32_t)parts, memory_order_relaxed);
    uint64_t number = atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 2 * PART_BITS;
    atomic_store_explicit(&pool->ticket,
                          (number + 1) << 2 * PART_BITS | (uint64_t)parts << PART_BITS,
                          memory_order_release);
    post(pool);
    work_on(pool, 0);
    wait_for_all(pool);
}

/* ---- beginning and end ---------------------------------------------------------------------- */

/* Signals are for the program's own threads. */
static int start_workers(struct pool *pool)
{
    sigset_t all, before;
    int rc = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; !rc && pool->started < pool->threads - 1; pool->started += !rc) {
        struct worker *w = &pool->workers[pool->started];
        *w = (struct worker){.pool = pool, .index = pool->started + 1};
        rc = pthread_create(&w->thread, NULL, worker_main, w);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int pool_new(int threads, struct pool **out, struct gyaru_error *err)
{
    if (threads < 1 || threads > (int)(PART_MASK / PARTS_PER_THREAD))
        return error_set(err, GYARU_USAGE, "%d threads: expected 1..%d", threads,
                         (int)(PART_MASK / PARTS_PER_THREAD));
    struct pool *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
    if (!pool)
        return error_memory(err, sizeof *pool, "the threads");
    memset(pool, 0, sizeof *pool);
    pool->threads = threads;
    pool->cpu = -1;
    pool->apart = !sched_getaffinity(0, sizeof pool->allowed, &pool->allowed) &&
                  CPU_COUNT(&pool->allowed) > 1;
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        pool_free(pool);
        return error_memory(err, (size_t)threads * sizeof *pool->workers, "the threads");
    }
    int rc = start_workers(pool);
    if (rc) {
        pool_free(pool);
        return error_set(err, GYARU_FAILED, "%d threads: cannot start them: %s: use --threads N",
                         threads, strerror(rc));
    }
    *out = pool;
    return 0;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->posted, 1);
    futex_wake(&pool->posted, pool->threads);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    free(pool->workers);
    free(pool);
}

int pool_processors(void)
{
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN); /* more than a cpu_set_t holds */
    return n > 0 && n < 4096 ? (int)n : 1;
}
