/*
 * test_vector.h - vectors that tests take out of files. Every function fails the running test when
 * the library refuses.
 */
#ifndef TESTS_TEST_VECTOR_H
#define TESTS_TEST_VECTOR_H

#include <gyaru.h>

/* A vector's file (caller closes it). */
struct gyaru_vector *test_vector_open(const char *path);

/* Attaches a file's vector and gives its index; options NULL: as they begin. Warnings are dropped.
 */
int test_vector_attach(struct gyaru_model *model, const char *path,
                       const struct gyaru_attach_options *options);

#endif
