/*
 * cli.h - the table of commands. Each cmd_*.c exports one entry; main.c lists them.
 *
 * A command's run() gets its own name as argv[0] and returns the exit code of the program
 * (enum gyaru_status). Results go to stdout, everything else to stderr.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

struct command {
    const char *name;
    const char *summary; /* one line for `gyaru --help` */
    int (*run)(int argc, char **argv);
};

extern const struct command cmd_run, cmd_chat, cmd_eval, cmd_tokenize, cmd_inspect, cmd_check,
    cmd_bench, cmd_doctor, cmd_serve, cmd_extract, cmd_convert, cmd_bake, cmd_measure, cmd_dataset,
    cmd_tune, cmd_migrate;

#endif
