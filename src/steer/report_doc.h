/*
 * report_doc.h - headings, paragraphs, tables and check lists, written as Markdown or as an HTML
 * page: one text, two forms.
 */
#ifndef STEER_REPORT_DOC_H
#define STEER_REPORT_DOC_H

#include "steer/report_plot.h"

struct doc {
    struct str out;
    bool html, japanese;
    bool in_list; /* HTML: a <ul> is open */
    int columns;  /* of the open table */
};

void doc_begin(struct doc *doc, const char *title, const char *subtitle);
void doc_end(struct doc *doc);

/* Level 2 or 3. */
void doc_heading(struct doc *doc, int level, const char *text);
__attribute__((format(printf, 2, 3))) void doc_paragraph(struct doc *doc, const char *format, ...);
__attribute__((format(printf, 2, 3))) void doc_item(struct doc *doc, const char *format, ...);

/* A line of a check list: ticked or not, and why. */
void doc_check(struct doc *doc, bool ticked, const char *what, const char *evidence);
void doc_code(struct doc *doc, const char *text);

/* Cells end with NULL; the header says how many there are. */
void doc_table(struct doc *doc, const char *const *header);
void doc_row(struct doc *doc, const char *const *cells);
void doc_table_end(struct doc *doc);

/* Figures stand side by side. A page has them; the text has the tables they are drawn from. */
void doc_plots(struct doc *doc);
void doc_plot(struct doc *doc, const struct plot *plot);
void doc_bars(struct doc *doc, const struct bars *bars);
void doc_plots_end(struct doc *doc);

#endif
