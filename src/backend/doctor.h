/*
 * doctor.h - gyaru_doctor() with another driver library, for tests.
 */
#ifndef BACKEND_DOCTOR_H
#define BACKEND_DOCTOR_H

#include "base/json.h"

/* A new reference; NULL when out of memory. */
json_t *doctor_report(const char *nvml_path, const char *device, struct gyaru_error *err);

#endif
