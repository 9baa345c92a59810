/*
 * vector_folder.h - a folder of small vectors in the scratch directory, for servers in tests.
 */
#ifndef TESTS_VECTOR_FOLDER_H
#define TESTS_VECTOR_FOLDER_H

#define VECTOR_FOLDER "vectors" /* in the scratch directory */

/* Path of the folder's file for this vector; a ring of eight buffers. */
const char *vector_folder_path(const char *name);

/* Writes NAME.safetensors: directions at layers 1 and 2 that `seed` names, recommended at 8, at
 * most 20; `fingerprint` NULL: the file does not say whose it is. */
void vector_folder_write(const char *name, int hidden, const char *fingerprint, unsigned seed);

/* Fingerprint of the checkpoint that servers in tests use; valid to the end. */
const char *vector_folder_fingerprint(void);

/* Makes the folder. */
void vector_folder_make(void);

#endif
