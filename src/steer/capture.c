/*
 * capture.c - see capture.h. Owner of the texts and buffers of a run.
 *
 * Each pair has one KV slot: first its plain text is read there, then the styled one, which
 * reuses what both have in common; the next pair in the slot reuses the system prompt.
 */
#include "steer/capture.h"

#include "base/str.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAPS_LIMIT ((size_t)256 << 20) /* bytes for what one step reads, if 16 rows fit into it */

/* A slot and the text that is being read in it. */
struct lane {
    int slot;
    const struct capture_text *held; /* the text that the slot's KV holds; NULL: none */
    const struct capture_text *text;
    size_t next;    /* position to be read next */
    double *sums;   /* [n_layers, hidden] over the answer's tokens */
    float *lengths; /* [n_layers, longest answer] of their hidden states */
    float *last;    /* [n_layers, hidden] destination, like the next two, in the pair's record */
    float *content;
    float *norms; /* [n_layers] */
};

struct run {
    struct gyaru_model *model;
    const struct dataset *dataset;
    const struct capture_options *options;
    struct capture_text *texts; /* [n_pairs][CAPTURE_SIDES] */
    size_t n_pairs, n_layers, hidden, longest;
    struct lane *lanes;
    size_t n_lanes;
    struct backend_row *rows; /* [max_rows] of the step */
    struct lane **row_lanes;  /* [max_rows] whose they are */
    float *taps;              /* [n_layers + 1, max_rows, hidden] */
    size_t max_rows;
    float *records;       /* [n_lanes, record_floats] */
    uint64_t done, total; /* tokens, for the progress */
};

/* ---- records ----------------------------------------------------------------------------------
 *
 * [side][position][layer][hidden], then [side][layer] lengths. */

static size_t block_floats(size_t n_layers, size_t hidden)
{
    return n_layers * hidden;
}

static size_t record_floats(size_t n_layers, size_t hidden)
{
    return CAPTURE_SIDES * (CAPTURE_POSITIONS * block_floats(n_layers, hidden) + n_layers);
}

static size_t features_at(size_t n_layers, size_t hidden, enum capture_side side,
                          enum capture_position position)
{
    return ((size_t)side * CAPTURE_POSITIONS + position) * block_floats(n_layers, hidden);
}

static size_t norms_at(size_t n_layers, size_t hidden, enum capture_side side)
{
    return CAPTURE_SIDES * CAPTURE_POSITIONS * block_floats(n_layers, hidden) + side * n_layers;
}

const float *capture_features(const struct capture *c, size_t pair, enum capture_side side,
                              enum capture_position position, size_t layer)
{
    return journal_record(&c->journal, pair) + features_at(c->n_layers, c->hidden, side, position) +
           layer * c->hidden;
}

const float *capture_norms(const struct capture *c, size_t pair, enum capture_side side)
{
    return journal_record(&c->journal, pair) + norms_at(c->n_layers, c->hidden, side);
}

/* ---- texts ------------------------------------------------------------------------------------
 */

static const struct capture_text *text_of(const struct run *r, size_t pair, enum capture_side side)
{
    return &r->texts[pair * CAPTURE_SIDES + side];
}

static int encode_pair(struct run *r, size_t pair, const struct dataset_keys *keys,
                       struct gyaru_error *err)
{
    const struct dataset_pair *p = &r->dataset->pairs[pair];
    for (int side = 0; side < CAPTURE_SIDES; side++) {
        struct capture_text *text = &r->texts[pair * CAPTURE_SIDES + (size_t)side];
        bool positive = side == SIDE_POSITIVE;
        char what[200];
        snprintf(what, sizeof what, "%.120s:%zu: '%.40s'", r->dataset->path, p->line,
                 positive ? keys->positive : keys->negative);
        if (capture_encode(r->model->tokenizer, r->options->prompt, p->topic,
                           positive ? p->positive : p->negative, what, text, err))
            return -1;
        if (text->n > (size_t)r->model->shape.context)
            return error_set(err, GYARU_FAILED,
                             "%s: %zu tokens with the question, the context holds %d: raise "
                             "--context or shorten the text",
                             what, text->n, r->model->shape.context);
        if (text->end - text->first > r->longest)
            r->longest = text->end - text->first;
    }
    return 0;
}

static int encode_all(struct run *r, const struct dataset_keys *keys, struct gyaru_error *err)
{
    r->texts = calloc(r->n_pairs * CAPTURE_SIDES, sizeof *r->texts);
    if (!r->texts)
        return error_memory(err, r->n_pairs * CAPTURE_SIDES * sizeof *r->texts, "the texts");
    for (size_t i = 0; i < r->n_pairs; i++)
        if (encode_pair(r, i, keys, err))
            return -1;
    return 0;
}

/* ---- buffers ----------------------------------------------------------------------------------
 */

static void run_release(struct run *r)
{
    for (size_t i = 0; r->texts && i < r->n_pairs * CAPTURE_SIDES; i++)
        free(r->texts[i].ids);
    for (size_t i = 0; r->lanes && i < r->n_lanes; i++) {
        free(r->lanes[i].sums);
        free(r->lanes[i].lengths);
    }
    free(r->texts);
    free(r->lanes);
    free(r->rows);
    free(r->row_lanes);
    free(r->taps);
    free(r->records);
}

static int make_lanes(struct run *r, struct gyaru_error *err)
{
    const struct gyaru_model *m = r->model;
    r->lanes = calloc((size_t)m->shape.n_slots, sizeof *r->lanes);
    if (!r->lanes)
        return error_memory(err, (size_t)m->shape.n_slots * sizeof *r->lanes, "the slots");
    for (int s = 0; s < m->shape.n_slots && r->n_lanes < r->n_pairs; s++) {
        if (m->slots[s])
            continue;
        struct lane *lane = &r->lanes[r->n_lanes++];
        lane->slot = s;
        lane->sums = malloc(r->n_layers * r->hidden * sizeof *lane->sums);
        lane->lengths = malloc(r->n_layers * r->longest * sizeof *lane->lengths);
        if (!lane->sums || !lane->lengths)
            return error_memory(err, r->n_layers * r->hidden * sizeof *lane->sums, "the means");
    }
    if (!r->n_lanes)
        return error_set(err, GYARU_FAILED, "all %d sessions are in use", m->shape.n_slots);
    return 0;
}

static int make_buffers(struct run *r, struct gyaru_error *err)
{
    if (make_lanes(r, err))
        return -1;
    size_t row_bytes = (r->n_layers + 1) * r->hidden * sizeof *r->taps;
    size_t fit = TAPS_LIMIT / row_bytes > 16 ? TAPS_LIMIT / row_bytes : 16;
    size_t limit = (size_t)r->model->shape.max_rows;
    r->max_rows = limit < fit ? limit : fit;
    r->rows = malloc(r->max_rows * sizeof *r->rows);
    r->row_lanes = malloc(r->max_rows * sizeof *r->row_lanes);
    r->taps = malloc(r->max_rows * row_bytes);
    r->records = malloc(r->n_lanes * record_floats(r->n_layers, r->hidden) * sizeof *r->records);
    if (!r->rows || !r->row_lanes || !r->taps || !r->records)
        return error_memory(err, r->max_rows * row_bytes, "what the layers say");
    return 0;
}

/* ---- one step ---------------------------------------------------------------------------------
 */

/* What row `row` of `n` says goes to its lane. */
static void take_row(struct run *r, size_t row, size_t n)
{
    struct lane *lane = r->row_lanes[row];
    size_t pos = (size_t)r->rows[row].pos, hidden = r->hidden;
    bool in_answer = pos >= lane->text->first && pos < lane->text->end;
    bool is_last = pos + 1 == lane->text->n;
    for (size_t l = 0; (in_answer || is_last) && l < r->n_layers; l++) {
        const float *state = r->taps + ((l + 1) * n + row) * hidden;
        if (is_last)
            memcpy(lane->last + l * hidden, state, hidden * sizeof *state);
        if (!in_answer)
            continue;
        double *sums = lane->sums + l * hidden, square = 0;
        for (size_t h = 0; h < hidden; h++) {
            sums[h] += (double)state[h];
            square += (double)state[h] * (double)state[h];
        }
        lane->lengths[l * r->longest + pos - lane->text->first] = (float)sqrt(square);
    }
}

/* As many rows of the lanes' texts as fit. */
static size_t build_rows(struct run *r, size_t n_lanes)
{
    size_t n = 0;
    for (size_t i = 0; i < n_lanes; i++) {
        struct lane *lane = &r->lanes[i];
        while (lane->next < lane->text->n && n < r->max_rows) {
            r->rows[n] = (struct backend_row){.token = lane->text->ids[lane->next],
                                              .slot = lane->slot,
                                              .pos = (int32_t)lane->next};
            lane->next++;
            r->row_lanes[n++] = lane;
        }
    }
    return n;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int finish_text(struct run *r, struct lane *lane, const char *what, struct gyaru_error *err)
{
    size_t count = lane->text->end - lane->text->first;
    for (size_t l = 0; l < r->n_layers; l++) {
        float *lengths = lane->lengths + l * r->longest;
        bool finite = true;
        for (size_t h = 0; h < r->hidden; h++) {
            size_t at = l * r->hidden + h;
            lane->content[at] = (float)(lane->sums[at] / (double)count);
            finite = finite && isfinite(lane->content[at]) && isfinite(lane->last[at]);
        }
        if (!finite)
            return error_set(err, GYARU_FAILED, "%s: layer %zu has values that are not finite",
                             what, l);
        qsort(lengths, count, sizeof *lengths, by_value);
        lane->norms[l] = (lengths[(count - 1) / 2] + lengths[count / 2]) / 2;
    }
    return 0;
}

/* ---- groups of pairs --------------------------------------------------------------------------
 */

static size_t common_prefix(const struct capture_text *a, const struct capture_text *b)
{
    size_t n = 0;
    while (n < a->n && n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

static void begin_text(struct run *r, struct lane *lane, const struct capture_text *text,
                       enum capture_side side, float *record)
{
    size_t reuse = lane->held ? common_prefix(lane->held, text) : 0;
    lane->next = reuse < text->first ? reuse : text->first;
    r->done += lane->next;
    lane->text = lane->held = text;
    lane->last = record + features_at(r->n_layers, r->hidden, side, POSITION_LAST);
    lane->content = record + features_at(r->n_layers, r->hidden, side, POSITION_CONTENT);
    lane->norms = record + norms_at(r->n_layers, r->hidden, side);
    memset(lane->sums, 0, r->n_layers * r->hidden * sizeof *lane->sums);
}

static int report_progress(struct run *r, const struct journal *j, struct gyaru_error *err)
{
    if (!r->options->progress ||
        !r->options->progress(r->options->progress_user, "reading pairs", r->done, r->total))
        return 0;
    return error_set(err, GYARU_FAILED,
                     "interrupted: %zu of %zu pairs are kept in %s; the same command goes on from "
                     "there",
                     j->n_done, j->n_total, j->path);
}

/* One side of the pairs first .. first+n-1, each in its lane. */
static int read_side(struct run *r, const struct journal *j, size_t first, size_t n,
                     enum capture_side side, struct gyaru_error *err)
{
    size_t floats = record_floats(r->n_layers, r->hidden), n_rows;
    for (size_t i = 0; i < n; i++)
        begin_text(r, &r->lanes[i], text_of(r, first + i, side), side, r->records + i * floats);
    while ((n_rows = build_rows(r, n))) {
        float *logits;
        struct model_taps taps = {.hidden = r->taps};
        if (qwen2_forward(r->model, r->rows, (int)n_rows, &taps, &logits, err))
            return -1;
        for (size_t row = 0; row < n_rows; row++)
            take_row(r, row, n_rows);
        r->done += n_rows;
        if (report_progress(r, j, err))
            return -1;
    }
    for (size_t i = 0; i < n; i++) {
        char what[200];
        snprintf(what, sizeof what, "%.120s:%zu", r->dataset->path,
                 r->dataset->pairs[first + i].line);
        if (finish_text(r, &r->lanes[i], what, err))
            return -1;
    }
    return 0;
}

static int read_pairs(struct run *r, struct journal *j, struct gyaru_error *err)
{
    for (size_t i = j->n_done; i < r->n_pairs; i++)
        r->total += text_of(r, i, SIDE_NEGATIVE)->n + text_of(r, i, SIDE_POSITIVE)->n;
    while (j->n_done < r->n_pairs) {
        size_t left = r->n_pairs - j->n_done, n = left < r->n_lanes ? left : r->n_lanes;
        if (read_side(r, j, j->n_done, n, SIDE_NEGATIVE, err) ||
            read_side(r, j, j->n_done, n, SIDE_POSITIVE, err) ||
            journal_append(j, r->records, n, err) || report_progress(r, j, err))
            return -1;
    }
    return 0;
}

/* ---- all --------------------------------------------------------------------------------------
 */

/* Names everything that the numbers depend on. */
static void make_key(const struct run *r, const struct dataset_keys *keys,
                     uint8_t key[SHA256_BYTES])
{
    const struct gyaru_model *m = r->model;
    const char *const parts[] = {"capture 1",        m->info.fingerprint,
                                 m->backend->name,   gyaru_kv_name(m->shape.kv),
                                 r->dataset->sha256, keys->topic,
                                 keys->positive,     keys->negative,
                                 r->options->prompt, tokenizer_template_sha256(m->tokenizer)};
    struct sha256 hash;
    sha256_init(&hash);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        sha256_update(&hash, parts[i], strlen(parts[i]) + 1);
    sha256_final(&hash, key);
}

int capture_run(struct gyaru_model *model, const struct dataset *dataset,
                const struct dataset_keys *keys, const struct capture_options *options,
                struct capture *out, struct gyaru_error *err)
{
    struct run r = {.model = model,
                    .dataset = dataset,
                    .options = options,
                    .n_pairs = dataset->n,
                    .n_layers = (size_t)model->shape.n_layers,
                    .hidden = (size_t)model->shape.hidden};
    struct journal journal = {.fd = -1};
    uint8_t key[SHA256_BYTES];
    make_key(&r, keys, key);
    int rc = encode_all(&r, keys, err);
    if (!rc)
        rc = journal_open(options->journal, key, record_floats(r.n_layers, r.hidden), r.n_pairs,
                          &journal, err);
    size_t n_resumed = journal.n_done;
    if (!rc && journal.n_done < r.n_pairs)
        rc = make_buffers(&r, err);
    if (!rc)
        rc = read_pairs(&r, &journal, err);
    if (!rc)
        rc = journal_map(&journal, err);
    run_release(&r);
    if (rc) {
        journal_close(&journal, false);
        return -1;
    }
    *out = (struct capture){r.n_pairs, r.n_layers, r.hidden, n_resumed, journal};
    return 0;
}

void capture_release(struct capture *capture, bool done)
{
    journal_close(&capture->journal, done);
}
