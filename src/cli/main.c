/*
 * main.c - picks the command.
 */
#include "cli/cli.h"

#include <gyaru.h>

#include <stdio.h>
#include <string.h>

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
            return commands[i]->run(argc - 1, argv + 1);
    fprintf(stderr, "gyaru: %s: no such command: gyaru --help lists them\n", argv[1]);
    return GYARU_USAGE;
}
