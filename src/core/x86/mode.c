/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/mode.c: what follows from the control registers, CS, SS and CPL; TLB flushes. */
#include "core/x86/cache.h"
#include "core/x86/control.h"

#define TYPE_CODE        8u
#define TYPE_EXPAND_DOWN 4u /* data */
#define TYPE_WRITE       2u /* data */
#define TYPE_READ        2u /* code */

/* Base 0, limit 4 GiB, and nothing that an access could violate. */
static bool flat(const struct vmm_segment *s, unsigned index)
{
    if (s->base || s->limit != 0xffffffffu || (s->ar & VMM_AR_UNUSABLE))
        return false;
    if (index == VMM_CS)
        return (s->ar & (TYPE_CODE | TYPE_READ)) == (TYPE_CODE | TYPE_READ);
    return (s->ar & (TYPE_CODE | TYPE_EXPAND_DOWN | TYPE_WRITE)) == TYPE_WRITE;
}

static uint32_t legacy_mode(const struct x86_cpu *cpu)
{
    uint32_t mode = cpu->seg[VMM_CS].ar & VMM_AR_DB ? X86_MODE_CODE32 : X86_MODE_CODE16;

    if (cpu->seg[VMM_SS].ar & VMM_AR_DB)
        mode |= X86_MODE_STACK32;
    if (!(cpu->cr0 & X86_CR0_PE))
        return mode;
    if (cpu->rflags & X86_VM)
        mode |= X86_MODE_VM86;
    else if (flat(&cpu->seg[VMM_CS], VMM_CS) && flat(&cpu->seg[VMM_SS], VMM_SS) &&
             flat(&cpu->seg[VMM_DS], VMM_DS) && flat(&cpu->seg[VMM_ES], VMM_ES))
        mode |= X86_MODE_FLAT;
    return mode;
}

void x86_cs_changed(struct x86_cpu *cpu)
{
    uint32_t mode;

    if ((cpu->efer & X86_EFER_LMA) && (cpu->seg[VMM_CS].ar & VMM_AR_L)) {
        mode = X86_MODE_CODE64;
        cpu->rip_mask = cpu->sp_mask = ~(uint64_t)0;
    } else {
        mode = legacy_mode(cpu);
        cpu->rip_mask = mode & X86_MODE_CODE32 ? 0xffffffffu : 0xffffu;
        cpu->sp_mask = mode & X86_MODE_STACK32 ? 0xffffffffu : 0xffffu;
    }
    if (cpu->cr0 & X86_CR0_PE)
        mode |= X86_MODE_PE;
    if (cpu->cpl == 3)
        mode |= X86_MODE_CPL3;
    if ((cpu->rflags & X86_TF) || x86_breakpoints_armed(cpu))
        mode |= X86_MODE_SINGLE;
    cpu->mode = mode;
    /* A block of one instruction is followed by none (run.c), whatever the mode becomes. */
    if (cpu->blk)
        mode |= cpu->blk->mode & X86_MODE_SINGLE;
    cpu->jump_key = x86_jump_key(cpu, mode);
    cpu->link_key = x86_link_key(cpu, mode);
    x86_mmu_idx_changed(cpu);
}

static void set_mmu(struct x86_cpu *cpu, bool load_pdpte)
{
    struct mmu_mode mode = {.cr0 = cpu->cr0,
                            .cr3 = cpu->cr3,
                            .cr4 = cpu->cr4,
                            .efer = cpu->efer,
                            .pkru = cpu->pkru,
                            .gpa_bits = cpu->feat.gpa_bits};

    mmu_set_mode(&cpu->mmu, &mode, load_pdpte);
}

void x86_mode_changed(struct x86_cpu *cpu)
{
    set_mmu(cpu, false);
    x86_cs_changed(cpu);
}

void x86_mode_loaded(struct x86_cpu *cpu)
{
    set_mmu(cpu, true);
    x86_cs_changed(cpu);
}

void x86_flush_tlb(struct x86_cpu *cpu)
{
    mmu_flush_all(&cpu->mmu);
    x86_jump_flush(cpu);
}

void x86_flush_tlb_nonglobal(struct x86_cpu *cpu)
{
    mmu_flush_nonglobal(&cpu->mmu);
    x86_jump_flush_nonglobal(cpu);
}

void x86_load_pcid(struct x86_cpu *cpu, uint16_t pcid, bool keep)
{
    mmu_load_pcid(&cpu->mmu, pcid, keep);
    x86_jump_flush_nonglobal(cpu); /* code has no PCIDs */
}

void x86_flush_tlb_page(struct x86_cpu *cpu, uint64_t linear)
{
    uint64_t flushes = cpu->mmu.flushes;

    mmu_flush_page(&cpu->mmu, linear);
    if (cpu->mmu.flushes != flushes) /* a large page: everything went */
        x86_jump_flush(cpu);
    else
        x86_jump_flush_page(cpu, linear);
}
