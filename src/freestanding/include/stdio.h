/* SPDX-License-Identifier: BSD-2-Clause */
/* stdio.h of the freestanding build: text in memory. */
#ifndef FREESTANDING_STDIO_H
#define FREESTANDING_STDIO_H

#include <stdarg.h>
#include <stddef.h>

int snprintf(char *to, size_t size, const char *f, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *to, size_t size, const char *f, va_list args);

#endif
