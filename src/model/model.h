/*
 * model.h - the inside of an opened model, for the files of src/model and src/steer.
 *
 * The layer loop (qwen2.c) knows edits (add a direction to a layer's stream, each row at its own
 * strength), meters and taps (read a layer), not vector files; src/steer turns files into edits.
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "backend/backend.h"
#include "model/config.h"

/* Backend weights of one decoder block. */
struct model_layer {
    struct backend_vector *attention_norm, *mlp_norm; /* [hidden] */
    struct backend_matrix
        *qkv[3]; /* [n_heads*head_dim, hidden], twice [n_kv_heads*head_dim, ...] */
    struct backend_vector *qkv_bias[3];
    struct backend_matrix *output;    /* [hidden, n_heads*head_dim] */
    struct backend_matrix *gate, *up; /* [intermediate, hidden] */
    struct backend_matrix *down;      /* [hidden, intermediate] */
};

/* Directions added to the residual stream, and the two readings that go with them: the meter, and
 * the gauge, see edit.c. */
struct model_edit {
    bool at_input;         /* added at the input of its layers (resid_pre), else at the output */
    float **directions;    /* [n_layers], each [hidden] or NULL; owned */
    int meter_layer;       /* meter at this layer's output; -1: none */
    float *meter;          /* [hidden] its direction as stored; owned, NULL if none */
    float meter_norm;      /* its length */
    int gauge_layer;       /* the lowest with a direction; -1: no gauge */
    float m_plus, m_minus; /* class means of that direction . h there */
};

/* Where a forward pass leaves what it read. Host memory; each may be NULL. */
struct model_taps {
    float *hidden; /* [n_layers+1, n, hidden]: embedding output, then each block's output */
    struct backend_candidates *candidates; /* [rows that want logits], which then are not there */
};

struct attached {
    bool used;
    uint64_t id; /* of its contents */
    struct model_edit edit;
    struct backend_vector **device; /* [n_layers], NULL where there is no direction; owned */
    struct backend_vector *meter;   /* NULL if none */
    float (*metered)[2];            /* [chunk] h . meter and h . h of the rows of a step; owned */
    float (*gauged)[2];             /* [chunk] the same at the gauge's layer; owned */
    /* What vector e adds to the gauge's reading at strength 1; NaN: more than can be told. */
    float injected[GYARU_MAX_VECTORS];
};

struct gyaru_model {
    struct gyaru_model_info info;
    char *dir;
    char *name;
    char device_why[256];
    struct model_config config;
    struct gyaru_tokenizer *tokenizer;
    const struct backend *backend;
    struct backend_device *device;
    struct backend_stage *stage;
    struct backend_shape shape;
    struct model_layer *layers;              /* [n_layers] */
    struct backend_matrix *embedding, *head; /* head == embedding if tied */
    struct backend_vector *norm;
    struct attached attached[GYARU_MAX_VECTORS];
    int order[GYARU_MAX_VECTORS]; /* [n_attached] indices in use, in the order they are added in */
    int n_attached;
    struct gyaru_session **slots; /* [n_slots] who holds it, NULL: free */
    struct backend_row *rows;     /* [max_rows] of the step being built */
    struct sampler *sampler;
    struct backend_candidates *candidates; /* [max_logits]; NULL: the backend gives logits only */
};

/* Rows that may ask for logits in one step, beyond one per session: the chunk of gyaru_model_eval
 * bounds the logits buffer, vocab * 4 bytes each. */
#define MODEL_EVAL_ROWS 32

/* Runs n rows through all layers. *logits: [rows that wanted them, vocab], host view. */
int qwen2_forward(struct gyaru_model *model, const struct backend_row *rows, int n,
                  const struct model_taps *taps, float **logits, struct gyaru_error *err);

/* Takes the edit over (also on failure). *index: where it went. */
int model_attach_edit(struct gyaru_model *model, struct model_edit *edit, int *index,
                      struct gyaru_error *err);
void model_edit_release(struct model_edit *edit, int n_layers);

/* Raw cosine and calibrated gauge of row r of the last step for vector `index`. */
void model_read_meter(const struct gyaru_model *model, int index, int row, float *cosine,
                      float *gauge);

/* Names the steering state: equal only if the same vectors act with the same strengths. */
uint64_t model_steering_key(const struct gyaru_model *model, const float *strengths);

/* Hex SHA-256 of the model's identity; see fingerprint.c. */
struct checkpoint;
int model_fingerprint(const struct model_config *config, const struct checkpoint *checkpoint,
                      char hex[65], struct gyaru_error *err);

#endif
