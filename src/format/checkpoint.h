/*
 * checkpoint.h - all tensors of a Hugging Face directory, sharded or not.
 *
 * Reads DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json names (plain
 * file names only: no separators, no "..").
 */
#ifndef FORMAT_CHECKPOINT_H
#define FORMAT_CHECKPOINT_H

#include "base/error.h"
#include "format/safetensors.h"

struct checkpoint;

int checkpoint_open(const char *dir, struct checkpoint **out, struct gyaru_error *err);
void checkpoint_close(struct checkpoint *checkpoint);

size_t checkpoint_count(const struct checkpoint *checkpoint);
const struct tensor *checkpoint_at(const struct checkpoint *checkpoint, size_t i);
const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name);

/* The files of the checkpoint, by name: what each holds, and its name within the directory. */
size_t checkpoint_shards(const struct checkpoint *checkpoint);
const struct safetensors *checkpoint_shard(const struct checkpoint *checkpoint, size_t i,
                                           const char **name);

#endif
