/*
 * cuda.h - what the host files of the CUDA plug-in share.
 *
 * Everything runs on the device's one stream. A failed runtime call becomes a gyaru_error at the
 * next place that can return one: cuda_check() there, `stage->failed` within a step.
 */
#ifndef CUDA_CUDA_H
#define CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/blas.h"
#include "backend/cuda/kernels.h"

#define CUDA_LOADER_BUFFERS 2
#define CUDA_LOADER_BYTES   ((size_t)32 << 20)

/* Pinned and device memory through which weights pass; a buffer is reused once its event is done.
 * Made by the first matrix, let go when a stage is made: loading is over then. */
struct cuda_loader {
    bool ready;
    uint8_t *pinned[CUDA_LOADER_BUFFERS]; /* [CUDA_LOADER_BYTES], host */
    uint8_t *raw[CUDA_LOADER_BUFFERS];    /* the same on the device */
    cudaEvent_t done[CUDA_LOADER_BUFFERS];
    int next;
};

struct backend_device {
    int index, multiprocessors;
    size_t shared; /* bytes of shared memory that a block may take */
    cudaStream_t stream;
    struct cuda_loader loader;
    struct cuda_blas blas; /* library NULL: not found */
    uint64_t generation; /* grows when weights or vectors are freed: graphs name their addresses */
    float map[16], map_scale; /* the map that was last prepared, and its table_scale */
    char text[160];           /* "NVIDIA H200, sm_90, 132 SMs" */
    char uuid[48];            /* as the driver's tools write it */
};

struct backend_matrix {
    struct backend_device *device;
    struct cuda_weights w;
    void *block; /* what w points into; on the device unless `host` */
    bool host;
    float nested_map[256];
};

struct backend_vector {
    struct backend_device *device;
    float *data; /* device [n] */
    size_t n;
};

/* Makes the device the calling thread's own: a model may be opened by one thread and run by
 * another. At the head of whatever the program calls. */
void cuda_enter(const struct backend_device *device);

/* "cuda: WHAT: the runtime's words"; out of memory becomes GYARU_NO_MEMORY. 0 if e is success. */
int cuda_check(cudaError_t e, const char *what, struct gyaru_error *err);

int cuda_open(int index, int threads, struct backend_device **out, struct gyaru_error *err);
void cuda_close(struct backend_device *device);
const char *cuda_describe(const struct backend_device *device);
void cuda_memory(const struct backend_device *device, struct backend_memory *out);

int cuda_bandwidth(struct backend_device *device, double *read, double *copy,
                   struct gyaru_error *err);

int cuda_loader_init(struct cuda_loader *loader, struct gyaru_error *err);
void cuda_loader_release(struct cuda_loader *loader);

uint64_t cuda_matrix_bytes(const struct backend_device *device, const struct quant_source *source);
int cuda_matrix_new(struct backend_device *device, const struct quant_source *source,
                    struct backend_matrix **out, struct gyaru_error *err);
void cuda_matrix_free(struct backend_matrix *matrix);

int cuda_vector_new(struct backend_device *device, const float *values, size_t n,
                    struct backend_vector **out, struct gyaru_error *err);
void cuda_vector_free(struct backend_vector *vector);

/* A matrix for cuda_embed() alone, in pinned host memory, row by row as stored. */
uint64_t cuda_table_bytes(const struct backend_device *device, const struct quant_source *source);
int cuda_table_new(struct backend_device *device, const struct quant_source *source,
                   struct backend_matrix **out, struct gyaru_error *err);

/* Rows [first, first + n) as a view, not to be freed; false where they do not begin a tile, or the
 * run of a nested scale. */
bool cuda_matrix_rows(const struct backend_matrix *matrix, size_t first, size_t n,
                      struct backend_matrix *view);

/* Have the two, both of 4 bits, one byte table? */
bool cuda_tables_alike(const struct backend_matrix *a, const struct backend_matrix *b);

/* May the two be parts of one product? */
bool cuda_matrix_alike(const struct backend_matrix *a, const struct backend_matrix *b);

#endif
