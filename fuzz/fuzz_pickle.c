/* fuzz_pickle.c - the pickle without the zip, whose checksums would keep the fuzzer out. */
#include "feed.h"
#include "format/pickle.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pickle p;
    struct gyaru_error err = {0};
    if (pickle_read(data, size, "fuzz", &p, &err)) {
        FEED_CHECK_ERROR(err);
        return 0;
    }
    for (size_t i = 0; i < p.n_storages; i++) {
        const struct pickle_storage *s = &p.storages[i];
        if (s->key_len < 1 || (const uint8_t *)s->key < data ||
            (const uint8_t *)s->key + s->key_len > data + size || memchr(s->key, '/', s->key_len))
            abort();
    }
    for (size_t i = 0; i < p.n_entries; i++) {
        const struct pickle_entry *e = &p.entries[i];
        if (e->storage >= p.n_storages || e->n < 1 || e->offset > p.storages[e->storage].n ||
            e->n > p.storages[e->storage].n - e->offset)
            abort();
    }
    pickle_release(&p);
    return 0;
}
