/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/debug.h: breakpoints, watchpoints and exception exits of the host program. */
#ifndef VMM_DEBUG_H
#define VMM_DEBUG_H

#include <vmm/vcpu.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMM_BREAK_EXEC   0u
#define VMM_BREAK_WRITE  1u
#define VMM_BREAK_ACCESS 3u

struct vmm_breakpoint {
    uint64_t addr; /* linear */
    uint32_t type; /* VMM_BREAK_* */
    uint32_t len;  /* 1, 2, 4 or 8 for watchpoints */
};

#define VMM_DEBUG_EXCEPTIONS 1u /* VMM_EXIT_EXCEPTION before exceptions in exception_mask */

/* Debugging of the guest from outside; the guest sees nothing of it (its DR0-DR7 stay its own). */
struct vmm_debug {
    uint32_t size;
    uint32_t flags;
    uint32_t exception_mask; /* bit n: exception vector n */
    uint32_t nbreakpoints;   /* at most 4 */
    struct vmm_breakpoint breakpoints[4];
};

/* Replaces the debug state; NULL turns all of it off. A breakpoint exits before the
 * instruction; running again passes it once. VMM_E_UNSUPPORTED, VMM_E_INVAL. OWNER. */
int vcpu_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug);

#ifdef __cplusplus
}
#endif
#endif
