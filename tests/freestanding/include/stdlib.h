/* SPDX-License-Identifier: BSD-2-Clause */
/* stdlib.h of tests on a bare machine. */
#ifndef TESTS_STDLIB_H
#define TESTS_STDLIB_H

#include "../../../src/freestanding/include/stdlib.h"

int atoi(const char *text);
_Noreturn void abort(void);
int mkstemp(char *name);

#endif
