/* SPDX-License-Identifier: BSD-2-Clause */
/* stdio.h of tests on a bare machine: the serial port, and no files. */
#ifndef TESTS_STDIO_H
#define TESTS_STDIO_H

#include "../../../src/freestanding/include/stdio.h"

typedef struct port_file FILE;
extern FILE *const stdout, *const stderr;

int printf(const char *f, ...) __attribute__((format(printf, 1, 2)));
int fprintf(FILE *to, const char *f, ...) __attribute__((format(printf, 2, 3)));
int fflush(FILE *f);
FILE *fopen(const char *name, const char *mode);
char *fgets(char *to, int size, FILE *f);
int fclose(FILE *f);
void perror(const char *text);

#endif
