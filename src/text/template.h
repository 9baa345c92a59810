/*
 * template.h - ChatML, as the checkpoint's own template writes it.
 *
 * Recognised is every template that, for messages of the roles system, user and assistant, renders
 *
 *     [<|im_start|>system\nDEFAULT<|im_end|>\n]      only if the first message is no system message
 *     <|im_start|>ROLE\nCONTENT<|im_end|>\n          each message, contents as they are
 *     [<|im_start|>assistant\n]                      with add_generation_prompt
 *
 * with any DEFAULT, or none. Not its spelling is compared but what it does: while opening, the
 * template is evaluated (text/jinja.h) on every sequence of up to three roles, with and without
 * generation prompt, and each result must be the text above; DEFAULT is read off the first one.
 * This covers the templates of Qwen2.5 and Qwen2, the common ChatML ones, and their rewordings.
 */
#ifndef TEXT_TEMPLATE_H
#define TEXT_TEMPLATE_H

#include "base/json.h"
#include "base/sha256.h"

#define CHAT_IM_START "<|im_start|>"
#define CHAT_IM_END   "<|im_end|>"

struct template
{
    bool usable;
    struct gyaru_error why_not; /* if not usable: the line that rendering fails with */
    char *default_system;       /* NULL: none is put in */
    char sha256[SHA256_HEX];    /* of the template's text; "" if the checkpoint has none */
};

/* Reads the template of a checkpoint: DIR/chat_template.jinja, else `chat_template` of the parsed
 * DIR/tokenizer_config.json (a string, or a list of {name, template}: the one named "default").
 * A template that is no ChatML, or none at all, is not a failure here: chat->why_not is set. */
int template_open(const char *dir, const json_t *config, struct template *chat,
                  struct gyaru_error *err);
void template_release(struct template *chat);

/* Called for each stretch of the rendered text: a marker token, or text that must never become
 * one. Returns -1 to stop. */
typedef int template_part(void *user, bool marker, const char *text, size_t len,
                          struct gyaru_error *err);

/* Walks through what the messages render to. Checks roles and encoding. */
int template_walk(const struct template *chat, const struct gyaru_message *messages,
                  size_t n_messages, bool add_generation_prompt, template_part *part, void *user,
                  struct gyaru_error *err);

/* The whole as one string (caller frees). */
int template_render(const struct template *chat, const struct gyaru_message *messages,
                    size_t n_messages, bool add_generation_prompt, char **text,
                    struct gyaru_error *err);

#endif
