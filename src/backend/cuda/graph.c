/*
 * graph.c - remembers step lists and replays them as CUDA graphs.
 *
 * A list is run directly the first time and captured the second: lists that come once (prefill's
 * odd tails, evaluations) never pay for a capture. What decides is the list itself - which
 * operations on which weights, how many rows - so that attaching a vector makes a new graph by
 * itself and a change of strength none.
 */
#include "backend/cuda/stage.h"

#include <string.h>

static bool same_list(const struct step_list *a, const struct step_list *b)
{
    return a->n == b->n && a->n_logits == b->n_logits && a->n_ops == b->n_ops &&
           !memcmp(a->ops, b->ops, (size_t)a->n_ops * sizeof *a->ops);
}

static void forget(struct step_graph *g)
{
    if (g->exec)
        (void)cudaGraphExecDestroy(g->exec);
    g->exec = NULL;
    g->list.n_ops = 0;
    g->used = 0;
}

void cuda_graphs_release(struct backend_stage *stage)
{
    for (int i = 0; i < CUDA_GRAPHS; i++)
        forget(&stage->graphs[i]);
}

/* The remembered step, or NULL; what a freed weight or vector made stale is forgotten. */
static struct step_graph *find(struct backend_stage *stage)
{
    struct step_graph *found = NULL;
    for (int i = 0; i < CUDA_GRAPHS; i++) {
        struct step_graph *g = &stage->graphs[i];
        if (g->list.n_ops && g->generation != stage->device->generation)
            forget(g);
        if (g->list.n_ops && same_list(&g->list, &stage->step))
            found = g;
    }
    return found;
}

/* In place of the one that was not used for longest. */
static struct step_graph *remember(struct backend_stage *stage)
{
    struct step_graph *oldest = &stage->graphs[0];
    for (int i = 1; i < CUDA_GRAPHS; i++)
        if (stage->graphs[i].used < oldest->used)
            oldest = &stage->graphs[i];
    forget(oldest);
    struct step_op *ops = oldest->list.ops;
    memcpy(ops, stage->step.ops, (size_t)stage->step.n_ops * sizeof *ops);
    oldest->list = stage->step;
    oldest->list.ops = ops;
    oldest->generation = stage->device->generation;
    oldest->used = ++stage->clock;
    struct step_program *program = &oldest->program;
    cuda_program_build(stage, &oldest->list, stage->phases, program);
    if (program->n) /* from pageable memory: copied when the call returns */
        (void)cudaMemcpyAsync(program->phases, stage->phases,
                              (size_t)program->n * sizeof *stage->phases, cudaMemcpyHostToDevice,
                              stage->device->stream);
    return oldest;
}

static void enqueue(struct backend_stage *stage, const struct step_graph *g)
{
    if (g->program.n)
        cuda_program_enqueue(stage, &g->list, &g->program);
    else
        cuda_step_enqueue(stage, &g->list);
}

static int capture(struct backend_stage *stage, struct step_graph *g, struct gyaru_error *err)
{
    cudaStream_t stream = stage->device->stream;
    cudaGraph_t graph;
    if (cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing",
                   err))
        return -1;
    enqueue(stage, g);
    cudaError_t failed = cudaGetLastError(); /* a launch that did not become a node */
    if (cuda_check(cudaStreamEndCapture(stream, &graph), "capturing", err))
        return -1;
    int rc = cuda_check(failed, "capturing", err);
    if (!rc)
        rc = cuda_check(cudaGraphInstantiate(&g->exec, graph, 0), "building a graph", err);
    (void)cudaGraphDestroy(graph);
    return rc;
}

/* Taps write to memory of the caller, whose address a graph must not keep. */
static bool may_capture(const struct backend_stage *stage)
{
    if (stage->step.n > CUDA_GRAPH_ROWS)
        return false;
    for (int i = 0; i < stage->step.n_ops; i++)
        if (stage->step.ops[i].kind == STEP_TAP)
            return false;
    return true;
}

int cuda_graph_run(struct backend_stage *stage, struct gyaru_error *err)
{
    bool keep = may_capture(stage);
    struct step_graph *g = keep ? find(stage) : NULL;
    if (g && !g->exec && capture(stage, g, err))
        return -1;
    if (g) {
        g->used = ++stage->clock;
        return cuda_check(cudaGraphLaunch(g->exec, stage->device->stream), "starting a step", err);
    }
    if (keep)
        enqueue(stage, remember(stage));
    else
        cuda_step_enqueue(stage, &stage->step);
    return cuda_check(cudaGetLastError(), "starting a step", err);
}
