/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/control.c: control registers, XCR0, IA32_EFER and PKRU: checks and side effects (SDM
 * Vol. 3A 2.5, 4.10.4.1, 10.8.5). */
#include "core/x86/segment.h"
#include "core/x86/sys_handlers.h"
#include "core/x86/xstate.h"

#define CR0_BITS                                                                                   \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |    \
     X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

/* Bits whose change empties the TLB. For the first three the architecture demands it, with the
 * others entries carry permissions that depend on them. */
#define CR0_FLUSH (X86_CR0_PG | X86_CR0_PE | X86_CR0_WP)
#define CR4_FLUSH                                                                                  \
    (X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP |       \
     X86_CR4_PKE)
/* Changes that load the PDPTEs again with PAE paging (SDM Vol. 3A 4.4.1). */
#define CR0_PDPTE (X86_CR0_CD | X86_CR0_NW | X86_CR0_PG)
#define CR4_PDPTE (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP)

#define CR3_PCID    0xfffu
#define CR3_NOFLUSH (1ull << 63)

static bool general_protection(struct x86_cpu *cpu)
{
    x86_raise_err(cpu, X86_GP, 0);
    return false;
}

/* Gives the MMU new registers; with nothing changed and #GP queued if that needs a PDPTE that has
 * reserved bits set. */
static bool mmu_takes(struct x86_cpu *cpu, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer,
                      bool load_pdpte)
{
    struct mmu_mode mode = {.cr0 = cr0,
                            .cr3 = cr3,
                            .cr4 = cr4,
                            .efer = efer,
                            .pkru = cpu->pkru,
                            .gpa_bits = cpu->feat.gpa_bits};

    return mmu_set_mode(&cpu->mmu, &mode, load_pdpte) || general_protection(cpu);
}

/* ---- CR0 ---- */

/* Whether CR0.PG may become set with EFER.LME: SDM Vol. 3A 10.8.5.1, 10.8.5.4. */
static bool may_enter_long_mode(const struct x86_cpu *cpu)
{
    unsigned tss = cpu->seg[VMM_TR].ar & VMM_AR_TYPE;
    bool tss16 = !(cpu->seg[VMM_TR].ar & VMM_AR_UNUSABLE) && (tss == 1 || tss == 3);

    return (cpu->cr4 & X86_CR4_PAE) && !(cpu->seg[VMM_CS].ar & VMM_AR_L) && !tss16;
}

bool x86_set_cr0(struct x86_cpu *cpu, uint64_t value)
{
    uint64_t changed, efer = cpu->efer;

    if (value >> 32)
        return general_protection(cpu);
    value = (value & CR0_BITS) | X86_CR0_ET;
    if ((value & X86_CR0_PG) && !(value & X86_CR0_PE))
        return general_protection(cpu);
    if ((value & X86_CR0_NW) && !(value & X86_CR0_CD))
        return general_protection(cpu);
    changed = value ^ cpu->cr0;
    if (changed & X86_CR0_PG) {
        if (!(value & X86_CR0_PG)) {
            if ((cpu->cr4 & X86_CR4_PCIDE) || x86_code64(cpu))
                return general_protection(cpu);
            efer &= ~(uint64_t)X86_EFER_LMA;
        } else if (efer & X86_EFER_LME) {
            if (!may_enter_long_mode(cpu))
                return general_protection(cpu);
            efer |= X86_EFER_LMA;
        }
    }
    if (!mmu_takes(cpu, value, cpu->cr3, cpu->cr4, efer, changed & CR0_PDPTE))
        return false;
    cpu->cr0 = value;
    cpu->efer = efer;
    if (changed & CR0_FLUSH)
        x86_flush_tlb(cpu);
    x86_cs_changed(cpu);
    return true;
}

/* ---- CR3 ---- */

bool x86_set_cr3(struct x86_cpu *cpu, uint64_t value)
{
    bool pcids = cpu->cr4 & X86_CR4_PCIDE, keep = pcids && (value & CR3_NOFLUSH);

    if (pcids)
        value &= ~CR3_NOFLUSH;
    if (value >> cpu->feat.gpa_bits)
        return general_protection(cpu);
    if (!mmu_takes(cpu, cpu->cr0, value, cpu->cr4, cpu->efer, true))
        return false;
    cpu->cr3 = value;
    if (!(cpu->cr4 & X86_CR4_PGE))
        x86_flush_tlb(cpu);
    else if (pcids)
        x86_load_pcid(cpu, value & CR3_PCID, keep);
    else
        x86_flush_tlb_nonglobal(cpu);
    return true;
}

/* ---- CR4 ---- */

uint64_t x86_cr4_allowed(const struct x86_cpu *cpu)
{
    const uint32_t f1c = cpu->feat.l1_ecx, f1d = cpu->feat.l1_edx;
    const uint32_t f7b = cpu->feat.l7_ebx, f7c = cpu->feat.l7_ecx;
    const struct {
        uint32_t bits, feature;
    } rows[] = {
        {X86_CR4_VME | X86_CR4_PVI, f1d & X86_F1_EDX_VME},
        {X86_CR4_TSD, f1d & X86_F1_EDX_TSC},
        {X86_CR4_DE, f1d & X86_F1_EDX_DE},
        {X86_CR4_PSE, f1d & X86_F1_EDX_PSE},
        {X86_CR4_PAE, f1d & X86_F1_EDX_PAE},
        {X86_CR4_MCE, f1d & X86_F1_EDX_MCE},
        {X86_CR4_PGE, f1d & X86_F1_EDX_PGE},
        {X86_CR4_PCE, 1},
        {X86_CR4_OSFXSR, f1d & X86_F1_EDX_FXSR},
        {X86_CR4_OSXMMEXCPT, f1d & X86_F1_EDX_SSE},
        {X86_CR4_UMIP, f7c & X86_F7_ECX_UMIP},
        {X86_CR4_FSGSBASE, f7b & X86_F7_EBX_FSGSBASE},
        {X86_CR4_PCIDE, f1c & X86_F1_ECX_PCID},
        {X86_CR4_OSXSAVE, f1c & X86_F1_ECX_XSAVE},
        {X86_CR4_SMEP, f7b & X86_F7_EBX_SMEP},
        {X86_CR4_SMAP, f7b & X86_F7_EBX_SMAP},
        {X86_CR4_PKE, f7c & X86_F7_ECX_PKU},
    };
    uint64_t allowed = 0;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].feature)
            allowed |= rows[i].bits;
    return allowed;
}

bool x86_set_cr4(struct x86_cpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr4;

    if (value & ~x86_cr4_allowed(cpu))
        return general_protection(cpu);
    if ((cpu->efer & X86_EFER_LMA) && !(value & X86_CR4_PAE))
        return general_protection(cpu);
    if ((value & changed & X86_CR4_PCIDE) && (!(cpu->efer & X86_EFER_LMA) || (cpu->cr3 & CR3_PCID)))
        return general_protection(cpu);
    if (!mmu_takes(cpu, cpu->cr0, cpu->cr3, value, cpu->efer, changed & CR4_PDPTE))
        return false;
    cpu->cr4 = value;
    if (changed & CR4_FLUSH)
        x86_flush_tlb(cpu);
    x86_cs_changed(cpu);
    return true;
}

/* ---- CR8 ---- */

uint64_t x86_read_cr8(struct x86_cpu *cpu)
{
    return cpu->env->get_cr8 ? cpu->env->get_cr8(cpu->env->mmu.ctx) : cpu->cr8;
}

void x86_write_cr8(struct x86_cpu *cpu, uint64_t value)
{
    if (cpu->env->set_cr8)
        cpu->env->set_cr8(cpu->env->mmu.ctx, value);
    else
        cpu->cr8 = value;
}

/* ---- XCR0, IA32_EFER, PKRU ---- */

bool x86_xcr0_valid(const struct x86_cpu *cpu, uint64_t value)
{
    uint64_t avx512 = value & X86_XCR0_AVX512;

    if ((value & ~cpu->feat.xcr0_mask) || !(value & X86_XCR0_X87))
        return false;
    if ((value & X86_XCR0_AVX) && !(value & X86_XCR0_SSE))
        return false;
    return !avx512 || (avx512 == X86_XCR0_AVX512 && (value & X86_XCR0_AVX));
}

bool x86_set_xcr0(struct x86_cpu *cpu, uint64_t value)
{
    if (!x86_xcr0_valid(cpu, value))
        return general_protection(cpu);
    cpu->xcr0 = value;
    return true;
}

uint64_t x86_efer_allowed(const struct x86_cpu *cpu)
{
    uint32_t f = cpu->feat.x1_edx;
    uint64_t allowed = 0;

    if (f & X86_FX1_EDX_SYSCALL)
        allowed |= X86_EFER_SCE;
    if (f & X86_FX1_EDX_LM)
        allowed |= X86_EFER_LME | X86_EFER_LMA;
    if ((f & X86_FX1_EDX_NX) && !(cpu->misc_enable & X86_MISC_XD_DISABLE))
        allowed |= X86_EFER_NXE;
    if (f & X86_FX1_EDX_FFXSR)
        allowed |= X86_EFER_FFXSR;
    return allowed;
}

bool x86_set_efer(struct x86_cpu *cpu, uint64_t value)
{
    uint64_t changed;

    if (value & ~x86_efer_allowed(cpu))
        return general_protection(cpu);
    /* LMA is read-only. */
    value = (value & ~(uint64_t)X86_EFER_LMA) | (cpu->efer & X86_EFER_LMA);
    changed = value ^ cpu->efer;
    if ((changed & X86_EFER_LME) && (cpu->cr0 & X86_CR0_PG))
        return general_protection(cpu);
    cpu->efer = value;
    if (changed & X86_EFER_NXE)
        x86_flush_tlb(cpu);
    x86_mode_changed(cpu);
    return true;
}

void x86_set_pkru(struct x86_cpu *cpu, uint32_t value)
{
    if (cpu->pkru == value)
        return;
    cpu->pkru = value;
    cpu->mmu.pkru = value;
    mmu_flush_all(&cpu->mmu); /* data entries carry the rights; what code is where stays */
}

/* ---- MOV to and from control registers ---- */

const struct x86_op *x86_sys_mov_from_cr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value;

    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    switch (op->imm) {
    case 0:
        value = cpu->cr0;
        break;
    case 2:
        value = cpu->cr2;
        break;
    case 3:
        value = cpu->cr3;
        break;
    case 4:
        value = cpu->cr4;
        break;
    default:
        cpu->cur_idx = op->idx;
        value = x86_read_cr8(cpu);
    }
    x86_set_reg(cpu, op->r, op->size, value);
    return op + 1;
}

const struct x86_op *x86_sys_mov_to_cr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value = x86_get_reg(cpu, op->r, op->size);
    bool ok = true;

    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    x86_serialize();
    cpu->cur_idx = op->idx;
    switch (op->imm) {
    case 0:
        ok = x86_set_cr0(cpu, value);
        break;
    case 2:
        cpu->cr2 = value;
        break;
    case 3:
        ok = x86_set_cr3(cpu, value);
        break;
    case 4:
        ok = x86_set_cr4(cpu, value);
        break;
    default:
        if (value > 15)
            return x86_fault_err(cpu, op, X86_GP, 0);
        x86_write_cr8(cpu, value);
    }
    if (!ok)
        return x86_leave(cpu, op);
    switch (op->imm) {
    case 2:
    case 3:
        return x86_next(cpu, x86_op_next(cpu, op));
    case 8:
        return x86_go_checked(cpu, x86_op_next(cpu, op));
    default:
        return x86_next_slow(cpu, x86_op_next(cpu, op));
    }
}

const struct x86_op *x86_sys_clts(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->cr0 &= ~(uint64_t)X86_CR0_TS;
    return op + 1;
}

/* The machine status word is CR0[15:0]; LMSW loads the low four bits and cannot clear PE. */
const struct x86_op *x86_sys_lmsw(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t msw;

    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (op->base == X86_NGPR)
        msw = X86_R16(cpu, op->rm);
    else if (!x86_ld16(cpu, op, &msw))
        return x86_leave(cpu, op);
    if (!x86_set_cr0(cpu, (cpu->cr0 & ~(uint64_t)0xe) | (msw & 0xfu)))
        return x86_leave(cpu, op);
    return x86_next_slow(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_smsw(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (cpu->cpl && (cpu->cr4 & X86_CR4_UMIP))
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (op->base == X86_NGPR)
        x86_set_reg(cpu, op->rm, op->size, cpu->cr0);
    else if (!x86_st16(cpu, op, (uint16_t)cpu->cr0))
        return x86_leave(cpu, op);
    return op + 1;
}

const struct x86_op *x86_sys_xgetbv(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint32_t index = X86_R32(cpu, VMM_RCX);
    uint64_t value = cpu->xcr0;

    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        return x86_fault(cpu, op, X86_UD);
    if (index > 1 || (index == 1 && !(cpu->feat.xsave_eax & X86_FD1_XGETBV1)))
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (index == 1)
        value &= x86_xinuse(cpu);
    cpu->gpr[VMM_RAX] = (uint32_t)value;
    cpu->gpr[VMM_RDX] = value >> 32;
    return op + 1;
}

const struct x86_op *x86_sys_xsetbv(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value = (uint64_t)X86_R32(cpu, VMM_RDX) << 32 | X86_R32(cpu, VMM_RAX);

    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        return x86_fault(cpu, op, X86_UD);
    if (cpu->cpl || X86_R32(cpu, VMM_RCX))
        return x86_fault_err(cpu, op, X86_GP, 0);
    x86_serialize();
    if (!x86_set_xcr0(cpu, value))
        return x86_leave(cpu, op);
    return x86_next_slow(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_rdpkru(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->cr4 & X86_CR4_PKE))
        return x86_fault(cpu, op, X86_UD);
    if (X86_R32(cpu, VMM_RCX))
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->gpr[VMM_RAX] = cpu->pkru;
    cpu->gpr[VMM_RDX] = 0;
    return op + 1;
}

const struct x86_op *x86_sys_wrpkru(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->cr4 & X86_CR4_PKE))
        return x86_fault(cpu, op, X86_UD);
    if (X86_R32(cpu, VMM_RCX) || X86_R32(cpu, VMM_RDX))
        return x86_fault_err(cpu, op, X86_GP, 0);
    x86_set_pkru(cpu, X86_R32(cpu, VMM_RAX));
    return op + 1;
}
