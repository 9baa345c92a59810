/*
 * main.c - picks the command.
 */
#include "cli/cli.h"

#include <gyaru.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command *const commands[] = {
    &cmd_run,     &cmd_chat,  &cmd_serve,   &cmd_extract, &cmd_convert,  &cmd_tune,
    &cmd_measure, &cmd_bake,  &cmd_migrate, &cmd_eval,    &cmd_tokenize, &cmd_inspect,
    &cmd_check,   &cmd_bench, &cmd_doctor,  &cmd_dataset,
};

#define N_COMMANDS (sizeof commands / sizeof *commands)

static void print_help(FILE *out)
{
    fprintf(out,
            "gyaru %s - language models with a persona, steered live\n\n"
            "usage: gyaru COMMAND [options]\n\n",
            GYARU_VERSION);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "\ngyaru COMMAND --help lists a command's options.\n"
                 "Exit codes: 0 done, 1 failed, 2 usage, 3 model and vector do not belong "
                 "together, 4 not enough memory.\n");
}

/* Threads that spin while they wait for each other win a little on a machine that does nothing
 * else, but beside other programs (a game, OBS, the page's own browser) they burn the time slices
 * that the awaited thread needs: with two busy neighbours on two cores 3 to 40 tokens/s instead of
 * 300. What runs beside others waits politely. libgomp reads its settings before main(), so the
 * program starts itself once more; whoever set a policy keeps it. */
static void wait_politely(char **argv)
{
    char program[PATH_MAX];
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    if (len <= 0 || setenv("GOMP_SPINCOUNT", "1000", 1))
        return;
    program[len] = '\0';
    execv(program, argv); /* comes back only if it failed, and then nothing is lost but speed */
}

static int run_command(const struct command *command, int argc, char **argv)
{
    if (command == &cmd_serve || command == &cmd_chat)
        wait_politely(argv);
    return command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return GYARU_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return GYARU_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("gyaru " GYARU_VERSION);
        return GYARU_OK;
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i]->name))
            return run_command(commands[i], argc, argv);
    fprintf(stderr, "gyaru: %s: no such command: gyaru --help lists them\n", argv[1]);
    return GYARU_USAGE;
}
