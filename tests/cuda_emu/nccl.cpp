/*
 * nccl.cpp - NCCL on the host, as the library that src/backend/cuda/nccl.c loads by name: sums in
 * one process whose one thread starts each exchange for all GPUs in one group. What would never
 * end on GPUs - an exchange that a member does not join - fails here.
 *
 * EMU_NCCL: "refuse": no connection; "wrong": sums are not sums; a number N: the N'th exchange
 * fails, counted from 1 (the first tries the link).
 */
#include <cuda_runtime_api.h>

#include <stdlib.h>
#include <string.h>
#include <vector>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };
enum { FLOAT32 = 7, SUM = 0 };

struct clique {
    int alive, n;
};

struct ncclComm {
    clique *all;
    int rank, device;
};

struct exchange {
    ncclComm *comm;
    const float *from;
    float *to;
    size_t n;
    cudaStream_t stream;
};

static std::vector<exchange> under_way;
static bool grouped;
static int exchanges;

static int run_all(void)
{
    const char *fault = getenv("EMU_NCCL");
    if (under_way.empty())
        return SUCCESS;
    const clique *all = under_way[0].comm->all;
    const size_t n = under_way[0].n;
    if ((int)under_way.size() != all->n)
        return INVALID_USAGE;
    for (size_t m = 0; m < under_way.size(); m++) {
        const exchange &e = under_way[m];
        if (e.comm->all != all || e.comm->rank != (int)m || e.n != n || e.stream->recording ||
            e.stream->device != e.comm->device)
            return INVALID_USAGE;
    }
    if (fault && ++exchanges == atoi(fault))
        return REMOTE_ERROR;
    under_way[0].stream->reach_all();
    std::vector<float> sum(n, 0.0f);
    for (const exchange &e : under_way)
        for (size_t i = 0; i < n; i++)
            sum[i] += e.from[i];
    if (fault && !strcmp(fault, "wrong"))
        sum[0] += 1;
    for (const exchange &e : under_way)
        memcpy(e.to, sum.data(), n * sizeof sum[0]);
    return SUCCESS;
}

extern "C" {

int ncclGetVersion(int *version)
{
    *version = 20100;
    return SUCCESS;
}

const char *ncclGetErrorString(int result)
{
    return result == INVALID_USAGE ? "invalid usage" : "an emulated error";
}

int ncclCommInitAll(ncclComm **comms, int n, const int *devices)
{
    const char *fault = getenv("EMU_NCCL");
    if (fault && !strcmp(fault, "refuse"))
        return SYSTEM_ERROR;
    clique *all = new clique{n, n};
    for (int m = 0; m < n; m++)
        comms[m] = new ncclComm{all, m, devices[m]};
    exchanges = 0;
    return SUCCESS;
}

int ncclCommDestroy(ncclComm *comm)
{
    if (!--comm->all->alive)
        delete comm->all;
    delete comm;
    return SUCCESS;
}

int ncclCommAbort(ncclComm *comm)
{
    return ncclCommDestroy(comm);
}

int ncclGroupStart(void)
{
    grouped = true;
    under_way.clear();
    return SUCCESS;
}

int ncclGroupEnd(void)
{
    if (!grouped)
        return INVALID_USAGE;
    grouped = false;
    int rc = run_all();
    under_way.clear();
    return rc;
}

int ncclAllReduce(const void *from, void *to, size_t n, int type, int operation, ncclComm *comm,
                  cudaStream_t stream)
{
    if (!grouped || type != FLOAT32 || operation != SUM || !comm)
        return INVALID_ARGUMENT;
    under_way.push_back({comm, (const float *)from, (float *)to, n, stream});
    return SUCCESS;
}
}
