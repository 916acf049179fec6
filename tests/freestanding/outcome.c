/* SPDX-License-Identifier: BSD-2-Clause */
/* outcome.c: common/outcome.h without processes: a case is a thread, whose end is that of all that
 * it has started; the variables of cases are put back. Its VM is lost if it has not come to
 * destroying it. */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "../../examples/type1/host.h"
#include "../common/outcome.h"
#include "port.h"
#include "threads.h"

/* tables.ld: the variables of all but this machine's own files and the library. */
extern uint8_t cases_data[], cases_data_end[], cases_bss[], cases_bss_end[];

static struct {
    void (*run)(const void *arg);
    const void *arg;
    struct outcome outcome;
    _Atomic uint32_t over;
    atomic_flag taken; /* by the first thread that ends the case */
} now;
static unsigned number, resume;

void outcome_resume(unsigned n)
{
    resume = n;
    port_mute(n > 1);
}

_Noreturn void outcome_end(const struct outcome *outcome)
{
    if (outcome->result == OUTCOME_NOT_OFFERED && thread_is_first()) {
        host_print("Bail out! the driver of the tests wants %s\n", outcome->text);
        host_exit(false);
    }
    if (!atomic_flag_test_and_set(&now.taken)) {
        now.outcome = *outcome;
        atomic_store(&now.over, 1);
    }
    thread_exit();
}

static void run_case(void *arg)
{
    const struct outcome passed = {.result = OUTCOME_PASS};

    (void)arg;
    now.run(now.arg);
    outcome_end(&passed);
}

/* Copies the variables of cases out, or back. */
static void exchange(bool back)
{
    static uint8_t *copy;
    size_t data = (size_t)(cases_data_end - cases_data), bss = (size_t)(cases_bss_end - cases_bss);

    if (!copy)
        copy = host_ops.pages_alloc(NULL, (data + bss + 4095) / 4096);
    if (!copy) {
        host_print("Bail out! no memory for the variables of cases\n");
        host_exit(false);
    }
    memcpy(back ? cases_data : copy, back ? copy : cases_data, data);
    memcpy(back ? cases_bss : copy + data, back ? copy + data : cases_bss, bss);
}

void outcome_run(void (*run)(const void *arg), const void *arg, unsigned seconds,
                 struct outcome *out)
{
    uint64_t deadline = thread_now() + seconds * 1000000000ull;

    memset(out, 0, sizeof(*out));
    if (++number <= resume && arg) { /* without an argument, the driver itself wants to know */
        port_mute(number < resume);
        out->result = number < resume ? OUTCOME_PASS : OUTCOME_FAIL;
        snprintf(out->text, sizeof(out->text), "the machine has stopped");
        return;
    }
    printf("# case %u\n", number); /* for the runner, if the machine stops */
    now.run = run;
    now.arg = arg;
    atomic_store(&now.over, 0);
    atomic_flag_clear(&now.taken);
    exchange(false);
    if (!thread_start(run_case, NULL)) {
        host_print("Bail out! no memory for a thread\n");
        host_exit(false);
    }
    while (!atomic_load(&now.over) && thread_now() < deadline)
        thread_wait(&now.over, 0, deadline);
    if (!atomic_flag_test_and_set(&now.taken)) {
        now.outcome.result = OUTCOME_FAIL;
        snprintf(now.outcome.text, sizeof(now.outcome.text), "hangs: not over after %u s", seconds);
    }
    if (!threads_end_others()) {
        host_print("Bail out! a thread keeps its CPU\n");
        host_exit(false);
    }
    exchange(true);
    *out = now.outcome;
}
