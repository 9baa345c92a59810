/*
 * direction.c - see direction.h. Owns nothing: all memory is the caller's.
 *
 * BLAS runs on the caller's thread only: a sum's order, and with it the last bit of a file, must
 * not depend on how many cores a machine has.
 */
#include "steer/direction.h"

#include <cblas.h>
#include <lapacke.h>

#include <math.h>
#include <string.h>

#define PROBE_PENALTY 0.01 /* on |w|^2 / 2, for differences scaled to a root mean square of 1 */
#define PROBE_STEPS   100
#define PROBE_DONE    1e-10 /* largest change of a weight */
#define VANISHING     1e-12 /* eigenvalue, relative to the mean of |d|^2 */

static const char *const names[DIRECTION_METHODS] = {
    [METHOD_MEAN] = "mean",
    [METHOD_PCA] = "pca",
    [METHOD_PCA_LAST] = "pca_last",
    [METHOD_PROBE] = "probe",
};

const char *direction_method_name(enum direction_method method)
{
    return names[method];
}

int direction_method_find(const char *name)
{
    for (int i = 0; i < DIRECTION_METHODS; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}

void direction_product(const double *a, size_t n, const double *b, size_t m, size_t k, double *c)
{
    openblas_set_num_threads(1);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)m, (blasint)k, 1.0, a,
                (blasint)k, b, (blasint)k, 0.0, c, (blasint)m);
}

double direction_dot(const double *gram, size_t n, const double *a, const double *b)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double row = 0;
        for (size_t j = 0; j < n; j++)
            row += gram[i * n + j] * b[j];
        sum += a[i] * row;
    }
    return sum;
}

double direction_cosine(const double *gram, size_t n, const double *a, const double *b)
{
    double lengths = direction_dot(gram, n, a, a) * direction_dot(gram, n, b, b);
    return lengths > 0 ? direction_dot(gram, n, a, b) / sqrt(lengths) : 0;
}

static double trace_of(const double *gram, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += gram[i * n + i];
    return sum;
}

/* One more n x n matrix and a few vectors. */
size_t direction_scratch(size_t n)
{
    return n * n + 4 * n;
}

/* ---- principal components ---------------------------------------------------------------------
 */

/* Gram matrix of the differences minus their mean. */
static void centre(const double *gram, size_t n, double *means, double *out)
{
    double all = 0;
    for (size_t i = 0; i < n; i++) {
        means[i] = 0;
        for (size_t j = 0; j < n; j++)
            means[i] += gram[i * n + j];
        means[i] /= (double)n;
        all += means[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            out[i * n + j] = gram[i * n + j] - means[i] - means[j] + all;
}

/* Largest eigenvalue of a symmetric matrix [n, n], which is destroyed, and its unit vector [n]. */
static int top_eigen(double *matrix, size_t n, double *values, double *vector,
                     struct gyaru_error *err)
{
    lapack_int found, support[2], last = (lapack_int)n;
    openblas_set_num_threads(1);
    lapack_int info = LAPACKE_dsyevr(LAPACK_ROW_MAJOR, 'V', 'I', 'U', last, matrix, last, 0, 0,
                                     last, last, 0, &found, values, vector, 1, support);
    if (info || found != 1)
        return error_set(err, info == LAPACK_WORK_MEMORY_ERROR ? GYARU_NO_MEMORY : GYARU_FAILED,
                         "principal components: LAPACK dsyevr returned %d", (int)info);
    return 0;
}

static int component(const double *gram, size_t n, bool centred, double *scratch, double *weights,
                     struct gyaru_error *err)
{
    double *matrix = scratch, *values = scratch + n * n, *means = values + n;
    double scale = trace_of(gram, n) / (double)n;
    if (centred)
        centre(gram, n, means, matrix);
    else
        memcpy(matrix, gram, n * n * sizeof *gram);
    if (top_eigen(matrix, n, values, weights, err))
        return -1;
    if (!(values[0] > VANISHING * scale))
        return error_set(err, GYARU_FAILED, "the differences of the pairs %s",
                         centred ? "do not vary" : "are all zero");
    double mean = 0;
    for (size_t i = 0; centred && i < n; i++)
        mean += weights[i] / (double)n;
    for (size_t i = 0; i < n; i++) /* unit length */
        weights[i] = (weights[i] - mean) / sqrt(values[0]);
    return 0;
}

int direction_explained(const double *gram, size_t n, double *scratch, double *ratio,
                        struct gyaru_error *err)
{
    double *matrix = scratch, *values = scratch + n * n, *vector = values + n, *means = vector + n;
    centre(gram, n, means, matrix);
    double total = trace_of(matrix, n);
    *ratio = 0;
    if (!(total > VANISHING * trace_of(gram, n)))
        return 0;
    if (top_eigen(matrix, n, values, vector, err))
        return -1;
    *ratio = values[0] / total;
    return 0;
}

/* ---- probe ------------------------------------------------------------------------------------
 */

/* Newton's method on w = sum_i weights[i] d_i for
 *
 *     (1/n) sum_i log(1 + exp(-w . d_i)) + (penalty/2) |w|^2
 *
 * with the d_i scaled to a root mean square of 1. With K the scaled Gram matrix, m = K a the
 * margins, p_i = sigmoid(-m_i) and r_i = p_i (1 - p_i), setting the gradient to zero gives the
 * fixed point a = p / (n penalty); a Newton step solves (I + R K / (n penalty)) step = p / (n
 * penalty) - a. */
static int probe(const double *gram, size_t n, double *scratch, double *weights,
                 struct gyaru_error *err)
{
    double *system = scratch, *step = scratch + n * n;
    double square = trace_of(gram, n) / (double)n, scale = 1 / ((double)n * PROBE_PENALTY);
    lapack_int *pivots = (lapack_int *)(step + n), last = (lapack_int)n;
    memset(weights, 0, n * sizeof *weights);
    openblas_set_num_threads(1);
    for (int round = 0; round < PROBE_STEPS; round++) {
        double change = 0;
        for (size_t i = 0; i < n; i++) {
            double margin = 0;
            for (size_t j = 0; j < n; j++)
                margin += gram[i * n + j] / square * weights[j];
            double p = 1 / (1 + exp(margin)), r = p * (1 - p);
            step[i] = scale * p - weights[i];
            for (size_t j = 0; j < n; j++)
                system[i * n + j] = (i == j) + scale * r * gram[i * n + j] / square;
        }
        lapack_int info = LAPACKE_dgesv(LAPACK_ROW_MAJOR, last, 1, system, last, pivots, step, 1);
        if (info)
            return error_set(err, GYARU_FAILED, "probe: LAPACK dgesv returned %d", (int)info);
        for (size_t i = 0; i < n; i++) {
            weights[i] += step[i];
            change = fmax(change, fabs(step[i]));
        }
        if (change < PROBE_DONE * scale)
            return 0;
    }
    return error_set(err, GYARU_FAILED, "probe: no solution in %d steps", PROBE_STEPS);
}

/* ---- all --------------------------------------------------------------------------------------
 */

static void orient(const double *gram, size_t n, double *ones, double *weights)
{
    for (size_t i = 0; i < n; i++)
        ones[i] = 1;
    if (direction_dot(gram, n, ones, weights) >= 0)
        return;
    for (size_t i = 0; i < n; i++)
        weights[i] = -weights[i];
}

int direction_weights(enum direction_method method, const double *gram, size_t n, double *scratch,
                      double *weights, struct gyaru_error *err)
{
    double total = trace_of(gram, n);
    if (!(total > 0) || !isfinite(total))
        return error_set(err, GYARU_FAILED, "the differences of the pairs are %s",
                         isfinite(total) ? "all zero" : "not finite");
    int rc = 0;
    if (method == METHOD_MEAN)
        for (size_t i = 0; i < n; i++)
            weights[i] = 1 / (double)n;
    else if (method == METHOD_PROBE)
        rc = probe(gram, n, scratch, weights, err);
    else
        rc = component(gram, n, method == METHOD_PCA_LAST, scratch, weights, err);
    if (!rc)
        orient(gram, n, scratch, weights);
    return rc;
}
