/*
 * proc.h - sizes that the kernel tells in files of lines such as "VmRSS:  123 kB".
 */
#ifndef BASE_PROC_H
#define BASE_PROC_H

#include <stdint.h>

#define PROC_MACHINE "/proc/meminfo"
#define PROC_SELF    "/proc/self/status"

/* Bytes; 0 where there is no such file or line. */
uint64_t proc_bytes(const char *path, const char *key);

#endif
