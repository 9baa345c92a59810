/*
 * direction.h - from the differences (styled text minus plain text) of one layer to a direction.
 *
 * Every method's direction is a weighted sum of the differences, so all of it happens on their
 * n x n Gram matrix: cheap however large the hidden size, and shuffled labels are sign changes of
 * its rows and columns. Matrices are row-major, double.
 *
 *     mean      the mean difference, which is the difference of the class means
 *     pca       first component of the differences, not centred
 *     pca_last  first component of the centred differences: the original's recipe, which also
 *               reads them at the last token
 *     probe     logistic regression of pairs: w maximises the likelihood of w . d_i > 0 with an L2
 *               penalty (a conditional logistic model: what a pair has in common cancels)
 *
 * All but the mean have no length of their own; callers scale them. Signs are such that the
 * product with the mean difference is not negative.
 */
#ifndef STEER_DIRECTION_H
#define STEER_DIRECTION_H

#include "base/error.h"

enum direction_method { METHOD_MEAN, METHOD_PCA, METHOD_PCA_LAST, METHOD_PROBE, DIRECTION_METHODS };

/* "mean", "pca", "pca_last", "probe"; -1 if there is no such method. */
const char *direction_method_name(enum direction_method method);
int direction_method_find(const char *name);

/* c [n, m] = a [n, k] * b [m, k]^T. */
void direction_product(const double *a, size_t n, const double *b, size_t m, size_t k, double *c);

/* weights [n]: the direction is sum_i weights[i] * difference i. `gram` [n, n] is left as it is;
 * `scratch` [direction_scratch(n)] is the caller's. Fails where the differences leave no direction:
 * all zero, or (pca_last) all equal. */
size_t direction_scratch(size_t n);
int direction_weights(enum direction_method method, const double *gram, size_t n, double *scratch,
                      double *weights, struct gyaru_error *err);

/* Share of the variance of the differences along their first principal component: scikit-learn's
 * PCA(n_components=1).explained_variance_ratio_. 0 if they do not vary. */
int direction_explained(const double *gram, size_t n, double *scratch, double *ratio,
                        struct gyaru_error *err);

/* a . b of two directions given by weights, a^T gram b. */
double direction_dot(const double *gram, size_t n, const double *a, const double *b);

/* The cosine of the same; 0 if one has no length. */
double direction_cosine(const double *gram, size_t n, const double *a, const double *b);

#endif
