/*
 * migrate_report.h - the report of a migration as a text, in the document's order of sections.
 */
#ifndef STEER_MIGRATE_REPORT_H
#define STEER_MIGRATE_REPORT_H

#include "steer/report_doc.h"

#include "base/json.h"

struct migrate_text {
    struct doc doc;
    const json_t *root; /* the report */
};

struct cell {
    char text[400];
};

/* Field by path: "plan.from.n_layers"; NULL if there is none. */
const json_t *report_at(const json_t *root, const char *path);
const char *report_text(const json_t *root, const char *path);
double report_number(const json_t *root, const char *path); /* NaN: there is none */

/* Numbers as people read them; "-" for NaN. */
struct cell cell_bytes(double bytes);
struct cell cell_percent(double share);
struct cell cell_number(double value, int digits);
__attribute__((format(printf, 1, 2))) struct cell cell_printf(const char *format, ...);

/* The text of the page's language. */
#define SAY(t, ja, en) ((t)->doc.japanese ? (ja) : (en))

/* How many times as fast the new model answers. */
double migrate_speed_up(const struct migrate_text *t);

/* migrate_layers.c: range, extraction and its validation. */
void migrate_layers(struct migrate_text *t);

/* migrate_check.c: the document's six points. */
void migrate_checklist(struct migrate_text *t);

/* migrate_advice.c: what was reached, what was not, and what to do. */
void migrate_advice(struct migrate_text *t);

/* migrate_plots.c: pictures of what the tables beside them say; nothing in Markdown. */
void migrate_memory_plots(struct migrate_text *t);
void migrate_speed_plots(struct migrate_text *t);
void migrate_ladder_plots(struct migrate_text *t);

/* migrate_compare.c: memory, speed, quality. */
void migrate_compare(struct migrate_text *t);

#endif
