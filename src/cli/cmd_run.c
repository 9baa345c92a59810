/*
 * cmd_run.c - `gyaru run`: one answer, streamed to stdout, or as one JSON document.
 */
#include "cli/cli.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"

#include "base/json.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run_options {
    const char *prompt, *system, *ids;
    bool json, ignore_eos;
};

static const struct option_spec run_specs[] = {
    {'p', "prompt", OPTION_TEXT, offsetof(struct run_options, prompt), 0, 0, "TEXT",
     "the user's message"},
    {0, "system", OPTION_TEXT, offsetof(struct run_options, system), 0, 0, "TEXT",
     "system prompt (config, else the template's own)"},
    {0, "ids", OPTION_TEXT, offsetof(struct run_options, ids), 0, 0, "1,2,3",
     "raw token ids in place of -p: no template; with --temp 0 the choice is among all of the "
     "head's ids, the padding past the tokenizer included"},
    {0, "ignore-eos", OPTION_FLAG, offsetof(struct run_options, ignore_eos), 0, 0, NULL,
     "go on to -n tokens, for timings"},
    {0, "json", OPTION_FLAG, offsetof(struct run_options, json), 0, 0, NULL,
     "one JSON document: ids, text, gauge, finish_reason, timings"},
    OPTION_END};

/* What the answer consisted of. */
struct answer {
    json_t *ids, *gauge, *calibrated;
    struct str text;
    enum gyaru_finish finish;
};

static const char *finish_name(enum gyaru_finish finish)
{
    static const char *const names[] = {[GYARU_RUNNING] = "running",
                                        [GYARU_STOP] = "stop",
                                        [GYARU_LENGTH] = "length",
                                        [GYARU_CANCELLED] = "cancelled",
                                        [GYARU_OVERFLOW] = "overflow"};
    return names[finish];
}

static int make_prompt(const struct run_options *run, const struct common_options *common,
                       const struct gyaru_model *model, int32_t **ids, size_t *n,
                       struct gyaru_error *err)
{
    if (run->ids)
        return ids_parse(run->ids, ids, n, err);
    const char *system = run->system ? run->system : common->config.system_prompt;
    struct gyaru_message messages[] = {{"system", system}, {"user", run->prompt}};
    return gyaru_chat_encode(gyaru_model_tokenizer(model), system ? messages : messages + 1,
                             system ? 2 : 1, true, ids, n, err);
}

static void take_event(struct answer *answer, const struct gyaru_event *event, bool stream)
{
    if (event->token >= 0) {
        json_array_append_new(answer->ids, json_integer(event->token));
        json_array_append_new(answer->gauge, json_finite((double)event->cosine));
        json_array_append_new(answer->calibrated, json_finite((double)event->gauge));
    }
    str_append(&answer->text, event->text, event->text_len);
    if (stream) {
        fwrite(event->text, 1, event->text_len, stdout);
        fflush(stdout);
    }
    answer->finish = event->finish;
}

static int generate(struct gyaru_session *session, const struct gyaru_request *request,
                    struct answer *answer, bool stream, struct gyaru_error *err)
{
    if (gyaru_session_start(session, request, err))
        return -1;
    while (gyaru_session_busy(session)) {
        struct gyaru_event event;
        size_t n;
        if (interrupt_seen())
            gyaru_session_cancel(session);
        if (gyaru_step(&session, 1, &event, &n, err))
            return -1;
        if (n)
            take_event(answer, &event, stream);
    }
    return 0;
}

static json_t *timings_json(const struct gyaru_timings *t, const struct gyaru_model_info *info)
{
    double decoded = t->n_generated > 1 ? (double)(t->n_generated - 1) : 0;
    double prefilled = (double)(t->n_prompt - t->n_cached);
    return json_pack(
        "{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "prompt_tokens", (json_int_t)t->n_prompt,
        "cached_tokens", (json_int_t)t->n_cached, "generated_tokens", (json_int_t)t->n_generated,
        "load_seconds", info->load_seconds, "first_token_seconds", t->first_token_seconds,
        "decode_seconds", t->decode_seconds, "prefill_tokens_per_second",
        t->prefill_seconds > 0 ? prefilled / t->prefill_seconds : 0.0, "tokens_per_second",
        t->decode_seconds > 0 ? decoded / t->decode_seconds : 0.0);
}

static void print_json(const struct answer *answer, const struct gyaru_session *session,
                       const struct loaded_model *loaded, uint64_t seed)
{
    struct gyaru_timings timings;
    gyaru_session_timings(session, &timings);
    json_t *root = json_pack(
        "{s:O, s:s%, s:O, s:O, s:s, s:o, s:I}", "ids", answer->ids, "text",
        answer->text.data ? answer->text.data : "", answer->text.len, "gauge", answer->gauge,
        "calibrated", answer->calibrated, "finish_reason", finish_name(answer->finish), "timings",
        timings_json(&timings, gyaru_model_info(loaded->model)), "seed", (json_int_t)seed);
    if (root && loaded->vector >= 0) {
        json_object_set_new(root, "vector", json_string(loaded->vector_path));
        json_object_set_new(root, "strength", json_real((double)loaded->strength));
        json_object_set_new(root, "gauge_layer",
                            json_integer(gyaru_model_gauge_layer(loaded->model, loaded->vector)));
    }
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
}

static int answer_once(const struct run_options *run, const struct common_options *common,
                       const struct sampling_options *sampling, struct loaded_model *loaded,
                       struct gyaru_error *err)
{
    float strengths[GYARU_MAX_VECTORS] = {0};
    struct gyaru_request request;
    struct gyaru_session *session = NULL;
    struct answer answer = {json_array(), json_array(), json_array(), STR_INIT, GYARU_RUNNING};
    int32_t *ids = NULL;
    gyaru_request_init(loaded->model, &request);
    sampling_options_apply(sampling, loaded->model, &request.sampling);
    request.max_tokens = sampling->max_tokens;
    request.ignore_eos = run->ignore_eos;
    /* Greedy over raw ids is for comparison with other engines, which know no tokenizer there. */
    request.any_id = run->ids && request.sampling.temperature <= 0;
    request.gauge = loaded->vector;
    request.strengths = strengths;
    if (loaded->vector >= 0)
        strengths[loaded->vector] = loaded->strength;
    int rc = make_prompt(run, common, loaded->model, &ids, &request.n_prompt, err);
    request.prompt = ids;
    if (!rc)
        rc = gyaru_session_new(loaded->model, &session, err);
    if (!rc)
        rc = generate(session, &request, &answer, !run->json, err);
    if (!rc && run->json)
        print_json(&answer, session, loaded, request.sampling.seed);
    else if (!rc)
        putchar('\n');
    if (!rc && answer.finish == GYARU_OVERFLOW)
        rc = error_set(err, GYARU_FAILED,
                       "the model's numbers overflowed at strength %g: lower the strength",
                       (double)loaded->strength);
    gyaru_session_free(session);
    free(ids);
    json_decref(answer.ids);
    json_decref(answer.gauge);
    json_decref(answer.calibrated);
    str_release(&answer.text);
    return rc;
}

static int run(const struct run_options *options, struct common_options *common,
               struct sampling_options *sampling, struct gyaru_error *err)
{
    if (!options->prompt == !options->ids)
        return error_set(err, GYARU_USAGE, "give either -p TEXT or --ids 1,2,3");
    if (common_options_finish(common, err))
        return -1;
    sampling_options_finish(sampling, &common->config);
    struct progress progress = PROGRESS_INIT;
    struct load_options load = {
        .sessions = 1, .find_vector = true, .progress = progress_show, .progress_user = &progress};
    struct loaded_model loaded;
    if (common_load(common, &load, &loaded, err))
        return -1;
    progress_end(&progress);
    loaded_model_say("run", loaded.model);
    if (loaded.warning)
        fprintf(stderr, "gyaru run: warning: %s\n", loaded.warning);
    int rc = answer_once(options, common, sampling, &loaded, err);
    loaded_model_release(&loaded);
    return rc;
}

static int main_run(int argc, char **argv)
{
    struct gyaru_error err;
    struct run_options options = {0};
    struct common_options common;
    struct sampling_options sampling;
    common_options_init(&common);
    sampling_options_init(&sampling);
    const struct option_group groups[] = {{run_specs, &options},
                                          {common_model_options, &common},
                                          {common_steering_options, &common},
                                          {sampling_options, &sampling},
                                          {NULL, NULL}};
    const struct option_help help = {"run", "-p TEXT [options]",
                                     "Answers one message and prints the answer as it comes.",
                                     groups};
    interrupt_catch();
    enum option_result parsed = options_parse(&help, &argc, argv, &err);
    int code = GYARU_OK;
    if (parsed == OPTIONS_BAD)
        code = options_fail("run", &err);
    else if (parsed == OPTIONS_OK) {
        if (sampling.max_tokens == OPTION_UNSET)
            sampling.max_tokens = 128;
        if (argc > 1)
            error_set(&err, GYARU_USAGE, "%s: unexpected: the message goes after -p", argv[1]);
        if (argc > 1 || run(&options, &common, &sampling, &err))
            code = options_fail("run", &err);
    }
    common_options_release(&common);
    return code;
}

const struct command cmd_run = {"run", "one answer", main_run};
