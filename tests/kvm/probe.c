/* SPDX-License-Identifier: BSD-2-Clause */
/* kvm-probe: what the library's probe says of the host's KVM, a line for each claim as kvm-defects
 * prints them, and a last one with the reason that reports give. Exit status 77: unusable. */
#include <stdio.h>

#include "backends/kvm/kvm.h"

static const struct {
    const char *name;
    uint32_t bad;
} claims[] = {
#define CLAIM(name)                                                                                \
    {                                                                                              \
#name, KVM_BAD_##name                                                                      \
    }
    CLAIM(REAL),       CLAIM(PROTECTED),    CLAIM(PAGING32),   CLAIM(PAE),
    CLAIM(COMPAT),     CLAIM(USER_EVENTS),  CLAIM(USER_FLAGS), CLAIM(CPUID),
    CLAIM(TSC_OFFSET), CLAIM(STALE_TABLES), CLAIM(STEP),       CLAIM(BREAKPOINT),
    CLAIM(WATCHPOINT), CLAIM(EMULATION),    CLAIM(HYPERCALL),  CLAIM(SLOW_KERNEL),
    CLAIM(WINDOW),     CLAIM(IN_SERVICE),
#undef CLAIM
};

int main(void)
{
    const struct kvm_host *host = kvm_host();

    if (host->result) {
        printf("skipped: %s\n", host->reason);
        return 77;
    }
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++)
        printf("%s %s\n", claims[i].name, host->bad & claims[i].bad ? "wrong" : "right");
    printf("# %s%s\n", host->reason, host->degraded ? " (degraded)" : "");
    return 0;
}
