/*
 * options.h - command lines as tables, and what most commands do with them: find the model, open
 * it, find the vector, attach it.
 *
 * A table names fields of a struct; a command combines the shared tables with one of its own, and
 * the tables drive parsing, range checks and --help:
 *
 *     const struct option_group groups[] = {
 *         {common_model_options, &common}, {run_options, &run}, {NULL, NULL}};
 *     const struct option_help help = {"run", "-p TEXT [options]", "One answer.", groups};
 *     switch (options_parse(&help, &argc, argv, &err)) ...
 *
 * A field that the command line did not set keeps its initial value: OPTION_UNSET, NaN or NULL.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "cli/config.h"

#define OPTION_UNSET CONFIG_UNSET

enum option_kind {
    OPTION_FLAG,   /* bool: present or not */
    OPTION_TEXT,   /* const char *, points into argv */
    OPTION_INT,    /* int, min..max */
    OPTION_NUMBER, /* float, min..max, finite */
    OPTION_SEED,   /* uint64_t */
    OPTION_LAYERS  /* struct layer_range: "A-B" or "A" */
};

struct layer_range {
    int first, last; /* -1: all */
};

struct option_spec {
    char letter;      /* 'm' for -m, 0 for none */
    const char *name; /* "model" for --model; NULL ends a table */
    enum option_kind kind;
    size_t offset; /* of the field in the group's struct */
    double min, max;
    const char *argument; /* "DIR" in the help; NULL for flags */
    const char *text;     /* meaning, unit, default */
};

#define OPTION_END                                                                                 \
    {                                                                                              \
        0, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL                                                  \
    }

struct option_group {
    const struct option_spec *specs; /* NULL ends the list */
    void *base;                      /* the struct that the offsets count from */
};

struct option_help {
    const char *command; /* "serve" */
    const char *usage;   /* "[options]" */
    const char *text;    /* what it does; may be several lines */
    const struct option_group *groups;
};

enum option_result { OPTIONS_OK = 0, OPTIONS_HELPED = 1, OPTIONS_BAD = -1 };

/* Sets the fields and moves what is no option to argv[1..*argc-1]; "--" ends the options. --help
 * prints to stdout: OPTIONS_HELPED. */
enum option_result options_parse(const struct option_help *help, int *argc, char **argv,
                                 struct gyaru_error *err);

/* "A-B" or "A", the value of option --NAME, for options that also take words. */
int options_parse_layers(const char *name, const char *value, struct layer_range *out,
                         struct gyaru_error *err);

/* Is the user's language Japanese? `asked` is "ja", "en", or NULL: by the locale's variables. */
bool options_japanese(const char *asked);

/* 0 if `asked` is one of those, or NULL. */
int options_check_language(const char *asked, struct gyaru_error *err);

/* Prints "gyaru COMMAND: TEXT" on stderr and returns the exit code that belongs to it. */
int options_fail(const char *command, const struct gyaru_error *err);

/* What a command does once its options, `user`, are set. */
typedef int options_work(void *user, struct gyaru_error *err);

/* A command without anything but options, from its line to its exit code: parses, works, and says
 * what went wrong. */
int options_run(const struct option_help *help, int argc, char **argv, options_work *work,
                void *user);

/* ---- model and vector -------------------------------------------------------------------- */

struct common_options {
    const char *config_path;
    const char *model, *device;
    int threads, context;
    const char *kv;
    bool host_embedding;
    const char *vector; /* "none": no vector */
    float strength;
    struct layer_range layers;
    int gauge_layer;
    bool force;
    struct config config; /* owned; filled by common_options_finish() */
};

/* -m -c --device -t --context --kv --host-embedding */
extern const struct option_spec common_model_options[];
/* -v -s --layers --gauge-layer --force */
extern const struct option_spec common_steering_options[];

void common_options_init(struct common_options *common);
void common_options_release(struct common_options *common);

/* Reads the config and takes from it what the command line left open. Call once, after
 * options_parse(). */
int common_options_finish(struct common_options *common, struct gyaru_error *err);

/* Where the model is (caller frees): -m, the config's model.path, models/rinne-base. A relative
 * name is looked up from the working directory, then in the tree that the program was built in,
 * then where `make install` puts models. */
int common_model_dir(const struct common_options *common, char **dir, struct gyaru_error *err);

/* common_options_finish(), and the file of the vector that a command cannot do without: `given`,
 * else the config's. */
int common_vector_file(struct common_options *common, const char *given, const char **file,
                       struct gyaru_error *err);

/* Where a file that comes with the program is (caller frees): from the working directory, then in
 * the tree that the program was built in, then where `make install` puts it; `name` itself if
 * nowhere. */
int common_data_path(const char *name, char **path, struct gyaru_error *err);

/* Device, threads, context and KV type, after common_options_finish(). */
int common_model_options_apply(const struct common_options *common,
                               struct gyaru_model_options *options, struct gyaru_error *err);

struct loaded_model {
    struct gyaru_model *model;
    int vector;                         /* index for strengths and gauges; -1: none */
    char *vector_path;                  /* NULL: none */
    char *vector_name;                  /* file name without directory and extension; NULL: none */
    struct gyaru_attach_options attach; /* of the vector */
    char *warning;  /* what could not be checked about the vector; NULL: nothing */
    float strength; /* to begin with; 0 without a vector */
};

struct load_options {
    int sessions;       /* KV slots */
    int chunk;          /* rows of a forward pass; 0: the default */
    bool find_vector;   /* false: only a vector that was asked for */
    bool check_only;    /* the vector is looked at but not attached: `vector` stays -1 */
    const char *folder; /* where vectors are looked for; NULL: outputs/vectors */
    gyaru_progress *progress;
    void *progress_user;
};

/* Opens the model and attaches the vector that was asked for, else the one in outputs/vectors/
 * whose fingerprint matches, else the model's own gyaru.safetensors. */
#define LOAD_VECTOR_FOLDER "outputs/vectors"
#define LOAD_MODEL_VECTOR  "gyaru.safetensors" /* beside the weights of a bundled model */

int common_load(const struct common_options *common, const struct load_options *load,
                struct loaded_model *out, struct gyaru_error *err);
void loaded_model_release(struct loaded_model *loaded);

/* "NAME on DEVICE: planned 9.71 GiB, took 9.72 GiB, ..." (caller frees; NULL: out of memory). */
char *loaded_model_line(const struct gyaru_model *model);
/* That line on stderr where a GPU is used, or was left by "auto". */
void loaded_model_say(const char *command, const struct gyaru_model *model);

/* ---- sampling ----------------------------------------------------------------------------- */

struct sampling_options {
    float temperature, top_p, min_p, repeat_penalty;
    int top_k, max_tokens;
    uint64_t seed; /* 0: a random one */
};

/* --temp --top-p --top-k --min-p --repeat-penalty -n --seed */
extern const struct option_spec sampling_options[];

void sampling_options_init(struct sampling_options *sampling);

/* Takes from the config what the command line left open. */
void sampling_options_finish(struct sampling_options *sampling, const struct config *config);

/* The model's own defaults with what is set on top. */
void sampling_options_apply(const struct sampling_options *sampling,
                            const struct gyaru_model *model, struct gyaru_sampling *out);

#endif
