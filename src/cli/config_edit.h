/*
 * config_edit.h - changes single settings in the text of a YAML file and nothing else: comments,
 * unknown keys, order, quoting and line ends stay as they are, byte for byte.
 */
#ifndef CLI_CONFIG_EDIT_H
#define CLI_CONFIG_EDIT_H

#include "base/error.h"

struct config_value {
    const char *section, *key; /* "model", "path": section.key */
    const char *text;          /* UTF-8 */
    bool number;               /* written as it is, never quoted */
};

/*
 * Sets `values` one after the other; *out (caller frees, NUL-terminated) is the new text. A value
 * that is there is replaced, a missing key is added below its section's others, a missing section
 * at the end. What cannot be changed safely (flow mappings, anchors, aliases, tags, block scalars,
 * keys that stand twice, several documents) is refused with its line; `name` stands in the
 * message. Before it returns, the result is parsed and compared: every other value is as before.
 */
int config_edit_text(const char *name, const char *text, size_t len,
                     const struct config_value *values, size_t n, char **out, size_t *out_len,
                     struct gyaru_error *err);

#endif
