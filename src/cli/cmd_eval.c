/*
 * cmd_eval.c - `gyaru eval`: a teacher-forced pass over given ids, for checks and comparisons.
 *
 * The dump is written behind gyaru.h: this room does not know file formats.
 */
#include "cli/cli.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>

struct eval_options {
    const char *ids, *dump;
    bool json;
    struct common_options common;
};

static const struct option_spec eval_specs[] = {
    {0, "ids", OPTION_TEXT, offsetof(struct eval_options, ids), 0, 0, "1,2,3", "token ids"},
    {0, "dump", OPTION_TEXT, offsetof(struct eval_options, dump), 0, 0, "FILE",
     "write logits F32 [T, vocab] and hidden F32 [layers+1, hidden] of the last position"},
    {0, "json", OPTION_FLAG, offsetof(struct eval_options, json), 0, 0, NULL,
     "the result is JSON in any case"},
    OPTION_END};

static void print_result(const struct gyaru_eval *e)
{
    json_t *argmax = json_array(), *nll = json_array(), *cosine = json_array(),
           *calibrated = json_array();
    for (size_t i = 0; i < e->n; i++) {
        json_array_append_new(argmax, json_integer(e->argmax[i]));
        if (i + 1 < e->n)
            json_array_append_new(nll, json_real(e->nll[i]));
        if (!e->cosine)
            continue;
        json_array_append_new(cosine, json_finite((double)e->cosine[i]));
        json_array_append_new(calibrated, json_finite((double)e->calibrated[i]));
    }
    json_t *root = json_pack("{s:o, s:o}", "argmax", argmax, "nll", nll);
    if (e->cosine) {
        json_object_set(root, "cosine", cosine);
        json_object_set(root, "calibrated", calibrated);
    }
    json_decref(cosine);
    json_decref(calibrated);
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
}

static void *allocate(size_t count, size_t size, bool *failed)
{
    void *p = calloc(count ? count : 1, size);
    *failed = *failed || !p;
    return p;
}

static int evaluate(const struct eval_options *options, const struct loaded_model *loaded,
                    struct gyaru_eval *e, struct gyaru_error *err)
{
    const struct gyaru_model_info *info = gyaru_model_info(loaded->model);
    float strengths[GYARU_MAX_VECTORS] = {0};
    bool failed = false;
    if (loaded->vector >= 0)
        strengths[loaded->vector] = loaded->strength;
    e->strengths = strengths;
    e->gauge = loaded->vector;
    e->argmax = allocate(e->n, sizeof *e->argmax, &failed);
    e->nll = allocate(e->n, sizeof *e->nll, &failed);
    if (loaded->vector >= 0) {
        e->cosine = allocate(e->n, sizeof *e->cosine, &failed);
        e->calibrated = allocate(e->n, sizeof *e->calibrated, &failed);
    }
    if (options->dump) {
        e->logits = allocate(e->n * (size_t)info->vocab_size, sizeof *e->logits, &failed);
        e->hidden = allocate(((size_t)info->n_layers + 1) * (size_t)info->hidden_size,
                             sizeof *e->hidden, &failed);
    }
    if (failed)
        return error_memory(err, e->n * (size_t)info->vocab_size * 4, "the results");
    if (gyaru_model_eval(loaded->model, e, err))
        return -1;
    if (options->dump && gyaru_eval_dump(loaded->model, e, options->dump, err))
        return -1;
    print_result(e);
    return 0;
}

static int eval(void *user, struct gyaru_error *err)
{
    struct eval_options *options = user;
    struct common_options *common = &options->common;
    struct gyaru_eval e = {0};
    int32_t *ids;
    if (!options->ids)
        return error_set(err, GYARU_USAGE, "give the ids: --ids 1,2,3");
    if (common_options_finish(common, err) || ids_parse(options->ids, &ids, &e.n, err))
        return -1;
    e.ids = ids;
    struct progress progress = PROGRESS_INIT;
    struct load_options load = {
        .sessions = 1, .progress = progress_show, .progress_user = &progress};
    struct loaded_model loaded = {0};
    int rc = common_load(common, &load, &loaded, err);
    if (!rc) {
        progress_end(&progress);
        if (loaded.warning)
            fprintf(stderr, "gyaru eval: warning: %s\n", loaded.warning);
        rc = evaluate(options, &loaded, &e, err);
        loaded_model_release(&loaded);
    }
    free(ids);
    free(e.argmax);
    free(e.nll);
    free(e.cosine);
    free(e.calibrated);
    free(e.logits);
    free(e.hidden);
    return rc;
}

static int main_eval(int argc, char **argv)
{
    struct eval_options options = {0};
    common_options_init(&options.common);
    const struct option_group groups[] = {{eval_specs, &options},
                                          {common_model_options, &options.common},
                                          {common_steering_options, &options.common},
                                          {NULL, NULL}};
    const struct option_help help = {
        "eval", "--ids 1,2,3 [options]",
        "Pushes the ids through the model and prints argmax and nll (nats) per position, and the\n"
        "raw meter (cosine) and the gauge (calibrated) when a vector is given.",
        groups};
    interrupt_catch();
    int code = options_run(&help, argc, argv, eval, &options);
    common_options_release(&options.common);
    return code;
}

const struct command cmd_eval = {"eval", "what the model says about given ids", main_eval};
