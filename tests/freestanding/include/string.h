/* SPDX-License-Identifier: BSD-2-Clause */
/* string.h of tests on a bare machine. */
#ifndef TESTS_STRING_H
#define TESTS_STRING_H

#include "../../../src/freestanding/include/string.h"

char *strchr(const char *s, int c);
char *strrchr(const char *s, int c);
size_t strcspn(const char *s, const char *stop);
char *strdup(const char *s);

#endif
