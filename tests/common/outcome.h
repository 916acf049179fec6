/* SPDX-License-Identifier: BSD-2-Clause */
/* outcome.h: runs a test case in a child process, so that a crash or a hang is its failure and not
 * the end of the run. */
#ifndef OUTCOME_H
#define OUTCOME_H

enum outcome_result {
    OUTCOME_PASS,
    OUTCOME_FAIL,
    OUTCOME_NOT_OFFERED,
    OUTCOME_KNOWN /* fails by a known defect of the host */
};

struct outcome {
    enum outcome_result result;
    char text[400]; /* what failed, what is not offered, or which defect */
};

/* Calls `run` in a child that is killed after `seconds`. It passes when `run` returns. */
void outcome_run(void (*run)(const void *arg), const void *arg, unsigned seconds,
                 struct outcome *out);

/* From inside `run`, on any thread: the end of the case. */
_Noreturn void outcome_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The backend or the machine does not have what the case needs. */
_Noreturn void outcome_not_offered(const char *what);

/* With any outcome, which is the first thread's to end the case. */
_Noreturn void outcome_end(const struct outcome *outcome);

#endif
