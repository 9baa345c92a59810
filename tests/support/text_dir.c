/* text_dir.c - see text_dir.h. A helper that cannot do its work ends the test program. */
#include "text_dir.h"

#include "base/file.h"
#include "base/json.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void give_up(const char *what)
{
    perror(what);
    abort();
}

char *text_dir_new(void)
{
    char path[4096];
    const char *base = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/gyaru-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(path))
        give_up(path);
    return strdup(path);
}

void text_dir_put(const char *dir, const char *name, const char *text, size_t len)
{
    char path[4096 + 256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, len, f) != len || fclose(f))
        give_up(path);
}

struct gyaru_tokenizer *text_dir_open(const char *dir)
{
    struct gyaru_tokenizer *t;
    struct gyaru_error err;
    if (gyaru_tokenizer_open(dir, &t, &err))
        fail_msg("%s", err.text);
    return t;
}

json_t *text_dir_json(const char *path)
{
    struct gyaru_error err;
    char *text;
    size_t len;
    if (file_read(path, 1 << 24, &text, &len, &err))
        fail_msg("%s", err.text);
    json_t *json = json_parse_text(text, len, path, &err); /* texts may have NUL in them */
    free(text);
    if (!json)
        fail_msg("%s", err.text);
    return json;
}

void text_dir_free(char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        give_up(dir);
    for (struct dirent *entry; (entry = readdir(d));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    rmdir(dir);
    free(dir);
}

const char *shared_file(const char *name)
{
    static char path[4096];
    const char *base = getenv("GYARU_SHARED");
    snprintf(path, sizeof path, "%s/%s", base ? base : "../shared", name);
    if (access(path, R_OK) == 0)
        return path;
    printf("SKIP: %s is not there\n", path);
    return NULL;
}
