/* extract_methods_html.h - the part of extract's page that compares the methods. */
#ifndef STEER_EXTRACT_METHODS_HTML_H
#define STEER_EXTRACT_METHODS_HTML_H

#include "base/json.h"
#include "steer/report_page.h"

/* Writes nothing if the report has no comparison. */
int methods_html(struct page *page, const json_t *report, struct gyaru_error *err);

#endif
