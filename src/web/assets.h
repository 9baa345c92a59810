/* assets.h - the files of src/web, embedded at build time by tools/embed.sh. */
#ifndef WEB_ASSETS_H
#define WEB_ASSETS_H

#include <stddef.h>

struct web_asset {
    const char *name; /* "index.html"; NULL ends the table */
    const unsigned char *data;
    size_t size; /* bytes */
};

extern const struct web_asset web_assets[];

#endif
