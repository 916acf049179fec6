/* SPDX-License-Identifier: BSD-2-Clause */
/* backends.h: a benchmark of the backends that are named, or of all that can run here. */
#ifndef BENCH_BACKENDS_H
#define BENCH_BACKENDS_H

#include <stdbool.h>
#include <stdio.h>
#include <vmm/vmm.h>

/* `names`: up to a NULL. True if all that were measured could be. */
static inline bool for_backends(char **names, bool (*measure)(const char *backend))
{
    struct vmm_backend_report reports[8] = {{.size = sizeof(reports[0])}};
    int n = vmm_backend_probe(reports, 8);
    bool ok = true;

    if (*names) {
        for (; *names; names++)
            ok = measure(*names) && ok;
        return ok;
    }
    for (int i = 0; i < n && i < 8; i++)
        if (!reports[i].result)
            ok = measure(reports[i].name) && ok;
        else
            printf("%-8s cannot run: %s\n", reports[i].name, reports[i].reason);
    return ok;
}

#endif
