/*
 * report_page.h - the frame of the reports' HTML pages: self-contained, light and dark, printable.
 */
#ifndef STEER_REPORT_PAGE_H
#define STEER_REPORT_PAGE_H

#include "base/str.h"

/* Text as HTML: the five characters that mean something become entities. */
void html_text(struct str *out, const char *text);

/* Everything up to and including <h1>. `language` is "ja" or "en". */
void page_begin(struct str *out, const char *language, const char *title, const char *subtitle);
void page_end(struct str *out);

/* A page in one of two languages. */
struct page {
    struct str out;
    bool japanese;
};

const char *page_say(const struct page *page, const char *english, const char *japanese);
void page_heading(struct page *page, const char *english, const char *japanese);

/* A row of a <dl class="facts">. */
__attribute__((format(printf, 3, 4))) void page_fact(struct page *page, const char *name,
                                                     const char *format, ...);

#endif
