/* journal.c - see journal.h. */
#include "steer/journal.h"

#include "base/size.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[16] = "gyaru-journal-1";

struct file_header {
    char magic[16];
    uint8_t key[SHA256_BYTES];
    uint64_t record_bytes, n_records;
};
_Static_assert(sizeof(struct file_header) == 64, "the journal's header");

struct record_header {
    uint8_t digest[SHA256_BYTES]; /* of the rest of this header and the floats */
    uint64_t index;
    uint8_t zero[24];
};
_Static_assert(sizeof(struct record_header) == 64, "a journal record's header");

static size_t record_size(const struct journal *j)
{
    return sizeof(struct record_header) + j->n_floats * sizeof(float);
}

static off_t record_offset(const struct journal *j, size_t i)
{
    return (off_t)(sizeof(struct file_header) + i * record_size(j));
}

static void make_header(const struct journal *j, size_t index, const float *floats,
                        struct record_header *out)
{
    struct sha256 hash;
    *out = (struct record_header){.index = index};
    sha256_init(&hash);
    sha256_update(&hash, (const uint8_t *)out + SHA256_BYTES, sizeof *out - SHA256_BYTES);
    sha256_update(&hash, floats, j->n_floats * sizeof *floats);
    sha256_final(&hash, out->digest);
}

/* Bytes read, fewer only at the end of the file; -1 on failure. */
static ssize_t read_at(int fd, void *data, size_t len, off_t offset)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)data + done, len - done, offset + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (!n)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int write_at(const struct journal *j, const void *data, size_t len, off_t offset,
                    struct gyaru_error *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(j->fd, (const char *)data + done, len - done, offset + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, j->path, "cannot write");
        done += (size_t)n;
    }
    return 0;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static int open_locked(struct journal *j, struct gyaru_error *err)
{
    struct stat st;
    j->fd = open(j->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (j->fd < 0)
        return error_errno(err, j->path, "cannot open");
    if (fstat(j->fd, &st) || !S_ISREG(st.st_mode))
        return error_set(err, GYARU_FAILED, "%s: not a regular file", j->path);
    if (!flock(j->fd, LOCK_EX | LOCK_NB))
        return 0;
    if (errno == EWOULDBLOCK)
        return error_set(err, GYARU_FAILED, "%s: another run is at work here: wait for it",
                         j->path);
    return error_errno(err, j->path, "cannot lock");
}

/* Counts the records that are whole. */
static int verify(struct journal *j, struct gyaru_error *err)
{
    size_t bytes = record_size(j);
    uint8_t *record = malloc(bytes);
    if (!record)
        return error_memory(err, bytes, "a record of the journal");
    int rc = 0;
    while (j->n_done < j->n_total) {
        struct record_header expected;
        ssize_t n = read_at(j->fd, record, bytes, record_offset(j, j->n_done));
        if (n < 0)
            rc = error_errno(err, j->path, "cannot read");
        if (n != (ssize_t)bytes)
            break;
        make_header(j, j->n_done, (const float *)(record + sizeof expected), &expected);
        if (memcmp(record, &expected, sizeof expected))
            break;
        j->n_done++;
    }
    free(record);
    if (!rc && ftruncate(j->fd, record_offset(j, j->n_done)))
        rc = error_errno(err, j->path, "cannot cut");
    return rc;
}

static int begin(struct journal *j, const struct file_header *header, struct gyaru_error *err)
{
    if (ftruncate(j->fd, 0))
        return error_errno(err, j->path, "cannot empty");
    return write_at(j, header, sizeof *header, 0, err);
}

static int adopt(struct journal *j, const uint8_t key[SHA256_BYTES], struct gyaru_error *err)
{
    struct file_header header = {.record_bytes = record_size(j), .n_records = j->n_total}, old;
    memcpy(header.magic, magic, sizeof magic);
    memcpy(header.key, key, sizeof header.key);
    ssize_t n = read_at(j->fd, &old, sizeof old, 0);
    if (n < 0)
        return error_errno(err, j->path, "cannot read");
    if (memcmp(old.magic, magic, (size_t)n < sizeof magic ? (size_t)n : sizeof magic))
        return error_set(err, GYARU_FAILED,
                         "%s: stands where the journal belongs and is none: move it away", j->path);
    if (n == (ssize_t)sizeof old && !memcmp(&old, &header, sizeof old))
        return verify(j, err);
    j->discarded = n == (ssize_t)sizeof old;
    return begin(j, &header, err);
}

int journal_open(const char *path, const uint8_t key[SHA256_BYTES], size_t n_floats, size_t n_total,
                 struct journal *out, struct gyaru_error *err)
{
    size_t bytes, all;
    if (!size_mul(n_floats, sizeof(float), &bytes) ||
        !size_add(bytes, sizeof(struct record_header), &bytes) || !size_mul(bytes, n_total, &all) ||
        all > (size_t)1 << 50)
        return error_set(err, GYARU_FAILED, "%s: %zu records of %zu numbers are too large", path,
                         n_total, n_floats);
    struct journal j = {.path = strdup(path), .fd = -1, .n_floats = n_floats, .n_total = n_total};
    if (!j.path)
        return error_memory(err, strlen(path), "a path");
    if (open_locked(&j, err) || adopt(&j, key, err)) {
        journal_close(&j, false);
        return -1;
    }
    *out = j;
    return 0;
}

/* ---- writing and reading ----------------------------------------------------------------------
 */

int journal_append(struct journal *j, const float *records, size_t n, struct gyaru_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const float *floats = records + i * j->n_floats;
        off_t offset = record_offset(j, j->n_done + i);
        struct record_header header;
        make_header(j, j->n_done + i, floats, &header);
        if (write_at(j, &header, sizeof header, offset, err) ||
            write_at(j, floats, j->n_floats * sizeof *floats, offset + (off_t)sizeof header, err))
            return -1;
    }
    if (fdatasync(j->fd))
        return error_errno(err, j->path, "cannot sync");
    j->n_done += n;
    return 0;
}

int journal_map(struct journal *j, struct gyaru_error *err)
{
    size_t size = (size_t)record_offset(j, j->n_total);
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, j->fd, 0);
    if (map == MAP_FAILED)
        return error_errno(err, j->path, "cannot map");
    j->map = map;
    j->map_size = size;
    return 0;
}

const float *journal_record(const struct journal *j, size_t i)
{
    return (const float *)(j->map + (size_t)record_offset(j, i) + sizeof(struct record_header));
}

void journal_close(struct journal *j, bool done)
{
    if (j->map)
        munmap(j->map, j->map_size);
    if (j->fd >= 0) {
        if (done)
            unlink(j->path);
        close(j->fd);
    }
    free(j->path);
    *j = (struct journal){.fd = -1};
}
