/* SPDX-License-Identifier: BSD-2-Clause */
/* stdlib.h of the freestanding build: the heap, and sorting. */
#ifndef FREESTANDING_STDLIB_H
#define FREESTANDING_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t size);
void *aligned_alloc(size_t alignment, size_t size);
void free(void *p);
void qsort(void *base, size_t n, size_t size, int (*compare)(const void *, const void *));

#endif
