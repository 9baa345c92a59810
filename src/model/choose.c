/*
 * choose.c - the few logits that sampling needs, out of a whole row: what a GPU's candidates()
 * does, for backends that give all logits.
 *
 * Looking at 152064 logits one by one, with exp() and sorting, takes milliseconds; here are three
 * passes that the compiler turns into vectors. The bound: lanes are maxima over every LANES'th
 * logit, so that about a fourth of the lanes at or above it are as many logits, and seldom many
 * more.
 */
#include "model/sampler.h"

#include <math.h>
#include <string.h>

#define LANES 512
#define WANT  (LANES / 4)

/* exp(x) for x <= 0, to 1e-5 of itself, 0 below 2^-100: sums have to be right to
 * BACKEND_MASS_ERROR. The polynomial is 2^r over (-1, 0]. */
static inline float exp_negative(float x)
{
    float y = x * 1.44269504f; /* to base 2 */
    y = y < -100 ? -100 : y;
    int32_t whole = (int32_t)y; /* towards 0: the rest is in (-1, 0] */
    float r = y - (float)whole;
    float p = 0.0068598043f * r + 0.053257929f;
    p = p * r + 0.23946237f;
    p = p * r + 0.69306101f;
    p = p * r + 1;
    uint32_t bits = (uint32_t)(127 + whole) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return y > -100 ? p * scale : 0;
}

static float mass_of(const float *logits, int n, float max, float temperature)
{
    float inverse = 1 / temperature;
    double total = 0;
    for (int first = 0; first < n; first += LANES) {
        float sums[16] = {0};
        int i = first, end = n - first < LANES ? n : first + LANES;
        for (; i + 16 <= end; i += 16) {
#pragma omp simd
            for (int j = 0; j < 16; j++)
                sums[j] += exp_negative((logits[i + j] - max) * inverse);
        }
        for (; i < end; i++)
            total += (double)exp_negative((logits[i] - max) * inverse);
        for (int j = 0; j < 16; j++)
            total += (double)sums[j];
    }
    return (float)total;
}

/* A value that about WANT of the lanes reach: halving the range finds one sooner than sorting. */
static float bound_of(const float *best, int n)
{
    float low = best[0], high = best[0];
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int j = 1; j < n; j++) {
        low = best[j] < low ? best[j] : low;
        high = best[j] > high ? best[j] : high;
    }
    for (int tries = 0; tries < 24; tries++) {
        float middle = low + (high - low) / 2;
        int count = 0;
        for (int j = 0; j < LANES; j++)
            count += best[j] >= middle;
        if (count >= WANT - WANT / 8 && count <= WANT + WANT / 8)
            return middle;
        if (count > WANT)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Lanes' maxima; false if a logit is not finite. */
static bool survey(const float *logits, int n, float *best)
{
    uint32_t odd[16] = {0}, any = 0;
    for (int j = 0; j < LANES; j++)
        best[j] = -INFINITY;
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
#pragma omp simd
        for (int j = 0; j < LANES; j++)
            best[j] = logits[i + j] > best[j] ? logits[i + j] : best[j];
    }
    for (int j = 0; i + j < n; j++)
        best[j] = logits[i + j] > best[j] ? logits[i + j] : best[j];
    for (i = 0; i + 16 <= n; i += 16) {
#pragma omp simd
        for (int j = 0; j < 16; j++) {
            uint32_t bits;
            memcpy(&bits, &logits[i + j], sizeof bits);
            odd[j] |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    }
    for (; i < n; i++)
        any |= !isfinite(logits[i]);
    for (int j = 0; j < 16; j++)
        any |= odd[j];
    return !any;
}

void sampler_choose(const float *logits, int n_ids, const struct gyaru_sampling *p,
                    struct backend_candidates *out)
{
    float best[LANES];
    out->n = -1;
    out->mass = 0;
    if (!survey(logits, n_ids, best))
        return;
    float max = best[0];
#pragma omp simd reduction(max : max)
    for (int j = 1; j < LANES; j++)
        max = best[j] > max ? best[j] : max;
    out->max = max;
    float bound =
        n_ids <= BACKEND_CANDIDATES ? -INFINITY : bound_of(best, n_ids < LANES ? n_ids : LANES);
    int count = 0;
    for (int i = 0; i < n_ids; i++)
        if (logits[i] >= bound) {
            if (count == BACKEND_CANDIDATES)
                return;
            out->best[count++] = (struct backend_candidate){logits[i], i};
        }
    out->n = count;
    if (p->temperature > 0 && (p->top_k <= 0 || p->top_k >= n_ids)) /* else nobody asks */
        out->mass = mass_of(logits, n_ids, out->max, p->temperature);
}
