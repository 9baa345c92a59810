/*
 * device.c - `gyaru bench` by itself, for machines that lack the libraries of the whole program:
 * bench/measure_cuda.sh takes it to a GPU.
 *
 *     make build/bench/device && build/bench/device --shape 14b --device cuda
 */
#include "cli/cli.h"

int main(int argc, char **argv)
{
    return cmd_bench.run(argc, argv);
}
