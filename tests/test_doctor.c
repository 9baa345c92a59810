/*
 * test_doctor.c - GPUs and their processes as the driver's library tells of them: a stand-in
 * (support/fake/nvml.c) on machines without one.
 */
#include "support/scratch.h"

#include "backend/doctor.h"
#include "backend/nvml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *fake_path(void)
{
    static char path[256];
    const char *build = getenv("BUILD");
    snprintf(path, sizeof path, "%s/tests/fake_nvml.so", build ? build : "build");
    return path;
}

static void names_gpus_and_who_holds_them(void **state)
{
    struct gyaru_error err;
    struct nvml_report r;
    if (nvml_read(fake_path(), &r, &err))
        fail_msg("%s", err.text);
    assert_string_equal(r.driver, "999.1");
    assert_int_equal(r.n_gpus, 2);
    assert_string_equal(r.gpus[0].name, "Fake GPU 0");
    assert_int_equal(r.gpus[0].free, 4ull << 30);
    assert_int_equal(r.gpus[0].n_processes, 40); /* the one that also draws counts once */
    assert_int_equal(r.gpus[0].processes[0].pid, 4242);
    assert_string_equal(r.gpus[0].processes[0].name, "/usr/bin/hog");
    assert_int_equal(r.gpus[0].processes[0].bytes, 19ull << 30);
    nvml_release(&r);
}

/* What the library does not name, /proc may; what the driver does not tell stays unknown. */
static void copes_with_what_is_not_told(void **state)
{
    struct gyaru_error err;
    struct nvml_report r;
    assert_int_equal(nvml_read(fake_path(), &r, &err), 0);
    assert_string_equal(r.gpus[0].processes[1].name, "test_doctor");
    assert_true(r.gpus[0].processes[1].bytes == NVML_UNKNOWN);
    assert_string_equal(r.gpus[0].processes[2].name, "");
    assert_int_equal(r.gpus[1].n_processes, 0);
    assert_non_null(strstr(r.gpus[1].problem, "Not Supported"));
    nvml_release(&r);
}

static void reports_them_as_json(void **state)
{
    struct gyaru_error err;
    json_t *root = doctor_report(fake_path(), NULL, &err);
    assert_non_null(root);
    const json_t *gpus = json_object_get(json_object_get(root, "nvidia"), "gpus");
    const json_t *processes = json_object_get(json_array_get(gpus, 0), "processes");
    const json_t *hog = json_array_get(processes, 0);
    assert_int_equal(json_array_size(gpus), 2);
    assert_int_equal(json_integer_value(json_object_get(hog, "pid")), 4242);
    assert_int_equal(json_integer_value(json_object_get(hog, "mib")), 19 << 10);
    assert_true(json_is_null(json_object_get(json_array_get(processes, 1), "mib")));
    json_decref(root);
}

static void no_driver_is_a_finding(void **state)
{
    struct gyaru_error err;
    struct nvml_report r;
    assert_int_equal(nvml_read("/nonexistent/libnvidia-ml.so", &r, &err), -1);
    check_error(&err, GYARU_FAILED, "no NVIDIA driver", NULL);
    json_t *root = doctor_report("/nonexistent/libnvidia-ml.so", "cpu:0,1", &err);
    const json_t *nvidia = json_object_get(root, "nvidia");
    assert_true(json_is_null(json_object_get(nvidia, "driver")));
    assert_non_null(strstr(json_string_value(json_object_get(nvidia, "problem")), "no NVIDIA"));
    const json_t *devices = json_object_get(root, "devices"), *asked = json_array_get(devices, 2);
    assert_int_equal(json_array_size(devices), 3);
    assert_true(json_is_false(json_object_get(asked, "usable")));
    assert_non_null(strstr(json_string_value(json_object_get(asked, "reason")), "one cpu only"));
    json_decref(root);
}

/* Any other library lacks the calls. */
static void a_foreign_library_is_refused(void **state)
{
    struct gyaru_error err;
    struct nvml_report r;
    assert_int_equal(nvml_read("libm.so.6", &r, &err), -1);
    check_error(&err, GYARU_FAILED, "libm.so.6", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_gpus_and_who_holds_them),
        cmocka_unit_test(copes_with_what_is_not_told),
        cmocka_unit_test(reports_them_as_json),
        cmocka_unit_test(no_driver_is_a_finding),
        cmocka_unit_test(a_foreign_library_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
