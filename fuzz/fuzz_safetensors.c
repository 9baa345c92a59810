/* fuzz_safetensors.c - every view of an accepted file can be read to its last byte. */
#include "feed.h"
#include "format/safetensors.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *file;
    struct gyaru_error err = {0};
    if (safetensors_open(feed_file(data, size), &file, &err)) {
        FEED_CHECK_ERROR(err);
        return 0;
    }
    size_t total = 0;
    unsigned sum = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor *t = safetensors_at(file, i);
        if (safetensors_find(file, t->name) != t)
            abort();
        for (size_t k = 0; k < t->size; k++)
            sum += t->data[k];
        total += t->size;
    }
    for (size_t i = 0; i < safetensors_metadata_count(file); i++) {
        const char *key, *value;
        safetensors_metadata_at(file, i, &key, &value);
        sum += (unsigned)(strlen(key) + strlen(value));
    }
    safetensors_close(file);
    volatile unsigned sink = sum; /* the reads must not be optimised away */
    (void)sink;
    if (total > size)
        abort();
    return 0;
}
