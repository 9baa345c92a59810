/*
 * llm_server.h - a stand-in for an OpenAI-compatible endpoint, in a process of its own: it answers
 * as its script says, one request after the other.
 *
 * Good answers are made from the request: for every line "N. TOPIC" of the prompt one pair on that
 * topic in the style of tests/data/persona/samurai.json, no two alike.
 */
#ifndef TESTS_LLM_SERVER_H
#define TESTS_LLM_SERVER_H

#include <stddef.h>
#include <sys/types.h>

enum llm_reply {
    LLM_GOOD = 0,
    LLM_FENCED,    /* in a code fence, with a preface and a postscript */
    LLM_THOUGHT,   /* after a <think> block that holds braces */
    LLM_WRAPPED,   /* {"pairs": [...]} */
    LLM_LINES,     /* one object a line */
    LLM_SLIPS,     /* raw line breaks in strings, commas before brackets */
    LLM_TRUNCATED, /* cut off in the middle of a pair */
    LLM_REFUSAL,   /* no JSON in the answer */
    LLM_BAD_PAIRS, /* the first nine pairs each break another rule */
    LLM_429,       /* with Retry-After: 1 */
    LLM_500,
    LLM_401,
    LLM_GARBAGE,    /* status 200, no JSON */
    LLM_NO_CHOICES, /* status 200, JSON that is no completion */
    LLM_CLOSED,     /* the connection ends without an answer */
    LLM_SLOW        /* good, after two seconds */
};

#define LLM_SCRIPT_MAX 16

/* Shared with the server's process. */
struct llm_server {
    pid_t pid;
    int port;
    int n_models; /* that /models lists */
    enum llm_reply script[LLM_SCRIPT_MAX];
    int n_script;            /* the last reply is repeated */
    volatile int n_requests; /* of chat completions */
    volatile int n_pairs;    /* made so far */
    char authorization[128]; /* of the last request */
    char prompt[8192];       /* of the last request */
    char base[64];           /* "http://127.0.0.1:PORT/v1" */
};

/* The replies end with -1. */
struct llm_server *llm_server_start(const int *replies);
void llm_server_stop(struct llm_server *server);

#define LLM_START(...) llm_server_start((const int[]){__VA_ARGS__, -1})

#endif
