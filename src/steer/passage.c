/* passage.c - see passage.h. */
#include "steer/passage.h"

#include "steer/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts ------------------------------------------------------------------------------------
 */

int passage_of_ids(const struct gyaru_model *model, const char *system, const char *message,
                   const int32_t *answer, size_t n, const char *what, struct passage *out,
                   struct gyaru_error *err)
{
    int32_t *prompt;
    size_t n_prompt, context = (size_t)model->shape.context;
    if (measure_prompt(model, system, message, &prompt, &n_prompt, err))
        return -1;
    int32_t *ids = n <= context ? realloc(prompt, (n_prompt + n) * sizeof *ids) : prompt;
    int rc = 0;
    if (!ids)
        rc = error_memory(err, (n_prompt + n) * sizeof *ids, "a text");
    else if (n > context || n_prompt + n > context)
        rc = error_set(err, GYARU_FAILED,
                       "%s: %zu tokens with the question, the context holds %zu: raise --context "
                       "or shorten the text",
                       what, n_prompt + n, context);
    if (rc) {
        free(ids ? ids : prompt);
        return -1;
    }
    memcpy(ids + n_prompt, answer, n * sizeof *ids);
    *out = (struct passage){ids, n_prompt + n, n_prompt};
    return 0;
}

int passage_encode(const struct gyaru_model *model, const char *system, const char *message,
                   const char *answer, const char *what, struct passage *out,
                   struct gyaru_error *err)
{
    int32_t *ids;
    size_t n;
    if (gyaru_tokenize(gyaru_model_tokenizer(model), answer, strlen(answer), false, &ids, &n, err))
        return error_prefix(err, what);
    int rc = passage_of_ids(model, system, message, ids, n, what, out, err);
    free(ids);
    return rc;
}

void passage_release(struct passage *p)
{
    free(p->ids);
    *p = (struct passage){0};
}

/* ---- two readings ------------------------------------------------------------------------------
 */

int passage_reader_init(struct passage_reader *r, struct gyaru_model *model, int vector,
                        float strength, struct gyaru_error *err)
{
    int found = 0;
    *r = (struct passage_reader){.model = model, .vector = vector, .strength = strength};
    for (int s = 0; s < model->shape.n_slots && found < 2; s++)
        if (!model->slots[s])
            r->slots[found++] = s;
    if (found < 2 || model->shape.max_rows < 2)
        return error_set(err, GYARU_FAILED,
                         "comparing texts needs two free sessions and a chunk of two rows");
    return 0;
}

/* log of the sum of exponentials */
static double log_mass(const float *logits, int n)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    // cppcheck-suppress invalidFunctionArg ; n >= 1, so that sum >= exp(0)
    return log(sum) + max;
}

/* KL(steered || base), nats. Equal logits give exactly 0: every term is 0. */
static double divergence(const float *base, const float *steered, int n, double base_mass,
                         double steered_mass)
{
    double kl = 0;
    for (int i = 0; i < n; i++) {
        double log_p = (double)steered[i] - steered_mass, log_q = (double)base[i] - base_mass;
        double p = exp(log_p);
        if (p > 0)
            kl += p * (log_p - log_q);
    }
    if (!isfinite(kl))
        return INFINITY;
    return kl > 0 ? kl : 0;
}

static size_t common_prefix(const struct passage_reader *r, const struct passage *p)
{
    size_t n = 0, most = p->n < r->n_held ? p->n : r->n_held;
    while (n < most && p->ids[n] == r->held[n])
        n++;
    return n;
}

/* Rows 2i (base) and 2i+1 (steered) are position at + i. The last token predicts nothing. */
static size_t build_rows(const struct passage_reader *r, const struct passage *p, size_t at)
{
    struct gyaru_model *m = r->model;
    size_t most =
        (size_t)(m->shape.max_rows < MODEL_EVAL_ROWS ? m->shape.max_rows : MODEL_EVAL_ROWS) / 2;
    size_t n = p->n - 1 - at < most ? p->n - 1 - at : most;
    for (size_t i = 0; i < 2 * n; i++) {
        size_t pos = at + i / 2;
        m->rows[i] = (struct backend_row){.token = p->ids[pos],
                                          .slot = r->slots[i % 2],
                                          .pos = (int32_t)pos,
                                          .logits = pos + 1 >= p->first};
        if (i % 2 && r->vector >= 0)
            m->rows[i].strength[r->vector] = r->strength;
    }
    return n;
}

/* `base` and `steered` predict the token at `next`. */
static void take(const struct passage_reader *r, const struct passage *p, size_t next, int row,
                 const float *base, const float *steered, float *kl, struct passage_reading *sum)
{
    int vocab = r->model->shape.vocab;
    double base_mass = log_mass(base, vocab), steered_mass = log_mass(steered, vocab);
    float cosine = NAN, unused;
    int32_t id = p->ids[next];
    kl[next - p->first] = (float)divergence(base, steered, vocab, base_mass, steered_mass);
    sum->base_nll += base_mass - (double)base[id];
    sum->steered_nll += steered_mass - (double)steered[id];
    if (r->vector >= 0)
        model_read_meter(r->model, r->vector, row, &cosine, &unused);
    sum->cosine += (double)cosine;
}

int passage_read(struct passage_reader *r, const struct passage *p, float *kl,
                 struct passage_reading *out, struct gyaru_error *err)
{
    struct passage_reading sum = {0};
    size_t reuse = common_prefix(r, p), vocab = (size_t)r->model->shape.vocab;
    r->n_held = 0; /* nothing is sure until all went well */
    if (p->n == p->first) {
        *out = sum;
        return 0;
    }
    for (size_t at = reuse < p->first - 1 ? reuse : p->first - 1; at + 1 < p->n;) {
        float *logits;
        size_t n = build_rows(r, p, at);
        if (qwen2_forward(r->model, r->model->rows, (int)(2 * n), NULL, &logits, err))
            return -1;
        for (size_t i = 0; i < n; i++) {
            if (!r->model->rows[2 * i].logits)
                continue;
            take(r, p, at + i + 1, (int)(2 * i + 1), logits, logits + vocab, kl, &sum);
            logits += 2 * vocab;
        }
        at += n;
    }
    double tokens = (double)(p->n - p->first);
    *out = (struct passage_reading){sum.base_nll / tokens, sum.steered_nll / tokens,
                                    sum.cosine / tokens};
    r->held = p->ids;
    r->n_held = p->n - 1;
    return 0;
}

int passage_nll(struct gyaru_model *model, const struct passage *p, double *out,
                struct gyaru_error *err)
{
    if (p->n == p->first) {
        *out = 0;
        return 0;
    }
    double *nll = malloc(p->n * sizeof *nll), sum = 0;
    if (!nll)
        return error_memory(err, p->n * sizeof *nll, "a text");
    struct gyaru_eval eval = {.ids = p->ids, .n = p->n, .gauge = -1, .nll = nll};
    int rc = gyaru_model_eval(model, &eval, err);
    for (size_t i = p->first - 1; !rc && i + 1 < p->n; i++)
        sum += nll[i];
    free(nll);
    *out = sum / (double)(p->n - p->first);
    return rc;
}
