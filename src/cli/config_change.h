/*
 * config_change.h - changes settings of a config file so that the change can be taken back exactly.
 *
 * Before the file is replaced, its bytes are in PATH.bak-N and a line on the change is in
 * PATH.changes (JSON: the backup's name, SHA-256 before and after). Each of the three is written
 * whole or not at all and in this order, so that whoever is killed in between leaves the old file
 * or the new one, and taking back works either way. Changes can be taken back one after the other,
 * the newest first; the copies that this makes useless are removed.
 */
#ifndef CLI_CONFIG_CHANGE_H
#define CLI_CONFIG_CHANGE_H

#include "cli/config_edit.h"

/* Sets `values` in the file at `path`, which is made if it is missing. *backup (caller frees): the
 * copy of what was there; NULL if there was nothing, or if nothing had to change (*changed). */
int config_change(const char *path, const struct config_value *values, size_t n, char **backup,
                  bool *changed, struct gyaru_error *err);

/* Path (caller frees) of the copy of what the file said before its newest change; NULL if there is
 * none, or it is not what was copied. */
char *config_before(const char *path);

/* Takes the newest change back. Refused when the file was edited since: the message names the
 * backup. *what (caller frees): one line on what is there now. */
int config_rollback(const char *path, char **what, struct gyaru_error *err);

#endif
