/*
 * gyaru.h - the only public header: models, text, control vectors, answers.
 *
 * A model is opened from a Hugging Face directory; control vectors are attached to it; sessions
 * hold one conversation's tokens and KV cache; gyaru_step() advances any number of sessions by
 * one forward pass. A program needs nothing else to chat with a steered model:
 *
 *     open model -> attach vector -> new session -> session_start(request) -> step until done
 *
 * Rules that hold everywhere
 *   - Functions that can fail return 0 or -1 and fill *err (never NULL); err->status is also the
 *     exit code of the program. The library never prints, exits or reads the environment.
 *   - Out-parameters are untouched on failure. Strings and arrays handed out with "caller frees"
 *     come from malloc.
 *   - A model and all of its sessions belong to one thread at a time.
 *   - Token ids are int32_t; text is UTF-8 with an explicit length where NUL may occur.
 *   - Layers are 0-based decoder blocks. "resid_post" is the residual stream at the output of a
 *     block, "resid_pre" at its input; resid_pre of L is resid_post of L-1.
 */
#ifndef GYARU_H
#define GYARU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GYARU_VERSION "0.1.0"

/* Control vectors that may be attached to a model, and mixed in one answer, at a time. */
#define GYARU_MAX_VECTORS 4

/* Strength is a factor on the vector; the page's slider spans this range. */
#define GYARU_STRENGTH_MIN (-10.0f)
#define GYARU_STRENGTH_MAX 30.0f

enum gyaru_status {
    GYARU_OK = 0,
    GYARU_FAILED = 1,
    GYARU_USAGE = 2,
    GYARU_MISMATCH = 3, /* model and vector do not belong together */
    GYARU_NO_MEMORY = 4
};

struct gyaru_error {
    enum gyaru_status status;
    char text[500];     /* one line: what, where, what to do */
    const char *reason; /* stable name for those who say it in other words, "": it has none;
                           constant */
};

/* Called now and then by long work; total 0 while unknown. Return non-zero to stop the work. */
typedef int gyaru_progress(void *user, const char *what, uint64_t done, uint64_t total);

/* ---- text ------------------------------------------------------------------------------- */

struct gyaru_tokenizer;

struct gyaru_message {
    const char *role;    /* "system", "user", "assistant" */
    const char *content; /* UTF-8, NUL-terminated */
};

/* Opens DIR/tokenizer.json and DIR/tokenizer_config.json; no weights are needed. */
int gyaru_tokenizer_open(const char *dir, struct gyaru_tokenizer **out, struct gyaru_error *err);
void gyaru_tokenizer_close(struct gyaru_tokenizer *tokenizer);

/* Ids that the tokenizer can produce: 0 .. size-1. */
int32_t gyaru_tokenizer_size(const struct gyaru_tokenizer *tokenizer);

/* Text -> ids (caller frees). With `special`, added tokens such as <|im_end|> in the text become
 * their ids; without it they stay ordinary text (what users typed is always read that way). */
int gyaru_tokenize(const struct gyaru_tokenizer *tokenizer, const char *text, size_t len,
                   bool special, int32_t **ids, size_t *n_ids, struct gyaru_error *err);

/* Ids -> text (caller frees; NUL-terminated besides *len). Special tokens appear as their text;
 * bytes that are no valid UTF-8 become U+FFFD. An id past the tokenizer is an error. */
int gyaru_detokenize(const struct gyaru_tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                     char **text, size_t *len, struct gyaru_error *err);

/* Renders messages as the model's own chat template does (caller frees). */
int gyaru_chat_render(const struct gyaru_tokenizer *tokenizer, const struct gyaru_message *messages,
                      size_t n_messages, bool add_generation_prompt, char **text,
                      struct gyaru_error *err);

/* The same as ids: the template's own markers are special tokens, contents never are. */
int gyaru_chat_encode(const struct gyaru_tokenizer *tokenizer, const struct gyaru_message *messages,
                      size_t n_messages, bool add_generation_prompt, int32_t **ids, size_t *n_ids,
                      struct gyaru_error *err);

/* ---- model ------------------------------------------------------------------------------ */

struct gyaru_model;

/* AUTO: float32 on a CPU, where exactness is cheap beside the weights; float16 on a GPU. */
enum gyaru_kv {
    GYARU_KV_AUTO = 0,
    GYARU_KV_F16,
    GYARU_KV_F32,
    GYARU_KV_I8 /* a scale for each head and position; on a GPU only */
};

const char *gyaru_kv_name(enum gyaru_kv kv); /* "auto", "f16", "f32", "int8" */

struct gyaru_model_options {
    const char *device;  /* "auto": a GPU if there is one and the model fits; "cpu", "cuda[:N]";
                          *   "cuda:N,M": GPUs that hold a part of the model each */
    int threads;         /* 0: all cores */
    int context;         /* positions per session; 0: the model's own limit, at most 4096 */
    int sessions;        /* KV slots, 1..64 */
    int chunk;           /* rows of one forward pass, at most 4096; 0: 128 on a CPU, 2048 on a
                          *   GPU or what memory allows */
    enum gyaru_kv kv;    /* KV cache element type */
    uint64_t memory;     /* bytes that may be used; 0: what the device has free */
    bool host_embedding; /* keep a GPU's embedding in the host's memory; not if it is the head, too
                          */
    gyaru_progress *progress;
    void *progress_user;
};

struct gyaru_model_info {
    const char *dir;  /* as given */
    const char *name; /* last component of dir */
    int n_layers, hidden_size, n_heads, n_kv_heads, head_dim, intermediate_size;
    int vocab_size;              /* rows of the head; ids >= n_tokens are padding */
    int n_tokens;                /* ids of the tokenizer */
    int context;                 /* positions per session */
    int max_position;            /* the checkpoint's own limit */
    int layer_first, layer_last; /* the document's range: int(0.3 L) .. int(0.8 L) */
    int visualise_layer;         /* default meter layer without a vector: int(0.73 L) */
    char fingerprint[65];        /* hex; see model/fingerprint.h */
    uint64_t weight_bytes, kv_bytes, workspace_bytes; /* of the plan, on the device */
    uint64_t host_bytes;   /* of the plan, in the host's memory beside a GPU's */
    uint64_t used_bytes;   /* what loading took of the device's memory */
    uint64_t in_use_bytes; /* after it: by this process; of a GPU: by all and the driver */
    uint64_t token_bytes;  /* weights that decoding one token reads */
    double load_seconds;
    int devices;            /* GPUs that share the model: the bytes above are what the one takes
                             *   that takes most; else 1 */
    const char *device;     /* e.g. "avx512, 2 threads" */
    const char *device_why; /* why "auto" took it; "": it was asked for */
    bool on_gpu;
    bool gpu_refused; /* "auto" found one and left it */
};

void gyaru_model_options_init(struct gyaru_model_options *options);

/* Opens a checkpoint of model_type qwen2. Fails with GYARU_NO_MEMORY before loading anything if
 * the memory plan does not fit. */
int gyaru_model_open(const char *dir, const struct gyaru_model_options *options,
                     struct gyaru_model **out, struct gyaru_error *err);

/* A model of random NF4 weights (double-quantised, bf16 embedding and head) in a real Qwen2.5
 * shape: "0.5b", "1.5b", "7b", "14b" or "32b". For timings: it has no tokenizer (sessions give ids
 * and no text) and no fingerprint. */
int gyaru_model_open_random(const char *shape, const struct gyaru_model_options *options,
                            struct gyaru_model **out, struct gyaru_error *err);
void gyaru_model_close(struct gyaru_model *model);

/* For timings: a random direction for each layer of layer_first..layer_last, and a meter at
 * visualise_layer. *index as of gyaru_model_attach(). */
int gyaru_model_attach_random(struct gyaru_model *model, int *index, struct gyaru_error *err);

/* Bytes per second of the device's memory as its own kernels see it, measured now; copy counts what
 * is read and what is written. 0: this device has no such kernels. */
int gyaru_model_bandwidth(struct gyaru_model *model, double *read, double *copy,
                          struct gyaru_error *err);
const struct gyaru_model_info *gyaru_model_info(const struct gyaru_model *model);
/* NULL for a random model. */
const struct gyaru_tokenizer *gyaru_model_tokenizer(const struct gyaru_model *model);

/* JSON document (caller frees) on a model directory or a vector file, without loading weights:
 * architecture, which tensors are 4-bit and what they cost, memory plan, fingerprint. */
int gyaru_inspect(const char *path, const struct gyaru_model_options *options, char **json,
                  struct gyaru_error *err);

/* JSON document (caller frees): CPU features, memory, GPUs and who holds their memory. `device`
 * (of gyaru_model_options; NULL: none) is opened and tried, too. */
int gyaru_doctor(const char *device, char **json, struct gyaru_error *err);

/* ---- control vectors --------------------------------------------------------------------- */

struct gyaru_vector;

struct gyaru_vector_info {
    const char *path;
    const char *name;                           /* file name without directory and extension */
    const char *hook;                           /* "resid_post" or "resid_pre" */
    const char *model_fingerprint;              /* "" if unknown */
    const char *model_name, *method, *position; /* "" if unknown */
    int hidden_size;
    int n_layers;             /* of the model it was made for; 0 if unknown */
    int layer_min, layer_max; /* lowest and highest layer that has a direction */
    int n_directions;
    float recommended_strength, max_strength; /* NaN if unknown */
};

/* Opens .safetensors, .pt or .gguf; refuses NaN, Inf and zero directions, naming the layer. */
int gyaru_vector_open(const char *path, struct gyaru_vector **out, struct gyaru_error *err);
void gyaru_vector_close(struct gyaru_vector *vector);
const struct gyaru_vector_info *gyaru_vector_info(const struct gyaru_vector *vector);

/* Does the vector belong to the model in `dir`? 0, or -1 with GYARU_MISMATCH and the reason.
 * *warning (caller frees, may come back NULL) says what could not be checked. */
int gyaru_vector_check(const char *dir, const struct gyaru_vector *vector, char **warning,
                       struct gyaru_error *err);

/* Path (caller frees) of the vector for this model: in `folder` the one whose fingerprint
 * matches; NULL if there is none. Never merely the newest. */
int gyaru_vector_find(const struct gyaru_model *model, const char *folder, char **path,
                      struct gyaru_error *err);

struct gyaru_attach_options {
    int layer_first, layer_last; /* use only these layers of the vector; -1: all it has */
    int gauge_layer;             /* meter layer; -1: the last layer at or below 73% of depth */
    bool force;                  /* take a vector of another model of the same hidden size */
};

void gyaru_attach_options_init(struct gyaru_attach_options *options);

/* Uploads the vector; *index (0..GYARU_MAX_VECTORS-1) names it in strengths and gauges. The
 * vector may be closed afterwards. *warning (caller frees) as in gyaru_vector_check. */
int gyaru_model_attach(struct gyaru_model *model, const struct gyaru_vector *vector,
                       const struct gyaru_attach_options *options, int *index, char **warning,
                       struct gyaru_error *err);

/* What gyaru_model_attach() would answer, and the meter's layer; nothing is attached. Reads only
 * what never changes: any thread may call it. */
int gyaru_model_admits(const struct gyaru_model *model, const struct gyaru_vector *vector,
                       const struct gyaru_attach_options *options, int *gauge_layer, char **warning,
                       struct gyaru_error *err);
void gyaru_model_detach(struct gyaru_model *model, int index);
int gyaru_model_gauge_layer(const struct gyaru_model *model, int index); /* -1: not attached */

struct gyaru_measure_options; /* below */

/* ---- making vectors ----------------------------------------------------------------------- */

struct gyaru_extract_options {
    const char *dataset; /* pairs: JSON array, JSONL or CSV; see steer/dataset.h */
    const char *topic_key, *positive_key, *negative_key; /* "topic", "gyaru", "standard" */
    const char *prompt;   /* what the user says; "{topic}" stands for the pair's topic */
    const char *method;   /* "mean", "pca", "pca_last", "probe" */
    const char *position; /* "content", "last"; NULL: last for pca_last, else content */
    const char *scale;    /* "raw", "unit", "residual"; NULL: unit for pca_last; else raw without
                             a split and residual with one; see steer/extract.h */
    double step; /* percent of the stream's length that strength 1 adds with scale residual */
    int layer_first, layer_last; /* -1: `auto` with a split, the document's range without */
    int split[3];  /* percent for training, validation, test; all 0: no split, no validation */
    uint64_t seed; /* of the split and the controls */
    /* With a split: the butler test of each method's direction at these strengths; NULL: none. */
    const struct gyaru_measure_options *effect;
    gyaru_progress *progress;
    void *progress_user;
};

void gyaru_extract_options_init(struct gyaru_extract_options *options);

/* Reads the pairs with the model, which needs a free session or, faster, several, and writes the
 * vector to `path` (.safetensors, .pt, .gguf). An interrupted run goes on from PATH.journal when it
 * is called again in the same way. If validation leaves no layer, nothing is written and the call
 * fails. *report (caller frees): JSON document on every layer; NULL only if the run failed before
 * there was anything to report. */
int gyaru_extract(struct gyaru_model *model, const struct gyaru_extract_options *options,
                  const char *path, char **report, struct gyaru_error *err);

/* A report of gyaru_extract() as a page that needs nothing else (caller frees); language "ja" or
 * "en". */
int gyaru_extract_html(const char *report, const char *language, char **html,
                       struct gyaru_error *err);

/* Rewrites a vector in the format that the name of `out` asks for, layers shifted as the formats
 * need. Only layers first..last, as `in` counts them; -1: all. *warning (caller frees, may come
 * back NULL) says what `in` left open and `out` cannot hold. */
int gyaru_convert(const char *in, const char *out, int layer_first, int layer_last, char **warning,
                  struct gyaru_error *err);

/* ---- making pairs ------------------------------------------------------------------------- */

struct gyaru_generate_options {
    const char *persona;  /* file, see steer/persona.h */
    const char *api_base; /* of an OpenAI-compatible endpoint: "http://127.0.0.1:8000/v1" */
    const char *model;    /* NULL: the endpoint's only one */
    const char *api_key;  /* NULL: none; goes over https or to this machine only */
    const char *topics;   /* file: a JSON array of strings, or one a line; NULL: the persona's */
    int n_topics;         /* use only the first ones; 0: all */
    int n_pairs;          /* 1..100000 */
    int batch;            /* pairs in one request, 1..100 */
    int retries;          /* of a failed request, and of a pair that was rejected */
    double timeout;       /* seconds for one request */
    double backoff;       /* seconds before the first retry; doubles */
    float temperature;
    void (*notice)(void *user, const char *line); /* what was rejected or tried again, and why */
    void *notice_user;
    gyaru_progress *progress; /* pairs */
    void *progress_user;
};

void gyaru_generate_options_init(struct gyaru_generate_options *options);

/* Writes contrastive pairs for gyaru_extract() to `path`, which must not exist: a JSON array, as
 * many as asked for. Finished pairs are kept in PATH.partial: a run that was stopped, killed or
 * left without an endpoint goes on there when it is called again. *report (caller frees): JSON
 * document: out, pairs, resumed, topics, requests, retries, rejected [{request, pair, topic,
 * reason}]; also when it fails after asking, NULL if before. */
int gyaru_generate(const struct gyaru_generate_options *options, const char *path, char **report,
                   struct gyaru_error *err);

/* ---- baking ------------------------------------------------------------------------------ */

struct gyaru_bake_options {
    float strength;              /* finite */
    int layer_first, layer_last; /* use only these layers of the vector; -1: all it has */
    bool force;                  /* take a vector of another model of the same hidden size */
    gyaru_progress *progress;    /* bytes copied */
    void *progress_user;
};

void gyaru_bake_options_init(struct gyaru_bake_options *options);

/* Writes the directory `out`, which must not exist: the checkpoint in `dir` as LlamaForCausalLM
 * with biases, its weight files byte for byte, and strength x direction of layer L as the bias of
 * down_proj in the block whose output it is added to. A direction at the input of block 0 has no
 * such block and is refused. `out` appears whole or not at all. *report (caller frees): JSON
 * document: out, bytes, layers (the blocks), strength, warning (null: nothing), forced. */
int gyaru_bake(const char *dir, const struct gyaru_vector *vector,
               const struct gyaru_bake_options *options, const char *out, char **report,
               struct gyaru_error *err);

/* ---- answers ----------------------------------------------------------------------------- */

struct gyaru_session;

struct gyaru_sampling {
    float temperature;    /* 0: greedy */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 1: off */
    int top_k;            /* 0: off */
    uint64_t seed;
};

struct gyaru_request {
    const int32_t *prompt; /* the whole conversation so far, as ids; copied */
    size_t n_prompt;
    int max_tokens; /* of the answer; 0: what the context leaves */
    struct gyaru_sampling sampling;
    const char *const *stop; /* stop strings; copied; the answer ends before them */
    size_t n_stop;
    const float *strengths; /* [GYARU_MAX_VECTORS] or NULL for zero */
    bool ignore_eos;        /* for timings */
    bool any_id;            /* the head's padding past the tokenizer may be chosen: comparisons */
    int gauge;              /* index of the vector that the meter follows, -1: none */
};

enum gyaru_finish {
    GYARU_RUNNING = 0,
    GYARU_STOP,   /* the model ended it, or a stop string did */
    GYARU_LENGTH, /* max_tokens or the context */
    GYARU_CANCELLED,
    GYARU_OVERFLOW /* no logit is finite: steering drove the numbers out of range */
};

struct gyaru_event {
    struct gyaru_session *session;
    int32_t token;    /* the newest id; -1 if this event only reports prefill or the end */
    const char *text; /* whole UTF-8 characters that are now certain; valid until next step */
    size_t text_len;  /* may be 0 */
    float cosine;     /* raw meter of the hidden state that produced the token; NaN: no meter */
    /* Calibrated: what the text alone does at the vector's lowest layer, 0 like plain texts, 1 like
     * those in the style, whatever the strength. Unclamped, and noisy: means over tokens count. NaN
     * if unknown: resid_pre, no class means in the file, or another vector acts further down. */
    float gauge;
    float strength;                           /* of the gauge's vector, as read for this token */
    size_t n_prompt, n_prompt_done, n_cached; /* prefill progress, positions */
    enum gyaru_finish finish;                 /* not RUNNING: this was the session's last event */
};

struct gyaru_timings {
    size_t n_prompt, n_cached, n_generated;
    double prefill_seconds, decode_seconds, first_token_seconds;
};

void gyaru_sampling_init(const struct gyaru_model *model, struct gyaru_sampling *sampling);
void gyaru_request_init(const struct gyaru_model *model, struct gyaru_request *request);

/* Takes one of the model's KV slots; fails when all are taken. */
int gyaru_session_new(struct gyaru_model *model, struct gyaru_session **out,
                      struct gyaru_error *err);
void gyaru_session_free(struct gyaru_session *session);

/* Begins an answer. Positions whose tokens and steering state equal what the slot's KV cache holds
 * are reused. */
int gyaru_session_start(struct gyaru_session *session, const struct gyaru_request *request,
                        struct gyaru_error *err);

/* Positions of this prompt that gyaru_session_start() would reuse at these strengths
 * ([GYARU_MAX_VECTORS] or NULL for zero); *held: positions in the slot's KV cache. */
size_t gyaru_session_match(const struct gyaru_session *session, const int32_t *prompt,
                           size_t n_prompt, const float *strengths, size_t *held);

/* In effect from the session's next token on. Strengths go by index: who attaches another vector at
 * an index sets the strength that running sessions have there. */
void gyaru_session_set_strength(struct gyaru_session *session, int index, float strength);
void gyaru_session_set_gauge(struct gyaru_session *session, int index); /* -1: none */

/* The next step ends the answer with GYARU_CANCELLED; what was decoded stays cached. */
void gyaru_session_cancel(struct gyaru_session *session);

/* Forgets tokens and KV. */
void gyaru_session_reset(struct gyaru_session *session);
bool gyaru_session_busy(const struct gyaru_session *session);
void gyaru_session_timings(const struct gyaru_session *session, struct gyaru_timings *timings);

/* One forward pass over the busy ones among `sessions` (all of one model): each that decodes gets
 * one token, those that prefill share the rest of the chunk. Writes at most n events, one per
 * session that has news. */
int gyaru_step(struct gyaru_session *const *sessions, size_t n, struct gyaru_event *events,
               size_t *n_events, struct gyaru_error *err);

/* ---- measuring a persona -------------------------------------------------------------------- */

struct gyaru_measure_options {
    const char *style;           /* file that says what the style looks like; steer/text_stats.h */
    const char *system;          /* system prompt that the vector works against; NULL: template's */
    const char *const *messages; /* [n_messages] what users say */
    size_t n_messages;
    const float *strengths; /* [n_strengths] each gives a row of the table */
    size_t n_strengths;
    int vector;                     /* index of the attached vector; -1: none */
    struct gyaru_sampling sampling; /* each message draws from a stream of its own */
    int max_tokens;                 /* an answer that is not over by then counts as garbled */
    int batch; /* answers generated together; 0: as many as sessions are free */
    gyaru_progress *progress;
    void *progress_user;
};

/* 96 tokens, temperature 0.7, seed 1, the rest by the model. */
void gyaru_measure_options_init(const struct gyaru_model *model,
                                struct gyaru_measure_options *options);

/* The butler test: answers every message at every strength and judges the answers. *report (caller
 * frees): JSON document, one row per strength, shares 0..1. The same options give the same answers
 * whatever `batch` is. */
int gyaru_measure(struct gyaru_model *model, const struct gyaru_measure_options *options,
                  char **report, struct gyaru_error *err);

/* Does a report of gyaru_measure() keep the bounds of the bundled personas at strengths 0, 12 and
 * 25? -1 with all that is missed in one line. */
int gyaru_measure_require(const char *report, struct gyaru_error *err);

/* ---- tuning the strength -------------------------------------------------------------------- */

struct gyaru_tune_options {
    const char *dataset; /* the pairs that the vector was made from, or others */
    const char *topic_key, *positive_key, *negative_key; /* "topic", "gyaru", "standard" */
    const char *prompt;          /* what the user says before a pair's text; "{topic}" */
    const char *style;           /* file that says what the style looks like */
    const char *system;          /* system prompt that the vector works against; NULL: template's */
    const char *style_system;    /* one that asks for the style: the control; NULL: none */
    const char *const *messages; /* [n_messages] half for the search, half to confirm */
    size_t n_messages;           /* 0: the pairs' topics */
    const float *ladder;         /* [n_ladder] ascending strengths of the coarse scan */
    size_t n_ladder;
    bool own_layers;  /* only all of the vector's layers, no other candidates */
    double kl_budget; /* nats: 95th percentile of the per-token KL to bisect to */
    double rescale;   /* what the chosen strength becomes by scaling the vector; 0: as it is */
    int max_pairs;    /* pairs read for each measurement at most */
    int max_tokens;   /* of an answer */
    uint64_t seed;    /* of answers and controls; the split follows the vector's own */
    bool force;       /* take a vector of another model of the same hidden size */
    gyaru_progress *progress;
    void *progress_user;
};

void gyaru_tune_options_init(struct gyaru_tune_options *options);

/* Finds the strength at which the vector at `path` has most effect without damage, and writes it
 * with recommended_strength and max_strength to `out` (.safetensors; may be `path`). The model
 * needs two free sessions or, faster, several. An interrupted run goes on from OUT.tune-journal. If
 * no strength is safe, nothing is written and the call fails. *report (caller frees): JSON
 * document; NULL only if the run failed before there was anything to report. */
int gyaru_tune(struct gyaru_model *model, const char *path, const char *out,
               const struct gyaru_tune_options *options, char **report, struct gyaru_error *err);

/* A report of gyaru_tune() as a page that needs nothing else (caller frees); language "ja" or "en".
 */
int gyaru_tune_html(const char *report, const char *language, char **html, struct gyaru_error *err);

/* ---- moving a persona to another model ------------------------------------------------------- */

struct gyaru_migrate_options {
    const char *from, *to;   /* model directories, old and new */
    const char *from_vector; /* of the old model; NULL: the one in `folder`, else its own */
    const char *folder;      /* where vectors are looked for by fingerprint; NULL: nowhere */
    const char *dataset;     /* pairs, for extraction and tuning */
    const char *vector;      /* the new model's, to write: .safetensors */
    const char *report_dir;  /* finished phases are kept there and not done again */
    const char *method;      /* of gyaru_extract_options */
    int layer_first, layer_last;
    float strength;              /* of the new vector; NaN: tuning finds it */
    float from_strength;         /* of the old one; NaN: what it recommends, else 12 */
    const char *style;           /* file that says what the style looks like */
    const char *system;          /* system prompt that the vector works against; NULL: template's */
    const char *style_system;    /* one that asks for the style: tuning's control; NULL: none */
    const char *const *messages; /* [n_messages] what users say */
    size_t n_messages;
    int max_tokens;     /* of one answer while strengths are measured */
    const char *device; /* of gyaru_model_options */
    int threads;
    uint64_t seed;
    gyaru_progress *progress;
    void *progress_user;
};

void gyaru_migrate_options_init(struct gyaru_migrate_options *options);

/* What a migration means, before any weight is loaded. *plan (caller frees): JSON document: both
 * models, memory and what is saved, layers by the document's formula, whether the old vector fits
 * the new model and why not. */
int gyaru_migrate_plan(const struct gyaru_migrate_options *options, char **plan,
                       struct gyaru_error *err);

/* All of it. Phases that are done stay in the report directory; the same call goes on from there.
 * Nothing but that directory and the vector's file is written. *report (caller frees): JSON
 * document; where it says that no strength was found, the new vector must not be used. */
int gyaru_migrate(const struct gyaru_migrate_options *options, char **report,
                  struct gyaru_error *err);

/* A report of gyaru_migrate() in the document's order of sections, as Markdown or as an HTML page
 * that needs nothing else (caller frees); language "ja" or "en". */
int gyaru_migrate_page(const char *report, const char *language, bool html, char **text,
                       struct gyaru_error *err);

/* ---- teacher-forced evaluation ------------------------------------------------------------ */

struct gyaru_eval {
    const int32_t *ids;
    size_t n;
    const float *strengths; /* [GYARU_MAX_VECTORS] or NULL */
    int gauge;              /* vector index for `cosine` and `calibrated`, -1: none */
    /* Results; each may be NULL to leave it out. */
    int32_t *argmax;   /* [n] */
    double *nll;       /* [n-1] of ids[i+1] given ids[..i], nats */
    float *cosine;     /* [n] raw meter */
    float *calibrated; /* [n] gauge, as in an event */
    float *logits;     /* [n, vocab] */
    float *hidden;     /* [layers+1, hidden] of the last position: 0 = embedding output, l+1 =
                          output of block l, edits at that output included */
};

int gyaru_model_eval(struct gyaru_model *model, struct gyaru_eval *eval, struct gyaru_error *err);

/* Writes `logits` [n, vocab] and `hidden` as safetensors. */
int gyaru_eval_dump(const struct gyaru_model *model, const struct gyaru_eval *eval,
                    const char *path, struct gyaru_error *err);

#endif
