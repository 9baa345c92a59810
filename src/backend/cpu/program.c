/*
 * program.c - runs the recorded operations of a step on all threads, in one of two ways.
 *
 * By tiles: one operation after the other, each with its loops shared by all threads. All weights
 * are read once, but every operation ends with everybody waiting, and reads what other cores have
 * just written.
 *
 * By rows: every thread takes its own rows through many operations without meeting anybody. That
 * needs rows enough that decoding all weights for the few of them costs little, and weights that
 * stay in the cache: every thread reads them all. Only attention looks at other rows, and only at
 * those of the same slot: where parts share a slot they meet before it.
 */
#include "backend/cpu/stage.h"

#define ROWS_PER_THREAD 4
#define CACHED_BYTES    ((size_t)24 << 20) /* of weights, beside as much of everything else */

static bool worth_splitting(const struct backend_stage *stage)
{
    size_t bytes = 0;
    if (stage->device->threads < 2 || stage->n / stage->device->threads < ROWS_PER_THREAD)
        return false;
    for (int i = 0; i < stage->n_ops; i++)
        for (int j = 0; j < 3 && stage->ops[i].weights[j]; j++)
            if (stage->ops[i].run != cpu_embed) /* which reads some rows only */
                bytes += stage->ops[i].weights[j]->bytes;
    return bytes <= CACHED_BYTES;
}

/* First row of a part. */
static int first_row(const struct backend_stage *stage, int part)
{
    return (int)((int64_t)stage->n * part / stage->device->threads);
}

static bool slots_are_shared(struct backend_stage *stage)
{
    for (int i = 0; i < stage->shape.n_slots; i++)
        stage->owners[i] = -1;
    for (int part = 0; part < stage->device->threads; part++)
        for (int r = first_row(stage, part); r < first_row(stage, part + 1); r++) {
            int *owner = &stage->owners[stage->rows[r].slot];
            if (*owner >= 0 && *owner != part)
                return true;
            *owner = part;
        }
    return false;
}

struct segment {
    struct backend_stage *stage;
    int first, end; /* of the operations */
};

static void run_segment(const struct segment *s, struct cpu_part *part)
{
    for (int i = s->first; i < s->end; i++)
        s->stage->ops[i].run(part, &s->stage->ops[i]);
}

static void run_parts(void *arg, size_t first, size_t end, int thread)
{
    const struct segment *s = arg;
    for (size_t i = first; i < end; i++) {
        int row = first_row(s->stage, (int)i);
        run_segment(s, &(struct cpu_part){.stage = s->stage,
                                          .first = row,
                                          .n = first_row(s->stage, (int)i + 1) - row,
                                          .thread = thread});
    }
}

void cpu_run_program(struct backend_stage *stage)
{
    struct segment s = {.stage = stage, .end = stage->n_ops};
    if (!worth_splitting(stage)) {
        run_segment(&s, &(struct cpu_part){.stage = stage, .n = stage->n, .shared = true});
    } else {
        bool meet = slots_are_shared(stage);
        for (; s.first < stage->n_ops; s.first = s.end) {
            s.end = s.first + 1;
            while (s.end < stage->n_ops && !(meet && stage->ops[s.end].run == cpu_attend))
                s.end++;
            pool_run(stage->device->pool, (size_t)stage->device->threads, 1, run_parts, &s);
        }
    }
    stage->n_ops = 0;
}
