/* chat.c - see chat.h. */
#include "server/chat.h"

#include <stdlib.h>
#include <string.h>

void chat_init(struct chat *chat, size_t limit)
{
    *chat = (struct chat){.limit = limit};
}

void chat_clear(struct chat *chat)
{
    while (chat->n)
        chat_pop(chat);
    chat->dropped = 0;
}

void chat_release(struct chat *chat)
{
    chat_clear(chat);
    free(chat->turns);
    free(chat->system);
    *chat = (struct chat){0};
}

int chat_set_system(struct chat *chat, const char *text)
{
    char *copy = NULL;
    if (text && *text) {
        copy = strdup(text);
        if (!copy)
            return -1;
    }
    free(chat->system);
    chat->system = copy;
    return 0;
}

static void drop_oldest(struct chat *chat)
{
    chat->bytes -= strlen(chat->turns[0].content);
    free((char *)chat->turns[0].content);
    chat->n--;
    memmove(chat->turns, chat->turns + 1, chat->n * sizeof *chat->turns);
    chat->dropped++;
}

int chat_add(struct chat *chat, bool assistant, const char *text, size_t len)
{
    if (chat->n == chat->cap) {
        size_t cap = chat->cap ? chat->cap * 2 : 16;
        struct gyaru_message *turns = realloc(chat->turns, cap * sizeof *turns);
        if (!turns)
            return -1;
        chat->turns = turns;
        chat->cap = cap;
    }
    char *copy = malloc(len + 1);
    if (!copy)
        return -1;
    if (len)
        memcpy(copy, text, len);
    copy[len] = '\0';
    chat->turns[chat->n++] = (struct gyaru_message){assistant ? "assistant" : "user", copy};
    chat->bytes += len;
    while (chat->n > 1 && chat->bytes > chat->limit)
        drop_oldest(chat);
    return 0;
}

void chat_pop(struct chat *chat)
{
    struct gyaru_message *last = &chat->turns[--chat->n];
    chat->bytes -= strlen(last->content);
    free((char *)last->content);
}

int chat_copy(const struct chat *chat, struct gyaru_message **messages, size_t *n)
{
    size_t total = chat->n + (chat->system ? 1 : 0), done = 0;
    struct gyaru_message *copy = calloc(total ? total : 1, sizeof *copy);
    if (!copy)
        return -1;
    if (chat->system)
        copy[done++] = (struct gyaru_message){"system", strdup(chat->system)};
    for (size_t i = 0; i < chat->n; i++)
        copy[done++] = (struct gyaru_message){chat->turns[i].role, strdup(chat->turns[i].content)};
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
