/* SPDX-License-Identifier: BSD-2-Clause */
/* outcome_text.c: how cases say what has failed and what they are not offered. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "outcome.h"

_Noreturn void outcome_fail(const char *file, int line, const char *format, ...)
{
    struct outcome out = {.result = OUTCOME_FAIL};
    const char *slash = strrchr(file, '/');
    va_list ap;
    int n;

    n = snprintf(out.text, sizeof(out.text), "%s:%d: ", slash ? slash + 1 : file, line);
    va_start(ap, format);
    vsnprintf(out.text + n, sizeof(out.text) - (size_t)n, format, ap);
    va_end(ap);
    outcome_end(&out);
}

_Noreturn void outcome_not_offered(const char *what)
{
    struct outcome out = {.result = OUTCOME_NOT_OFFERED};

    snprintf(out.text, sizeof(out.text), "%s", what);
    outcome_end(&out);
}
