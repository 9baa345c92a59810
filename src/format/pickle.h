/*
 * pickle.h - the pickle inside a torch.save file, read as a description of tensors.
 *
 * Only what torch writes for dict[int -> one-dimensional float tensor] is understood. An opcode
 * or a global outside the allow-list refuses the file and is named with its position. Source:
 * pickle protocol 2, torch._utils._rebuild_tensor_v2.
 */
#ifndef FORMAT_PICKLE_H
#define FORMAT_PICKLE_H

#include "base/error.h"
#include "format/tensor.h"

/* Bytes of the largest pickle that is read, and entries of the largest dict: far more than a
 * vector for any model needs. Together they bound memory and time. */
#define PICKLE_LIMIT       ((size_t)1 << 20)
#define PICKLE_ENTRIES_MAX 4096

struct pickle_storage {
    enum dtype dtype; /* F16, BF16 or F32 */
    const char *key;  /* [key_len] view into the pickle: the member data/KEY; holds no '/' or NUL */
    size_t key_len;
    uint64_t n; /* elements */
};

struct pickle_entry {
    int64_t key;
    size_t storage;     /* index */
    uint64_t offset, n; /* elements within the storage, checked against its n */
};

struct pickle {
    struct pickle_storage *storages; /* distinct keys */
    size_t n_storages;
    struct pickle_entry *entries; /* in the dict's order, distinct keys */
    size_t n_entries;
};

/* `path` stands in messages. `data` must outlive *out. */
int pickle_read(const uint8_t *data, size_t size, const char *path, struct pickle *out,
                struct gyaru_error *err);
void pickle_release(struct pickle *pickle);

#endif
