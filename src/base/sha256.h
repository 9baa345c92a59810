/*
 * sha256.h - SHA-256 (FIPS 180-4), for names of contents: templates, datasets, fingerprints.
 *
 *     struct sha256 hash;
 *     sha256_init(&hash);
 *     sha256_update(&hash, data, len);
 *     sha256_final(&hash, digest);
 *
 * Our own code because none of the libraries that we link offers it on its own; nothing here
 * protects secrets.
 */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define SHA256_HEX   65 /* characters, the NUL included */

struct sha256 {
    uint32_t state[8];
    uint64_t n_bytes; /* taken in so far */
    uint8_t block[64];
};

void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *data, size_t len);
void sha256_final(struct sha256 *hash, uint8_t digest[SHA256_BYTES]);

/* The digest as 64 lower-case hex digits. */
void sha256_hex(const uint8_t digest[SHA256_BYTES], char hex[SHA256_HEX]);

/* All in one: the hex digest of `len` bytes. */
void sha256_hex_of(const void *data, size_t len, char hex[SHA256_HEX]);

#endif
