/* measure.c - see measure.h. Owner of the sessions while it runs; an error gives them all back. */
#include "steer/measure.h"

#include "base/clock.h"
#include "base/random.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH 64 /* more sessions than a model can have */

/* One answer being generated. */
struct lane {
    struct gyaru_session *session;
    size_t message; /* whose answer it is */
    bool busy;
    int32_t *ids; /* [max_tokens + 1] */
    size_t n_ids;
    double cosine, gauge; /* sums */
};

struct run {
    const struct measure_plan *plan;
    struct measure_set *set;
    struct lane lanes[MAX_BATCH];
    size_t n_lanes;
    size_t n_started, n_done;
};

int measure_prompt(const struct gyaru_model *model, const char *system, const char *message,
                   int32_t **ids, size_t *n, struct gyaru_error *err)
{
    struct gyaru_message messages[] = {{"system", system}, {"user", message}};
    return gyaru_chat_encode(gyaru_model_tokenizer(model), system ? messages : messages + 1,
                             system ? 2 : 1, true, ids, n, err);
}

/* ---- one answer ------------------------------------------------------------------------------
 */

static int start_answer(struct run *r, struct lane *lane, struct gyaru_error *err)
{
    const struct measure_plan *p = r->plan;
    float strengths[GYARU_MAX_VECTORS] = {0};
    struct gyaru_request request;
    int32_t *prompt;
    gyaru_request_init(p->model, &request);
    if (measure_prompt(p->model, p->system, p->messages[r->n_started], &prompt, &request.n_prompt,
                       err))
        return -1;
    /* Splitmix scatters neighbouring seeds: each message has a stream of its own. */
    uint64_t seed = p->sampling.seed + r->n_started;
    request.prompt = prompt;
    request.max_tokens = p->max_tokens;
    request.sampling = p->sampling;
    request.sampling.seed = random_next(&seed);
    request.gauge = p->vector;
    if (p->vector >= 0)
        strengths[p->vector] = p->strength;
    request.strengths = strengths;
    int rc = gyaru_session_start(lane->session, &request, err);
    free(prompt);
    lane->message = r->n_started++;
    lane->busy = !rc;
    lane->n_ids = 0;
    lane->cosine = lane->gauge = 0;
    return rc;
}

static int finish_answer(struct run *r, struct lane *lane, enum gyaru_finish finish,
                         struct gyaru_error *err)
{
    struct measure_answer *a = &r->set->answers[lane->message];
    lane->busy = false;
    r->n_done++;
    r->set->n_tokens += lane->n_ids;
    if (lane->n_ids) {
        a->cosine = lane->cosine / (double)lane->n_ids;
        a->gauge = lane->gauge / (double)lane->n_ids;
    }
    /* The token that closes the answer is no part of it. */
    if (finish == GYARU_STOP && lane->n_ids)
        lane->n_ids--;
    a->finish = finish;
    a->n_tokens = lane->n_ids;
    a->ids = malloc((lane->n_ids + 1) * sizeof *a->ids);
    if (!a->ids)
        return error_memory(err, lane->n_ids * sizeof *a->ids, "an answer");
    memcpy(a->ids, lane->ids, lane->n_ids * sizeof *a->ids);
    if (gyaru_detokenize(gyaru_model_tokenizer(r->plan->model), a->ids, a->n_tokens, &a->text,
                         &a->len, err))
        return -1;
    return text_judge(r->plan->style, a->text, a->len, finish == GYARU_STOP, &a->judged, err);
}

static struct lane *lane_of(struct run *r, const struct gyaru_session *session)
{
    for (size_t i = 0; i < r->n_lanes; i++)
        if (r->lanes[i].session == session)
            return &r->lanes[i];
    return NULL;
}

static int take_event(struct run *r, const struct gyaru_event *event, struct gyaru_error *err)
{
    struct lane *lane = lane_of(r, event->session);
    if (event->token >= 0) {
        lane->ids[lane->n_ids++] = event->token;
        lane->cosine += (double)event->cosine;
        lane->gauge += (double)event->gauge;
    }
    return event->finish == GYARU_RUNNING ? 0 : finish_answer(r, lane, event->finish, err);
}

/* ---- all of them ------------------------------------------------------------------------------
 */

static int open_lanes(struct run *r, struct gyaru_error *err)
{
    const struct measure_plan *p = r->plan;
    size_t most = p->n_messages < MAX_BATCH ? p->n_messages : MAX_BATCH;
    if (p->batch > 0 && (size_t)p->batch < most)
        most = (size_t)p->batch;
    while (r->n_lanes < most) {
        struct lane *lane = &r->lanes[r->n_lanes];
        if (gyaru_session_new(p->model, &lane->session, err)) {
            if (r->n_lanes)
                break; /* as many as there are */
            return -1;
        }
        r->n_lanes++;
        lane->ids = malloc(((size_t)p->max_tokens + 1) * sizeof *lane->ids);
        if (!lane->ids)
            return error_memory(err, (size_t)p->max_tokens * sizeof *lane->ids, "an answer");
    }
    return 0;
}

static int step(struct run *r, struct gyaru_error *err)
{
    struct gyaru_session *busy[MAX_BATCH];
    struct gyaru_event events[MAX_BATCH];
    size_t n = 0, n_events;
    for (size_t i = 0; i < r->n_lanes; i++) {
        struct lane *lane = &r->lanes[i];
        if (!lane->busy && r->n_started < r->plan->n_messages && start_answer(r, lane, err))
            return -1;
        if (lane->busy)
            busy[n++] = lane->session;
    }
    if (gyaru_step(busy, n, events, &n_events, err))
        return -1;
    for (size_t i = 0; i < n_events; i++)
        if (take_event(r, &events[i], err))
            return -1;
    return 0;
}

static int report(const struct run *r, struct gyaru_error *err)
{
    const struct measure_plan *p = r->plan;
    uint64_t all = p->all_work ? p->all_work : p->n_messages;
    if (!p->progress || !p->progress(p->progress_user, p->what ? p->what : "answering",
                                     p->done_before + r->n_done, all))
        return 0;
    return error_set(err, GYARU_FAILED, "interrupted");
}

static int check_plan(const struct measure_plan *p, struct gyaru_error *err)
{
    if (!gyaru_model_tokenizer(p->model))
        return error_set(err, GYARU_USAGE, "measure: a random model has no words");
    if (p->max_tokens < 1 || p->max_tokens > 1 << 20)
        return error_set(err, GYARU_USAGE, "measure: %d tokens of an answer: expected 1..%d",
                         p->max_tokens, 1 << 20);
    if (p->vector < 0 && fabsf(p->strength) > 0)
        return error_set(err, GYARU_USAGE, "measure: strength %g needs a vector",
                         (double)p->strength);
    return 0;
}

int measure_run(const struct measure_plan *plan, struct measure_set *out, struct gyaru_error *err)
{
    struct measure_set set = {.n = plan->n_messages};
    struct run r = {.plan = plan, .set = &set};
    if (check_plan(plan, err))
        return -1;
    set.answers = calloc(set.n + 1, sizeof *set.answers);
    if (!set.answers)
        return error_memory(err, set.n * sizeof *set.answers, "the answers");
    for (size_t i = 0; i < set.n; i++)
        set.answers[i].cosine = set.answers[i].gauge = NAN;
    double started = clock_seconds();
    int rc = open_lanes(&r, err);
    while (!rc && r.n_done < set.n) {
        rc = step(&r, err);
        if (!rc)
            rc = report(&r, err);
    }
    set.seconds = clock_seconds() - started;
    for (size_t i = 0; i < r.n_lanes; i++) {
        gyaru_session_free(r.lanes[i].session);
        free(r.lanes[i].ids);
    }
    if (rc)
        measure_set_release(&set);
    else
        *out = set;
    return rc;
}

void measure_set_release(struct measure_set *set)
{
    for (size_t i = 0; set->answers && i < set->n; i++) {
        free(set->answers[i].text);
        free(set->answers[i].ids);
    }
    free(set->answers);
    *set = (struct measure_set){0};
}

/* ---- figures ----------------------------------------------------------------------------------
 */

static int measure_distinct(const struct measure_set *set, struct measure_figures *f,
                            struct gyaru_error *err)
{
    const char **texts = calloc(set->n + 1, sizeof *texts);
    size_t *lens = calloc(set->n + 1, sizeof *lens);
    int rc = texts && lens ? 0 : error_memory(err, set->n * sizeof *texts, "the answers");
    for (size_t i = 0; !rc && i < set->n; i++) {
        texts[i] = set->answers[i].text;
        lens[i] = set->answers[i].len;
    }
    for (int n = 1; !rc && n <= 2; n++)
        rc = text_distinct(texts, lens, set->n, n, &f->distinct[n - 1], err);
    free(texts);
    free(lens);
    return rc;
}

int measure_figures(const struct measure_set *set, struct measure_figures *out,
                    struct gyaru_error *err)
{
    struct measure_figures f = {0};
    double n = (double)set->n;
    for (size_t i = 0; i < set->n; i++) {
        const struct measure_answer *a = &set->answers[i];
        const struct text_judgement *j = &a->judged;
        f.signature += j->signature / n;
        f.marker += j->marker / n;
        f.polite += j->polite / n;
        f.faults[j->fault] += 1 / n;
        f.garbled += (j->fault != TEXT_FINE) / n;
        f.invalid_utf8 += j->invalid_utf8 / n;
        f.script += j->script / n;
        f.repetition += j->repetition / n;
        f.cosine += a->cosine / n;
        f.gauge += a->gauge / n;
        f.length += (double)a->n_tokens / n;
    }
    f.tokens_per_second = set->seconds > 0 ? (double)set->n_tokens / set->seconds : 0;
    if (measure_distinct(set, &f, err))
        return -1;
    *out = f;
    return 0;
}

double measure_share_error(double share, size_t n)
{
    double p = fmin(fmax(share, 1.0 / (double)n), 1 - 1.0 / (double)n);
    return sqrt(p * (1 - p) / (double)n);
}
