/* fuzz_gguf.c - an accepted vector is complete: all values there, layers from 1, written again. */
#include "feed.h"
#include "format/gguf.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf_vector v;
    struct gyaru_error err = {0};
    if (gguf_vector_read(feed_file(data, size), &v, &err)) {
        FEED_CHECK_ERROR(err);
        return 0;
    }
    size_t total = 0;
    float sum = 0;
    for (size_t i = 0; i < v.n_directions; i++) {
        if (v.directions[i].layer < 1)
            abort();
        for (size_t k = 0; k < v.n; k++)
            sum += v.directions[i].values[k];
        total += 4 * v.n;
    }
    volatile float sink = sum;
    (void)sink;
    if (total > size)
        abort();
    gguf_vector_release(&v);
    return 0;
}
