/*
 * journal.h - finished records of long work, so that a killed run goes on where it was.
 *
 * The file: a header of 64 bytes (magic, key, record size, number of records), then records in
 * order, each a header of 64 bytes (SHA-256 of what follows it, index) and its floats in the
 * machine's byte order. Records are written, then synced; when the file is opened again, those that
 * are whole count and what lies behind them is cut off. The key names everything that the
 * records depend on: another key, and the work begins anew. One process at a time holds a journal.
 */
#ifndef STEER_JOURNAL_H
#define STEER_JOURNAL_H

#include "base/error.h"
#include "base/sha256.h"

struct journal {
    char *path;
    int fd;
    size_t n_floats; /* of a record */
    size_t n_total;  /* records when all is done */
    size_t n_done;   /* records that are whole */
    bool discarded;  /* an earlier journal had another key */
    uint8_t *map;    /* NULL until journal_map() */
    size_t map_size;
};

int journal_open(const char *path, const uint8_t key[SHA256_BYTES], size_t n_floats, size_t n_total,
                 struct journal *out, struct gyaru_error *err);

/* Writes records n_done, n_done+1, ... : [n, n_floats], and waits until the disk has them. */
int journal_append(struct journal *journal, const float *records, size_t n,
                   struct gyaru_error *err);

/* Makes records readable in place, those that are there and those that will be. */
int journal_map(struct journal *journal, struct gyaru_error *err);
const float *journal_record(const struct journal *journal, size_t i); /* [n_floats] */

/* `done`: the journal has served and its file goes; else it stays for the next run. */
void journal_close(struct journal *journal, bool done);

#endif
