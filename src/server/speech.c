/* speech.c - see speech.h. */
#include "server/speech.h"

void speech_init(struct speech *speech)
{
    *speech = (struct speech){.on = false};
    sentences_init(&speech->sentences);
}

void speech_release(struct speech *speech)
{
    sentences_release(&speech->sentences);
    json_decref(speech->shown);
}

void speech_begin(struct speech *speech)
{
    sentences_clear(&speech->sentences);
    json_decref(speech->shown);
    speech->shown = NULL;
}

void speech_feed(struct speech *speech, const char *text, size_t len)
{
    if (speech->on)
        sentences_feed(&speech->sentences, text, len);
}

json_t *speech_next(struct speech *speech, bool end)
{
    struct sentence sentence;
    json_t *json = NULL;
    if (speech->on && sentences_next(&speech->sentences, end, &sentence)) {
        if (!speech->shown)
            speech->shown = json_array();
        json_t *text = json_stringn(sentence.shown.data, sentence.shown.len);
        const char *spoken = sentence.spoken.data ? sentence.spoken.data : "";
        json = json_pack("{s:s,s:I,s:O*,s:s%}", "type", "sentence", "index",
                         (json_int_t)json_array_size(speech->shown), "text", text, "speech", spoken,
                         sentence.spoken.len);
        json_array_append_new(speech->shown, text);
        sentence_release(&sentence);
    }
    return json;
}

const json_t *speech_shown(const struct speech *speech, const json_t *index)
{
    json_int_t i = json_is_integer(index) ? json_integer_value(index) : -1;
    return i < 0 ? NULL : json_array_get(speech->shown, (size_t)i);
}
