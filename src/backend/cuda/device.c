/*
 * device.c - one NVIDIA GPU: opened, described, its memory counted.
 */
#include "backend/cuda/chunk.h"
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OLDEST_MAJOR 8 /* compute capability: mma.m16n8k16 and 64 KiB of table in shared memory */

void cuda_enter(const struct backend_device *device)
{
    (void)cudaSetDevice(device->index);
}

int cuda_check(cudaError_t e, const char *what, struct gyaru_error *err)
{
    if (e == cudaSuccess)
        return 0;
    (void)cudaGetLastError(); /* what is reported must not surface again elsewhere */
    enum gyaru_status status = e == cudaErrorMemoryAllocation ? GYARU_NO_MEMORY : GYARU_FAILED;
    return error_set(err, status, "cuda: %s: %s (%s)", what, cudaGetErrorString(e),
                     cudaGetErrorName(e));
}

static int find_device(int index, struct gyaru_error *err)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e == cudaErrorInsufficientDriver)
        return error_set(err, GYARU_FAILED,
                         "device cuda: no NVIDIA driver, or one older than this plug-in's CUDA "
                         "runtime %d.%d needs: install or update the driver, or use --device cpu",
                         CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (e == cudaErrorNoDevice || (!e && !count))
        return error_set(err, GYARU_FAILED,
                         "device cuda: the driver sees no NVIDIA GPU: use --device cpu");
    if (cuda_check(e, "looking for GPUs", err))
        return -1;
    if (index < 0 || index >= count)
        return error_set(err, GYARU_USAGE, "device cuda:%d: there are %d GPUs: use cuda:0..cuda:%d",
                         index, count, count - 1);
    return 0;
}

static int start(struct backend_device *d, struct gyaru_error *err)
{
    struct cudaDeviceProp prop;
    if (cuda_check(cudaSetDevice(d->index), "choosing the GPU", err) ||
        cuda_check(cudaGetDeviceProperties(&prop, d->index), "asking for the GPU's kind", err))
        return -1;
    if (prop.major < OLDEST_MAJOR)
        return error_set(err, GYARU_FAILED,
                         "device cuda:%d: %s has compute capability %d.%d: 8.0 or newer is needed: "
                         "use --device cpu",
                         d->index, prop.name, prop.major, prop.minor);
    d->multiprocessors = prop.multiProcessorCount;
    const uint8_t *u = (const uint8_t *)prop.uuid.bytes;
    snprintf(d->uuid, sizeof d->uuid,
             "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
             u[15]);
    d->shared = prop.sharedMemPerBlockOptin;
    cuda_blas_open(&d->blas);
    snprintf(d->text, sizeof d->text, "%.60s, sm_%d%d, %d SMs%s", prop.name, prop.major, prop.minor,
             d->multiprocessors,
             d->blas.library ? "" : ", libcublasLt.so.13 or .12 not found: long prompts are slow");
    if (cuda_check(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "a stream", err) ||
        cuda_check(cuda_products_init(), "preparing the kernels", err) ||
        cuda_check(cuda_decode_init(d->shared), "preparing the kernels", err) ||
        cuda_check(cuda_batch_init(d->shared), "preparing the kernels", err) ||
        cuda_check(cuda_flash_init(), "preparing the kernels", err))
        return -1;
    return 0;
}

int cuda_open(int index, int threads, struct backend_device **out, struct gyaru_error *err)
{
    if (find_device(index, err))
        return -1;
    struct backend_device *d = calloc(1, sizeof *d);
    if (!d)
        return error_memory(err, sizeof *d, "the CUDA backend");
    d->index = index;
    if (start(d, err)) {
        cuda_close(d);
        return -1;
    }
    *out = d;
    return 0;
}

void cuda_close(struct backend_device *d)
{
    if (!d)
        return;
    cuda_enter(d);
    cuda_loader_release(&d->loader);
    if (d->stream)
        (void)cudaStreamDestroy(d->stream);
    cuda_blas_close(&d->blas);
    free(d);
}

const char *cuda_describe(const struct backend_device *device)
{
    return device->text;
}

void cuda_memory(const struct backend_device *device, struct backend_memory *out)
{
    size_t available = 0, total = 0;
    cuda_enter(device);
    (void)cudaMemGetInfo(&available, &total);
    *out = (struct backend_memory){total, available, total - available, "", 1};
    memcpy(out->gpu, device->uuid, sizeof out->gpu);
}
