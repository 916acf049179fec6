/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/sysinsn.c: TLB and cache invalidation, time stamps, FS and GS bases, HLT, VMCALL. */
#include "core/x86/control.h"
#include "core/x86/sys_handlers.h"
#include <vmm/vcpu.h>

#define PCID_MASK 0xfffu

/* ---- TLB and caches ---- */

/* INVLPG's operand is an address, not an access: no checks of the segment. */
static uint64_t address(const struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t offset = x86_offset(cpu, op);

    if (op->asz == X86_A16)
        offset &= 0xffff;
    else if (op->asz == X86_A32)
        offset &= 0xffffffff;
    if (!x86_code64(cpu))
        return (uint32_t)(cpu->seg[op->seg].base + offset);
    return op->seg == VMM_FS || op->seg == VMM_GS ? offset + cpu->seg[op->seg].base : offset;
}

const struct x86_op *x86_sys_invlpg(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t linear = address(cpu, op);

    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    x86_serialize();
    if (mmu_canonical(&cpu->mmu, linear))
        x86_flush_tlb_page(cpu, linear);
    return x86_next(cpu, x86_op_next(cpu, op));
}

/* The first level of the TLB and the tables of code hold entries of the current PCID only, the
 * second level those of others, too. A page is flushed for all. */
static bool invpcid(struct x86_cpu *cpu, uint64_t type, uint64_t pcid, uint64_t linear)
{
    bool current = pcid == (cpu->cr4 & X86_CR4_PCIDE ? cpu->cr3 & PCID_MASK : 0);

    if (type > 3 || pcid > PCID_MASK)
        return false;
    if (type < 2 && pcid && !(cpu->cr4 & X86_CR4_PCIDE))
        return false;
    switch (type) {
    case 0:
        if (!mmu_canonical(&cpu->mmu, linear))
            return false;
        x86_flush_tlb_page(cpu, linear);
        break;
    case 1:
        if (current)
            x86_flush_tlb_nonglobal(cpu);
        else
            mmu_forget_pcid(&cpu->mmu, (uint16_t)pcid);
        break;
    case 2:
        x86_flush_tlb(cpu);
        break;
    default:
        x86_flush_tlb_nonglobal(cpu);
    }
    return true;
}

const struct x86_op *x86_sys_invpcid(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t linear, desc[2];

    if (!(cpu->feat.l7_ebx & X86_F7_EBX_INVPCID))
        return x86_fault(cpu, op, X86_UD);
    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    x86_serialize();
    if (!x86_ea(cpu, op, sizeof(desc), false, &linear) ||
        !x86_read(cpu, op, op->seg, linear, desc, sizeof(desc)))
        return x86_leave(cpu, op);
    if (!invpcid(cpu, x86_get_reg(cpu, op->r, op->size), desc[0], desc[1]))
        return x86_fault_err(cpu, op, X86_GP, 0);
    return x86_next(cpu, x86_op_next(cpu, op));
}

/* Guest memory is the host's, and coherent: nothing to write back. INVD must not lose data. */
const struct x86_op *x86_sys_wbinvd(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    x86_serialize();
    return op + 1;
}

const struct x86_op *x86_sys_invd(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_sys_wbinvd(cpu, op);
}

/* ---- time stamps and counters ---- */

static void put_tsc(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t tsc;

    cpu->cur_idx = op->idx;
    tsc = cpu->env->tsc(cpu->env->mmu.ctx);
    cpu->gpr[VMM_RAX] = (uint32_t)tsc;
    cpu->gpr[VMM_RDX] = tsc >> 32;
}

static bool tsc_denied(const struct x86_cpu *cpu)
{
    return cpu->cpl && (cpu->cr4 & X86_CR4_TSD);
}

const struct x86_op *x86_sys_rdtsc(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (tsc_denied(cpu))
        return x86_fault_err(cpu, op, X86_GP, 0);
    put_tsc(cpu, op);
    return op + 1;
}

const struct x86_op *x86_sys_rdtscp(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->feat.x1_edx & X86_FX1_EDX_RDTSCP))
        return x86_fault(cpu, op, X86_UD);
    if (tsc_denied(cpu))
        return x86_fault_err(cpu, op, X86_GP, 0);
    put_tsc(cpu, op);
    cpu->gpr[VMM_RCX] = (uint32_t)cpu->tsc_aux;
    return op + 1;
}

const struct x86_op *x86_sys_rdpid(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->feat.l7_ecx & X86_F7_ECX_RDPID))
        return x86_fault(cpu, op, X86_UD);
    cpu->gpr[op->r] = cpu->tsc_aux;
    return op + 1;
}

/* There are no performance counters (CPUID leaf 0AH), so that no number of one is valid. */
const struct x86_op *x86_sys_rdpmc(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_fault_err(cpu, op, X86_GP, 0);
}

/* ---- FS and GS bases ---- */

const struct x86_op *x86_sys_swapgs(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t base = cpu->seg[VMM_GS].base;

    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->seg[VMM_GS].base = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
    return op + 1;
}

static const struct x86_op *read_base(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg)
{
    if (!(cpu->cr4 & X86_CR4_FSGSBASE))
        return x86_fault(cpu, op, X86_UD);
    x86_set_reg(cpu, op->r, op->size, cpu->seg[seg].base);
    return op + 1;
}

static const struct x86_op *write_base(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg)
{
    uint64_t base = x86_get_reg(cpu, op->r, op->size);

    if (!(cpu->cr4 & X86_CR4_FSGSBASE))
        return x86_fault(cpu, op, X86_UD);
    if (!x86_canonical(cpu, base))
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->seg[seg].base = base;
    return op + 1;
}

const struct x86_op *x86_sys_rdfsbase(struct x86_cpu *cpu, const struct x86_op *op)
{
    return read_base(cpu, op, VMM_FS);
}

const struct x86_op *x86_sys_rdgsbase(struct x86_cpu *cpu, const struct x86_op *op)
{
    return read_base(cpu, op, VMM_GS);
}

const struct x86_op *x86_sys_wrfsbase(struct x86_cpu *cpu, const struct x86_op *op)
{
    return write_base(cpu, op, VMM_FS);
}

const struct x86_op *x86_sys_wrgsbase(struct x86_cpu *cpu, const struct x86_op *op)
{
    return write_base(cpu, op, VMM_GS);
}

/* ---- others ---- */

const struct x86_op *x86_sys_hlt(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->activity = VMM_HALTED;
    cpu->stop = X86_STOP_HLT;
    cpu->count.halts++;
    return x86_next_slow(cpu, x86_op_next(cpu, op));
}

/* The exit comes behind the instruction; exit_gva is where that was. */
const struct x86_op *x86_sys_vmcall(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!cpu->vmcall_exits)
        return x86_fault(cpu, op, X86_UD);
    cpu->stop = X86_STOP_EXIT;
    cpu->exit_reason = VMM_EXIT_HYPERCALL;
    cpu->exit_gva = x86_op_rip(cpu, op);
    return x86_next_slow(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_serialize(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->feat.l7_edx & X86_F7_EDX_SERIALIZE))
        return x86_fault(cpu, op, X86_UD);
    x86_serialize();
    return x86_next(cpu, x86_op_next(cpu, op));
}
