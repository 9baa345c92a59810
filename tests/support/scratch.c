/* scratch.c - see scratch.h. */
#include "scratch.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void remove_directory(void)
{
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *scratch_path(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    if (!*directory) {
        strcpy(directory, "/tmp/gyaru-test-XXXXXX");
        if (!mkdtemp(directory))
            fail_msg("cannot make %s", directory);
        atexit(remove_directory);
    }
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

const char *scratch_write(const char *name, const void *data, size_t len)
{
    const char *path = scratch_path(name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, len, file) != len || fclose(file))
        fail_msg("cannot write %s", path);
    return path;
}

uint8_t *scratch_read(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("cannot open %s", path);
    fseek(file, 0, SEEK_END);
    *len = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*len + 1);
    if (!data || fread(data, 1, *len, file) != *len)
        fail_msg("cannot read %s", path);
    fclose(file);
    return data;
}

char *scratch_text(const char *path)
{
    size_t len;
    char *data = (char *)scratch_read(path, &len);
    char *text = strndup(data, len);
    free(data);
    assert_non_null(text);
    return text;
}

bool scratch_holds(const char *path, const char *text)
{
    size_t len;
    char *data = (char *)scratch_read(path, &len);
    bool same = len == strlen(text) && !memcmp(data, text, len);
    free(data);
    return same;
}

void check_error(const struct gyaru_error *err, enum gyaru_status status, ...)
{
    va_list parts;
    va_start(parts, status);
    for (const char *part; (part = va_arg(parts, const char *));) {
        if (!strstr(err->text, part))
            fail_msg("'%s' lacks '%s'", err->text, part);
    }
    va_end(parts);
    if (strchr(err->text, '\n') || !*err->text)
        fail_msg("not one line: '%s'", err->text);
    assert_int_equal(err->status, status);
}
