/* fuzz_torch_pt.c - the zip around the pickle: what is read stays below the file's size. */
#include "feed.h"
#include "format/torch_pt.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct torch_pt pt;
    struct gyaru_error err = {0};
    if (torch_pt_read(feed_file(data, size), &pt, &err)) {
        FEED_CHECK_ERROR(err);
        return 0;
    }
    size_t total = 0;
    float sum = 0;
    for (size_t i = 0; i < pt.n_entries; i++) {
        for (size_t k = 0; k < pt.entries[i].n; k++)
            sum += pt.entries[i].values[k];
        total += 2 * pt.entries[i].n;
    }
    volatile float sink = sum;
    (void)sink;
    if (total > size)
        abort();
    torch_pt_release(&pt);
    return 0;
}
