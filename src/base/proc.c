/* proc.c - see proc.h. */
#include "base/proc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t proc_bytes(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    char line[128];
    uint64_t kib = 0;
    size_t len = strlen(key);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, key, len) && line[len] == ':')
            kib = strtoull(line + len + 1, NULL, 10);
    fclose(file);
    return kib * 1024;
}
