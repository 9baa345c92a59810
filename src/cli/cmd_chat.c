/*
 * cmd_chat.c - `gyaru chat`: a conversation in the terminal, the meter under each answer. With a
 * pipe as input or output every line is a message and nothing but answers reaches stdout.
 */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/line.h"
#include "cli/meter.h"
#include "cli/options.h"
#include "cli/progress.h"

#include "base/str.h"
#include "talk/conversation.h"
#include "talk/prompt.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Text of a conversation that is kept; the context holds far less of any model. */
#define HISTORY_BYTES (16u << 20)

struct chat_options {
    const char *system;
    struct common_options common;
    struct sampling_options sampling;
};

static const struct option_spec chat_specs[] = {
    {0, "system", OPTION_TEXT, offsetof(struct chat_options, system), 0, 0, "TEXT",
     "system prompt (config, else the template's own)"},
    OPTION_END};

struct chat {
    struct loaded_model loaded;
    struct gyaru_session *session;
    struct gyaru_request request; /* all but the prompt */
    struct conversation conversation;
    float strengths[GYARU_MAX_VECTORS];
    bool terminal;    /* decorations: input and output are a person's */
    struct str reply; /* of the answer in progress */
    double cosine, gauge;
    size_t n_cosine, n_gauge; /* values that the sums above hold */
};

/* Remarks are for the person, never part of the answers. */
__attribute__((format(printf, 2, 3))) static void say(const struct chat *chat, const char *format,
                                                      ...)
{
    va_list args;
    va_start(args, format);
    FILE *out = chat->terminal ? stdout : stderr;
    fputs(chat->terminal ? "  " : "gyaru chat: ", out);
    vfprintf(out, format, args);
    fputc('\n', out);
    va_end(args);
}

/* ---- one answer ---------------------------------------------------------------------------- */

static void take_event(struct chat *chat, const struct gyaru_event *event)
{
    str_append(&chat->reply, event->text, event->text_len);
    fwrite(event->text, 1, event->text_len, stdout);
    fflush(stdout);
    if (event->token < 0)
        return;
    if (!isnan(event->cosine)) {
        chat->cosine += (double)event->cosine;
        chat->n_cosine++;
    }
    if (!isnan(event->gauge)) {
        chat->gauge += (double)event->gauge;
        chat->n_gauge++;
    }
}

static int generate(struct chat *chat, enum gyaru_finish *finish, struct gyaru_error *err)
{
    str_clear(&chat->reply);
    chat->cosine = chat->gauge = 0;
    chat->n_cosine = chat->n_gauge = 0;
    if (gyaru_session_start(chat->session, &chat->request, err))
        return -1;
    while (gyaru_session_busy(chat->session)) {
        struct gyaru_event event;
        size_t n;
        if (interrupt_seen())
            gyaru_session_cancel(chat->session);
        if (gyaru_step(&chat->session, 1, &event, &n, err))
            return -1;
        if (n) {
            take_event(chat, &event);
            *finish = event.finish;
        }
    }
    putchar('\n');
    return 0;
}

static void show_meter(const struct chat *chat)
{
    struct gyaru_timings t;
    gyaru_session_timings(chat->session, &t);
    if (!chat->terminal)
        return;
    if (chat->n_cosine)
        meter_print(stdout, (float)(chat->cosine / (double)chat->n_cosine),
                    chat->n_gauge ? (float)(chat->gauge / (double)chat->n_gauge) : NAN,
                    chat->strengths[chat->loaded.vector]);
    putchar('\n');
}

/* An answer that could not be given leaves no trace; one that was cut stays as far as it came. */
static int end_turn(struct chat *chat, enum gyaru_finish finish, struct gyaru_error *err)
{
    if (finish == GYARU_OVERFLOW)
        say(chat, "the model's numbers overflowed at this strength: lower it with /strength");
    if (finish == GYARU_CANCELLED)
        say(chat, "(cancelled)");
    if (finish == GYARU_LENGTH)
        say(chat, "(cut: the answer reached its limit of tokens)");
    if (finish == GYARU_OVERFLOW || !chat->reply.len) {
        conversation_pop(&chat->conversation);
        return 0;
    }
    if (chat->reply.failed)
        return error_memory(err, 1 << 16, "the answer");
    show_meter(chat);
    if (conversation_add(&chat->conversation, true, chat->reply.data, chat->reply.len))
        return error_memory(err, chat->reply.len, "the conversation");
    return 0;
}

/* The conversation as ids (caller frees): the oldest messages are left out where they do not fit.
 */
static int encode(struct chat *chat, int32_t **ids, size_t *dropped, struct gyaru_error *err)
{
    struct gyaru_message *messages;
    size_t n;
    if (conversation_copy(&chat->conversation, &messages, &n))
        return error_memory(err, chat->conversation.bytes, "the conversation");
    int rc = prompt_encode(chat->loaded.model, messages, n, chat->request.max_tokens, ids,
                           &chat->request.n_prompt, dropped, err);
    messages_free(messages, n);
    return rc;
}

static int answer(struct chat *chat, const char *message, struct gyaru_error *err)
{
    int32_t *ids;
    size_t dropped;
    enum gyaru_finish finish = GYARU_RUNNING;
    if (conversation_add(&chat->conversation, false, message, strlen(message)))
        return error_memory(err, strlen(message), "the conversation");
    if (encode(chat, &ids, &dropped, err)) {
        conversation_pop(&chat->conversation);
        if (err->status != GYARU_USAGE)
            return -1;
        say(chat, "%s", err->text);
        return 0;
    }
    if (dropped)
        say(chat, "(the context is full: the oldest %zu message%s forgotten)", dropped,
            dropped == 1 ? " is" : "s are");
    chat->request.prompt = ids;
    int rc = generate(chat, &finish, err);
    free(ids);
    chat->request.prompt = NULL;
    chat->request.sampling.seed++;
    return rc ? -1 : end_turn(chat, finish, err);
}

/* ---- commands ------------------------------------------------------------------------------ */

static void set_strength(struct chat *chat, const char *text)
{
    char *end;
    float value = strtof(text, &end);
    int vector = chat->loaded.vector;
    if (vector < 0)
        say(chat, "no vector is attached: start with -v FILE");
    else if (!*text)
        say(chat, "strength %g", (double)chat->strengths[vector]);
    else if (*end || !(value >= GYARU_STRENGTH_MIN && value <= GYARU_STRENGTH_MAX))
        say(chat, "/strength: '%s' is not a number from %g to %g", text, (double)GYARU_STRENGTH_MIN,
            (double)GYARU_STRENGTH_MAX);
    else {
        chat->strengths[vector] = value;
        say(chat, "strength %g", (double)value);
    }
}

static void help(const struct chat *chat)
{
    say(chat, "/strength X   factor on the vector, %g to %g, from the next answer on",
        (double)GYARU_STRENGTH_MIN, (double)GYARU_STRENGTH_MAX);
    say(chat, "/system TEXT  system prompt; without TEXT the template's own");
    say(chat, "/reset        forget the conversation");
    say(chat, "/help         this text");
    say(chat, "/quit         end (Ctrl-D too); Ctrl-C cancels an answer");
}

/* "/name argument". False to end the chat. */
static bool command(struct chat *chat, const char *line, struct gyaru_error *err)
{
    size_t len = strcspn(line, " \t");
    const char *argument = line + len + strspn(line + len, " \t");
    if (!strncmp(line, "/quit", len) && len == 5)
        return false;
    if (!strncmp(line, "/strength", len) && len == 9)
        set_strength(chat, argument);
    else if (!strncmp(line, "/reset", len) && len == 6) {
        conversation_clear(&chat->conversation);
        gyaru_session_reset(chat->session);
        say(chat, "forgotten");
    } else if (!strncmp(line, "/system", len) && len == 7) {
        if (conversation_set_system(&chat->conversation, argument))
            say(chat, "out of memory: the system prompt stays as it was");
        else
            say(chat, *argument ? "system prompt set" : "the template's own system prompt");
    } else if (!strncmp(line, "/help", len) && len == 5)
        help(chat);
    else
        say(chat, "%.*s: no such command; /help lists them", (int)len, line);
    return true;
}

static int converse(struct chat *chat, struct line_reader *reader, struct gyaru_error *err)
{
    const char *line;
    while ((line = line_read(reader))) {
        line += strspn(line, " \t");
        if (*line == '/') {
            if (!command(chat, line, err))
                return 0;
        } else if (*line && answer(chat, line, err))
            return -1;
        if (interrupt_seen() && !chat->terminal)
            return 0;
        interrupt_clear();
    }
    if (chat->terminal)
        putchar('\n');
    return 0;
}

/* ---- beginning and end --------------------------------------------------------------------- */

static void greet(const struct chat *chat)
{
    const struct gyaru_model_info *info = gyaru_model_info(chat->loaded.model);
    if (!chat->terminal)
        return;
    if (chat->loaded.vector >= 0)
        say(chat, "%s on %s, vector %s at strength %g. /help lists commands.", info->name,
            info->device, chat->loaded.vector_name, (double)chat->loaded.strength);
    else
        say(chat, "%s on %s, no vector. /help lists commands.", info->name, info->device);
    putchar('\n');
}

static int prepare(struct chat *chat, const struct chat_options *o, struct gyaru_error *err)
{
    gyaru_request_init(chat->loaded.model, &chat->request);
    sampling_options_apply(&o->sampling, chat->loaded.model, &chat->request.sampling);
    chat->request.max_tokens = o->sampling.max_tokens;
    chat->request.gauge = chat->loaded.vector;
    chat->request.strengths = chat->strengths;
    if (chat->loaded.vector >= 0)
        chat->strengths[chat->loaded.vector] = chat->loaded.strength;
    const char *system = o->system ? o->system : o->common.config.system_prompt;
    conversation_init(&chat->conversation, HISTORY_BYTES);
    if (conversation_set_system(&chat->conversation, system))
        return error_memory(err, strlen(system), "the system prompt");
    return gyaru_session_new(chat->loaded.model, &chat->session, err);
}

static int chat_with(struct chat *chat, const struct chat_options *o, struct gyaru_error *err)
{
    struct line_reader *reader = NULL;
    chat->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    int rc = prepare(chat, o, err);
    if (!rc)
        rc = line_open(chat->terminal, &reader, err);
    if (!rc) {
        /* While a line is edited, libedit restores the terminal and lets this end the program. */
        if (chat->terminal)
            signal(SIGTERM, SIG_DFL);
        greet(chat);
        rc = converse(chat, reader, err);
    }
    line_close(reader);
    gyaru_session_free(chat->session);
    conversation_release(&chat->conversation);
    str_release(&chat->reply);
    return rc;
}

static int chat(void *user, struct gyaru_error *err)
{
    struct chat_options *o = user;
    struct common_options *common = &o->common;
    struct progress progress = PROGRESS_INIT;
    struct load_options load = {
        .sessions = 1, .find_vector = true, .progress = progress_show, .progress_user = &progress};
    struct chat state = {0};
    if (common_options_finish(common, err))
        return -1;
    sampling_options_finish(&o->sampling, &common->config);
    if (common_load(common, &load, &state.loaded, err))
        return -1;
    progress_end(&progress);
    if (state.loaded.warning)
        fprintf(stderr, "gyaru chat: warning: %s\n", state.loaded.warning);
    int rc = chat_with(&state, o, err);
    loaded_model_release(&state.loaded);
    return rc;
}

static int main_chat(int argc, char **argv)
{
    struct chat_options options = {0};
    common_options_init(&options.common);
    sampling_options_init(&options.sampling);
    const struct option_group groups[] = {{chat_specs, &options},
                                          {common_model_options, &options.common},
                                          {common_steering_options, &options.common},
                                          {sampling_options, &options.sampling},
                                          {NULL, NULL}};
    const struct option_help about = {
        "chat", "[options]",
        "A conversation. Under each answer: the raw meter (mean over the answer; cyan below 0.30,\n"
        "pink to 0.50, red above), the calibrated gauge, the strength. Commands: /strength X,\n"
        "/system TEXT, /reset, /help, /quit. From a pipe, every line is a message.",
        groups};
    interrupt_catch();
    int code = options_run(&about, argc, argv, chat, &options);
    common_options_release(&options.common);
    return code;
}

const struct command cmd_chat = {"chat", "a conversation in the terminal", main_chat};
