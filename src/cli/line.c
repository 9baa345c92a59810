/*
 * line.c - see line.h; libedit's own interface, because its imitation of readline leaves the
 * terminal raw when a signal ends the program.
 */
#include "cli/line.h"

#include "base/file.h"

#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY_LINES 1000

struct line_reader {
    char *buffer; /* of getline() */
    size_t size;
    EditLine *editor; /* NULL: not interactive */
    History *history;
    char *path; /* of the history; NULL: it is not kept */
};

static char *prompt(EditLine *editor)
{
    static char text[] = "> ";
    return text;
}

/* $XDG_STATE_HOME/gyaru/history, by default under ~/.local/state; NULL if there is no home. */
static char *history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    struct gyaru_error ignored;
    char *base = NULL, *folder = NULL, *path = NULL;
    if (state && *state == '/')
        base = strdup(state);
    else if (home && *home == '/')
        base = file_join(home, ".local/state");
    if (base)
        folder = file_join(base, "gyaru");
    if (folder && !file_make_dirs(folder, &ignored))
        path = file_join(folder, "history");
    free(base);
    free(folder);
    return path;
}

/* Without a UTF-8 locale libedit would refuse what people type. */
static void choose_locale(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8"))
        setlocale(LC_CTYPE, "C.UTF-8");
}

static int open_editor(struct line_reader *r, struct gyaru_error *err)
{
    HistEvent event;
    choose_locale();
    r->editor = el_init("gyaru", stdin, stdout, stderr);
    r->history = history_init();
    if (!r->editor || !r->history)
        return error_memory(err, 1 << 16, "the line editor");
    el_set(r->editor, EL_PROMPT, prompt);
    el_set(r->editor, EL_EDITOR, "emacs");
    el_set(r->editor, EL_SIGNAL, 1); /* the terminal is restored before a signal takes effect */
    /* Ctrl-C clears the line: as a key it cannot meet the program between two states. */
    el_set(r->editor, EL_SETTY, "-d", "-isig", NULL);
    el_set(r->editor, EL_BIND, "^C", "em-kill-line", NULL);
    el_set(r->editor, EL_HIST, history, r->history);
    history(r->history, &event, H_SETSIZE, HISTORY_LINES);
    history(r->history, &event, H_SETUNIQUE, 1);
    r->path = history_path();
    if (r->path && file_exists(r->path))
        history(r->history, &event, H_LOAD, r->path);
    return 0;
}

int line_open(bool interactive, struct line_reader **out, struct gyaru_error *err)
{
    struct line_reader *r = calloc(1, sizeof *r);
    if (!r)
        return error_memory(err, sizeof *r, "the input");
    if (interactive && open_editor(r, err)) {
        line_close(r);
        return -1;
    }
    *out = r;
    return 0;
}

void line_close(struct line_reader *r)
{
    if (!r)
        return;
    if (r->history)
        history_end(r->history);
    if (r->editor)
        el_end(r->editor);
    free(r->buffer);
    free(r->path);
    free(r);
}

static const char *read_edited(struct line_reader *r)
{
    int n;
    HistEvent event;
    const char *line = el_gets(r->editor, &n);
    if (!line || n <= 0)
        return NULL;
    if (line[strspn(line, " \t\n")]) {
        history(r->history, &event, H_ENTER, line);
        if (r->path) /* at once: the program may be ended at any time */
            history(r->history, &event, H_SAVE, r->path);
    }
    free(r->buffer);
    r->buffer = strdup(line);
    return r->buffer;
}

const char *line_read(struct line_reader *r)
{
    const char *line = NULL;
    if (r->editor)
        line = read_edited(r);
    else if (getline(&r->buffer, &r->size, stdin) >= 0)
        line = r->buffer;
    if (line)
        r->buffer[strcspn(r->buffer, "\r\n")] = '\0';
    return line;
}
