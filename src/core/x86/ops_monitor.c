/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_monitor.c: MONITOR and MWAIT. */
#include "core/x86/ops_common.h"

/*
 * MWAIT returns at once, as it may at any time (SDM Vol. 2B, MWAIT): stores by other vCPUs are not
 * seen here, so a wait for one might never end.
 */

X86_HANDLER(monitor)
{
    uint64_t a;
    uint8_t v;

    if (cpu->cpl)
        return x86_fault(cpu, op, X86_UD);
    if (x86_r32(cpu, VMM_RCX))
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!x86_linear_at(cpu, op, cpu->gpr[VMM_RAX], 1, false, &a) ||
        !x86_read(cpu, op, op->seg, a, &v, 1))
        return x86_leave(cpu, op);
    cpu->monitor_linear = a;
    X86_RETURN(cpu, op);
}

/* ECX bit 0, interrupts as break events though IF = 0, needs the feature of CPUID leaf 5, which
 * guests are not given. */
X86_HANDLER(mwait)
{
    if (cpu->cpl)
        return x86_fault(cpu, op, X86_UD);
    if (x86_r32(cpu, VMM_RCX))
        return x86_fault_err(cpu, op, X86_GP, 0);
    return x86_next_slow(cpu, x86_op_next(cpu, op));
}

/* arg: 1 MWAIT. Both are invalid outside ring 0. */
bool x86_dec_monitor(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    if (!(d->cpu->feat.l1_ecx & 1u << 3) || (d->mode & X86_MODE_VM86))
        return false;
    if (arg) {
        op->fn = mwait;
        d->end = true;
        return true;
    }
    op->asz = d->insn.address_width == 16   ? X86_A16
              : d->insn.address_width == 32 ? X86_A32
                                            : X86_A64;
    op->seg = VMM_DS;
    if (d->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
        op->seg = VMM_FS;
    else if (d->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
        op->seg = VMM_GS;
    else if (!x86_dec_64(d) && (d->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT))
        op->seg = d->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS   ? VMM_CS
                  : d->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS ? VMM_SS
                  : d->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES ? VMM_ES
                                                                     : VMM_DS;
    op->ea = X86_EA_SLOW;
    op->fn = monitor;
    return true;
}
