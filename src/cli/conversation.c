/* conversation.c - see conversation.h. */
#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>

void conversation_clear(struct conversation *c)
{
    while (c->n)
        conversation_drop_last(c);
}

void conversation_release(struct conversation *c)
{
    conversation_clear(c);
    free(c->turns);
    free(c->system);
    *c = (struct conversation){0};
}

int conversation_set_system(struct conversation *c, const char *text, struct gyaru_error *err)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        return error_memory(err, strlen(text), "the system prompt");
    free(c->system);
    c->system = copy;
    return 0;
}

int conversation_add(struct conversation *c, const char *text, struct gyaru_error *err)
{
    if (c->n == c->n_room) {
        size_t room = c->n_room ? 2 * c->n_room : 16;
        char **turns = realloc(c->turns, room * sizeof *turns);
        if (!turns)
            return error_memory(err, room * sizeof *turns, "the conversation");
        c->turns = turns;
        c->n_room = room;
    }
    if (!(c->turns[c->n] = strdup(text)))
        return error_memory(err, strlen(text), "the conversation");
    c->n++;
    return 0;
}

void conversation_drop_last(struct conversation *c)
{
    if (c->n)
        free(c->turns[--c->n]);
}

static void drop_first_turn(struct conversation *c)
{
    free(c->turns[0]);
    free(c->turns[1]);
    c->n -= 2;
    memmove(c->turns, c->turns + 2, c->n * sizeof *c->turns);
}

static int encode(const struct conversation *c, const struct gyaru_tokenizer *tokenizer,
                  int32_t **ids, size_t *n_ids, struct gyaru_error *err)
{
    struct gyaru_message *messages = calloc(c->n + 1, sizeof *messages);
    if (!messages)
        return error_memory(err, (c->n + 1) * sizeof *messages, "the conversation");
    size_t n = 0;
    if (c->system)
        messages[n++] = (struct gyaru_message){"system", c->system};
    for (size_t i = 0; i < c->n; i++)
        messages[n++] = (struct gyaru_message){i % 2 ? "assistant" : "user", c->turns[i]};
    int rc = gyaru_chat_encode(tokenizer, messages, n, true, ids, n_ids, err);
    free(messages);
    return rc;
}

int conversation_prompt(struct conversation *c, const struct gyaru_tokenizer *tokenizer,
                        size_t room, int32_t **ids, size_t *n_ids, size_t *n_dropped,
                        struct gyaru_error *err)
{
    *n_dropped = 0;
    for (;;) {
        int32_t *list;
        size_t n;
        if (encode(c, tokenizer, &list, &n, err))
            return -1;
        if (n <= room) {
            *ids = list;
            *n_ids = n;
            return 0;
        }
        free(list);
        if (c->n < 3)
            return error_set(err, GYARU_USAGE,
                             "the message takes %zu tokens where %zu have room: shorten it, or "
                             "start with a larger --context",
                             n, room);
        drop_first_turn(c);
        ++*n_dropped;
    }
}
