/*
 * torch_pt.h - a torch.save file that holds dict[int -> one-dimensional float tensor].
 *
 * The pickle is interpreted structurally by a small allow-list of opcodes and globals; nothing is
 * ever executed. Source: torch's zip serialisation, pickle protocol 2.
 */
#ifndef FORMAT_TORCH_PT_H
#define FORMAT_TORCH_PT_H

#include "base/error.h"

struct torch_pt_entry {
    int64_t key;
    size_t n;      /* elements */
    float *values; /* [n], converted from half, bfloat16 or float */
};

struct torch_pt {
    struct torch_pt_entry *entries; /* in the file's order */
    size_t n_entries;
};

int torch_pt_read(const char *path, struct torch_pt *out, struct gyaru_error *err);
void torch_pt_release(struct torch_pt *pt);

/* Writes float16 tensors that torch.load(weights_only=True) reads; replaces `path` atomically. */
int torch_pt_write(const char *path, const struct torch_pt *pt, struct gyaru_error *err);

#endif
