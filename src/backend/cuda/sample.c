/*
 * sample.c - the host's side of sampling: candidates out of a step, all logits of a row where they
 * do not do, and the ids that the repetition penalty acts on.
 */
#include "backend/cuda/stage.h"

#include <stdlib.h>

void cuda_choose_enqueue(struct backend_stage *stage, const struct step_list *list)
{
    if (!list->n_logits)
        return;
    struct cuda_choose choose = stage->choose;
    choose.rows = stage->rows;
    choose.n = list->n;
    choose.n_logits = list->n_logits;
    choose.logits = stage->logits;
    cuda_choose(&choose, stage->device->stream);
    (void)cudaMemcpyAsync(stage->candidates_host, choose.out,
                          (size_t)list->n_logits * sizeof *choose.out, cudaMemcpyDeviceToHost,
                          stage->device->stream);
}

/* The device counts on past the room there is, and from far below 0 where a logit is not finite. */
void cuda_choose_finish(struct backend_stage *stage)
{
    for (int i = 0; stage->candidates_out && i < stage->step.n_logits; i++) {
        struct backend_candidates *to = &stage->candidates_out[i];
        *to = stage->candidates_host[i];
        if (to->n < 0 || to->n > BACKEND_CANDIDATES)
            to->n = -1;
    }
}

int cuda_fetch(struct backend_stage *stage, int row, float **logits, struct gyaru_error *err)
{
    size_t vocab = (size_t)stage->shape.vocab, at = (size_t)row * vocab;
    if (row < 0 || row >= stage->step.n_logits)
        return error_set(err, GYARU_FAILED, "cuda: logits of row %d: the step has %d", row,
                         stage->step.n_logits);
    cuda_enter(stage->device);
    if (cuda_check(cudaMemcpyAsync(stage->logits_host + at, stage->logits + at,
                                   vocab * sizeof(float), cudaMemcpyDeviceToHost,
                                   stage->device->stream),
                   "fetching logits", err) ||
        cuda_check(cudaStreamSynchronize(stage->device->stream), "fetching logits", err))
        return -1;
    *logits = stage->logits_host + at;
    return 0;
}

int cuda_remember(struct backend_stage *stage, int slot, const uint8_t *seen,
                  struct gyaru_error *err)
{
    size_t words = (size_t)stage->choose.seen_words;
    uint32_t *bits = calloc(words, sizeof *bits);
    if (!bits)
        return error_memory(err, words * sizeof *bits, "the ids of a conversation");
    for (int i = 0; i < stage->shape.vocab; i++)
        bits[i / 32] |= (uint32_t)(seen[i] != 0) << (i % 32);
    cuda_enter(stage->device);
    cudaError_t e =
        cudaMemcpyAsync(stage->choose.seen + (size_t)slot * words, bits, words * sizeof *bits,
                        cudaMemcpyHostToDevice, stage->device->stream);
    if (!e)
        e = cudaStreamSynchronize(stage->device->stream);
    free(bits);
    return cuda_check(e, "the ids of a conversation", err);
}
