/*
 * capture_text.c - a pair's text as ids, and which of them are the answer's own; see capture.h.
 *
 * The answer is found by ids: it begins where the conversation departs from the same one without
 * an answer, and ends at the template's closing marker. What stands in the text itself never is a
 * marker, because contents are encoded as ordinary text.
 */
#include "steer/capture.h"

#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static int find_answer(const struct gyaru_tokenizer *tokenizer, const int32_t *question,
                       size_t n_question, const char *what, struct capture_text *t,
                       struct gyaru_error *err)
{
    t->first = 0;
    while (t->first < n_question && t->first < t->n && question[t->first] == t->ids[t->first])
        t->first++;
    t->end = t->n;
    while (t->end > t->first && !tokenizer_is_special(tokenizer, t->ids[t->end - 1]))
        t->end--;
    if (t->end > t->first)
        t->end--;
    /* An answer that begins with a line break may share a token with the one of the template. */
    if (t->first + 1 < n_question || t->first >= t->end)
        return error_set(err, GYARU_FAILED,
                         "%s: the chat template leaves no answer between its markers: not a "
                         "ChatML template",
                         what);
    return 0;
}

int capture_encode(const struct gyaru_tokenizer *tokenizer, const char *prompt, const char *topic,
                   const char *answer, const char *what, struct capture_text *out,
                   struct gyaru_error *err)
{
    char *message = dataset_message(prompt, topic);
    if (!message)
        return error_memory(err, strlen(prompt) + strlen(topic), "a message");
    const struct gyaru_message messages[] = {{"user", message}, {"assistant", answer}};
    struct capture_text text = {0};
    int32_t *question = NULL;
    size_t n_question;
    int rc = gyaru_chat_encode(tokenizer, messages, 1, true, &question, &n_question, err);
    if (!rc)
        rc = gyaru_chat_encode(tokenizer, messages, 2, false, &text.ids, &text.n, err);
    if (rc)
        error_prefix(err, what);
    else
        rc = find_answer(tokenizer, question, n_question, what, &text, err);
    free(question);
    free(message);
    if (rc)
        free(text.ids);
    else
        *out = text;
    return rc;
}
