/*
 * validate.c - see validate.h. Owner of the working memory of one layer.
 *
 * Everything but the random directions happens on two small matrices: the Gram matrix of the
 * training differences and the products of the held-out texts with them. Swapping the texts of
 * training pair i flips the sign of row and column i of the first and of column i of the second.
 */
#include "steer/validate.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HALVES   20
#define CONTROLS 100
#define QUANTILE 0.95

void validate_options_init(struct validate_options *options)
{
    *options = (struct validate_options){
        .method = METHOD_MEAN, .seed = 1, .n_halves = HALVES, .n_controls = CONTROLS};
}

struct work {
    const struct layer_data *data;
    const struct validate_options *options;
    size_t n, m;          /* training pairs, held-out pairs */
    double *gram;         /* [n, n] */
    double *scores_of[2]; /* [m, n] plain and styled held-out texts times training differences */
    double *part;         /* [n, n] a Gram matrix of some pairs, or with flipped signs */
    double *scratch;      /* [direction_scratch(n)] */
    double *mean, *a, *b; /* [n] weights */
    double *signs;        /* [n] */
    size_t *order;        /* [n] */
    double *scores[2];    /* [m] */
    double *controls;     /* [n_controls] */
    double *random;       /* [hidden] */
};

static void work_release(struct work *w)
{
    free(w->gram);
    free(w->scores_of[0]);
    free(w->part);
    free(w->scratch);
    free(w->mean);
    free(w->order);
    free(w->scores[0]);
    free(w->controls);
    free(w->random);
}

static int work_init(struct work *w, struct gyaru_error *err)
{
    size_t n = w->n, m = w->m;
    w->gram = malloc(n * n * sizeof *w->gram);
    w->part = malloc(n * n * sizeof *w->part);
    w->scratch = malloc(direction_scratch(n) * sizeof *w->scratch);
    w->mean = malloc(4 * n * sizeof *w->mean);
    w->order = malloc(n * sizeof *w->order);
    w->scores_of[0] = malloc((2 * m * n + 1) * sizeof *w->scores_of[0]);
    w->scores[0] = malloc((2 * m + 1) * sizeof *w->scores[0]);
    w->controls = malloc(((size_t)w->options->n_controls + 1) * sizeof *w->controls);
    w->random = malloc(w->data->hidden * sizeof *w->random);
    if (!w->gram || !w->part || !w->scratch || !w->mean || !w->order || !w->scores_of[0] ||
        !w->scores[0] || !w->controls || !w->random)
        return error_memory(err, (3 * n * n + 2 * m * n) * sizeof *w->gram, "the validation");
    w->a = w->mean + n;
    w->b = w->a + n;
    w->signs = w->b + n;
    w->scores_of[1] = w->scores_of[0] + m * n;
    w->scores[1] = w->scores[0] + m;
    return 0;
}

/* ---- scores -----------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double validate_auroc(double *positive, double *negative, size_t n)
{
    qsort(positive, n, sizeof *positive, by_value);
    qsort(negative, n, sizeof *negative, by_value);
    double above = 0;
    size_t below = 0, not_above = 0; /* negatives below, and not above, the positive at hand */
    for (size_t i = 0; i < n; i++) {
        while (below < n && negative[below] < positive[i])
            below++;
        while (not_above < n && negative[not_above] <= positive[i])
            not_above++;
        above += (double)(below + not_above) / 2;
    }
    return above / ((double)n * (double)n);
}

static double percentile(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    size_t rank = (size_t)ceil(QUANTILE * (double)n);
    return values[rank ? rank - 1 : 0];
}

/* Scores of the held-out texts along the direction of these weights. */
static void score(struct work *w, const double *weights)
{
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < w->m; i++) {
            const double *row = w->scores_of[side] + i * w->n;
            double sum = 0;
            for (size_t j = 0; j < w->n; j++)
                sum += row[j] * weights[j];
            w->scores[side][i] = sum;
        }
}

static void moments(const double *values, size_t n, double *mean, double *variance)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (values[i] - *mean) * (values[i] - *mean);
    *variance = n > 1 ? squares / (double)(n - 1) : 0;
}

static void measure_held_out(struct work *w, const double *weights, struct layer_stats *stats)
{
    double means[2], variances[2];
    size_t misordered = 0;
    score(w, weights);
    for (int side = 0; side < 2; side++)
        moments(w->scores[side], w->m, &means[side], &variances[side]);
    for (size_t i = 0; i < w->m; i++)
        misordered += w->scores[0][i] > w->scores[1][i];
    double pooled = sqrt((variances[0] + variances[1]) / 2);
    stats->cohens_d = pooled > 0 ? (means[1] - means[0]) / pooled : NAN;
    stats->misordered = (double)misordered / (double)w->m;
    stats->auroc = validate_auroc(w->scores[1], w->scores[0], w->m);
}

/* ---- controls ---------------------------------------------------------------------------------
 */

/* The whole procedure with labels that mean nothing: the texts of every pair, of training and held
 * out, are swapped or not by a coin. */
static int shuffled(struct work *w, uint64_t *random, double *auroc, struct gyaru_error *err)
{
    size_t n = w->n;
    for (size_t i = 0; i < n; i++)
        w->signs[i] = random_next(random) >> 63 ? 1 : -1;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            w->part[i * n + j] = w->signs[i] * w->signs[j] * w->gram[i * n + j];
    if (direction_weights(w->options->method, w->part, n, w->scratch, w->a, err))
        return -1;
    for (size_t i = 0; i < n; i++)
        w->a[i] *= w->signs[i];
    score(w, w->a);
    for (size_t i = 0; i < w->m; i++) {
        if (random_next(random) >> 63)
            continue;
        double swapped = w->scores[0][i];
        w->scores[0][i] = w->scores[1][i];
        w->scores[1][i] = swapped;
    }
    *auroc = validate_auroc(w->scores[1], w->scores[0], w->m);
    return 0;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double random_direction(struct work *w, uint64_t *random)
{
    const struct layer_data *d = w->data;
    for (size_t h = 0; h < d->hidden; h++)
        w->random[h] = random_normal(random);
    for (size_t i = 0; i < w->m; i++) {
        w->scores[0][i] = dot(d->negative + i * d->hidden, w->random, d->hidden);
        w->scores[1][i] = dot(d->positive + i * d->hidden, w->random, d->hidden);
    }
    double auroc = validate_auroc(w->scores[1], w->scores[0], w->m);
    return auroc < 0.5 ? 1 - auroc : auroc;
}

static int measure_controls(struct work *w, struct layer_stats *stats, struct gyaru_error *err)
{
    uint64_t random = w->options->seed;
    size_t n = (size_t)w->options->n_controls;
    if (!n)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (shuffled(w, &random, &w->controls[i], err))
            return -1;
    stats->shuffled_auroc = percentile(w->controls, n);
    for (size_t i = 0; i < n; i++)
        w->controls[i] = random_direction(w, &random);
    stats->random_auroc = percentile(w->controls, n);
    return 0;
}

/* ---- what the training pairs say ---------------------------------------------------------------
 */

/* Weights over all pairs of the direction that pairs order[0..count-1] give. */
static int weights_of_some(struct work *w, const size_t *order, size_t count, double *weights,
                           struct gyaru_error *err)
{
    double *few = w->signs;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            w->part[i * count + j] = w->gram[order[i] * w->n + order[j]];
    if (direction_weights(w->options->method, w->part, count, w->scratch, few, err))
        return -1;
    memset(weights, 0, w->n * sizeof *weights);
    for (size_t i = 0; i < count; i++)
        weights[order[i]] = few[i];
    return 0;
}

static int measure_halves(struct work *w, struct layer_stats *stats, struct gyaru_error *err)
{
    uint64_t random = w->options->seed;
    double sum = 0;
    stats->split_half = NAN;
    if (w->n < 4) /* a half must have two pairs */
        return 0;
    for (size_t i = 0; i < w->n; i++)
        w->order[i] = i;
    for (int i = 0; i < w->options->n_halves; i++) {
        random_shuffle(&random, w->order, w->n);
        if (weights_of_some(w, w->order, w->n / 2, w->a, err) ||
            weights_of_some(w, w->order + w->n / 2, w->n - w->n / 2, w->b, err))
            return -1;
        sum += direction_cosine(w->gram, w->n, w->a, w->b);
    }
    stats->split_half = sum / w->options->n_halves;
    return 0;
}

/* Mean cosine between two different differences. */
static double pairwise_cosine(const struct work *w)
{
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < w->n; i++)
        for (size_t j = 0; j < i; j++) {
            double lengths = w->gram[i * w->n + i] * w->gram[j * w->n + j];
            if (lengths > 0) {
                sum += w->gram[i * w->n + j] / sqrt(lengths);
                count++;
            }
        }
    return count ? sum / (double)count : NAN;
}

static int measure_training(struct work *w, struct layer_stats *stats, struct gyaru_error *err)
{
    if (direction_weights(METHOD_MEAN, w->gram, w->n, w->scratch, w->mean, err) ||
        direction_explained(w->gram, w->n, w->scratch, &stats->explained_variance, err))
        return -1;
    stats->norm = sqrt(direction_dot(w->gram, w->n, w->mean, w->mean));
    stats->pairwise_cosine = pairwise_cosine(w);
    stats->cosine_mean_pca = NAN; /* differences that do not vary have no component */
    if (stats->explained_variance > 0) {
        if (direction_weights(METHOD_PCA_LAST, w->gram, w->n, w->scratch, w->a, err))
            return -1;
        stats->cosine_mean_pca = direction_cosine(w->gram, w->n, w->mean, w->a);
    }
    return 0;
}

/* ---- all --------------------------------------------------------------------------------------
 */

static int measure(struct work *w, struct layer_stats *stats, double *weights,
                   struct gyaru_error *err)
{
    const struct layer_data *d = w->data;
    direction_product(d->train, w->n, d->train, w->n, d->hidden, w->gram);
    if (direction_weights(w->options->method, w->gram, w->n, w->scratch, weights, err) ||
        measure_training(w, stats, err))
        return -1;
    if (!w->m)
        return 0;
    direction_product(d->negative, w->m, d->train, w->n, d->hidden, w->scores_of[0]);
    direction_product(d->positive, w->m, d->train, w->n, d->hidden, w->scores_of[1]);
    measure_held_out(w, weights, stats);
    return measure_halves(w, stats, err) || measure_controls(w, stats, err) ? -1 : 0;
}

int validate_layer(const struct layer_data *data, const struct validate_options *options,
                   struct layer_stats *stats, double *weights, struct gyaru_error *err)
{
    struct work w = {.data = data, .options = options, .n = data->n_train, .m = data->n_held};
    struct layer_stats result = {.split_half = NAN,
                                 .auroc = NAN,
                                 .cohens_d = NAN,
                                 .misordered = NAN,
                                 .shuffled_auroc = NAN,
                                 .random_auroc = NAN};
    int rc = work_init(&w, err);
    if (!rc)
        rc = measure(&w, &result, weights, err);
    work_release(&w);
    if (!rc)
        *stats = result;
    return rc;
}

const char *validate_fault(const struct layer_stats *s)
{
    if (!(s->auroc >= VALIDATE_AUROC))
        return "auroc";
    if (!(s->split_half >= VALIDATE_SPLIT_HALF))
        return "split_half";
    if (!(s->auroc > s->shuffled_auroc))
        return "shuffled";
    return NULL;
}

bool validate_better(const struct layer_stats *a, const struct layer_stats *b)
{
    if (a->auroc != b->auroc)
        return a->auroc > b->auroc;
    return a->cohens_d > b->cohens_d;
}
