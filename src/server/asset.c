/*
 * asset.c - the page's files, embedded in the program.
 *
 * Browsers may keep them but have to ask each time (ETag), so a rebuilt program never meets a
 * stale script.
 */
#include "server/conn.h"

#include "web/assets.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct content_type {
    const char *extension, *type;
};

static const struct content_type types[] = {
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".svg", "image/svg+xml"},
    {".png", "image/png"},
    {".ico", "image/x-icon"},
    {".json", "application/json"},
    {".webmanifest", "application/manifest+json"},
    {".woff2", "font/woff2"},
};

static const char *type_of(const char *name)
{
    const char *extension = strrchr(name, '.');
    for (size_t i = 0; extension && i < sizeof types / sizeof types[0]; i++) {
        if (!strcmp(extension, types[i].extension))
            return types[i].type;
    }
    return "application/octet-stream";
}

static const struct web_asset *find(const char *path)
{
    const char *name = !strcmp(path, "/")          ? "index.html"
                       : !strcmp(path, "/overlay") ? "overlay.html"
                                                   : path + 1;
    for (const struct web_asset *asset = web_assets; asset->name; asset++) {
        if (!strcmp(asset->name, name))
            return asset;
    }
    return NULL;
}

/* FNV-1a over the bytes, quoted as a header wants it. */
static void make_etag(const struct web_asset *asset, char etag[24])
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < asset->size; i++)
        hash = (hash ^ asset->data[i]) * 1099511628211u;
    snprintf(etag, 24, "\"%016" PRIx64 "\"", hash);
}

bool asset_answer(struct conn *conn, struct lws *wsi, const char *path, int *rc)
{
    const struct web_asset *asset = find(path);
    if (!asset)
        return false;
    char etag[24], known[256];
    make_etag(asset, etag);
    struct http_answer answer = {.status = 200,
                                 .type = type_of(asset->name),
                                 .body = asset->data,
                                 .len = asset->size,
                                 .extra_name = "etag:",
                                 .extra_value = etag};
    if (lws_hdr_copy(wsi, known, sizeof known, WSI_TOKEN_HTTP_IF_NONE_MATCH) > 0 &&
        strstr(known, etag))
        answer = (struct http_answer){.status = 304, .extra_name = "etag:", .extra_value = etag};
    *rc = http_answer(conn, wsi, answer);
    return true;
}
