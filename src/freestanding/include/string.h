/* SPDX-License-Identifier: BSD-2-Clause */
/* string.h of the freestanding build: the host's four functions, and freestanding/libc.c. */
#ifndef FREESTANDING_STRING_H
#define FREESTANDING_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);

size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strcpy(char *to, const char *from);
const char *vmm_strstr(const char *text, const char *what);
#define strstr vmm_strstr /* the library only looks */

#endif
