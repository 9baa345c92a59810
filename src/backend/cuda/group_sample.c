/*
 * group_sample.c - logits of a group: each member has those of its own ids, numbered from 0.
 *
 * Candidates are what backend.h promises, of each member's ids: together they are so too, once what
 * lies below the least of any member's is left out, for another may hold more of that size.
 * A member that does not have the step's token among its ids is told of id `vocab`, which is none.
 */
#include "backend/cuda/group.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int group_sample_init(struct group_stage *s, struct gyaru_error *err)
{
    size_t n = (size_t)s->shape.max_logits, rows = (size_t)s->shape.max_rows;
    s->logits = malloc(n * (size_t)s->shape.vocab * sizeof *s->logits);
    if (!s->logits)
        return error_memory(err, n * (size_t)s->shape.vocab * sizeof *s->logits, "logits");
    for (int m = 0; m < s->group->n; m++) {
        s->found[m] = calloc(n, sizeof *s->found[m]);
        if (!s->found[m])
            return error_memory(err, n * sizeof *s->found[m], "candidates");
        cuda_enter(s->members[m]->device);
        if (cuda_check(cudaHostAlloc((void **)&s->rows[m], rows * sizeof *s->rows[m],
                                     cudaHostAllocDefault),
                       "pinned memory", err))
            return -1;
    }
    return 0;
}

void group_sample_release(struct group_stage *s)
{
    for (int m = 0; m < s->group->n; m++) {
        free(s->found[m]);
        (void)cudaFreeHost(s->rows[m]);
    }
    free(s->logits);
}

void group_op_candidates(struct backend_stage *stage, struct backend_candidates *out)
{
    struct group_stage *s = group_stage_of(stage);
    s->out = out;
    for (int m = 0; m < s->group->n; m++)
        cuda_op_candidates(s->members[m], s->found[m]);
}

/* Of ids 0..n-1 of all, how many are a member's. */
static int32_t own_ids(const struct quant_span *ids, int32_t n)
{
    int32_t left = n - (int32_t)ids->first;
    return left < 0 ? 0 : left < (int32_t)ids->n ? left : (int32_t)ids->n;
}

static int32_t own_token(const struct quant_span *ids, int32_t token)
{
    int32_t own = token - (int32_t)ids->first;
    return own >= 0 && own < (int32_t)ids->n ? own : (int32_t)ids->n;
}

/* Nothing after this point of the step reads the rows' tokens but the choice. */
void group_results(struct group_stage *s, int m)
{
    struct backend_stage *member = s->members[m];
    const struct step_list *list = &member->step;
    for (int r = 0; s->out && r < list->n; r++) {
        struct cuda_row *row = &s->rows[m][r];
        *row = member->rows_host[r];
        row->token = own_token(&s->ids[m], row->token);
        row->choice.n_ids = own_ids(&s->ids[m], row->choice.n_ids);
    }
    if (s->out)
        (void)cudaMemcpyAsync(member->rows, s->rows[m], (size_t)list->n * sizeof *member->rows,
                              cudaMemcpyHostToDevice, member->device->stream);
    cuda_step_results(member, list);
}

/* ---- what came back ---------------------------------------------------------------------------
 */

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The bound, or a higher one that leaves at most BACKEND_CANDIDATES; INFINITY if none does. */
static float bound_of(const struct group_stage *s, int row, float bound)
{
    float values[BACKEND_DEVICES * BACKEND_CANDIDATES];
    int n = 0;
    for (int m = 0; m < s->group->n; m++)
        for (int i = 0; i < s->found[m][row].n; i++)
            if (s->found[m][row].best[i].logit >= bound)
                values[n++] = s->found[m][row].best[i].logit;
    if (n <= BACKEND_CANDIDATES)
        return bound;
    qsort(values, (size_t)n, sizeof *values, descending);
    int last = BACKEND_CANDIDATES - 1; /* equal ones come all or not at all */
    while (last >= 0 && values[last] == values[BACKEND_CANDIDATES])
        last--;
    return last < 0 ? INFINITY : values[last];
}

/* The least logit of a list, -INFINITY where it has all of the member's ids. */
static float least_of(const struct backend_candidates *c, int32_t n_ids)
{
    float least = INFINITY;
    if (c->n == n_ids)
        return -INFINITY;
    for (int i = 0; i < c->n; i++)
        least = c->best[i].logit < least ? c->best[i].logit : least;
    return least;
}

/* One row's, of all members. */
static void merge(const struct group_stage *s, int row, const struct backend_choice *choice,
                  struct backend_candidates *out)
{
    float bound = -INFINITY;
    bool known = true;
    *out = (struct backend_candidates){.max = -INFINITY};
    for (int m = 0; m < s->group->n; m++) {
        const struct backend_candidates *c = &s->found[m][row];
        float least = least_of(c, own_ids(&s->ids[m], choice->n_ids));
        known = known && c->n >= 0;
        bound = least > bound ? least : bound;
        out->max = c->max > out->max ? c->max : out->max;
    }
    double mass = 0;
    for (int m = 0; m < s->group->n; m++) {
        const struct backend_candidates *c = &s->found[m][row];
        if (choice->temperature > 0 && c->mass > 0)
            mass += (double)c->mass *
                    exp(((double)c->max - (double)out->max) / (double)choice->temperature);
    }
    out->mass = (float)mass;
    if (known)
        bound = bound_of(s, row, bound);
    for (int m = 0; m < s->group->n; m++)
        for (int i = 0; known && i < s->found[m][row].n; i++) {
            struct backend_candidate c = s->found[m][row].best[i];
            if (c.logit >= bound)
                out->best[out->n++] =
                    (struct backend_candidate){c.logit, c.id + (int32_t)s->ids[m].first};
        }
    if (!out->n)
        out->n = -1;
}

void group_gather(struct group_stage *s)
{
    const struct step_list *list = &s->members[0]->step;
    size_t vocab = (size_t)s->shape.vocab;
    for (int r = 0; s->out && r < list->n; r++) {
        const struct cuda_row *row = &s->members[0]->rows_host[r];
        if (row->logits >= 0)
            merge(s, row->logits, &row->choice, &s->out[row->logits]);
    }
    for (int m = 0; m < s->group->n; m++)
        for (size_t i = 0; !s->out && i < (size_t)list->n_logits; i++)
            memcpy(s->logits + i * vocab + s->ids[m].first,
                   s->members[m]->logits_host + i * s->ids[m].n, s->ids[m].n * sizeof *s->logits);
}

int group_fetch(struct backend_stage *stage, int row, float **logits, struct gyaru_error *err)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++) {
        float *part;
        if (cuda_fetch(s->members[m], row, &part, err))
            return -1;
        *logits = s->logits + (size_t)row * (size_t)s->shape.vocab;
        memcpy(*logits + s->ids[m].first, part, s->ids[m].n * sizeof *part);
    }
    return 0;
}

int group_remember(struct backend_stage *stage, int slot, const uint8_t *seen,
                   struct gyaru_error *err)
{
    struct group_stage *s = group_stage_of(stage);
    for (int m = 0; m < s->group->n; m++)
        if (cuda_remember(s->members[m], slot, seen + s->ids[m].first, err))
            return -1;
    return 0;
}
