/* prompt.c - see prompt.h. */
#include "talk/prompt.h"

#include <stdlib.h>
#include <string.h>

/* A conversation that is too long loses this part of its room at a time. */
#define DROP_BLOCKS 4

struct fitting {
    const struct gyaru_model *model;
    const struct gyaru_message *messages;
    struct gyaru_message *kept; /* [n] scratch */
    size_t n, n_fixed;          /* n_fixed leading messages always stay */
    int32_t *ids;
    size_t n_ids;
};

/* Encodes the conversation without its `dropped` oldest turns. */
static int encode_without(struct fitting *f, size_t dropped, struct gyaru_error *err)
{
    size_t rest = f->n - f->n_fixed - dropped;
    memcpy(f->kept, f->messages, f->n_fixed * sizeof *f->kept);
    memcpy(f->kept + f->n_fixed, f->messages + f->n - rest, rest * sizeof *f->kept);
    free(f->ids);
    f->ids = NULL;
    return gyaru_chat_encode(gyaru_model_tokenizer(f->model), f->kept, f->n_fixed + rest, true,
                             &f->ids, &f->n_ids, err);
}

/* Finds the number of turns to leave out: enough, and so that what is left out has a whole number
 * of blocks of tokens. So the next questions leave out the same, and find their prompt's beginning
 * in the cache. Dropping more never makes a prompt longer: bisection finds it in a few encodings
 * however long the conversation is. */
static int fit(struct fitting *f, size_t room, size_t *dropped, struct gyaru_error *err)
{
    size_t low = 0, high = f->n - f->n_fixed - 1; /* the answer lies in low..high */
    if (encode_without(f, 0, err))
        return -1;
    if (f->n_ids <= room) {
        *dropped = 0;
        return 0;
    }
    size_t block = room / DROP_BLOCKS + 1;
    size_t drop = (f->n_ids - room + block - 1) / block * block;
    size_t target = f->n_ids - drop; /* > room - block */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (encode_without(f, middle, err))
            return -1;
        if (f->n_ids <= target)
            high = middle;
        else
            low = middle + 1;
    }
    *dropped = low;
    return encode_without(f, low, err);
}

int prompt_encode(const struct gyaru_model *model, const struct gyaru_message *messages, size_t n,
                  int max_tokens, int32_t **ids, size_t *n_ids, size_t *dropped,
                  struct gyaru_error *err)
{
    size_t context = (size_t)gyaru_model_info(model)->context;
    size_t reserve = context / 4;
    if (max_tokens > 0 && (size_t)max_tokens < reserve)
        reserve = (size_t)max_tokens;
    struct fitting f = {.model = model, .messages = messages, .n = n};
    f.n_fixed = n > 1 && !strcmp(messages[0].role, "system") ? 1 : 0;
    f.kept = calloc(n, sizeof *f.kept);
    if (!f.kept)
        return error_memory(err, n * sizeof *f.kept, "a prompt");
    int rc = fit(&f, context - reserve, dropped, err);
    free(f.kept);
    if (!rc && f.n_ids >= context)
        rc = error_reason(err, GYARU_USAGE, REASON_CONTEXT,
                          "the message is too long: %zu tokens with the system prompt, but the "
                          "context holds %zu; shorten it",
                          f.n_ids, context);
    if (rc) {
        free(f.ids);
        return -1;
    }
    *ids = f.ids;
    *n_ids = f.n_ids;
    return 0;
}
