/*
 * texts.h - files of messages and of system prompts, and lists of numbers on the command line, for
 * `measure` and `tune`.
 */
#ifndef CLI_TEXTS_H
#define CLI_TEXTS_H

#include <gyaru.h>

struct text_list {
    char **items; /* [n] owned */
    size_t n;
};

#define TEXTS_MESSAGES "data/heldout_messages.json"
#define TEXTS_PROMPTS  "data/prompts.json"
#define TEXTS_STYLE    "data/gyaru_style.json"

/* A JSON array of texts, or a text file with one message a line (empty lines do not count). NULL:
 * TEXTS_MESSAGES. */
int texts_messages(const char *path, struct text_list *out, struct gyaru_error *err);
void text_list_release(struct text_list *list);

/* The text `index` (0-based) of list `name` in a JSON object {"butler": ["...", ...], ...} (caller
 * frees). NULL: TEXTS_PROMPTS. */
int texts_prompt(const char *path, const char *name, int index, char **out,
                 struct gyaru_error *err);

/* Where the style's file is (caller frees). NULL: TEXTS_STYLE. */
int texts_style(const char *path, char **out, struct gyaru_error *err);

/* What a butler test is made of. */
struct butler_files {
    const char *messages, *style; /* NULL: as above */
    const char *prompts, *prompt; /* the system prompt: which text of which file */
    int prompt_index;
    const char *system; /* in place of the three; NULL: none */
};

struct butler_texts {
    struct text_list messages;
    char *system;
    char *style; /* path */
};

/* `out` must be zero; release it also after a failure. */
int butler_texts_read(const struct butler_files *files, struct butler_texts *out,
                      struct gyaru_error *err);
void butler_texts_release(struct butler_texts *texts);

/* How many messages to use; limit 0 or less: all. */
size_t butler_texts_count(const struct butler_texts *texts, int limit);

/* "0,8,12" (caller frees); each from least to most. `option` stands in the message. */
int numbers_parse(const char *option, const char *text, float least, float most, float **out,
                  size_t *n, struct gyaru_error *err);

#endif
