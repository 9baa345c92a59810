/* measure_report.h - measurements as JSON, shared by the reports of `measure` and `tune`. */
#ifndef STEER_MEASURE_REPORT_H
#define STEER_MEASURE_REPORT_H

#include "base/json.h"
#include "steer/measure.h"

/* Shares 0..1; what does not exist is null. */
json_t *measure_figures_json(const struct measure_figures *figures);

/* The first n answers with their messages. */
json_t *measure_answers_json(const struct measure_set *set, const char *const *messages, size_t n);

#endif
