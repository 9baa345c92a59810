/* conversation.c - see conversation.h. */
#include "talk/conversation.h"

#include <stdlib.h>
#include <string.h>

void conversation_init(struct conversation *conversation, size_t limit)
{
    *conversation = (struct conversation){.limit = limit};
}

void conversation_clear(struct conversation *conversation)
{
    while (conversation->n)
        conversation_pop(conversation);
    conversation->dropped = 0;
}

void conversation_release(struct conversation *conversation)
{
    conversation_clear(conversation);
    free(conversation->turns);
    free(conversation->system);
    *conversation = (struct conversation){0};
}

int conversation_set_system(struct conversation *conversation, const char *text)
{
    char *copy = NULL;
    if (text && *text) {
        copy = strdup(text);
        if (!copy)
            return -1;
    }
    free(conversation->system);
    conversation->system = copy;
    return 0;
}

static void drop_oldest(struct conversation *conversation)
{
    conversation->bytes -= strlen(conversation->turns[0].content);
    free((char *)conversation->turns[0].content);
    conversation->n--;
    memmove(conversation->turns, conversation->turns + 1,
            conversation->n * sizeof *conversation->turns);
    conversation->dropped++;
}

int conversation_add(struct conversation *conversation, bool assistant, const char *text,
                     size_t len)
{
    if (conversation->n == conversation->cap) {
        size_t cap = conversation->cap ? conversation->cap * 2 : 16;
        struct gyaru_message *turns = realloc(conversation->turns, cap * sizeof *turns);
        if (!turns)
            return -1;
        conversation->turns = turns;
        conversation->cap = cap;
    }
    char *copy = malloc(len + 1);
    if (!copy)
        return -1;
    if (len)
        memcpy(copy, text, len);
    copy[len] = '\0';
    conversation->turns[conversation->n++] =
        (struct gyaru_message){assistant ? "assistant" : "user", copy};
    conversation->bytes += len;
    /* A quarter at a time, so that the beginning stays the same for a while. */
    size_t room = conversation->limit;
    if (conversation->bytes > room)
        room = room / 4 * 3;
    while (conversation->n > 1 && conversation->bytes > room)
        drop_oldest(conversation);
    return 0;
}

void conversation_pop(struct conversation *conversation)
{
    struct gyaru_message *last = &conversation->turns[--conversation->n];
    conversation->bytes -= strlen(last->content);
    free((char *)last->content);
}

int conversation_copy(const struct conversation *conversation, struct gyaru_message **messages,
                      size_t *n)
{
    size_t total = conversation->n + (conversation->system ? 1 : 0), done = 0;
    struct gyaru_message *copy = calloc(total ? total : 1, sizeof *copy);
    if (!copy)
        return -1;
    if (conversation->system)
        copy[done++] = (struct gyaru_message){"system", strdup(conversation->system)};
    for (size_t i = 0; i < conversation->n; i++)
        copy[done++] = (struct gyaru_message){conversation->turns[i].role,
                                              strdup(conversation->turns[i].content)};
    for (size_t i = 0; i < total; i++) {
        if (!copy[i].content) {
            messages_free(copy, total);
            return -1;
        }
    }
    *messages = copy;
    *n = total;
    return 0;
}

void messages_free(struct gyaru_message *messages, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free((char *)messages[i].content);
    free(messages);
}
