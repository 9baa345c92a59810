/*
 * persona.h - what pairs are generated for: a style, described by a file, and the rules by which a
 * pair shows it. Nothing in the code knows any persona; data/personas/gyaru.json is the example.
 *
 *     name, description      of the style, for the prompts
 *     style_key, plain_key   keys of the two texts in a pair, e.g. "gyaru", "standard"
 *     markers                words of which a text in the style holds at least min_markers (1);
 *                            plain texts hold none unless plain_may_have_markers
 *     min_chars, max_chars   of each text, in characters (10, 200)
 *     scripts                {"allowed": [...], "required": [...], "share": 0.8}: of a text's
 *                            letters this share is of an allowed script, and there is a letter of
 *                            each required one; names in persona.c; absent: any
 *     topics                 array of strings
 *     system, prompt         string, or array of lines; in the prompt {name} {description}
 *                            {markers} {style_key} {plain_key} {min_chars} {max_chars} {count}
 *                            {topics} {avoid} stand for what the request is about
 *
 * Keys beyond these are refused: a misspelt rule must not go unnoticed.
 */
#ifndef STEER_PERSONA_H
#define STEER_PERSONA_H

#include "base/error.h"
#include "base/sha256.h"
#include "base/str.h"

#include <jansson.h>

struct persona {
    json_t *json; /* owns the strings below */
    const char *name, *description, *style_key, *plain_key;
    const json_t *markers, *topics; /* arrays of strings */
    size_t min_markers, min_chars, max_chars;
    bool plain_may_have_markers;
    unsigned allowed, required; /* bits of scripts; allowed 0: any */
    double share;
    char *system, *prompt;   /* owned; system may be "" */
    char sha256[SHA256_HEX]; /* of the file's bytes */
};

int persona_open(const char *path, struct persona *out, struct gyaru_error *err);
void persona_release(struct persona *persona);

/* One text of a pair: what is wrong with it, in words (into `why`), or 0. */
int persona_check_text(const struct persona *persona, const char *text, bool style,
                       struct str *why);

/* The prompt with its places filled; `topics` and `avoid` are ready to read. */
char *persona_prompt(const struct persona *persona, size_t count, const char *topics,
                     const char *avoid);

#endif
